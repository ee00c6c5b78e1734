/* The one selection of the Attention page: block, head, query patch, sampling step, and what is overlaid. Kept in the link. */
import { on, tell } from './bus.js';

const query = new URLSearchParams(location.search);
const whole = (name, fallback) => (/^\d{1,6}$/.test(query.get(name) ?? '') ? +query.get(name) : fallback);
const patch = (query.get('patch') ?? '').match(/^(\d+)\.(\d+)\.(\d+)$/);

export const selection = {
  block: whole('block', 0), head: whole('head', 0), step: whole('at', 0), mean: query.get('mean') === '1',
  view: /^(cell|kept|linear|difference)$/.test(query.get('view') ?? '') ? query.get('view') : 'softmax', cell: /^[\w-]{1,40}$/.test(query.get('cell') ?? '') ? query.get('cell') : '',
  patch: patch ? patch.slice(1).map(Number) : null,
};

/** Change part of the selection; every panel that follows it redraws. */
export const select = change => {
  Object.assign(selection, change);
  tell('select', { ...selection, changed: Object.keys(change) });
  if (!document.documentElement.dataset.page) return; // in a notebook the link is not ours
  const link = new URLSearchParams(location.search);
  link.set('block', selection.block);
  link.set('head', selection.head);
  if (selection.step) link.set('at', selection.step);
  else link.delete('at');
  const put = (name, value) => (value ? link.set(name, value) : link.delete(name));
  put('mean', selection.mean ? '1' : '');
  put('view', selection.view === 'softmax' ? '' : selection.view);
  put('cell', selection.view === 'softmax' ? '' : selection.cell);
  if (selection.patch) link.set('patch', selection.patch.join('.'));
  history.replaceState(null, '', `?${link}${location.hash}`);
};
export const onSelect = act => on('select', act);
