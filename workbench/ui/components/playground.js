/* One head, refitted live: rate, degree and width against the softmax row of the chosen patch.
   value: {capture, grid, rates, degrees, widths, start}; follows the one selection.
   ask('playground', {capture, block, head, patch, rate, degree, width}) → {softmax, implied, line, row_error, mean_error, off_error, denominator, losses, seconds, ...} */
import { asker } from './bus.js';
import { bytes, chart, fraction, massColours, onTheme, paintBytes, text, ticks } from './draw.js';
import { onSelect, selection } from './selection.js';

const WAIT = 250;

export const mount = (element, host) => {
  const ask = asker(host.call);
  let value = null;
  let wish = null;
  let answer = null;
  let timer = 0;
  let ticket = 0;
  let near = false; // fits only once somebody looks here
  const operator = () => wish.rate;

  const strip = (name, encoded) => {
    const [frames, rows, columns] = value.grid;
    const node = element.querySelector(`[data-row="${name}"]`);
    const values = bytes(encoded);
    const colours = massColours();
    node.replaceChildren(...Array.from({ length: frames }, (_, f) => {
      const canvas = paintBytes(values.subarray(f * rows * columns, (f + 1) * rows * columns), columns, rows, colours);
      canvas.setAttribute('aria-label', `${name}, frame ${f}`);
      return canvas;
    }));
  };
  const lines = () => new Float32Array(bytes(answer.line).buffer);
  const nothing = { height: 150, x: [0, 1], y: [0, 1], xTicks: [], yTicks: [], draw: () => '' };
  const curve = node => chart(node, () => {
    if (!answer) return nothing;
    const all = lines();
    const count = all.length / 2;
    const top = Math.max(...all);
    return {
      height: 150, x: [0, count - 1], y: [0, top * 1.05], xTicks: [], yTicks: ticks(0, top, 3), yFormat: v => fraction(v, 2),
      yLabel: 'mass, keys sorted by the softmax row', xLabel: 'keys, most looked at first', label: 'Softmax row and implied row',
      draw: ({ opLine, sx, sy }) => {
        const points = from => Array.from({ length: count }, (_, at) => [at, all[from + at]]);
        const path = points(0).map(([x, y], i) => `${i ? 'L' : 'M'}${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`).join('');
        return opLine(points(count), operator()) + `<path class="line" d="${path}" stroke="var(--ink)" stroke-dasharray="4 3"/>`;
      },
    };
  });
  const bars = node => chart(node, () => {
    if (!answer) return nothing;
    const { counts, low, high, here } = answer.denominator;
    const most = Math.max(...counts);
    const wide = high > low ? high - low : 1;
    return {
      height: 150, x: [low, low + wide], y: [0, most * 1.05], xTicks: ticks(low, low + wide, 4), yTicks: [], xFormat: v => (10 ** v < 100 ? +(10 ** v).toPrecision(2) : `1e${v.toFixed(0)}`), yFormat: String,
      yLabel: 'queries by their denominator', xLabel: wish.rate === 'linear' ? 'mass of the linear branch' : '1 + mass of the linear branch', label: 'Denominators of all queries',
      draw: ({ sx, sy, height, pad }) => counts.map((count, at) => {
        const [x0, x1] = [sx(low + (wide * at) / counts.length), sx(low + (wide * (at + 1)) / counts.length)];
        return `<rect x="${x0 + 0.5}" y="${sy(count)}" width="${Math.max(1, x1 - x0 - 1)}" height="${height - pad.bottom - sy(count)}" fill="var(--text-3)"/>`;
      }).join('') + `<line x1="${sx(Math.log10(Math.max(here, 1e-6)))}" x2="${sx(Math.log10(Math.max(here, 1e-6)))}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--accent)" stroke-width="1.5"/>`,
    };
  });
  let paints = [];
  const draw = () => {
    if (!answer) return;
    strip('softmax', answer.softmax);
    strip('implied', answer.implied);
    const tile = (label, shown, note) => `<div class="readout"><dt>${label}</dt><dd>${shown}</dd><div class="note">${text(note)}</div></div>`;
    element.querySelector('.play-numbers').innerHTML = tile('error', fraction(answer.mean_error), 'share of mass elsewhere, held-out queries') + tile('this row', fraction(answer.row_error), 'the chosen patch') +
      tile('branch off', fraction(answer.off_error), 'kept tokens alone') + tile('least denominator', answer.denominator.least.toPrecision(2), 'of all queries');
    element.querySelector('.play-hint').textContent = `${answer.updates} updates, ${answer.features} features, fitted in ${answer.seconds.toFixed(1)} s`;
    paints.forEach(paint => paint());
  };
  const load = async () => {
    if (!value || !near) return;
    const mine = ++ticket;
    const { block, head, patch } = selection;
    element.setAttribute('aria-busy', 'true');
    try {
      const next = await ask('playground', { capture: value.capture, block, head, patch, ...wish });
      if (mine !== ticket) return;
      answer = next;
      draw();
      element.dataset.ready = `${block}.${head}.${wish.rate}.${wish.degree}.${wish.width}`;
    } catch { /* said already */ }
    if (mine === ticket) element.removeAttribute('aria-busy');
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(load, WAIT);
  };
  const build = () => {
    value = host.get();
    answer = null;
    if (!value?.capture) {
      value = null;
      element.innerHTML = '';
      return;
    }
    wish ??= { ...value.start };
    const slider = (name, most, at, shown) => `<label class="slider-row"><span>${name}</span><input class="slider" type="range" min="${name === 'rate' ? 0 : 1}" max="${most}" step="1" value="${at}" data-slider="${name}" aria-label="${name}" aria-valuetext="${text(shown)}"><output>${text(shown)}</output></label>`;
    element.innerHTML = `<section class="panel"><header class="panel-head"><h2>One-head playground</h2><span class="hint play-at"></span><div class="end"><span class="muted play-hint"></span></div></header>
      <div class="panel-body"><div class="play"><div class="play-side">${slider('rate', value.rates.length - 1, value.rates.indexOf(wish.rate), wish.rate)}${slider('degree', value.degrees, wish.degree, wish.degree)}${slider('width', value.widths, wish.width, wish.width)}<dl class="readouts play-numbers"></dl></div>
        <div class="play-rows"><div class="play-row"><span class="muted">softmax</span><div data-row="softmax"></div></div><div class="play-row"><span class="line-of play-name"></span><div data-row="implied"></div></div></div>
        <div class="play-charts"><div class="play-line"></div><div class="play-denominators"></div></div></div></div></section>`;
    paints = [curve(element.querySelector('.play-line')), bars(element.querySelector('.play-denominators'))];
    element.querySelector('.play-side').addEventListener('input', event => {
      const name = event.target.dataset.slider;
      if (!name) return;
      wish[name] = name === 'rate' ? value.rates[+event.target.value] : +event.target.value;
      event.target.nextElementSibling.textContent = wish[name];
      event.target.setAttribute('aria-valuetext', wish[name]);
      named();
      later();
    });
    named();
    watcher.disconnect();
    watcher.observe(element);
  };
  const named = () => {
    const at = element.querySelector('.play-at');
    if (!at) return;
    at.textContent = `block ${selection.block}, head ${selection.head}, the chosen patch`;
    element.querySelector('.play-name').innerHTML = `<i class="swatch" data-op="${operator()}"></i>${text(wish.rate)}`;
  };
  const watcher = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting) || near) return;
    near = true;
    load();
  }, { rootMargin: '100px' });
  onSelect(({ changed }) => {
    if (!value || !changed.some(name => ['block', 'head', 'patch'].includes(name))) return;
    named();
    later();
  });
  onTheme(draw);
  host.watch(build);
  build();
};
