/* The demo from a folder: attention in three zooms, the painter over measured cells, the clips that were rendered.
   value: {table, player, attention: {sprite, overlay, heads, maps, frame, stride, step} | null}; the rows of block b come
   in rows/block-b.js, which fills window.demoRows. */
import { bytes, text } from './draw.js';
import { mount as mountHeads } from './heads.js';
import { mount as mountOverlay } from './overlay.js';
import { mount as mountPainter, shortName } from './painter.js';
import { mount as mountPlayer } from './player.js';
import { mount as mountSprite } from './sprite.js';

const base64 = values => {
  let signs = '';
  for (let at = 0; at < values.length; at += 8192) signs += String.fromCharCode(...values.subarray(at, at + 8192));
  return btoa(signs);
};

export const mount = (element, host) => {
  const value = host.get();
  const { attention, table, player } = value;
  const rendered = player.rows[0].clips.filter(clip => clip.column && clip.plan.length);
  element.innerHTML = `<header class="demo-head"><h1>Linearization workbench, a finished study</h1><p class="muted">One prompt, one seed, softmax attention replaced block by block. Nothing here is computed: all of it was measured before, and this page needs no server.</p></header>
    ${attention ? '<section class="demo-step"><h2>1. What each head looks at</h2><p class="muted">Choose a head on the left, then a patch in the frame: its attention lies over all frames. The demo holds every second patch of the middle frame.</p><div class="rack attention-rack"><div class="part sprite-part"></div><div class="part overlay-part"></div></div><div class="part heads-part"></div></section>' : ''}
    <section class="demo-step"><h2>${attention ? 2 : 1}. Choose, block by block</h2><p class="muted">Every number is the measured error of one block at one rate. Paint a plan; its clip is shown where it was rendered.</p>
      <div class="rack demo-plan"><div class="panel"><div class="demo-plans"></div><div class="painter-part"></div></div><div class="part demo-player player-part"></div></div></section>
    <section class="demo-step"><h2>${attention ? 3 : 2}. All clips</h2><div class="rack"><div class="part demo-all player-part"></div></div></section>`;
  const find = selector => element.querySelector(selector);

  /* The painter, and the rendered plan that is nearest to what is painted. */
  let plan = [];
  let shown = null;
  const watchers = [];
  const distance = clip => clip.plan.reduce((sum, op, block) => sum + (op !== plan[block]), 0);
  const told = () => {
    const best = [...rendered].sort((a, b) => distance(a) - distance(b) || b.branch - a.branch)[0];
    const all = plan.every(op => op === 'softmax');
    const apart = best ? distance(best) : 0;
    const errors = plan.map((op, block) => (op === 'softmax' ? 0 : table.cells[block][table.columns.indexOf(op)]?.error ?? 0));
    find('.demo-plans').innerHTML = `<div class="chips" role="group" aria-label="Rendered plans">${rendered.filter(clip => clip.branch).map(clip => `<button type="button" class="chip" data-plan="${clip.column}" aria-pressed="${distance(clip) === 0}"><span class="mono">${text(clip.name)}</span></button>`).join('')}</div>
      <p class="muted" role="status">${all ? 'All softmax: this is the teacher itself.' : apart ? `${text(shortName(plan))} was not rendered for this demo; the nearest rendered plan is ${text(best.name)}, which differs in ${apart} ${apart === 1 ? 'block' : 'blocks'}.` : `${text(best.name)}, rendered.`} Mean error of the cells over all blocks ${(errors.reduce((a, b) => a + b, 0) / errors.length).toFixed(3).replace(/^0/, '')}.</p>`;
    const next = all ? 0 : best?.column ?? 0;
    if (next === shown) return;
    shown = next;
    watchers.forEach(act => act());
  };
  const painter = mountPainter(find('.painter-part'), {
    get: name => (name === 'table' ? table : plan),
    set: next => (plan = next),
    emit: () => told(),
    watch: () => {},
    say: () => {},
    wanted: () => {},
  });
  find('.demo-plans').addEventListener('click', event => {
    const column = event.target.closest('[data-plan]')?.dataset.plan;
    const clip = rendered.find(one => one.column === +column);
    if (clip) painter.load(clip.plan);
  });
  mountPlayer(find('.demo-player'), {
    get: () => ({ ...player, columns: player.columns.slice(0, shown ? 2 : 1), rows: player.rows.slice(0, 1).map(row => ({ ...row, clips: row.clips.filter(clip => !clip.column || clip.column === shown) })) }),
    watch: act => watchers.push(act),
  });
  mountPlayer(find('.demo-all'), { get: () => player, watch: () => {} });
  if (rendered.length) painter.load(rendered[0].plan);
  told();
  if (!attention) return;

  /* Attention: the parts ask as they ask a server; the answers lie here and in the files of the rows. */
  const [frames, rows, columns] = attention.overlay.grid;
  const across = Math.ceil(columns / attention.stride);
  const fetched = new Map();
  const block = number => {
    if (!fetched.has(number)) fetched.set(number, new Promise((done, fail) => {
      const script = Object.assign(document.createElement('script'), { src: `rows/block-${number}.js` });
      script.onload = () => done({ ...window.demoRows[number], values: bytes(window.demoRows[number].bytes) });
      script.onerror = fail;
      document.head.append(script);
    }));
    return fetched.get(number);
  };
  const row = async ({ block: number, head, mean, patch }) => {
    const [y, x] = patch.slice(1).map(at => Math.floor(at / attention.stride));
    const place = y * across + x;
    const found = await block(number);
    const each = frames * rows * columns;
    const patches = found.frames[0].length;
    const heads = mean ? found.frames.map((_, at) => at) : [head];
    const values = new Uint8Array(each);
    for (let at = 0; at < each; at++) values[at] = heads.reduce((sum, one) => sum + found.values[(one * patches + place) * each + at], 0) / heads.length;
    const shares = found.frames[0][place].map((_, f) => Math.round(heads.reduce((sum, one) => sum + found.frames[one][place][f], 0) / heads.length));
    const at = [attention.frame, y * attention.stride, x * attention.stride];
    return { bytes: base64(values), view: 'softmax', patch: at, frames: shares, readouts: [['own frame', shares[at[0]]], ['other frames', 100 - shares[at[0]]], ['first frame', shares[0]]], note: `frame ${at[0]}, patch (${at[2]}, ${at[1]}), ${attention.step}` };
  };
  const call = async (name, question) => (name === 'sprite' ? { bytes: attention.maps[question.step] } : row(question));
  [['sprite', mountSprite], ['overlay', mountOverlay], ['heads', mountHeads]].forEach(([name, mountPart]) =>
    mountPart(find(`.${name}-part`), { get: () => attention[name], watch: () => {}, call }));
};
