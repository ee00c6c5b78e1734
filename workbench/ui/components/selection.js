/* The one selection of the Attention page: block, head, query patch, sampling step. Kept in the link. */
import { on, tell } from './bus.js';

const query = new URLSearchParams(location.search);
const whole = (name, fallback) => (/^\d{1,6}$/.test(query.get(name) ?? '') ? +query.get(name) : fallback);
const patch = (query.get('patch') ?? '').match(/^(\d+)\.(\d+)\.(\d+)$/);

export const selection = {
  block: whole('block', 0), head: whole('head', 0), step: whole('at', 0), mean: false,
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
  if (selection.patch) link.set('patch', selection.patch.join('.'));
  history.replaceState(null, '', `?${link}${location.hash}`);
};
export const onSelect = act => on('select', act);
