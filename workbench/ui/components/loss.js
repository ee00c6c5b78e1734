/* A live loss chart that only ever receives new points: feed([{step, cells: {series: value}}]) takes them.
   A step that comes again (a repeated answer, a resumed job) replaces itself: nothing is drawn twice or backwards.
   Series named block-03-R4 are grouped and coloured by their operator; the mean of what is shown stands out. */
import { OPERATORS, chart, fraction, isOperator, operatorName, text, ticks } from './draw.js';

const group = name => name.match(/^block-\d+-(.+)$/)?.[1] ?? name;
const smoothed = (points, weight) => {
  let mean = points[0]?.[1] ?? 0;
  return points.map(([x, y]) => [x, (mean = weight * mean + (1 - weight) * y)]);
};
const DRAWN = 1200; // points of one line; more are thinned
const thinned = points => {
  const step = Math.ceil(points.length / DRAWN);
  return step < 2 ? points : points.filter((_, i) => i % step === 0 || i === points.length - 1);
};
/* Two flat lists of numbers, by rising step: a long run holds a few hundred thousand points. */
const put = ({ steps, values }, step, value) => {
  if (!steps.length || step > steps.at(-1)) {
    steps.push(step);
    values.push(value);
    return;
  }
  const at = steps.findIndex(known => known >= step);
  const again = steps[at] === step ? 1 : 0;
  steps.splice(at, again, step);
  values.splice(at, again, value);
};
const LOG_TICKS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10].flatMap(p => [p, 2 * p, 5 * p]);
const CLIPPED = 0.98; // share of the points that a clipped chart shows whole

/** Draw into `element`; returns {feed, clear, count, total(steps)}. */
export const lossChart = (element, { height = 180 } = {}) => {
  const series = new Map();
  const view = { smooth: 0.6, log: true, clip: false, off: new Set() };
  let total = 0;
  element.innerHTML = `<div class="loss-head"><h3>Loss</h3><div class="line-of series"></div><div class="end"><label class="slider-row smooth">smooth<input class="slider" type="range" min="0" max="0.98" step="0.02" value="0.6"><output>.60</output></label><label class="toggle"><input type="checkbox" data-view="log" checked>log</label><label class="toggle" data-tip="Leave the highest 2 % of the points out of the scale"><input type="checkbox" data-view="clip">clip</label></div></div><div class="loss-chart"></div>`;
  const box = element.querySelector('.loss-chart');
  const points = name => {
    const { steps, values } = series.get(name);
    return steps.map((step, i) => [step, values[i]]);
  };
  const shown = () => [...series.keys()].filter(name => !view.off.has(group(name))).map(name => [name, points(name)]);
  const means = () => {
    const groups = new Map();
    for (const [name, values] of shown()) {
      const key = group(name);
      if (!groups.has(key)) groups.set(key, new Map());
      for (const [x, y] of values) {
        const [sum, count] = groups.get(key).get(x) ?? [0, 0];
        groups.get(key).set(x, [sum + y, count + 1]);
      }
    }
    return [...groups].map(([key, at]) => [key, [...at].map(([x, [sum, count]]) => [x, sum / count]).sort((a, b) => a[0] - b[0])]);
  };
  const paint = chart(box, () => {
    const all = shown();
    const ys = all.flatMap(([, values]) => thinned(values).map(p => p[1])).filter(v => !view.log || v > 0).sort((a, b) => a - b);
    const high = ys.length ? ys[view.clip ? Math.floor((ys.length - 1) * CLIPPED) : ys.length - 1] : 1;
    const low = ys.length ? ys[0] : 0.1;
    const y = view.log ? [low / 1.15, high * 1.15] : [0, high * 1.05];
    const last = Math.max(2, ...all.map(([, values]) => values.at(-1)?.[0] ?? 0));
    const right = Math.max(last, total);
    const inside = LOG_TICKS.filter(v => v >= y[0] && v <= y[1]);
    const capped = values => thinned(values).map(([x, v]) => [x, Math.min(y[1], view.log ? Math.max(v, y[0]) : v)]);
    return {
      height, right: 100, x: [1, right], y, log: view.log, xTicks: ticks(1, right, 5).filter(Number.isInteger),
      yTicks: view.log ? inside.filter((_, i) => inside.length < 7 || i % 2 === 0) : ticks(0, y[1], 4),
      xFormat: v => v.toLocaleString('en'), yFormat: v => (v < 0.001 ? v.toExponential(0) : fraction(v, v < 0.01 ? 3 : 2)), xLabel: 'step', label: 'Loss by step',
      draw: ({ line, opLine, sx, sy, pad }) => {
        const faint = all.map(([name, values]) => `<g data-op="${text(group(name))}">${line(capped(values), 'style="stroke:var(--op, var(--text-3))" opacity=".22"')}</g>`).join('');
        const lines = means().map(([key, values]) => [key, capped(smoothed(values, view.smooth))]).filter(([, values]) => values.length);
        const strong = lines.map(([key, values]) => (isOperator(key) ? opLine(values, key) : line(values, 'stroke="var(--ink)" style="stroke-width:2"'))).join('');
        const now = total > last ? `<line x1="${sx(last)}" x2="${sx(last)}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--accent)" stroke-dasharray="2 3"/>` : '';
        let floor = -99;
        const names = lines.sort((a, b) => sy(a[1].at(-1)[1]) - sy(b[1].at(-1)[1])).map(([key, values]) => {
          floor = Math.max(sy(values.at(-1)[1]) + 4, floor + 13);
          return `<text x="${sx(values.at(-1)[0]) + 8}" y="${floor}">${text(key)} ${fraction(values.at(-1)[1])}</text>`;
        }).join('');
        return faint + strong + now + names;
      },
    };
  });
  const chips = () => {
    const place = name => (OPERATORS.indexOf(name) + 99) % 99;
    const groups = [...new Set([...series.keys()].map(group))].sort((a, b) => place(a) - place(b));
    element.querySelector('.series').innerHTML = groups.length < 2 ? `<span class="muted">${series.size > 1 ? `${series.size} cells` : ''}</span>` : groups.map(name =>
      `<button type="button" class="chip" data-series="${text(name)}" aria-pressed="${!view.off.has(name)}"><i class="swatch" data-op="${text(name)}"></i>${text(operatorName(name))}</button>`).join('');
  };
  element.addEventListener('click', event => {
    const name = event.target.closest('[data-series]')?.dataset.series;
    if (name == null) return;
    if (!view.off.delete(name)) view.off.add(name);
    chips();
    paint();
  });
  element.addEventListener('input', event => {
    if (event.target.type === 'range') {
      view.smooth = +event.target.value;
      event.target.nextElementSibling.textContent = fraction(view.smooth, 2);
    } else view[event.target.dataset.view] = event.target.checked;
    paint();
  });
  return {
    feed: rows => {
      const before = series.size;
      for (const { step, cells } of rows)
        for (const [name, value] of Object.entries(cells ?? {})) {
          if (!Number.isFinite(value)) continue;
          if (!series.has(name)) series.set(name, { steps: [], values: [] });
          put(series.get(name), step, value);
        }
      if (series.size !== before) chips();
      if (rows.length) paint();
    },
    clear: () => {
      series.clear();
      total = 0;
      chips();
      paint();
    },
    count: () => [...series.values()].reduce((sum, { values }) => sum + values.length, 0),
    total: steps => (total = steps),
  };
};
