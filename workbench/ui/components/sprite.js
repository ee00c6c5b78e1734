/* Blocks × heads as one picture, the heads of one block, and one head in full.
   value: {capture, blocks, heads, grid: [T, H, W], side, steps: [{label}], metrics: [{block, head, kind, ...}], kinds: [{kind, why}]}
   ask('sprite', {capture, step}) → {bytes}: blocks·heads·side·side bytes, each map scaled to its own maximum. */
import { asker } from './bus.js';
import { bytes, empty, massColours, notice, onTheme, paintBytes, text, token } from './draw.js';
import { onSelect, select, selection } from './selection.js';

const LABEL = 24;
const TOP = 16;

export const mount = (element, host) => {
  const ask = asker(host.call);
  let value = null;
  let tiles = [];
  let asked = '';

  const size = () => {
    const room = Math.max(220, (element.querySelector('.sprite-slot')?.clientWidth || 300) - LABEL);
    return Math.max(14, Math.min(44, Math.floor(room / value.heads) - 1, Math.floor(560 / value.blocks) - 1));
  };
  const draw = () => {
    const canvas = element.querySelector('.sprite');
    if (!canvas || !value) return;
    const tile = size();
    const scale = devicePixelRatio || 1;
    const [width, height] = [LABEL + value.heads * (tile + 1), TOP + value.blocks * (tile + 1)];
    Object.assign(canvas, { width: width * scale, height: height * scale });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    canvas.dataset.tile = tile;
    const c = canvas.getContext('2d');
    c.scale(scale, scale);
    c.font = `11px ${token('--font')}`;
    c.fillStyle = token('--text-3');
    c.textAlign = 'center';
    for (let head = 0; head < value.heads; head++) if (tile > 20 || head % 2 === 0) c.fillText(head, LABEL + head * (tile + 1) + tile / 2, 10);
    c.textAlign = 'right';
    c.imageSmoothingEnabled = tile < value.side;
    for (let block = 0; block < value.blocks; block++) {
      c.fillStyle = token(block === selection.block ? '--text' : '--text-3');
      c.fillText(block, LABEL - 6, TOP + block * (tile + 1) + tile / 2 + 4);
      for (let head = 0; head < value.heads; head++) {
        const [x, y] = [LABEL + head * (tile + 1), TOP + block * (tile + 1)];
        const map = tiles[block * value.heads + head];
        if (map) c.drawImage(map, x, y, tile, tile);
        else {
          c.fillStyle = token('--hover');
          c.fillRect(x, y, tile, tile);
        }
      }
    }
    c.strokeStyle = token('--accent');
    c.globalAlpha = 0.7;
    c.strokeRect(LABEL - 0.5, TOP + selection.block * (tile + 1) - 0.5, value.heads * (tile + 1), tile + 1);
    c.globalAlpha = 1;
    c.lineWidth = 2;
    c.strokeRect(LABEL + selection.head * (tile + 1) - 1, TOP + selection.block * (tile + 1) - 1, tile + 2, tile + 2);
  };
  const metric = (block, head) => value.metrics?.find(row => row.block === block && row.head === head);
  const drawBlock = () => {
    if (!value) return;
    const { block, head } = selection;
    element.querySelector('.of-block').textContent = `Block ${block}`;
    const strip = element.querySelector('.head-strip');
    strip.style.setProperty('--heads', Math.min(value.heads, 6));
    strip.innerHTML = Array.from({ length: value.heads }, (_, h) =>
      `<button type="button" class="head-tile" data-head="${h}" aria-pressed="${h === head}" aria-label="Head ${h}"><canvas width="72" height="72"></canvas></button>`).join('');
    strip.querySelectorAll('canvas').forEach((canvas, h) => stamp(canvas, tiles[block * value.heads + h]));
    stamp(element.querySelector('.full-map'), tiles[block * value.heads + head], true);
    const row = metric(block, head);
    element.querySelector('.head-title').textContent = `Head ${head}`;
    element.querySelector('.head-kind').textContent = row?.kind ?? '';
    element.querySelector('.head-kind').hidden = !row?.kind;
  };
  const stamp = (canvas, map, grid = false) => {
    const c = canvas.getContext('2d');
    c.imageSmoothingEnabled = false;
    c.fillStyle = token('--hover');
    c.fillRect(0, 0, canvas.width, canvas.height);
    if (!map) return;
    c.drawImage(map, 0, 0, canvas.width, canvas.height);
    if (!grid) return;
    const [frames, rows, columns] = value.grid;
    c.fillStyle = 'rgb(255 255 255 / .25)';
    for (let f = 1; f < frames; f++) {
      const at = Math.round((f / frames) * canvas.width);
      c.fillRect(at, 0, 1, canvas.height);
      c.fillRect(0, at, canvas.width, 1);
    }
    if (!selection.patch) return;
    const [f, y, x] = selection.patch;
    const place = ((f * rows + y) * columns + x) / (frames * rows * columns);
    const step = canvas.height / value.side;
    const at = Math.floor(place * value.side) * step;
    c.strokeStyle = token('--reticle');
    c.lineWidth = 1.5;
    c.strokeRect(1, at, canvas.width - 2, step);
  };
  const load = async () => {
    const key = `${value.capture}:${selection.step}`;
    if (asked === key) return;
    asked = key;
    const answer = await ask('sprite', { capture: value.capture, step: selection.step });
    if (asked !== key) return;
    const raw = bytes(answer.bytes);
    const area = value.side * value.side;
    const colours = massColours();
    tiles = Array.from({ length: value.blocks * value.heads }, (_, i) => paintBytes(raw.subarray(i * area, (i + 1) * area), value.side, value.side, colours));
    draw();
    drawBlock();
    element.dataset.ready = key;
  };
  const kinds = () => {
    const count = kind => value.metrics.filter(row => row.kind === kind).length;
    return value.kinds?.length ? `<dl class="kinds">${value.kinds.map(({ kind, why }) => `<div><dt>${text(kind)}</dt><dd class="number">${count(kind)}</dd><dd class="muted">${text(why)}</dd></div>`).join('')}</dl>` : '';
  };
  const build = () => {
    value = host.get();
    if (!value?.capture) {
      const body = value?.fault ? notice('error', value.fault) : value?.title ? empty(value.title, value.why) : '';
      element.innerHTML = body && `<div class="panel"><div class="panel-body pad-top">${body}</div></div>`;
      value = null;
      return;
    }
    asked = '';
    selection.block = Math.min(selection.block, value.blocks - 1);
    selection.head = Math.min(selection.head, value.heads - 1);
    selection.step = Math.min(selection.step, value.steps.length - 1);
    element.innerHTML = `<div class="rack maps-rack"><section class="panel"><header class="panel-head"><h2>Blocks × heads</h2><div class="end"><span class="colour-bar">0<i class="mass-bar"></i>max</span></div></header>
        <div class="panel-body sprite-slot"><canvas class="sprite" tabindex="0" role="grid" aria-label="Attention of every block and head; arrows move"></canvas>${kinds()}</div></section>
      <section class="panel"><header class="panel-head"><h2 class="of-block"></h2><span class="hint">all heads, one block</span></header>
        <div class="panel-body"><div class="head-strip"></div><div class="line-of head-line"><h2 class="head-title"></h2><span class="chip static head-kind" hidden></span><span class="muted map-note">query rows, key columns, ${text(value.grid[0])} latent frames</span></div>
          <canvas class="full-map" width="480" height="480" role="img" aria-label="Pooled attention map of the chosen head"></canvas>
          <label class="slider-row step-row"${value.steps.length < 2 ? ' hidden' : ''}>step<input class="slider" type="range" min="0" max="${value.steps.length - 1}" value="${selection.step}" aria-label="Sampling step"><output>${text(value.steps[selection.step].label)}</output></label></div></section></div>`;
    const sprite = element.querySelector('.sprite');
    sprite.addEventListener('click', event => {
      const tile = +sprite.dataset.tile + 1;
      const box = sprite.getBoundingClientRect();
      const head = Math.floor((event.clientX - box.left - LABEL) / tile);
      const block = Math.floor((event.clientY - box.top - TOP) / tile);
      if (head >= 0 && head < value.heads && block >= 0 && block < value.blocks) select({ block, head });
    });
    sprite.addEventListener('keydown', event => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      select({ block: Math.max(0, Math.min(value.blocks - 1, selection.block + move[0])), head: Math.max(0, Math.min(value.heads - 1, selection.head + move[1])) });
    });
    element.querySelector('.head-strip').addEventListener('click', event => {
      const head = event.target.closest('[data-head]')?.dataset.head;
      if (head != null) select({ head: +head });
    });
    element.querySelector('.step-row input').addEventListener('input', event => {
      event.target.nextElementSibling.textContent = value.steps[+event.target.value].label;
      select({ step: +event.target.value });
    });
    new ResizeObserver(draw).observe(element.querySelector('.sprite-slot'));
    draw();
    drawBlock();
    load().catch(() => (asked = ''));
  };
  onSelect(({ changed }) => {
    if (!value) return;
    if (changed.includes('step')) load().catch(() => (asked = ''));
    draw();
    drawBlock();
  });
  onTheme(draw);
  host.watch(build);
  build();
};
