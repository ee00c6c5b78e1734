/* The plan painter: one row a block, one column an operator; only measured cells can be painted.
   value: the plan, one operator label a block.
   table: {columns: [label], cells: [[{error, low, high, off, first} | null]], start: plan of a fresh painter}
   While cells are distilled, their live loss stands in them; the measured error replaces it at the end.
   Emits paint when the plan changed, wanted when a cell was asked for that is not measured (host.wanted).
   mount returns {plan, load(plan), show(plan), undo(), redo()}: load is one step of undo, show is none. */
import { on } from './bus.js';
import { duration, empty, fraction, icon, operatorMeaning, planStrip, swatch, text } from './draw.js';

/** The short name of a plan, as the command line takes it: 5xR4, 3xR2+2xlinear. */
export const shortName = plan => {
  const counts = new Map();
  plan.filter(op => op !== 'softmax').forEach(op => counts.set(op, (counts.get(op) ?? 0) + 1));
  return counts.size ? [...counts].map(([op, n]) => `${n}x${op}`).join('+') : 'all softmax';
};

export const mount = (element, host) => {
  let plan = [];
  let at = [0, 0];
  let drag = null;
  let shown = '';
  const live = new Map();
  const undo = [];
  const redo = [];
  const table = () => host.get('table');
  const columns = () => table().columns;
  const cellOf = (block, op) => table().cells[block]?.[columns().indexOf(op)];
  const free = (block, op) => op === 'softmax' || Boolean(cellOf(block, op));

  const tip = (block, op) => {
    if (op === 'softmax') return `Block ${block} stays as it is`;
    const cell = cellOf(block, op);
    const loss = live.get(`${block}.${op}`);
    if (!cell && loss != null) return `Block ${block} at ${op} is being distilled\nloss ${fraction(loss)} now; its error is measured at the end`;
    if (!cell) return `Block ${block} at ${op} is not measured${plan[block] === op ? ', though this plan names it' : ''}; ${table().each ? `measuring it takes about ${duration(table().each)}, then` : 'measure it and'} it can be painted`;
    return `Block ${block} at ${op}\nerror ${fraction(cell.error)}` + (cell.low == null ? '' : ` (${fraction(cell.low)} to ${fraction(cell.high)})`) + (cell.off == null ? '' : `\nlinear branch off ${fraction(cell.off)}`) +
      (cell.first == null ? '' : `\nbefore distilling ${fraction(cell.first)}`);
  };
  const top = () => Math.max(1e-6, ...table().cells.flat().filter(Boolean).map(c => c.error), ...table().cells.flatMap(row => row.filter((c, i) => c && !columns()[i].startsWith('linear')).map(c => c.off ?? 0)));
  const cellHtml = (block, op, scale) => {
    const cell = op === 'softmax' ? { error: 0 } : cellOf(block, op);
    const off = cell?.off == null || op.startsWith('linear') ? '' : `<i class="off" style="--off:${(Math.min(1, cell.off / scale)).toFixed(3)}"></i>`;
    const loss = live.get(`${block}.${op}`);
    const label = op === 'softmax' ? '0' : cell ? fraction(cell.error) : loss == null ? '–' : fraction(loss);
    return `<td role="gridcell" class="cell${cell ? '' : loss == null ? ' unmeasured' : ' unmeasured distilling'}" data-block="${block}" data-op="${op}" tabindex="-1" ${cell ? '' : 'aria-disabled="true"'}
      aria-label="Block ${block}, ${op}, ${cell ? `error ${label}` : 'not measured'}" style="--error:${cell ? Math.min(1, cell.error / scale).toFixed(3) : 0}"><span>${label}</span>${off}</td>`;
  };
  const draw = () => {
    if (!table()?.cells?.length) {
      element.innerHTML = empty('No model yet', 'The painter shows one row for each block of the model.');
      return;
    }
    const scale = top();
    const scrolled = element.querySelector('.painter-scroll')?.scrollLeft ?? 0;
    element.innerHTML = `<header class="panel-head"><h2>Painter</h2><span class="hint">drag to paint, Shift for a range, arrows and Enter</span><div class="end legend"><span><i class="error-key"></i>error</span><span><i class="off-key"></i>branch off</span><span><i class="missing-key"></i>not measured</span><span><i class="live-key">.03</i>live loss</span></div></header><div class="panel-body"><div class="painter-bar"><span class="mono plan-name"></span><span class="strip-slot"></span><span class="end"><button type="button" class="button icon-only small" data-verb="undo" aria-label="Undo">${icon('undo')}</button><button type="button" class="button icon-only small" data-verb="redo" aria-label="Redo">${icon('redo')}</button></span></div>
      <div class="painter-scroll"><table class="painter" role="grid" aria-label="Operator of each block" style="--rows:${plan.length};--columns:${columns().length}"><thead><tr><th>block</th>${columns()
        .map(op => `<th><button type="button" data-column="${op}" aria-label="All measured blocks ${op}" data-tip="${text(operatorMeaning(op) || `All measured blocks ${op}`)}">${swatch(op)}<span class="clipped">${op}</span></button></th>`).join('')}</tr></thead>
      <tbody>${plan.map((_, block) => `<tr><th scope="row">${block}</th>${columns().map(op => cellHtml(block, op, scale)).join('')}</tr>`).join('')}</tbody></table></div></div>`;
    element.querySelector('.painter-scroll').scrollLeft = scrolled;
    repaint();
  };
  const repaint = () => {
    element.querySelectorAll('.cell').forEach(node => {
      const [block, op] = [+node.dataset.block, node.dataset.op];
      const on = plan[block] === op;
      node.setAttribute('aria-selected', on);
      node.tabIndex = block === at[0] && op === columns()[at[1]] ? 0 : -1;
      if (op === 'softmax') node.firstChild.textContent = on ? 'softmax' : '0';
    });
    const name = element.querySelector('.plan-name');
    if (!name) return;
    name.textContent = shortName(plan);
    element.querySelector('.strip-slot').innerHTML = planStrip(plan, shortName(plan));
    element.querySelector('[data-verb=undo]').disabled = !undo.length;
    element.querySelector('[data-verb=redo]').disabled = !redo.length;
  };
  const publish = () => {
    shown = JSON.stringify(plan);
    host.set([...plan]);
    host.emit('paint');
    const link = new URLSearchParams(location.search);
    if (plan.every(op => op === 'softmax')) link.delete('paint');
    else link.set('paint', plan.join('.'));
    history.replaceState(null, '', `?${link}${location.hash}`);
  };
  const commit = next => {
    if (next.every((op, block) => op === plan[block])) return;
    undo.push(plan);
    redo.length = 0;
    plan = next;
    repaint();
    publish();
  };
  const painted = (from, to, op) => plan.map((old, block) => (block >= Math.min(from, to) && block <= Math.max(from, to) && free(block, op) ? op : old));
  const step = (from, to) => {
    if (!from.length) return;
    to.push(plan);
    plan = from.pop();
    repaint();
    publish();
  };
  const refused = (block, op) => {
    host.wanted?.(block, op);
    host.say?.('That cell is not measured yet; measure it first, then paint it.');
  };

  element.addEventListener('pointerdown', event => {
    const cell = event.target.closest('.cell');
    if (!cell || event.button) return;
    const [block, op] = [+cell.dataset.block, cell.dataset.op];
    if (!free(block, op)) {
      refused(block, op);
      return;
    }
    event.preventDefault();
    cell.focus({ preventScroll: true });
    if (event.shiftKey) {
      commit(painted(at[0], block, op));
      at = [block, columns().indexOf(op)];
      repaint();
      return;
    }
    at = [block, columns().indexOf(op)];
    drag = { before: plan, op };
    plan = painted(block, block, op);
    repaint();
  });
  element.addEventListener('pointermove', event => {
    if (!drag) return;
    const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest?.('.cell');
    if (!cell || !element.contains(cell)) return;
    const block = +cell.dataset.block;
    if (plan[block] === drag.op || !free(block, drag.op)) return;
    plan = painted(block, block, drag.op);
    repaint();
  });
  const release = () => {
    if (!drag) return;
    const after = plan;
    plan = drag.before;
    drag = null;
    commit(after);
    repaint();
  };
  addEventListener('pointerup', release);
  addEventListener('pointercancel', () => {
    if (!drag) return;
    plan = drag.before; // a sideways swipe scrolls; it paints nothing
    drag = null;
    repaint();
  });
  element.addEventListener('click', event => {
    const column = event.target.closest('[data-column]')?.dataset.column;
    const verb = event.target.closest('[data-verb]')?.dataset.verb;
    if (column) commit(painted(0, plan.length - 1, column));
    if (verb === 'undo') step(undo, redo);
    if (verb === 'redo') step(redo, undo);
  });
  element.addEventListener('keydown', event => {
    const key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && (key === 'z' || key === 'y')) {
      event.preventDefault();
      if (key === 'y' || event.shiftKey) step(redo, undo);
      else step(undo, redo);
      return;
    }
    if (!event.target.closest('.cell')) return;
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (move) {
      event.preventDefault();
      const next = [Math.max(0, Math.min(plan.length - 1, at[0] + move[0])), Math.max(0, Math.min(columns().length - 1, at[1] + move[1]))];
      const op = columns()[at[1]];
      if (event.shiftKey && move[0]) commit(painted(at[0], next[0], op));
      at = next;
      repaint();
      element.querySelector('.cell[tabindex="0"]').focus();
    }
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      const op = columns()[at[1]];
      if (free(at[0], op)) commit(painted(at[0], at[0], op));
      else refused(at[0], op);
    }
  });
  const hover = document.createElement('div');
  hover.className = 'tip';
  hover.hidden = true;
  element.after(hover);
  const point = event => {
    const cell = event.target.closest?.('.cell');
    hover.hidden = !cell;
    if (!cell) return;
    hover.textContent = tip(+cell.dataset.block, cell.dataset.op);
    const box = cell.getBoundingClientRect();
    hover.style.left = `${Math.max(4, Math.min(box.left, innerWidth - 290))}px`;
    hover.style.top = `${box.bottom + 6}px`;
  };
  element.addEventListener('pointerover', point);
  element.addEventListener('focusin', event => event.target.matches(':focus-visible') && point(event));
  element.addEventListener('pointerleave', () => (hover.hidden = true));
  element.addEventListener('focusout', () => (hover.hidden = true));

  const take = () => {
    let value = host.get() ?? [];
    const fresh = !value.length && table()?.start?.length;
    if (fresh) value = linked() ?? table().start;
    if (JSON.stringify(value) !== shown && !drag) {
      shown = JSON.stringify(value);
      plan = [...value];
      undo.length = redo.length = 0;
    }
    live.clear();
    draw();
    if (fresh) publish();
  };
  /* The painted plan stays in the link, so that a reload keeps it. */
  const linked = () => {
    const words = (new URLSearchParams(location.search).get('paint') ?? '').split('.');
    const fits = words.length === table().start.length && words.every(op => columns().includes(op));
    return fits ? words : null;
  };
  on('jobs', answer => {
    if (!answer.rows?.length || !table()?.cells?.length) return;
    const cells = answer.rows.at(-1).cells ?? {};
    for (const [name, loss] of Object.entries(cells)) {
      const [, block, op] = name.match(/^block-(\d+)-(.+)$/) ?? [];
      if (!block) continue;
      live.set(`${+block}.${op}`, loss);
      const node = element.querySelector(`.cell[data-block="${+block}"][data-op="${CSS.escape(op)}"]`);
      if (!node?.classList.contains('unmeasured')) continue;
      node.classList.add('distilling');
      node.firstChild.textContent = fraction(loss);
    }
  });
  host.watch(take, ['value', 'table']);
  take();
  return {
    plan: () => [...plan],
    load: next => commit([...next]),
    show: next => {
      plan = [...next];
      repaint();
    },
    undo: () => step(undo, redo),
    redo: () => step(redo, undo),
    can: () => [undo.length > 0, redo.length > 0],
  };
};
