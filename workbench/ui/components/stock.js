/* Everything the workspace holds: search, rename, delete what nothing uses, restore the form that made it, disk use.
   mount(element, {ask, restore}); returns {load(), search(words)}. */
import { on, say } from './bus.js';
import { empty, text } from './draw.js';

const SURE = 4000;
const PAGES = { captures: 'attention', banks: 'plan', plans: 'plan', students: 'plan', comparisons: 'compare' };
const PARTS = { captures: 'capture', banks: 'bank', students: 'student', comparisons: 'comparison' };

export const bytesText = count => (count < 1e3 ? `${count} B` : count < 1e6 ? `${Math.round(count / 1e3)} kB` : count < 1e9 ? `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} MB` : `${(count / 1e9).toFixed(1)} GB`);

/** A destructive button asks once more by itself: true at the second press within four seconds. */
export const armed = button => {
  if (button.dataset.sure) return true;
  const before = button.textContent;
  button.dataset.sure = '1';
  button.textContent = 'Really?';
  setTimeout(() => {
    delete button.dataset.sure;
    button.textContent = before;
  }, SURE);
  return false;
};

export const mount = (element, { ask, restore }) => {
  let stock = null;
  let words = '';
  let kind = 'all';
  let naming = '';
  let wanted = true;
  const key = row => `${row.kind}/${row.id}`;
  const find = name => stock.rows.find(row => key(row) === name);
  const line = row => `<tr data-thing="${text(key(row))}"><td class="muted">${text(row.kind.slice(0, -1))}</td>
    <td class="what">${naming === key(row) ? `<form class="rename"><input class="input" aria-label="New name" value="${text(row.name)}" maxlength="120"><button class="button small">Save</button></form>` : `<b class="clipped" data-tip="${text(row.id)}">${text(row.name)}</b>`}</td>
    <td class="number" data-label="size">${bytesText(row.bytes)}</td><td class="muted" data-label="made">${text(row.made)}</td><td class="muted" data-label="used by">${row.busy.length ? `job ${text(row.busy[0])}` : text(row.used)}</td>
    <td class="verbs">${PARTS[row.kind] ? '<button type="button" class="button small quiet" data-do="open">Open</button>' : ''}<button type="button" class="button small quiet" data-do="form">Restore form</button><button type="button" class="button small quiet" data-do="rename">Rename</button><button type="button" class="button small quiet danger" data-do="delete"${row.busy.length ? ` disabled data-tip="in use by job ${text(row.busy[0])}"` : ''}>Delete</button></td></tr>`;
  const draw = () => {
    if (!stock) return;
    const rows = stock.rows.filter(row => (kind === 'all' || row.kind === kind) && `${row.id} ${row.kind} ${row.name}`.toLowerCase().includes(words));
    const kinds = [...new Set(stock.rows.map(row => row.kind))];
    const room = Object.entries(stock.room).filter(([, bytes]) => bytes).sort((a, b) => b[1] - a[1]);
    const total = room.reduce((sum, [, bytes]) => sum + bytes, 0);
    element.innerHTML = `<div class="rack stock-rack"><section class="panel"><header class="panel-head"><h2>Things made</h2><span class="hint">what a job needs cannot be deleted</span><div class="end"><select class="input thing-kind" aria-label="Kind of thing">${['all', ...kinds].map(one => `<option value="${one}"${one === kind ? ' selected' : ''}>${one === 'all' ? 'all kinds' : one}</option>`).join('')}</select></div></header>
      ${rows.length ? `<div class="table-scroll stock-scroll" tabindex="0"><table class="table jobs stock"><thead><tr><th>kind</th><th>name</th><th class="number">size</th><th>made</th><th>used by</th><th><span class="visually-hidden">verbs</span></th></tr></thead><tbody>${rows.map(line).join('')}</tbody></table></div>` : `<div class="pad">${empty(words ? 'Nothing has these words' : 'Nothing made yet', 'Captures, banks, plans, students, clips and comparisons are kept here until you delete them.')}</div>`}</section>
      <section class="panel"><header class="panel-head"><h2>Disk</h2><span class="hint">${bytesText(total)} used, ${bytesText(stock.free)} free</span></header><div class="panel-body"><div class="room" role="img" aria-label="${text(room.map(([name, bytes]) => `${name} ${bytesText(bytes)}`).join(', '))}">${room.map(([, bytes], at) => `<i style="--share:${bytes / (total || 1)};--at:${at}"></i>`).join('')}</div>
        <dl class="room-list">${room.map(([name, bytes], at) => `<div><dt><i style="--at:${at}"></i>${text(name)}</dt><dd>${bytesText(bytes)}</dd></div>`).join('')}</dl>${stock.room.cache ? `<div><button type="button" class="button small" data-do="cache" data-tip="It fills again as it is needed">Empty the cache</button></div>` : ''}</div></section></div>`;
    element.querySelector('.rename input')?.select();
  };
  const load = async () => {
    if (document.documentElement.dataset.page !== 'runs') {
      wanted = true;
      return;
    }
    wanted = false;
    try {
      stock = await ask('stocked', {});
      if (!naming) draw();
    } catch {
      wanted = true;
    }
  };
  const done = async (sentence, work) => {
    try {
      await work();
      if (sentence) say(sentence);
    } catch { /* said already */ }
    await load();
  };
  element.addEventListener('click', event => {
    const button = event.target.closest('[data-do]');
    if (!button) return;
    const row = find(button.closest('[data-thing]')?.dataset.thing ?? '');
    const question = row && { kind: row.kind, id: row.id };
    const act = {
      cache: () => done('The cache is empty; what is needed is made again.', () => ask('clear_cache', {})),
      rename: () => {
        naming = key(row);
        draw();
      },
      delete: () => armed(button) && done('Deleted.', () => ask('discard', question)),
      form: () => restore(question).catch(() => {}),
      open: () => {
        const link = new URLSearchParams(location.search);
        link.set(PARTS[row.kind], row.id);
        location.href = `?${link}#${PAGES[row.kind]}`;
      },
    }[button.dataset.do];
    act?.();
  });
  element.addEventListener('submit', event => {
    event.preventDefault();
    const row = find(naming);
    const name = event.target.querySelector('input').value;
    naming = '';
    done('', () => ask('rename', { kind: row.kind, id: row.id, name }));
  });
  element.addEventListener('keydown', event => {
    if (event.key !== 'Escape' || !naming) return;
    naming = '';
    draw();
  });
  element.addEventListener('change', event => {
    if (!event.target.matches('.thing-kind')) return;
    kind = event.target.value;
    draw();
  });
  on('page', page => page === 'runs' && setTimeout(load));
  on('jobs', () => wanted && load());
  return { load, search: next => {
    words = next;
    draw();
  } };
};
