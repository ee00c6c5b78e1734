/* Small drawing parts that every component shares: text, icons, colour maps, line charts.
   Plain ES module: no gradio, no network, usable in a notebook or from a file. */

export const OPERATORS = ['softmax', 'R2', 'R4', 'R8', 'R16', 'linear'];
/** What an operator is called in a sentence; where room is short, its label alone stands. */
export const operatorName = op => (/^T\d/.test(op) ? `ReHyAt ${op}` : op);
/** What a label means, "" where it says so itself. */
export const operatorMeaning = op => {
  const [, chunk, overlap] = op.match(/^T(\d+)o(\d+)/) ?? [];
  const frames = count => `${count} ${+count === 1 ? 'frame' : 'frames'}`;
  return chunk ? `ReHyAt: softmax within chunks of ${frames(chunk)}${+overlap ? ` and the ${frames(overlap)} before` : ''}, linear beyond` : '';
};
export const isOperator = name => /^(softmax|linear|[RT]\d)/.test(name);

/** Escape text for HTML: everything that a user typed passes through here. */
export const text = value =>
  String(value ?? '').replace(/[&<>"']/g, sign => `&#${sign.charCodeAt(0)};`);

/** A probability or an error: three digits, no leading zero. */
export const fraction = (value, digits = 3) =>
  value === 0 ? '0' : value.toFixed(digits).replace(/^(-?)0\./, '$1.');

export const duration = seconds => {
  if (seconds == null || !isFinite(seconds)) return '';
  const whole = Math.round(seconds);
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
};

export const flops = value => {
  const [unit, name] = value >= 1e15 ? [1e15, 'P'] : value >= 1e12 ? [1e12, 'T'] : [1e9, 'G'];
  const scaled = value / unit;
  return [scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0), `${name}FLOP`];
};

const ICONS = {
  play: 'M5 3.5v9l7-4.5z',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  back: 'M11 3.5 6 8l5 4.5M4 3.5v9',
  forward: 'M5 3.5 10 8l-5 4.5M12 3.5v9',
  loop: 'M3 7a4 4 0 0 1 4-3h5M10 2l2 2-2 2M13 9a4 4 0 0 1-4 3H4M6 14l-2-2 2-2',
  undo: 'M4 6h5.5a3 3 0 0 1 0 6H7M6.5 3.5 4 6l2.5 2.5',
  redo: 'M12 6H6.5a3 3 0 0 0 0 6H9M9.5 3.5 12 6 9.5 8.5',
  copy: 'M6 6h7v7H6zM10 6V3H3v7h3',
  warn: 'M8 2.5 14 13H2zM8 6.5v3M8 11.2v.1',
  info: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 7.5V11M8 5v.1',
  cross: 'm4 4 8 8M12 4l-8 8',
  theme: 'M8 5.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5M8 1.5V3M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1',
};
export const icon = name =>
  `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;

const GLYPHS = {
  done: '<path d="m4.3 7.2 2 2 3.5-4"/>',
  missing: '',
  stale: '<path d="M7 3.5V7l2 1.5"/>',
  failed: '<path d="m5 5 4 4M9 5 5 9"/>',
  running: '<path class="turn" d="M7 1a6 6 0 0 1 6 6"/>',
  paused: '<path d="M5.5 5v4M8.5 5v4"/>',
  queued: '<path d="M4.5 7h.1M7 7h.1M9.5 7h.1"/>',
};
const SHAPES = {
  starting: 'running', saving: 'running', pausing: 'running', cancelling: 'running',
  diverged: 'failed', oom: 'failed', interrupted: 'stale', cancelled: 'missing',
};
/** The glyph of a state: a shape first, a colour second. */
export const state = name => {
  const shape = SHAPES[name] ?? (name in GLYPHS ? name : 'missing');
  const tone = { paused: 'done', queued: 'done' }[shape] ?? shape;
  const ring = `<circle cx="7" cy="7" r="6"${shape === 'running' ? ' opacity=".25"' : ''}/>`;
  return `<svg class="state" data-tone="${tone}" viewBox="0 0 14 14" aria-hidden="true">${ring}${GLYPHS[shape]}</svg>`;
};
export const isLive = name => name === 'queued' || SHAPES[name] === 'running' || name === 'running';

export const swatch = operator => `<i class="swatch" data-op="${text(operator)}"></i>`;
export const planStrip = (plan, label) =>
  `<span class="plan-strip" role="img" aria-label="${text(label)}">${plan.map(op => `<i data-op="${text(op)}"></i>`).join('')}</span>`;
/** The colour of a whole plan: its operator where there is one besides softmax, else a neutral. */
export const planOperator = plan => {
  const used = [...new Set(plan.filter(op => op !== 'softmax'))];
  return used.length === 1 ? used[0] : used.length ? 'mixed' : 'softmax';
};

export const token = (name, node = document.body) => getComputedStyle(node).getPropertyValue(name).trim();
const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));

/** 256 colours through the attention-mass tokens, as bytes. */
export const massColours = () => {
  const stops = [0, 1, 2, 3, 4, 5, 6].map(n => rgb(token(`--mass-${n}`)));
  return Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * 5.9999;
    const low = Math.floor(place);
    return stops[low].map((c, k) => c + (stops[low + 1][k] - c) * (place - low));
  });
};

/** Bytes of a base64 string. */
export const bytes = base64 => Uint8Array.from(atob(base64), sign => sign.charCodeAt(0));

/** A small canvas holding `values` (bytes, row-major) in mass colours. */
export const paintBytes = (values, width, height, colours = massColours()) => {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = colours[values[i]];
    image.data.set([r, g, b, 255], i * 4);
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
};

/** Round steps between two numbers, for ticks. */
export const ticks = (low, high, count = 5) => {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(k => k * power).find(k => k >= raw);
  const first = Math.ceil(low / step - 1e-9) * step;
  return Array.from({ length: Math.floor((high - first) / step + 1e-9) + 1 }, (_, i) => +(first + i * step).toPrecision(12));
};

/** A chart in the width it is given; `spec()` is asked anew at every paint, so that data may grow.
    spec: {height, x: [low, high], y: [low, high], xTicks, yTicks, xFormat, yFormat, xLabel, yLabel, log, label, draw(scale)} */
export const chart = (node, spec) => {
  const paint = () => {
    const s = { height: 180, xFormat: String, yFormat: String, xLabel: '', yLabel: '', label: '', ...spec() };
    const width = Math.max(160, node.clientWidth || 400);
    const pad = { left: 40, right: s.right ?? 10, top: s.yLabel ? 22 : 8, bottom: s.xLabel ? 36 : 22 };
    const f = s.log ? Math.log10 : v => v;
    const sx = v => pad.left + ((v - s.x[0]) / (s.x[1] - s.x[0] || 1)) * (width - pad.left - pad.right);
    const sy = v => s.height - pad.bottom - ((f(v) - f(s.y[0])) / (f(s.y[1]) - f(s.y[0]) || 1)) * (s.height - pad.top - pad.bottom);
    const path = points => points.map(([a, b], i) => `${i ? 'L' : 'M'}${sx(a).toFixed(1)} ${sy(b).toFixed(1)}`).join('');
    const line = (points, attributes = '') => `<path class="line" d="${path(points)}" ${attributes}/>`;
    const opLine = (points, op, attributes = '') =>
      `<g data-op="${text(op)}"><path class="line edge" d="${path(points)}"/><path class="line" d="${path(points)}" style="stroke:var(--op);stroke-width:2" ${attributes}/></g>`;
    const rows = s.yTicks.map(v =>
      `<line class="grid" x1="${pad.left}" x2="${width - pad.right}" y1="${sy(v)}" y2="${sy(v)}"/><text x="${pad.left - 6}" y="${sy(v) + 4}" text-anchor="end">${s.yFormat(v)}</text>`).join('');
    const columns = s.xTicks.map(v => `<text x="${sx(v)}" y="${s.height - pad.bottom + 15}" text-anchor="middle">${s.xFormat(v)}</text>`).join('');
    node.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${s.height}" height="${s.height}" role="img" aria-label="${text(s.label)}">${rows}
      <line class="axis" x1="${pad.left}" x2="${width - pad.right}" y1="${s.height - pad.bottom}" y2="${s.height - pad.bottom}"/>${columns}
      <text x="0" y="10">${text(s.yLabel)}</text><text x="${width - pad.right}" y="${s.height - 2}" text-anchor="end">${text(s.xLabel)}</text>
      ${s.draw({ sx, sy, line, opLine, width, height: s.height, pad })}</svg>`;
    paint.scale = { width, pad, x: s.x }; // numbers only: a closure would keep all that was drawn
  };
  let seen = 0;
  new ResizeObserver(() => {
    if (node.isConnected && node.clientWidth && node.clientWidth !== seen) {
      seen = node.clientWidth;
      paint();
    }
  }).observe(node);
  return paint;
};
/** Where an x value stands on a painted chart. */
export const chartPlace = (paint, value) => {
  const { width, pad, x } = paint.scale;
  return pad.left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - pad.left - pad.right);
};
/** The x value under a pointer on a painted chart. */
export const chartX = (paint, event, node) => {
  const { width, pad, x } = paint.scale;
  const box = node.getBoundingClientRect();
  const place = ((event.clientX - box.left) / box.width) * width;
  return x[0] + ((place - pad.left) / (width - pad.left - pad.right)) * (x[1] - x[0]);
};

export const segmented = (name, options, chosen) =>
  `<div class="segmented" role="group" aria-label="${text(name)}" data-choice="${text(name)}">${options
    .map(([value, label]) => `<button type="button" data-value="${text(value)}" aria-pressed="${value === chosen}">${text(label)}</button>`).join('')}</div>`;
export const onSegment = (node, act) =>
  node.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (!button) return;
    node.querySelectorAll('button').forEach(b => b.setAttribute('aria-pressed', b === button));
    act(button.dataset.value);
  });

/** Repaint canvases when light and dark change. */
export const onTheme = act => new MutationObserver(act).observe(document.body, { attributes: true, attributeFilter: ['class'] });

export const empty = (title, why, verb = '') => `<div class="empty"><h3>${text(title)}</h3><p>${text(why)}</p>${verb}</div>`;
export const notice = (kind, sentence, verb = '') =>
  `<div class="notice ${kind}" role="${kind === 'error' ? 'alert' : 'status'}">${icon(kind === 'info' ? 'info' : 'warn')}<span>${text(sentence)}</span>${verb ? `<span class="end">${verb}</span>` : ''}</div>`;
