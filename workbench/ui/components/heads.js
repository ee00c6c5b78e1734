/* Numbers of every head, sortable; a click selects the head in all panels.
   value: {columns: [{key, label, bar, digits, tip}], rows: [{block, head, kind, ...}]} */
import { fraction, onSegment, segmented, text } from './draw.js';
import { onSelect, select, selection } from './selection.js';

export const mount = (element, host) => {
  let sort = { key: null, down: true };
  let kind = 'all';
  const draw = () => {
    const value = host.get();
    if (!value?.rows?.length) {
      element.innerHTML = '';
      return;
    }
    sort.key ??= value.columns.at(-1).key;
    const kinds = [...new Set(value.rows.map(row => row.kind).filter(Boolean))];
    const rows = value.rows.filter(row => kind === 'all' || row.kind === kind).sort((a, b) => (sort.down ? b[sort.key] - a[sort.key] : a[sort.key] - b[sort.key]));
    const number = (row, column) => {
      const shown = column.bar ? fraction(row[column.key], 2) : row[column.key].toFixed(column.digits ?? 2);
      return `<td class="number">${column.bar ? `<span class="cell-bar" style="--value:${Math.min(1, row[column.key]).toFixed(3)}"></span>` : ''}${shown}</td>`;
    };
    element.innerHTML = `<div class="rack heads-rack"><section class="panel"><header class="panel-head"><h2>Heads</h2><span class="hint">${rows.length} heads, sorted by ${text(value.columns.find(c => c.key === sort.key).label)}</span>
      <div class="end">${kinds.length > 1 ? segmented('Kind', ['all', ...kinds].map(k => [k, k]), kind) : ''}</div></header>
      <div class="table-scroll heads-scroll" tabindex="0"><table class="table"><thead><tr><th>head</th>${kinds.length ? '<th>kind</th>' : ''}${value.columns.map(c =>
        `<th class="number" ${c.key === sort.key ? `aria-sort="${sort.down ? 'descending' : 'ascending'}"` : ''} data-tip="${text(c.tip)}"><button type="button" data-sort="${text(c.key)}">${text(c.label)}${c.key === sort.key ? (sort.down ? ' ↓' : ' ↑') : ''}</button></th>`).join('')}</tr></thead>
      <tbody>${rows.map(row => `<tr data-at="${row.block}.${row.head}" aria-selected="${row.block === selection.block && row.head === selection.head}"><td class="mono">${row.block}.${row.head}</td>${kinds.length ? `<td>${text(row.kind)}</td>` : ''}${value.columns.map(c => number(row, c)).join('')}</tr>`).join('')}</tbody></table></div></section></div>`;
    const choice = element.querySelector('[data-choice=Kind]');
    if (choice) onSegment(choice, next => {
      kind = next;
      draw();
    });
  };
  element.addEventListener('click', event => {
    const key = event.target.closest('[data-sort]')?.dataset.sort;
    const at = event.target.closest('tr[data-at]')?.dataset.at;
    if (key) {
      sort = { key, down: sort.key === key ? !sort.down : true };
      draw();
    } else if (at) {
      const [block, head] = at.split('.').map(Number);
      select({ block, head });
    }
  });
  onSelect(({ block, head }) => element.querySelectorAll('tr[data-at]').forEach(row => row.setAttribute('aria-selected', row.dataset.at === `${block}.${head}`)));
  host.watch(draw);
  draw();
};
