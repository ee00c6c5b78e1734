/* Budget with the exact optimum live, the readouts of the painted plan, and cost against error with the plan on it.
   mount(element, host) with host {data(), plan(), dense(), ask, paint(plan, {done})}; returns {refresh()}. */
import { UNITS, score } from './cost.js';
import { chart, duration, empty, fraction, onSegment, segmented, text, ticks } from './draw.js';

export const mount = (element, host) => {
  let unit = 'FLOPs';
  let budget = null;
  let found = null;
  let asking = false;
  let again = null;
  element.innerHTML = `<section class="panel"><header class="panel-head"><h2>Budget</h2><span class="hint">exact optimum, live</span><div class="end unit-slot"></div></header>
      <div class="panel-body"><label class="slider-row">at most<input class="slider budget" type="range" aria-label="Budget"><output></output></label><p class="muted budget-note"><span></span> <button type="button" class="button small" data-verb="time" hidden>Time the operators here</button></p><dl class="readouts plan-readouts"></dl></div></section>
    <section class="panel front-panel"><header class="panel-head"><h2>Cost and error</h2><span class="hint">click a point to load its plan</span></header><div class="panel-body"><div class="front-chart" hidden></div><div class="front-none" hidden></div></div></section>`;
  const find = selector => element.querySelector(selector);
  const slider = find('.budget');
  const units = () => ['FLOPs', ...(host.data().timings ? ['ms'] : []), 'speed-up'];
  const drawUnits = () => {
    find('.unit-slot').innerHTML = segmented('Unit', units().map(u => [u, u]), unit);
    onSegment(find('.unit-slot .segmented'), value => {
      unit = value;
      budget = found = null;
      refresh();
    });
  };
  const rules = () => UNITS[unit];
  const scored = () => score(host.plan(), host.dense(), host.data());

  /* The newest wish is asked for once the one before is answered: never more than one under way. */
  const optimum = done => {
    again = { value: budget, done };
    if (asking) return;
    const next = async () => {
      const wish = again;
      again = null;
      try {
        const answer = await host.ask('optimum', rules().attention(wish.value, host.dense(), host.data()), { quiet: true });
        found = answer;
        if (!again) host.paint(answer.plan, { done: wish.done });
        note('');
      } catch (error) {
        found = null;
        note(error.refusal ?? error.message);
      }
      if (again) await next();
    };
    asking = true;
    next().finally(() => (asking = false));
  };
  const note = sentence => {
    find('.budget-note span').textContent = sentence || hint();
    find('[data-verb=time]').hidden = Boolean(sentence || (host.data().timings && !untimed().length));
  };
  find('[data-verb=time]').addEventListener('click', () => host.ask('time_operators').then(() => host.say('Timing is queued; budgets in milliseconds follow.'), () => {}));
  /* Operators of the page that the timings of this device do not know. */
  const untimed = () => {
    const { measure, timings } = host.data();
    return timings ? (measure?.rates ?? []).filter(op => timings.attention[op] == null) : [];
  };
  const hint = () => {
    const { clip, timings } = host.data();
    if (unit === 'FLOPs') return 'Operations are counted, not measured.';
    if (unit === 'ms') return `Operators measured on ${timings.device}${timings.estimate ? ', scaled from another shape' : ''}${untimed().length ? `; not ${untimed().join(', ')}` : ''}.`;
    const how = timings && scored().ms != null ? 'measured operators' : 'counted operations';
    return clip ? `Whole clip, estimated from a measured one (${duration(clip.seconds)} on ${clip.device}) and ${how}.` : `Transformer alone, by ${how}; compare once and it is the whole clip.`;
  };
  slider.addEventListener('input', () => {
    budget = +slider.value;
    slider.nextElementSibling.textContent = rules().format(budget);
    optimum(false);
  });
  slider.addEventListener('change', () => budget != null && optimum(true));

  const readouts = s => {
    const { clip } = host.data();
    const same = clip && JSON.stringify(clip.plan) === JSON.stringify(host.plan());
    const rows = [
      ['mean error', s.error == null ? '–' : fraction(s.error), '', s.error == null ? `${s.missing.length} ${s.missing.length === 1 ? 'cell' : 'cells'} not measured` : s.low == null || !s.converted ? 'of the attention outputs' : `95 %: ${fraction(s.low)} to ${fraction(s.high)}`],
      ['attention', Math.round(100 * s.attention), '%', 'of softmax FLOPs'],
      ['transformer', Math.round(100 * s.dit), '%', 'of all its FLOPs'],
      s.ms != null ? ['one pass', s.ms.toLocaleString('en', { maximumFractionDigits: s.ms < 100 ? 1 : 0 }), 'ms', `was ${s.full.toLocaleString('en', { maximumFractionDigits: s.full < 100 ? 1 : 0 })}, measured operators`] : null,
      ['whole clip', s.speedup.toFixed(2), '×', clip ? `est. ${duration(s.clipSeconds)}${same ? `, measured ${duration(clip.student)}` : `, was ${duration(clip.seconds)}`}` : 'est., transformer only'],
    ].filter(Boolean);
    find('.plan-readouts').innerHTML = rows.map(([label, value, u, why]) => `<div class="readout"><dt>${label}</dt><dd>${value}${u ? ` <small>${u}</small>` : ''}</dd><div class="note">${text(why)}</div></div>`).join('');
  };

  const points = () => {
    const data = host.data();
    const place = plan => {
      const s = score(plan, host.dense(), data);
      return s.error == null || rules().of(s) == null ? null : { plan, x: rules().of(s), y: s.error };
    };
    const columns = data.table.columns.slice(1);
    const uniform = columns.map(op => ({ op, at: place(data.table.start.map(() => op)) })).filter(u => u.at);
    return {
      front: data.front.map(f => place(f.plan)).filter(Boolean).sort((a, b) => a.x - b.x),
      uniform,
      saved: data.saved.map(s => ({ name: s.name, dense: s.dense, at: place(s.plan) })).filter(s => s.at),
      mine: place(host.plan()),
    };
  };
  let shown = null;
  const paint = chart(find('.front-chart'), () => {
    shown = points();
    const all = [...shown.front, ...shown.uniform.map(u => u.at), shown.mine].filter(Boolean);
    const xs = all.map(p => p.x);
    const low = unit === 'FLOPs' ? 0 : Math.min(...xs, unit === 'speed-up' ? 1 : Infinity);
    const high = Math.max(...xs);
    const x = unit === 'FLOPs' ? [0, Math.max(1, high)] : [low - (high - low) * 0.03, high + (high - low) * 0.06 || low + 1];
    const y = [0, Math.max(...all.map(p => p.y), 0.02) * 1.1];
    return {
      height: 216, x, y, xTicks: ticks(x[0], x[1], 5).filter(v => v >= x[0]), yTicks: ticks(0, y[1], 4), xFormat: v => rules().format(v), yFormat: v => fraction(v, 2), xLabel: rules().axis, yLabel: 'mean error', right: 16,
      label: `Mean error against ${rules().axis}`,
      draw: ({ sx, sy, line, width, pad, height }) => {
        const dots = shown.front.map((p, i) => `${shown.front.length > 40 ? '' : `<circle cx="${sx(p.x)}" cy="${sy(p.y)}" r="2.5" fill="var(--surface)" stroke="var(--ink)"/>`}<circle class="pick" data-pick="front ${i}" cx="${sx(p.x)}" cy="${sy(p.y)}" r="6" fill="transparent"/>`).join('');
        const saved = shown.saved.map((s, i) => `<circle cx="${sx(s.at.x)}" cy="${sy(s.at.y)}" r="3" fill="var(--line-strong)"/><circle class="pick" data-pick="saved ${i}" data-tip="${text(s.name)}" cx="${sx(s.at.x)}" cy="${sy(s.at.y)}" r="7" fill="transparent"/>`).join('');
        const taken = shown.mine ? [[sx(shown.mine.x) + (sx(shown.mine.x) > width - 90 ? -36 : 36), sy(shown.mine.y) - 12]] : [];
        const squareAt = shown.uniform.map(u => [sx(u.at.x), sy(u.at.y)]);
        const squares = shown.uniform.map((u, i) => {
          const [x, y] = [sx(u.at.x), sy(u.at.y)];
          const sides = x > width - pad.right - 60 ? [-1] : x < pad.left + 76 ? [1] : [1, -1];
          const free = ({ middle, b }) => b > pad.top && b < height - pad.bottom - 4 && taken.every(([c, d]) => Math.abs(middle - c) > 64 || Math.abs(b - d) > 12) && squareAt.every(([c, d]) => Math.abs(middle - c) > 36 || Math.abs(b - d) > 9);
          const places = [0, -14, 14, -28, 28].flatMap(by => sides.map(side => ({ side, middle: x + 40 * side, b: y + by })));
          const { side, middle, b } = places.find(free) ?? places[0];
          taken.push([middle, b]);
          return `<g class="pick" data-op="${text(u.op)}" data-pick="uniform ${i}"><rect x="${x - 4}" y="${y - 4}" width="8" height="8" rx="1" fill="var(--op)" stroke="var(--op-edge)"/><text x="${x + 8 * side}" y="${b + 4}" text-anchor="${side < 0 ? 'end' : 'start'}">all ${text(u.op)}</text></g>`;
        }).join('');
        const wall = budget == null ? '' : `<line x1="${sx(budget)}" x2="${sx(budget)}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--accent)" stroke-dasharray="2 3"/>`;
        const me = shown.mine ? `<circle cx="${sx(shown.mine.x)}" cy="${sy(shown.mine.y)}" r="5" fill="var(--accent)" stroke="var(--surface)"/><text class="strong" x="${sx(shown.mine.x) + (sx(shown.mine.x) > width - 90 ? -9 : 9)}" y="${sy(shown.mine.y) - 8}" text-anchor="${sx(shown.mine.x) > width - 90 ? 'end' : 'start'}">this plan</text>` : '';
        return `${wall}${shown.front.length > 1 ? line(shown.front.map(p => [p.x, p.y]), 'stroke="var(--ink)"') : ''}${dots}${saved}${squares}${me}`;
      },
    };
  });
  find('.front-chart').addEventListener('click', event => {
    const [kind, place] = (event.target.closest('[data-pick]')?.dataset.pick ?? '').split(' ');
    if (!kind) return;
    const one = shown[kind][+place];
    host.paint(one.plan ?? one.at.plan, { done: true, dense: one.dense });
  });

  let frame = 0;
  const refresh = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      const data = host.data();
      if (!units().includes(unit)) unit = 'FLOPs';
      drawUnits();
      const s = scored();
      readouts(s);
      const [low, high, step] = rules().range(s, data);
      Object.assign(slider, { min: low, max: high, step, disabled: !data.front.length });
      const at = budget ?? rules().of(s);
      if (at != null && (document.activeElement !== slider || budget == null)) slider.value = rules().of(s) ?? at;
      slider.nextElementSibling.textContent = at == null ? '–' : rules().format(at);
      if (!asking) note('');
      const none = !data.front.length;
      find('.front-chart').hidden = none;
      find('.front-none').hidden = !none;
      if (none) find('.front-none').innerHTML = empty('No cell is measured yet', 'Once cells are measured, every plan over them stands here with its cost and its error.');
      else paint();
    });
  };
  return {
    refresh,
    painted: () => {
      budget = null;
      refresh();
    },
  };
};
