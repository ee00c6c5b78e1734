/* The Home page: a finished example, the model and where its operations go, whether it pays, a walkthrough, the machine.
   value: {ids, current, models, example, model, peak, reachable, walkthrough}; see presenters/home.py. */
import { asker, on, say } from './bus.js';
import { chart, duration, empty, flops, fraction, icon, isLive, massColours, notice, onSegment, planOperator, planStrip, segmented, state, swatch, text, ticks } from './draw.js';

const FILLS = ['var(--op-softmax)', 'var(--line-strong)', 'var(--line-strong)', 'var(--line-strong)'];

export const mount = (element, host) => {
  const call = asker(host.call);
  const value = () => host.get() ?? {};
  const ask = (name, question, options) => call(name, { ids: value().ids ?? {}, ...question }, options);
  let scale = 1;
  let target = 1.2;
  let shown = null;
  element.innerHTML = `<div class="page-line"><h1>Example study</h1><p class="muted example-line"></p><div class="end"><button type="button" class="button" data-verb="open-example">Open in Compare</button><a class="button primary" href="#attention">Start your own study</a></div></div>
    <div class="rack home-top"><section class="panel"><div class="panel-body example"></div></section>
      <div class="stack"><section class="panel"><header class="panel-head"><h2>Model</h2><span class="hint model-hint"></span></header><div class="panel-body"><form class="model-form"><select class="input models" aria-label="Model"></select><input class="input folder grow" aria-label="Folder or hub id" placeholder="or a local diffusers folder" autocomplete="off" spellcheck="false"><button type="submit" class="button">Use it</button></form><div class="model-note"></div><dl class="facts model-facts"></dl>
        <form class="model-form hub-form"><input class="input hub grow" aria-label="Hub id" placeholder="a model of the hub: owner/name" autocomplete="off" spellcheck="false" maxlength="200"><label class="toggle" data-tip="Off: nothing is looked up or fetched. On: this one model is asked for and fetched as a job"><input type="checkbox" class="network">Use the network</label><button type="submit" class="button hub-button" disabled>Fetch</button></form><div class="hub-state" role="status"></div></div></section>
        <section class="panel"><header class="panel-head"><h2>Where the FLOPs go</h2><span class="hint flops-hint"></span><div class="end scale-slot"></div></header><div class="panel-body flops-slot"></div></section>
        <section class="panel"><header class="panel-head"><h2>Will it pay?</h2><div class="end"><label class="slider-row pay-row">target<input class="slider" type="range" aria-label="Target speed-up"><output></output></label></div></header><div class="panel-body"><p class="pay-answer" role="status"></p><div class="pay-chart"></div></div></section></div></div>
    <div class="rack home-low"><section class="panel"><header class="panel-head"><h2>Walkthrough</h2><span class="hint walk-hint">your numbers beside those of the example</span></header><div class="table-scroll walk"></div></section>
      <section class="panel"><header class="panel-head"><h2>Doctor</h2><span class="hint doctor-hint"></span><div class="end"><button type="button" class="button small quiet" data-verb="copy">${icon('copy')}Copy</button></div></header><div class="panel-body"><pre class="log doctor" tabindex="0">Looking at this machine…</pre></div></section></div>`;
  const find = selector => element.querySelector(selector);

  const readout = (label, number, unit, note) => `<div class="readout"><dt>${label}</dt><dd>${number} <small>${unit}</small></dd><div class="note">${text(note)}</div></div>`;
  const drawExample = () => {
    const one = value().example;
    find('[data-verb=open-example]').hidden = !one;
    if (!one) {
      find('.example-line').textContent = '';
      find('.example').innerHTML = empty('No example study in this installation', 'A study of your own takes its place: capture a prompt first, then measure and paint.', '<a class="button" href="#attention">Capture</a>');
      return;
    }
    if (JSON.stringify(one) === find('.example').dataset.shown) return;
    find('.example').dataset.shown = JSON.stringify(one);
    const converted = one.plan.filter(op => op !== 'softmax').length;
    find('.example-line').textContent = `${converted} of ${one.plan.length} blocks converted: ${Math.round(100 * (1 - one.attention))} % fewer attention FLOPs.`;
    const clip = (role, name, op, note) => `<figure class="clip"><video src="${text(one.clips[role])}" muted loop playsinline preload="auto" aria-label="${text(name)}"></video><figcaption class="clip-name">${swatch(op)}<b>${text(name)}</b><span class="muted clipped">${text(note)}</span></figcaption></figure>`;
    find('.example').innerHTML = `<p class="example-prompt"><b>${text(one.prompt)}</b> <span class="muted">seed ${one.seed}</span></p><div class="example-clips">${clip('teacher', 'teacher', 'softmax', 'softmax in every block')}${clip('student', 'student', planOperator(one.plan), `measured in ${duration(one.measured)}, tuned in ${duration(one.tuned)}`)}</div>
      <div class="line-of">${planStrip(one.plan, one.short)}<span class="mono clipped">${text(one.short)}</span></div>
      <dl class="readouts">${readout('attention FLOPs', `−${Math.round(100 * (1 - one.attention))}`, '%', 'counted')}${readout('transformer FLOPs', `−${Math.round(100 * (1 - one.dit))}`, '%', 'counted')}${readout('PSNR to teacher', one.psnr == null ? 'equal' : one.psnr.toFixed(1), one.psnr == null ? '' : 'dB', one.before == null ? '' : `${one.before.toFixed(1)} before finetuning`)}${readout('velocity error', fraction(one.velocity[1]), '', `${fraction(one.velocity[0])} before finetuning`)}${readout('one clip', one.seconds[1].toFixed(1), 's', `teacher ${one.seconds[0].toFixed(1)} s`)}</dl>
      <div class="example-maps"><canvas role="img" aria-label="Attention maps of every block and head of the teacher"></canvas><p class="muted">What every head of every block looks at, mean over steps: rows are blocks, columns are heads. On Attention each opens.<br>Measured on ${text(one.made)}.</p></div>`;
    drawMaps(one.maps, one.plan.length);
    const videos = [...find('.example').querySelectorAll('video')];
    if (!matchMedia('(prefers-reduced-motion: reduce)').matches) videos.forEach(video => video.play().catch(() => {}));
    else videos.forEach(video => (video.controls = true));
  };
  /* The grey picture of all maps in the colours of attention mass, a hairline between two heads. */
  const drawMaps = (address, blocks) => {
    const picture = new Image();
    picture.onload = () => {
      const side = picture.height / blocks;
      const heads = picture.width / side;
      const grey = Object.assign(document.createElement('canvas'), { width: picture.width, height: picture.height }).getContext('2d', { willReadFrequently: true });
      grey.drawImage(picture, 0, 0);
      const colours = massColours();
      const canvas = find('.example-maps canvas');
      Object.assign(canvas, { width: picture.width + heads - 1, height: picture.height + blocks - 1 });
      for (let block = 0; block < blocks; block++)
        for (let head = 0; head < heads; head++) {
          const tile = grey.getImageData(head * side, block * side, side, side);
          for (let i = 0; i < tile.data.length; i += 4) tile.data.set(colours[tile.data[i]], i);
          canvas.getContext('2d').putImageData(tile, head * (side + 1), block * (side + 1));
        }
    };
    picture.src = address;
  };
  const keepStep = () => {
    const [leader, ...others] = find('.example').querySelectorAll('video');
    if (leader && !leader.paused && element.offsetParent) others.forEach(video => Math.abs(video.currentTime - leader.currentTime) > 0.06 && !video.seeking && (video.currentTime = leader.currentTime));
    setTimeout(keepStep, 150);
  };
  keepStep();

  /* The model that is looked at: the one in use, or another whose facts are read before it is taken. */
  let looked = null;
  const model = () => looked ?? value().model;
  const drawModel = () => {
    const one = model();
    find('.model-hint').textContent = looked ? 'looked at, not yet in use' : one.here ? 'on this machine' : 'facts only';
    find('.model-facts').innerHTML = [...one.facts, ...(value().peak && !looked ? [['peak memory', `${value().peak}, measured`]] : [])].map(([name, fact]) => `<div><dt>${text(name)}</dt><dd>${text(fact)}</dd></div>`).join('');
    find('.model-note').innerHTML = one.here ? '' : `${notice('info', 'Its weights are not on this machine, so only what follows from its configuration can be seen. Nothing is fetched by itself; this, or the line below the facts, fetches them once:')}<div class="command"><span>workbench download ${text(looked?.asked ?? value().current)} --allow-network</span></div>`;
    find('.models').innerHTML = value().models.map(name => `<option value="${text(name)}">${text(name.split('/').pop() || name)}</option>`).join('');
    if (!value().models.includes(looked?.asked ?? value().current)) find('.models').insertAdjacentHTML('beforeend', `<option value="${text(looked?.asked ?? value().current)}">${text(one.name)}</option>`);
    find('.models').value = looked?.asked ?? value().current;
    drawFlops();
  };
  const look = async name => {
    if (name === value().current) {
      looked = null;
      drawModel();
      return true;
    }
    try {
      looked = { ...(await ask('facts', { model: name })), asked: name };
    } catch {
      return false;
    }
    drawModel();
    return true;
  };
  find('.models').addEventListener('change', event => {
    find('.folder').value = '';
    look(event.target.value);
  });
  find('.folder').addEventListener('change', event => event.target.value.trim() && look(event.target.value.trim()));
  find('.model-form').addEventListener('submit', async event => {
    event.preventDefault();
    const name = find('.folder').value.trim() || find('.models').value;
    if (name === value().current) return say(`${value().model.name} is in use.`);
    if (!(await look(name))) return undefined;
    return location.assign(`${location.pathname}?${new URLSearchParams({ model: name })}#home`);
  });

  /* A model of the hub: only with the user's own word, as a job; then it is offered. */
  let fetching = null;
  find('.network').addEventListener('change', event => (find('.hub-button').disabled = !event.target.checked));
  find('.hub-form').addEventListener('submit', async event => {
    event.preventDefault();
    const name = find('.hub').value.trim() || (model().here ? '' : (looked?.asked ?? value().current));
    if (!name) return find('.hub').focus();
    const answer = await ask('download', { model: name, network: find('.network').checked }, { quiet: true }).catch(error => drawHub('failed', error.refusal ?? error.message));
    if (!answer) return undefined;
    fetching = { id: answer.job, name };
    find('.network').checked = false;
    find('.hub-button').disabled = true;
    return drawHub('queued', `${name} waits for its turn.`);
  });
  const drawHub = (glyph, sentence, button = '') => {
    const html = `<span class="line-of">${state(glyph)}<span>${text(sentence)}</span>${button}</span>`;
    if (find('.hub-state').dataset.shown !== html) find('.hub-state').innerHTML = find('.hub-state').dataset.shown = html;
  };
  on('jobs', ({ jobs }) => {
    const job = fetching ? jobs.find(one => one.id === fetching.id) : jobs.find(one => one.kind === 'download' && isLive(one.state));
    if (!job) return;
    fetching ??= { id: job.id, name: job.title };
    const { name } = fetching;
    if (isLive(job.state)) drawHub(job.state, job.state === 'queued' ? `${name} waits for its turn.` : `${name} is being fetched; this goes on when the page is closed, and Runs can cancel it.`);
    else if (job.state === 'done') drawHub('done', `${name} is whole on this machine.`, `<button type="button" class="button small primary" data-use="${text(name)}">Use ${text(name)}</button>`);
    else drawHub('failed', job.message || `${name} was not fetched.`);
  });
  find('.hub-state').addEventListener('click', event => {
    const name = event.target.closest('[data-use]')?.dataset.use;
    if (name) location.assign(`${location.pathname}?${new URLSearchParams({ model: name })}#home`);
  });

  const drawFlops = () => {
    const all = model().flops.filter(Boolean);
    if (!all.some(one => one.scale === scale)) scale = 1;
    const one = all.find(f => f.scale === scale);
    const total = one.parts.reduce((sum, [, number]) => sum + number, 0);
    const [number, unit] = flops(total);
    find('.flops-hint').textContent = `${number} ${unit} a pass, ${one.tokens.toLocaleString('en')} tokens, ${one.frames} frames`;
    find('.scale-slot').innerHTML = segmented('Clip length', all.map(f => [String(f.scale), `${f.scale}×`]), String(scale));
    onSegment(find('.scale-slot .segmented'), chosen => {
      scale = +chosen;
      drawFlops();
      pay();
    });
    const share = part => (100 * part) / total;
    find('.flops-slot').innerHTML = `<div class="stacked-bar" role="img" aria-label="FLOPs by part">${one.parts.map(([name, part], i) => `<i style="flex:${share(part).toFixed(3)};background:${FILLS[i]}" data-tip="${text(name)}: ${share(part).toFixed(1)} %"></i>`).join('')}</div>
      <dl class="flop-labels">${one.parts.map(([name, part]) => `<div><dt>${text(name)}</dt><dd>${share(part).toFixed(0)} %</dd></div>`).join('')}</dl><p class="muted">Only the attention core can be linearized; the grey parts stay.</p>`;
  };

  const limit = () => {
    const one = value().model.flops.filter(Boolean).find(f => f.scale === scale) ?? value().model.flops[0];
    const total = one.parts.reduce((sum, [, number]) => sum + number, 0);
    return total / (total - one.parts[0][1]);
  };
  const slider = find('.pay-row .slider');
  let asking = false;
  let again = false;
  const pay = async () => {
    again = true;
    if (asking || !value().model) return;
    asking = true;
    while (again) {
      again = false;
      try {
        shown = await ask('pay', { target, scale }, { quiet: true });
        const [first] = shown.plans;
        find('.pay-answer').innerHTML = `<b>${first ? 'Yes.' : 'No.'}</b> ${text(shown.sentence)}`;
      } catch (error) {
        shown = null;
        find('.pay-answer').textContent = error.refusal ?? error.message;
        if (!error.refusal) setTimeout(pay, 3000);
      }
    }
    asking = false;
    drawSlider();
    paint();
  };
  const drawSlider = () => {
    const top = Math.max(1.1, limit() * 1.1);
    Object.assign(slider, { min: 1.01, max: top.toFixed(2), step: 0.01 });
    target = Math.min(target, top);
    slider.value = target;
    slider.nextElementSibling.textContent = `${target.toFixed(2)}×`;
  };
  slider.addEventListener('input', () => {
    target = +slider.value;
    slider.nextElementSibling.textContent = `${target.toFixed(2)}×`;
    pay();
  });
  const paint = chart(find('.pay-chart'), () => {
    const points = scale === 1 ? (value().reachable ?? []) : [];
    const high = Math.max(1.1, value().model ? limit() * 1.1 : 1.1);
    const bound = shown?.bound ?? 1;
    const y = [0, Math.max(0.02, ...points.map(p => p.error)) * 1.15];
    return {
      height: 136, x: [1, high], y, xTicks: ticks(1, high, 5), yTicks: points.length ? ticks(0, y[1], 3) : [], xFormat: v => `${+v.toFixed(2)}×`, yFormat: v => fraction(v, 2), xLabel: 'speed-up of the transformer, counted', yLabel: points.length ? 'lowest mean error of your cells' : '', right: 12, label: 'Error against speed-up',
      draw: ({ sx, sy, line, width, height, pad }) => `<rect x="${sx(bound)}" y="${pad.top}" width="${Math.max(0, width - pad.right - sx(bound))}" height="${height - pad.top - pad.bottom}" fill="var(--sunken)"/><line x1="${sx(bound)}" x2="${sx(bound)}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--line-strong)"/><text x="${sx(bound) - 5}" y="${pad.top + 11}" text-anchor="end">${sx(bound) > 110 ? `bound ${bound.toFixed(2)}×` : ''}</text>
        ${points.length > 1 ? line([...points].sort((a, b) => a.speedup - b.speedup).map(p => [p.speedup, p.error]), 'stroke="var(--ink)"') : ''}<line x1="${sx(target)}" x2="${sx(target)}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--accent)" stroke-width="1.5"/>`,
    };
  });

  const drawWalk = () => {
    const rows = value().walkthrough ?? [];
    find('.walk').innerHTML = rows.length ? `<table class="table"><thead><tr><th>step</th><th>page</th><th class="number">expected</th><th class="number">yours</th></tr></thead><tbody>${rows.map(row => `<tr><td class="wrap">${text(row.step)}</td><td><a href="#${text(row.page)}">${text(row.page[0].toUpperCase() + row.page.slice(1))}</a></td><td class="number">${text(row.expected)}</td><td class="number${row.own ? '' : ' muted'}">${text(row.own || '–')}</td></tr>`).join('')}</tbody></table>` : `<div class="pad">${empty('Nothing to compare with', 'The numbers of the example study stand here once it is there.')}</div>`;
  };
  const doctor = (tries = 5) => ask('doctor', {}, { quiet: true }).then(answer => {
    find('.doctor').textContent = answer.text;
    find('.doctor-hint').textContent = answer.problems.length ? `${answer.problems.length} to look at` : 'all checks passed';
  }, error => (tries && !error.refusal ? setTimeout(doctor, 3000, tries - 1) : (find('.doctor').textContent = error.message)));

  element.addEventListener('click', async event => {
    const verb = event.target.closest('[data-verb]')?.dataset.verb;
    if (verb === 'copy') navigator.clipboard?.writeText(find('.doctor').textContent).then(() => say('Copied.'));
    if (verb === 'open-example') {
      const answer = await ask('open_example').catch(() => null);
      if (!answer) return;
      const query = new URLSearchParams(location.search);
      query.set('comparison', answer.comparison);
      query.set('model', value().example.model);
      location.assign(`${location.pathname}?${query}#compare`);
    }
  });
  const refresh = () => {
    if (!value().model) return;
    drawExample();
    drawModel();
    drawWalk();
    drawSlider();
    pay();
  };
  let asked = false;
  const diagnose = page => {
    if (asked || page !== 'home') return;
    asked = true;
    doctor();
  };
  on('page', diagnose);
  diagnose(document.documentElement.dataset.page);
  host.watch(refresh);
  refresh();
};
