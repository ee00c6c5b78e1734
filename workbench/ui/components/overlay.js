/* Where one patch looks: click a patch in a frame, and its attention lies over every frame.
   value: {capture, grid: [T, H, W], frames: [address | null], heads, exact}
   ask('row', {capture, step, block, head, mean, patch}) → {bytes: T·H·W, top, patch, readouts: [[label, percent]], frames: [percent], note} */
import { asker } from './bus.js';
import { bytes, massColours, onTheme, text, token } from './draw.js';
import { onSelect, select, selection } from './selection.js';

const still = address => new Promise(done => {
  if (!address) return done(null);
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = () => done(null);
  image.src = address;
});

export const mount = (element, host) => {
  const ask = asker(host.call);
  let value = null;
  let images = [];
  let row = null;
  let ticket = 0;

  const paint = (canvas, frame, mass) => {
    const [, rows, columns] = value.grid;
    const c = canvas.getContext('2d');
    const [w, h] = [canvas.width / columns, canvas.height / rows];
    c.fillStyle = token('--mass-0');
    c.fillRect(0, 0, canvas.width, canvas.height);
    if (images[frame]) c.drawImage(images[frame], 0, 0, canvas.width, canvas.height);
    if (mass && row) {
      const colours = massColours();
      for (let i = 0; i < rows * columns; i++) {
        const t = row.values[frame * rows * columns + i];
        const [r, g, b] = colours[t];
        c.fillStyle = `rgb(${r} ${g} ${b} / ${0.39 + (0.47 * t) / 255})`;
        c.fillRect((i % columns) * w, Math.floor(i / columns) * h, w + 0.5, h + 0.5);
      }
    }
    const patch = row?.patch ?? selection.patch;
    if (patch && patch[0] === frame) {
      const [, y, x] = patch;
      for (const [width, colour] of [[4, '--reticle-shadow'], [2, '--reticle']]) {
        c.lineWidth = width;
        c.strokeStyle = token(colour);
        c.strokeRect(x * w, y * h, w, h);
      }
    }
  };
  const draw = () => {
    if (!value) return;
    const frame = selection.patch?.[0] ?? 0;
    paint(element.querySelector('.frame-view'), frame, element.querySelector('.show-mass').checked);
    element.querySelectorAll('.overlay-frame').forEach((node, f) => {
      paint(node.querySelector('canvas'), f, true);
      node.setAttribute('aria-pressed', f === frame);
      node.querySelector('b').textContent = row ? `${row.frames[f]} %` : '';
    });
    element.querySelector('.patch-text').textContent = row ? row.note : '';
    element.querySelector('.mass-split').innerHTML = (row?.readouts ?? []).map(([name, percent]) =>
      `<div class="readout"><dt>${text(name)}</dt><dd>${text(percent)} <small>%</small></dd></div>`).join('');
  };
  const load = async () => {
    if (!value) return;
    const mine = ++ticket;
    const { block, head, step, mean, patch } = selection;
    const answer = await ask('row', { capture: value.capture, block, head, step, mean, patch });
    if (mine !== ticket) return;
    row = { ...answer, values: bytes(answer.bytes) };
    draw();
    element.dataset.ready = `${block}.${head}.${answer.patch.join('.')}`;
  };
  const build = async () => {
    value = host.get();
    row = null;
    if (!value?.capture) {
      element.innerHTML = '';
      value = null;
      return;
    }
    const [frames, rows, columns] = value.grid;
    const ratio = `aspect-ratio: ${columns} / ${rows}`;
    if (!selection.patch || selection.patch.some((at, axis) => at >= value.grid[axis])) selection.patch = [Math.floor(frames / 2), Math.floor(rows / 2), Math.floor(columns / 2)];
    element.innerHTML = `<section class="panel"><header class="panel-head"><h2>Where this patch looks</h2><span class="hint">click a patch</span><div class="end"><label class="toggle"><input type="checkbox" class="mean">mean of heads</label></div></header>
      <div class="panel-body"><div class="patch-view"><div class="patch-main"><canvas class="frame-view" width="${Math.round(448)}" height="${Math.round((448 * rows) / columns)}" style="${ratio}" tabindex="0" role="img" aria-label="Frame; click a patch, arrows move it"></canvas>
        <div class="line-of"><span class="patch-text muted"></span><label class="toggle mass-toggle"><input type="checkbox" class="show-mass">mass here</label></div><dl class="readouts mass-split"></dl><div class="colour-bar">0<i class="mass-bar"></i>max mass</div></div>
        <div class="overlays">${Array.from({ length: frames }, (_, f) => `<button type="button" class="overlay-frame" data-frame="${f}" aria-pressed="false"><canvas width="160" height="${Math.round((160 * rows) / columns)}" style="${ratio}"></canvas><span>frame ${f} <b></b></span></button>`).join('')}</div></div></div></section>`;
    const view = element.querySelector('.frame-view');
    const move = (dy, dx) => {
      const [f, y, x] = selection.patch;
      select({ patch: [f, Math.max(0, Math.min(rows - 1, y + dy)), Math.max(0, Math.min(columns - 1, x + dx))] });
    };
    view.addEventListener('click', event => {
      const box = view.getBoundingClientRect();
      const x = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
      const y = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
      select({ patch: [selection.patch[0], y, x] });
    });
    view.addEventListener('keydown', event => {
      const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!by) return;
      event.preventDefault();
      move(...by);
    });
    element.querySelector('.overlays').addEventListener('click', event => {
      const frame = event.target.closest('[data-frame]')?.dataset.frame;
      if (frame != null) select({ patch: [+frame, selection.patch[1], selection.patch[2]] });
    });
    element.querySelector('.mean').addEventListener('change', event => select({ mean: event.target.checked }));
    element.querySelector('.show-mass').addEventListener('change', draw);
    draw();
    const now = value;
    Promise.all((value.frames ?? []).map(still)).then(loaded => {
      if (value !== now) return;
      images = loaded;
      draw();
    });
    load().catch(() => {});
  };
  onSelect(() => {
    draw();
    load().catch(() => {});
  });
  onTheme(draw);
  host.watch(build);
  build();
};
