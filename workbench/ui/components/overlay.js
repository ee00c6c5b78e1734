/* Where one patch looks: click a patch in a frame, and its attention lies over every frame.
   value: {capture, grid: [T, H, W], frames: [address | null], heads, cells: {block: [label]}}
   ask('row', {capture, step, block, head, mean, patch, view, cell}) → {bytes: T·H·W, view, patch, readouts: [[label, percent]], frames: [percent], note}
   The difference comes as signed bytes, 128 for none. */
import { asker } from './bus.js';
import { bytes, massColours, onSegment, onTheme, segmented, text, token } from './draw.js';
import { onSelect, select, selection } from './selection.js';

const VIEWS = [['softmax', 'softmax'], ['cell', 'cell'], ['kept', 'kept'], ['linear', 'linear'], ['difference', 'difference']];
const TIPS = {
  softmax: 'The model’s own attention', cell: 'What the measured cell implies, both branches', kept: 'Its softmax branch: every R-th token',
  linear: 'Its linear branch', difference: 'Cell minus softmax: violet less, orange more',
};

/** 256 colours of a signed byte and how much each covers. */
const signedColours = () => {
  const parse = name => [1, 3, 5].map(at => parseInt(token(name).slice(at, at + 2), 16));
  const [minus, plus] = [parse('--diff-minus'), parse('--diff-plus')];
  return Array.from({ length: 256 }, (_, byte) => {
    const share = (byte - 128) / 127;
    return [...(share < 0 ? minus : plus), 0.95 * Math.min(1, Math.abs(share))];
  });
};
const massShades = () => massColours().map(([r, g, b], byte) => [r, g, b, 0.39 + (0.47 * byte) / 255]);

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
      const colours = row.colours;
      if (row.view === 'difference') {
        c.fillStyle = 'rgb(128 128 128 / .45)';
        c.fillRect(0, 0, canvas.width, canvas.height);
      }
      for (let i = 0; i < rows * columns; i++) {
        const [r, g, b, a] = colours[row.values[frame * rows * columns + i]];
        c.fillStyle = `rgb(${r} ${g} ${b} / ${a})`;
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
  /* A view of a cell holds where the block has a measured one; elsewhere softmax is shown. */
  const shownView = () => {
    const cells = value.cells?.[selection.block] ?? [];
    const cell = cells.includes(selection.cell) ? selection.cell : cells[0] ?? '';
    return { view: cell ? selection.view : 'softmax', cell, cells };
  };
  const drawViews = () => {
    const slot = element.querySelector('.view-slot');
    const { view, cell, cells } = shownView();
    const html = cells.length ? segmented('View', VIEWS, view) + (cells.length > 1 ? `<select class="input cell-choice" aria-label="Measured cell">${cells.map(one => `<option${one === cell ? ' selected' : ''}>${text(one)}</option>`).join('')}</select>` : `<span class="mono muted">${text(cell)}</span>`)
      : Object.keys(value.cells ?? {}).length ? `<span class="muted">no measured cell in block ${selection.block}</span>` : '';
    if (drawViews.last === html) return;
    drawViews.last = html;
    slot.innerHTML = html;
    slot.querySelectorAll('[data-value]').forEach(button => (button.dataset.tip = TIPS[button.dataset.value]));
    const choice = slot.querySelector('[data-choice=View]');
    if (choice) onSegment(choice, next => select({ view: next, cell: shownView().cell }));
    slot.querySelector('.cell-choice')?.addEventListener('change', event => select({ cell: event.target.value, view: shownView().view === 'softmax' ? 'cell' : shownView().view }));
  };
  const draw = () => {
    if (!value) return;
    drawViews();
    element.querySelector('.mean').checked = selection.mean;
    element.querySelector('.colour-bar').innerHTML = row?.view === 'difference' ? 'less<i class="diff-bar"></i>more' : '0<i class="mass-bar"></i>max mass';
    const frame = selection.patch?.[0] ?? 0;
    paint(element.querySelector('.frame-view'), frame, element.querySelector('.show-mass').checked);
    element.querySelectorAll('.overlay-frame').forEach((node, f) => {
      paint(node.querySelector('canvas'), f, true);
      node.setAttribute('aria-pressed', f === frame);
      node.querySelector('b').textContent = row ? `${row.view === 'difference' && row.frames[f] > 0 ? '+' : ''}${String(row.frames[f]).replace('-', '−')} %` : '';
    });
    element.querySelector('.patch-text').textContent = row ? row.note : '';
    element.querySelector('.mass-split').innerHTML = (row?.readouts ?? []).map(([name, percent]) =>
      `<div class="readout"><dt>${text(name)}</dt><dd>${row.view === 'difference' && percent > 0 ? '+' : ''}${text(String(percent).replace('-', '−'))} <small>%</small></dd></div>`).join('');
  };
  const load = async () => {
    if (!value) return;
    const mine = ++ticket;
    const { block, head, step, mean, patch } = selection;
    const { view, cell } = shownView();
    const answer = await ask('row', { capture: value.capture, block, head, step, mean, patch, view, cell });
    if (mine !== ticket) return;
    row = { ...answer, values: bytes(answer.bytes), colours: answer.view === 'difference' ? signedColours() : massShades() };
    draw();
    element.dataset.ready = `${block}.${head}.${answer.patch.join('.')}.${answer.view}`;
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
    drawViews.last = null;
    element.innerHTML = `<section class="panel"><header class="panel-head"><h2>Where this patch looks</h2><span class="hint">click a patch</span><div class="end view-slot"></div></header>
      <div class="panel-body"><div class="patch-view"><div class="patch-main"><canvas class="frame-view" width="${Math.round(448)}" height="${Math.round((448 * rows) / columns)}" style="${ratio}" tabindex="0" role="img" aria-label="Frame; click a patch, arrows move it, page keys change the frame"></canvas>
        <div class="line-of"><span class="patch-text muted"></span><span class="line-of"><label class="toggle mass-toggle"><input type="checkbox" class="show-mass">mass here</label><label class="toggle"><input type="checkbox" class="mean">mean of heads</label></span></div><dl class="readouts mass-split"></dl><div class="colour-bar">0<i class="mass-bar"></i>max mass</div></div>
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
      const turn = { PageUp: -1, PageDown: 1 }[event.key];
      if (!by && !turn) return;
      event.preventDefault();
      if (by) move(...by);
      else select({ patch: [Math.max(0, Math.min(frames - 1, selection.patch[0] + turn)), selection.patch[1], selection.patch[2]] });
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
  onTheme(() => {
    if (row) row.colours = row.view === 'difference' ? signedColours() : massShades();
    draw();
  });
  host.watch(build);
  build();
};
