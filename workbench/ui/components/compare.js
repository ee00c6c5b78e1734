/* The Compare page: prompts and columns on top, then clips in sync or the scores of all students.
   value: {ids, model, columns: [{key, name, kind, plan}], student, prompt, vocabulary, steps, shown, listed: [{id, prompt, rows, columns, made}]} */
import { mount as mountBuilder } from './builder.js';
import { asker, on, say, tell } from './bus.js';
import { text } from './draw.js';
import { mount as mountLive } from './live.js';
import { mount as mountPlayer } from './player.js';
import { mount as mountScores } from './scores.js';
import { mount as mountTools } from './tools.js';

const MAX_PROMPTS = 16;
const WAIT = 300;
const FORM = 'workbench-compare';
const TABS = [['clips', 'Clips'], ['scores', 'Scores']];

export const mount = (element, host) => {
  const call = asker(host.call);
  const data = () => host.get() ?? {};
  const ask = (name, question, options) => call(name, { ids: data().ids ?? {}, ...question }, options);
  element.innerHTML = `<div class="page-line"><h1>Compare</h1><div class="end tools-slot"></div></div>
    <form class="compose" aria-label="Generate"><div class="prompts"></div><div class="builder-slot"></div>
      <div class="compose-line"><div class="chips columns" role="group" aria-label="Beside the teacher"></div>
        <div class="end"><label class="toggle" data-tip="Sample every column again with its linear branch off: what does the branch do?"><input type="checkbox" class="branch-off">branch off too</label><label class="field">seed<input class="input seed" type="number" min="0" step="1" value="7"></label><label class="field">steps<input class="input steps" type="number" min="1" max="1000" step="1"></label><button type="submit" class="button primary" id="compare-button">Generate</button></div></div></form>
    <div class="live-slot" hidden></div>
    <div class="tabs" role="tablist" aria-label="Compare">${TABS.map(([id, name]) => `<button type="button" role="tab" data-tab="${id}" aria-selected="false" id="tab-${id}" aria-controls="panel-${id}">${name}</button>`).join('')}</div>
    <div class="tab-page" id="panel-clips" role="tabpanel" aria-labelledby="tab-clips"><div class="rack"><div class="part player-part"></div></div></div>
    <div class="tab-page" id="panel-scores" role="tabpanel" aria-labelledby="tab-scores" hidden><div class="scores-part"></div></div>`;
  const find = selector => element.querySelector(selector);
  const state = { prompts: [''], columns: null, active: 0 };
  let builder = null;
  let vocabulary;
  let shown = {};
  let pinned = ''; // a comparison opened by hand stays until a newer one is made
  const watchers = [];

  /* The form. */
  const keep = () => sessionStorage.setItem(FORM, JSON.stringify({ model: data().model, prompts: state.prompts, columns: state.columns, seed: find('.seed').value, steps: find('.steps').value, branch: find('.branch-off').checked }));
  const drawPrompts = () => {
    find('.prompts').innerHTML = state.prompts.map((prompt, at) => `<div class="prompt-line"><input class="input" aria-label="prompt${at ? ` ${at + 1}` : ''}" data-prompt="${at}" value="${text(prompt)}" placeholder="what the clip shows" autocomplete="off" maxlength="2000">
      ${at ? `<button type="button" class="button quiet icon-only" data-drop="${at}" aria-label="Drop prompt ${at + 1}">×</button>` : ''}${at === state.prompts.length - 1 && at + 1 < MAX_PROMPTS ? '<button type="button" class="button quiet" data-verb="more" data-tip="One more row of clips, same seed">Add a prompt</button>' : ''}</div>`).join('') + '<p class="prompt-fault muted" role="status"></p>';
  };
  const drawColumns = () => {
    const options = data().columns ?? [];
    state.columns = (state.columns ?? []).filter(key => options.some(one => one.key === key));
    find('.columns').innerHTML = '<span class="chip static" aria-pressed="true"><i class="swatch" data-op="softmax"></i>teacher</span>' + (options.length ? options.map(one =>
      `<button type="button" class="chip" data-column="${text(one.key)}" aria-pressed="${state.columns.includes(one.key)}" data-tip="${text(`${one.kind}, ${one.plan}`)}"><span class="mono clipped">${text(one.name)}</span>${options.some(other => other !== one && other.name === one.name) ? `<span class="muted">${text(one.kind)}</span>` : ''}</button>`).join('') : '<span class="muted">no student and no saved plan yet</span>');
  };
  const question = () => ({ prompts: state.prompts, columns: state.columns ?? [], branch_off: find('.branch-off').checked, seed: find('.seed').value === '' ? null : +find('.seed').value, steps: find('.steps').value === '' ? null : +find('.steps').value });
  let timer = 0;
  const price = () => {
    clearTimeout(timer);
    keep();
    const count = state.prompts.filter(one => one.trim()).length * (1 + (state.columns ?? []).length * (find('.branch-off').checked ? 2 : 1));
    const label = seconds => (find('#compare-button').textContent = `Generate${count > 1 ? ` ${count} clips` : ''}${seconds == null ? '' : seconds < 90 ? `, about ${Math.max(1, Math.round(seconds))} s` : `, about ${Math.round(seconds / 60)} min`}`);
    if (price.count !== count) label(null);
    price.count = count;
    timer = setTimeout(() => ask('price', question(), { quiet: true }).then(answer => label(answer.seconds), () => {}), WAIT);
  };
  element.addEventListener('input', event => {
    if (event.target.dataset?.prompt == null) return;
    state.active = +event.target.dataset.prompt;
    state.prompts[state.active] = event.target.value;
    builder?.read();
  });
  element.addEventListener('focusin', event => {
    if (event.target.dataset?.prompt == null || +event.target.dataset.prompt === state.active) return;
    state.active = +event.target.dataset.prompt;
    builder?.read();
  });
  find('.compose').addEventListener('change', price);
  find('.compose').addEventListener('click', event => {
    const key = event.target.closest('[data-column]')?.dataset.column;
    const drop = event.target.closest('[data-drop]')?.dataset.drop;
    if (key) {
      state.columns = state.columns.includes(key) ? state.columns.filter(one => one !== key) : [...state.columns, key];
      drawColumns();
      element.querySelector(`[data-column="${CSS.escape(key)}"]`)?.focus();
    } else if (drop) {
      state.prompts.splice(+drop, 1);
      state.active = 0;
      drawPrompts();
    } else if (event.target.closest('[data-verb=more]')) {
      state.prompts.push(state.prompts.at(-1));
      state.active = state.prompts.length - 1;
      drawPrompts();
      const field = element.querySelector(`[data-prompt="${state.active}"]`);
      field.focus();
      field.select();
    } else return;
    price();
  });
  find('.compose').addEventListener('submit', async event => {
    event.preventDefault();
    const button = find('#compare-button');
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    try {
      const { job } = await ask('compare', question());
      element.dataset.job = job;
      say('Queued; it goes on when this page is closed.');
    } catch { /* said already */ }
    button.removeAttribute('aria-busy');
  });

  /* What is shown. */
  const player = { get: () => shown, watch: act => watchers.push(act) };
  const show = value => {
    shown = value ?? {};
    element.dataset.shown = shown.id ?? '';
    watchers.forEach(act => act());
    tools.draw();
  };
  const open = async id => {
    const answer = await ask('open_comparison', { id });
    pinned = id;
    const link = new URLSearchParams(location.search);
    link.set('comparison', id);
    history.replaceState(null, '', `?${link}${location.hash}`);
    tab('clips');
    show(answer.shown);
    tell('chosen', { comparison: id }); // the study bar follows what is looked at
  };
  const tab = name => {
    element.querySelectorAll('[data-tab]').forEach(button => button.setAttribute('aria-selected', button.dataset.tab === name));
    TABS.forEach(([id]) => (find(`#panel-${id}`).hidden = id !== name));
    const link = new URLSearchParams(location.search);
    if (name === 'clips') link.delete('tab');
    else link.set('tab', name);
    history.replaceState(null, '', `?${link}${location.hash}`);
    if (name === 'scores') scores.load();
  };
  find('.tabs').addEventListener('click', event => event.target.dataset.tab && tab(event.target.dataset.tab));
  find('.tabs').addEventListener('keydown', event => {
    if (!/^Arrow(Left|Right)$/.test(event.key)) return;
    const other = [...element.querySelectorAll('[data-tab]')].find(button => button.getAttribute('aria-selected') === 'false');
    tab(other.dataset.tab);
    other.focus();
  });

  const tools = mountTools(find('.tools-slot'), { shown: () => shown, listed: () => data().listed ?? [], open, refresh: async () => host.set({ ...data(), ...(await ask('listed', {})) }) });
  const scores = mountScores(find('.scores-part'), { ask, open });
  mountLive(find('.live-slot'), { ask });
  mountPlayer(find('.player-part'), player);

  let last = '';
  const build = () => {
    const value = data();
    if (!value.ids) return;
    if (state.columns === null) {
      const kept = JSON.parse(sessionStorage.getItem(FORM) ?? '{}');
      const mine = kept.model === value.model;
      state.prompts = mine && kept.prompts?.length ? kept.prompts : [value.prompt];
      state.columns = mine && kept.columns?.length ? kept.columns : value.student ? [value.student] : [];
      find('.steps').value = (mine && kept.steps) || value.steps;
      if (mine && kept.seed) find('.seed').value = kept.seed;
      find('.branch-off').checked = Boolean(mine && kept.branch);
      drawPrompts();
    } else if (value.student && value.student !== build.student && build.student !== undefined && !state.columns.includes(value.student)) state.columns.push(value.student);
    build.student = value.student;
    if (JSON.stringify(vocabulary) !== JSON.stringify(value.vocabulary)) {
      vocabulary = value.vocabulary;
      find('.builder-slot').innerHTML = '';
      builder = vocabulary ? mountBuilder(find('.builder-slot'), {
        vocabulary, ask,
        prompt: () => state.prompts[state.active] ?? '',
        set: prompt => {
          state.prompts[state.active] = prompt;
          drawPrompts();
          price();
        },
        fault: sentence => (find('.prompt-fault').textContent = sentence),
      }) : null;
    }
    drawColumns();
    price();
    if (value.shown?.id !== last || !pinned) {
      last = value.shown?.id;
      pinned = '';
      if (value.shown?.id && value.shown.id === shown.id) tools.draw();
      else show(value.shown);
    } else tools.draw();
    scores.stale();
  };
  host.watch(build);
  build();
  tab(new URLSearchParams(location.search).get('tab') === 'scores' ? 'scores' : 'clips');
  on('restore compare', settings => {
    state.prompts = [settings.prompt, ...(settings.more_prompts ?? [])];
    if (settings.seed != null) find('.seed').value = settings.seed;
    if (settings.steps != null) find('.steps').value = settings.steps;
    const named = (settings.sides?.length ? settings.sides : [settings]).flatMap(side => [side.model && `student/${side.model.split('/').at(-1)}`, side.plan && `plan/${side.plan.split('/').at(-1)}`]);
    state.columns = (data().columns ?? []).map(one => one.key).filter(key => named.includes(key));
    find('.branch-off').checked = Boolean(settings.sides?.some(side => side.linear_branch === false));
    drawPrompts();
    drawColumns();
    price();
  });
};
