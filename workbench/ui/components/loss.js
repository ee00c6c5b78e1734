/* A live loss chart that only ever receives new points: feed([{step, cells: {series: value}}]) appends them.
   Series named block-03-R4 are grouped and coloured by their operator; the mean of what is shown stands out. */
import { OPERATORS, chart, fraction, text, ticks } from './draw.js';

const group = name => name.match(/^block-\d+-(.+)$/)?.[1] ?? name;
const smoothed = (points, weight) => {
  let mean = points[0]?.[1] ?? 0;
  return points.map(([x, y]) => [x, (mean = weight * mean + (1 - weight) * y)]);
};
const LOG_TICKS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10].flatMap(p => [p, 2 * p, 5 * p]);

/** Draw into `element`; returns {feed, clear, count}. */
export const lossChart = element => {
  const series = new Map();
  const view = { smooth: 0.6, log: true, off: new Set() };
  element.innerHTML = `<div class="loss-head"><h3>Loss</h3><div class="line-of series"></div><div class="end"><label class="slider-row smooth">smooth<input class="slider" type="range" min="0" max="0.98" step="0.02" value="0.6"><output>.60</output></label><label class="toggle"><input type="checkbox" checked>log</label></div></div><div class="loss-chart"></div>`;
  const box = element.querySelector('.loss-chart');
  const shown = () => [...series].filter(([name]) => !view.off.has(group(name)));
  const means = () => {
    const groups = new Map();
    for (const [name, points] of shown()) {
      const key = group(name);
      if (!groups.has(key)) groups.set(key, new Map());
      for (const [x, y] of points) {
        const [sum, count] = groups.get(key).get(x) ?? [0, 0];
        groups.get(key).set(x, [sum + y, count + 1]);
      }
    }
    return [...groups].map(([key, at]) => [key, [...at].map(([x, [sum, count]]) => [x, sum / count]).sort((a, b) => a[0] - b[0])]);
  };
  const paint = chart(box, () => {
    const points = shown().flatMap(([, values]) => values);
    const ys = points.map(p => p[1]).filter(v => !view.log || v > 0);
    const high = ys.length ? Math.max(...ys) : 1;
    const low = ys.length ? Math.min(...ys) : 0.1;
    const y = view.log ? [low / 1.15, high * 1.15] : [0, high * 1.05];
    const last = Math.max(2, ...points.map(p => p[0]));
    const inside = LOG_TICKS.filter(v => v >= y[0] && v <= y[1]);
    return {
      height: 180, right: 92, x: [1, last], y, log: view.log, xTicks: ticks(1, last, 5).filter(Number.isInteger),
      yTicks: view.log ? inside.filter((_, i) => inside.length < 7 || i % 2 === 0) : ticks(0, y[1], 4),
      xFormat: v => v.toLocaleString('en'), yFormat: v => (v < 0.001 ? v.toExponential(0) : fraction(v, v < 0.01 ? 3 : 2)), xLabel: 'step', label: 'Loss by step',
      draw: ({ line, opLine, sx, sy }) => {
        const faint = shown().map(([name, values]) => `<g data-op="${text(group(name))}">${line(values, 'style="stroke:var(--op, var(--text-3))" opacity=".22"')}</g>`).join('');
        const lines = means().map(([key, values]) => [key, smoothed(values, view.smooth)]);
        const strong = lines.map(([key, values]) => (OPERATORS.includes(key) ? opLine(values, key) : line(values, 'stroke="var(--ink)" style="stroke-width:2"'))).join('');
        let floor = -99;
        const names = lines.filter(([, values]) => values.length).sort((a, b) => sy(a[1].at(-1)[1]) - sy(b[1].at(-1)[1])).map(([key, values]) => {
          floor = Math.max(sy(values.at(-1)[1]) + 4, floor + 13);
          return `<text x="${sx(values.at(-1)[0]) + 8}" y="${floor}">${text(key)} ${fraction(values.at(-1)[1])}</text>`;
        }).join('');
        return faint + strong + names;
      },
    };
  });
  const chips = () => {
    const place = name => (OPERATORS.indexOf(name) + 99) % 99;
    const groups = [...new Set([...series.keys()].map(group))].sort((a, b) => place(a) - place(b));
    element.querySelector('.series').innerHTML = groups.length < 2 ? `<span class="muted">${series.size} cells</span>` : groups.map(name =>
      `<button type="button" class="chip" data-series="${text(name)}" aria-pressed="${!view.off.has(name)}"><i class="swatch" data-op="${text(name)}"></i>${text(name)}</button>`).join('');
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
    } else view.log = event.target.checked;
    paint();
  });
  return {
    feed: rows => {
      const before = series.size;
      for (const { step, cells } of rows)
        for (const [name, value] of Object.entries(cells ?? {})) {
          if (!Number.isFinite(value)) continue;
          if (!series.has(name)) series.set(name, []);
          series.get(name).push([step, value]);
        }
      if (series.size !== before) chips();
      if (rows.length) paint();
    },
    clear: () => {
      series.clear();
      chips();
      paint();
    },
    count: () => [...series.values()].reduce((sum, values) => sum + values.length, 0),
  };
};
