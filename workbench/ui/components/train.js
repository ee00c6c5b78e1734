/* The Train page: what to train and its price, the running finetuning, its loss, and clips of one prompt over steps.
   value: {ids, model, student, students, presets, methods, prompt}; see presenters/training.py. */
import { asker, on, say } from './bus.js';
import { duration, empty, fraction, icon, isLive, planStrip, state, text } from './draw.js';
import { lossChart } from './loss.js';

const FIELDS = [['updates', 'updates', 1], ['lr', 'learning rate', 'any'], ['maps_lr', 'maps’ rate', 'any'], ['rank', 'LoRA rank', 1], ['accumulate', 'states an update', 1], ['num_prompts', 'prompts', 1], ['num_held_out', 'held out', 1], ['steps', 'teacher steps', 1], ['seed', 'seed', 1], ['sample_every', 'sample every', 1]];
const SAMPLES = 12;

export const mount = (element, host) => {
  const call = asker(host.call);
  const value = () => host.get() ?? {};
  const ask = (name, question, options) => call(name, { ids: value().ids ?? {}, ...question }, options);
  let preset = '10min';
  let student = '';
  let carried = {}; // settings of a preset or an earlier job that have no field; the form names them
  let tab = 'command';
  let priced = null;
  let job = null;
  let samples = new Map();
  let cursor = 0;
  let following = false;
  let seen = '';
  element.innerHTML = `<div class="page-line"><h1>Train</h1><select class="input students" aria-label="Student"></select><span class="line-of student-plan"></span><div class="end"><button type="button" class="button primary" id="finetune-button">Start</button></div></div>
    <div class="train-none" hidden>${empty('No student yet', 'Finetuning adapts a whole student to its teacher. Paint a plan over measured cells and make its student first.', '<a class="button" href="#plan">Go to Plan</a>')}</div>
    <div class="rack train-rack"><div class="stack"><section class="panel"><header class="panel-head"><h2>What to train</h2></header><form class="panel-body train-form"><div class="preset-list" role="radiogroup" aria-label="Preset"></div><label class="field-column">method<select class="input method"><option value="lora">LoRA and feature maps</option><option value="maps">feature maps alone</option><option value="full">the whole transformer</option></select></label>
        <div class="field-grid">${FIELDS.map(([name, label, step]) => `<label class="field-column">${label}<input class="input" type="number" min="0" step="${step}" data-field="${name}"></label>`).join('')}</div><label class="field-column">prompt of samples<input class="input sample-prompt" autocomplete="off"></label><p class="muted carried"></p><p class="refusal" role="alert"></p><dl class="facts estimate"></dl></form></section>
        <section class="panel"><header class="panel-head"><div class="tabs" role="tablist"><button type="button" role="tab" data-tab="command" aria-selected="true">CLI</button><button type="button" role="tab" data-tab="cell" aria-selected="false">Notebook</button></div><div class="end"><button type="button" class="button small quiet" data-verb="copy">${icon('copy')}Copy</button></div></header><div class="panel-body"><pre class="log as-text" tabindex="0"></pre></div></section></div>
      <div class="stack run"><section class="panel run-panel"><div class="run-line" role="status"></div><div class="progress" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100"><i></i></div><div class="panel-body loss-slot"></div><div class="panel-body loss-none"></div></section>
        <section class="panel"><header class="panel-head"><h2>Samples over steps</h2><span class="hint sample-note"></span></header><div class="panel-body"><div class="samples"></div></div></section><section class="panel"><header class="panel-head"><h2>Log</h2><span class="hint">last lines</span></header><div class="panel-body"><pre class="log run-log" tabindex="0"></pre></div></section></div></div>`;
  const find = selector => element.querySelector(selector);
  const loss = lossChart(find('.loss-slot'), { height: 236 });

  const settings = () => {
    const form = { method: find('.method').value, carried, sample_prompt: find('.sample-prompt').value };
    FIELDS.forEach(([name]) => {
      const field = find(`[data-field=${name}]`);
      form[name] = field.value === '' ? null : +field.value;
    });
    return form;
  };
  const fill = () => {
    const one = value().presets.find(p => p.key === preset);
    if (!one) return;
    fillWith(one.settings);
  };
  const fillWith = filled => {
    FIELDS.forEach(([name]) => (find(`[data-field=${name}]`).value = filled[name]));
    find('.method').value = filled.method;
    ({ carried } = filled);
    find('.carried').textContent = Object.entries(carried).map(([name, one]) => `${name.replaceAll('_', ' ')} ${one === true ? 'on' : one}`).join(' · ');
  };
  const drawPresets = () => (find('.preset-list').innerHTML = value().presets.map(one => `<label class="preset"><input type="radio" name="train-preset" value="${text(one.key)}"${one.key === preset ? ' checked' : ''}><b>${text(one.title)}</b><span>${one.settings.updates.toLocaleString('en')} updates</span><span class="muted clipped">${text(one.why)}</span></label>`).join(''));
  const drawStudents = () => {
    const { students } = value();
    if (!students.some(s => s.id === student)) student = students.some(s => s.id === value().student) ? value().student : (students[0]?.id ?? '');
    find('.students').innerHTML = students.map(s => `<option value="${text(s.id)}">${text(s.name)}${s.from && !s.name.includes('finetuned') ? ', finetuned' : ''}</option>`).join('');
    find('.students').value = student;
    find('.students').hidden = !students.length;
    find('.train-none').hidden = students.length > 0;
    find('.train-rack').hidden = !students.length;
    find('#finetune-button').hidden = !students.length;
    const one = students.find(s => s.id === student);
    find('.student-plan').innerHTML = one ? `${planStrip(one.plan, one.short)}${one.error == null ? '' : `<span class="muted">velocity error ${fraction(one.error)}</span>`}` : '';
  };

  let asked = 0;
  const price = async () => {
    if (!student) return;
    const mine = ++asked;
    const lora = find('.method').value === 'lora';
    find('[data-field=rank]').disabled = !lora;
    try {
      const answer = await ask('finetune_price', { student, settings: settings() }, { quiet: true });
      if (mine !== asked) return;
      priced = answer;
      find('.refusal').textContent = '';
      const facts = [['estimated time', answer.seconds == null ? '–' : `${duration(answer.seconds)}`], ['peak memory', answer.memory ? `${(answer.memory / 1e9).toFixed(1)} GB, last time` : 'not yet measured'], ['student on disk', `${(answer.disk / 1e6).toFixed(1)} MB now`]];
      find('.estimate').innerHTML = `${facts.map(([name, fact]) => `<div><dt>${name}</dt><dd>${text(fact)}</dd></div>`).join('')}<div class="muted estimate-basis">${text(answer.basis)}</div>`;
    } catch (error) {
      if (mine !== asked) return;
      priced = null;
      find('.refusal').textContent = error.refusal ?? error.message;
      if (!error.refusal) setTimeout(price, 3000);
    }
    drawStart();
    drawText();
  };
  const busy = () => job && isLive(job.state);
  const drawStart = () => {
    const button = find('#finetune-button');
    button.disabled = Boolean(busy()) || !priced;
    button.textContent = busy() ? (job.state === 'queued' ? 'Waits for its turn' : 'Running') : priced?.seconds == null ? 'Start' : `Start, about ${duration(priced.seconds)}`;
  };
  const drawText = () => (find('.as-text').textContent = priced?.[tab] ?? '');
  element.addEventListener('change', event => {
    if (event.target.name === 'train-preset') {
      preset = event.target.value;
      fill();
    }
    if (event.target.matches('.students')) {
      student = event.target.value;
      drawStudents();
    }
    if (event.target.closest('.train-form, .students')) price();
  });
  find('.train-form').addEventListener('submit', event => event.preventDefault());
  find('#finetune-button').addEventListener('click', async event => {
    if (event.target.getAttribute('aria-busy') === 'true') return;
    event.target.setAttribute('aria-busy', 'true');
    const answer = await ask('finetune', { student, settings: settings() }).catch(() => null);
    event.target.removeAttribute('aria-busy');
    if (!answer) return;
    reset();
    job = { id: answer.job, state: 'queued' };
    drawStart();
    follow();
  });

  /* The job: only what is new travels; whatever gets lost is asked for again at the next pulse. */
  const reset = () => {
    job = null;
    cursor = 0;
    samples = new Map();
    loss.clear();
  };
  const follow = async () => {
    if (following) return;
    following = true;
    let answered = false;
    try {
      const answer = await ask('finetuning', { job: job?.id ?? '', after: cursor }, { quiet: true });
      answered = true;
      if (answer.id && job?.id !== answer.id) {
        reset();
        job = { id: answer.id };
      }
      if (answer.id) {
        job = answer;
        cursor = answer.next;
        loss.total(answer.stage === 'finetuning' ? answer.steps : 0);
        loss.feed(answer.rows);
        if (answer.pace) pace = answer.pace;
        answer.samples.forEach(sample => samples.set(sample.step, sample)); // one that is made again after a resume replaces the first
        if (answer.rows.length) last = answer.rows.at(-1).cells.loss ?? last;
      }
    } catch {
      // the frame says that the server is away
    }
    following = false;
    if (!answered) seen = ''; // the next pulse asks again
    drawRun();
  };
  let pace = null;
  let last = null;
  const drawRun = () => {
    drawStart();
    const none = !job?.id;
    find('.loss-slot').hidden = !loss.count();
    find('.loss-none').hidden = loss.count() > 0;
    find('.loss-none').innerHTML = loss.count() ? '' : empty(none ? 'No finetuning yet' : 'No loss yet', none ? 'Choose a preset and press Start: the loss is drawn here while it runs, and goes on when this page is closed.' : 'The teacher is sampled first; then the loss is drawn here, update by update.');
    find('.run-log').textContent = job?.log || (none ? 'What the job writes stands here.' : '');
    find('.run-panel .progress').hidden = none;
    if (none) {
      find('.run-line').innerHTML = '';
      return drawSamples();
    }
    const ends = job.left ? new Date(Date.now() + 1000 * job.left).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : '';
    const facts = [['step', job.steps > 1 ? `${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : ''], ['loss', last == null ? '' : fraction(last, 4)], ['s a step', pace ? pace.toFixed(2) : ''], ['time', duration(job.seconds)], ['left', isLive(job.state) ? duration(job.left) : ''], ['ends', isLive(job.state) ? ends : '']].filter(([, fact]) => fact);
    const verbs = isLive(job.state) ? [['sample_now', 'Sample now'], ['save_now', 'Save now'], ['pause', 'Pause'], ['cancel', 'Cancel']] : job.resumable ? [['resume', 'Resume']] : [];
    const html = `<span class="line-of">${state(job.state)}<b>${text(job.state)}</b><span class="muted clipped">${text(isLive(job.state) ? job.stage : job.message)}</span></span><dl class="job-facts">${facts.map(([name, fact]) => `<div><dt>${name}</dt><dd>${text(fact)}</dd></div>`).join('')}</dl><span class="end line-of">${verbs.map(([verb, word]) => `<button type="button" class="button small${verb === 'cancel' ? ' quiet danger' : ''}" data-ask="${verb}">${word}</button>`).join('')}</span>`;
    if (html !== drawRun.last) find('.run-line').innerHTML = drawRun.last = html;
    find('.run-panel .progress').style.setProperty('--done', `${((job.done ?? 0) * 100).toFixed(1)}%`);
    find('.run-panel .progress').setAttribute('aria-valuenow', Math.round((job.done ?? 0) * 100));
    return drawSamples();
  };
  const drawSamples = () => {
    const all = [...samples.values()].sort((a, b) => a.step - b.step).slice(-SAMPLES);
    find('.sample-note').textContent = job?.prompt ? `${job.prompt}, same seed` : 'one prompt, one seed';
    const key = all.map(s => s.url).join();
    if (key === drawSamples.last) return;
    drawSamples.last = key;
    find('.samples').innerHTML = all.map(sample => `<figure class="clip"><video src="${text(sample.url)}" muted loop autoplay playsinline></video><figcaption class="clip-name"><b>step ${sample.step.toLocaleString('en')}</b></figcaption></figure>`).join('') || '<p class="muted">Clips of the same prompt and seed stand here in order: after every so many updates as set on the left, and whenever you press Sample now.</p>';
  };
  element.addEventListener('click', async event => {
    const asked = event.target.closest('[data-ask]')?.dataset.ask;
    const chosen = event.target.closest('[data-tab]')?.dataset.tab;
    if (chosen) {
      tab = chosen;
      element.querySelectorAll('[data-tab]').forEach(one => one.setAttribute('aria-selected', one.dataset.tab === tab));
      drawText();
    }
    if (event.target.closest('[data-verb=copy]')) navigator.clipboard?.writeText(find('.as-text').textContent).then(() => say('Copied.'));
    if (asked) {
      await ask('finetuning_verb', { job: job.id, verb: asked }).then(() => say({ sample_now: 'A clip is made after the next step.', save_now: 'Saved after the next step.', pause: 'Pausing; what was learnt is kept.', resume: 'Goes on from the last checkpoint.', cancel: 'Cancelling; what was saved is kept.' }[asked]), () => {});
      follow();
    }
  });
  on('restore finetune', async made => {
    const form = await ask('finetune_form', { settings: made }).catch(() => null);
    if (!form) return;
    preset = '';
    student = form.student;
    drawPresets();
    drawStudents();
    if (student !== form.student) say(`The student ${form.student} of that finetuning is gone; choose another.`, 'error');
    fillWith(form.settings);
    find('.sample-prompt').value = form.settings.sample_prompt || value().prompt;
    price();
  });
  on('jobs', answer => {
    const newest = answer.jobs.find(one => one.kind === 'finetune');
    const key = newest ? `${newest.id} ${newest.state}` : '';
    if (key !== seen || (newest && isLive(newest.state) && document.documentElement.dataset.page === 'train')) {
      if (newest && newest.id !== job?.id) reset();
      if (newest && !job) job = { id: newest.id };
      seen = key;
      follow();
    }
  });
  const refresh = () => {
    if (!value().presets) return;
    drawPresets();
    drawStudents();
    if (find('[data-field=updates]').value === '') fill();
    if (!find('.sample-prompt').value) find('.sample-prompt').value = value().prompt;
    price();
    drawRun();
  };
  host.watch(refresh);
  refresh();
};
