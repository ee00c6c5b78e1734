/* A live loss chart that only ever receives new points. feed({rows, reset}) appends; a row is {step, series: value}. */
import { chart, fraction, text, ticks } from './draw.js';

const smoothed = (points, weight) => {
  let mean = points[0]?.[1] ?? 0;
  return points.map(([x, y]) => [x, (mean = weight * mean + (1 - weight) * y)]);
};

/** Draw into `element`; returns {feed, clear}. */
export const lossChart = element => {
  const series = new Map();
  const view = { smooth: 0.6, log: true, off: new Set() };
  element.innerHTML = `<div class="loss-head"><h3>Loss</h3><div class="line-of series"></div><div class="end"><label class="slider-row smooth">smooth<input class="slider" type="range" min="0" max="0.98" step="0.02" value="0.6"><output>.60</output></label><label class="toggle"><input type="checkbox" checked>log</label></div></div><div class="loss-chart"></div>`;
  const box = element.querySelector('.loss-chart');
  const shown = () => [...series].filter(([name]) => !view.off.has(name));
  const paint = chart(box, () => {
    const points = shown().flatMap(([, values]) => values);
    const ys = points.map(p => p[1]).filter(v => !view.log || v > 0);
    const high = ys.length ? Math.max(...ys) : 1;
    const low = ys.length ? Math.min(...ys) : 0.1;
    const y = view.log ? [low / 1.15, high * 1.15] : [0, high * 1.05];
    const last = Math.max(1, ...points.map(p => p[0]));
    const tenths = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10].flatMap(p => [p, 2 * p, 5 * p]).filter(v => v >= y[0] && v <= y[1]);
    return {
      height: 180, right: 76, x: [0, last], y, log: view.log, xTicks: ticks(0, last, 5), yTicks: view.log ? tenths.filter((_, i) => tenths.length < 7 || i % 2 === 0) : ticks(0, y[1], 4),
      xFormat: v => v.toLocaleString('en'), yFormat: v => (v < 0.001 ? v.toExponential(0) : fraction(v, v < 0.01 ? 3 : 2)), xLabel: 'step', label: 'Loss by step',
      draw: ({ line, sx, sy }) => {
        let low = -99;
        const ends = shown().map(([name, values]) => [name, smoothed(values, view.smooth).at(-1)]).filter(([, end]) => end).sort((a, b) => sy(a[1][1]) - sy(b[1][1]));
        return shown().map(([, values]) => line(values, 'stroke="var(--text-3)" opacity=".3"') + line(smoothed(values, view.smooth), 'stroke="var(--ink)" style="stroke-width:1.75"')).join('') +
          ends.map(([name, [x, value]]) => `<text x="${sx(x) + 6}" y="${(low = Math.max(sy(value) + 4, low + 13))}">${text(name)}</text>`).join('');
      },
    };
  });
  const chips = () => {
    element.querySelector('.series').innerHTML = series.size < 2 ? '' : [...series.keys()].map(name =>
      `<button type="button" class="chip" data-series="${text(name)}" aria-pressed="${!view.off.has(name)}">${text(name)}</button>`).join('');
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
      for (const { step, ...values } of rows)
        for (const [name, value] of Object.entries(values)) {
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
