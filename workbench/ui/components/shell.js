/* The frame of the app: pages by hash, the study bar, light and dark, tooltips, and the one pulse that watches the jobs.
   value: {steps: [{name, state, text, page}], next: {sentence, verb, page}, ids: {model, capture, bank, ...}, device, refused} */
import { asker, on, say, tell } from './bus.js';
import { duration, icon, isLive, state, text } from './draw.js';

const PAGES = [['home', 'Home'], ['attention', 'Attention'], ['plan', 'Plan'], ['train', 'Train'], ['compare', 'Compare'], ['runs', 'Runs']];
const PARTS = { capture: 'capture', measure: 'bank', surgery: 'plan', finetune: 'tune', compare: 'comparison' }; // which part a kind of job makes
const MARK = '<svg width="18" height="14" viewBox="0 0 18 14" aria-hidden="true"><rect width="17" height="4" rx="1" fill="var(--op-softmax)"/><rect y="5" width="13" height="4" rx="1" fill="var(--op-r4)"/><rect y="10" width="8" height="4" rx="1" fill="var(--op-linear)"/></svg>';
const PULSE = 1000;
const TICK = 50;
const ANSWER = 5000; // an event can get lost behind one still under way: it is sent again

export const mount = (element, host) => {
  const ask = asker(host.call);
  const root = document.documentElement;
  element.innerHTML = `<header class="top-bar"><a class="wordmark" href="#home">${MARK}Workbench</a>
      <nav class="page-links" aria-label="Pages">${PAGES.map(([id, name]) => `<a href="#${id}" data-page="${id}">${name}</a>`).join('')}</nav>
      <div class="end"><a class="model-link" href="#home" data-tip="Choose another model on Home"></a><span class="muted device optional"></span><button type="button" class="button quiet icon-only theme-button" aria-label="Light or dark">${icon('theme')}</button></div></header>
    <nav class="study-bar" aria-label="Study"><ol class="study-steps"></ol><div class="study-next"></div></nav>
    <p class="server-lost" role="alert" hidden></p><section class="job-bar" aria-label="Running job" hidden><div class="progress" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100"><i></i></div>
      <div class="job-line"><span class="line-of job-state"></span><span class="job-words clipped"></span><span class="muted job-left"></span><a class="button quiet small" href="#runs">Open in Runs</a><button type="button" class="button small quiet danger" data-verb="cancel">Cancel</button></div></section><div class="toasts" aria-live="polite"></div><div class="tip" role="tooltip" hidden></div>`;
  const find = selector => element.querySelector(selector);

  const route = () => {
    const wanted = location.hash.slice(1);
    const page = PAGES.some(([id]) => id === wanted) ? wanted : 'home';
    if (root.dataset.page !== page) scrollTo(0, 0);
    root.dataset.page = page;
    document.title = `${PAGES.find(([id]) => id === page)[1]} · Workbench`;
    element.querySelectorAll('[data-page]').forEach(link => (link.dataset.page === page ? link.setAttribute('aria-current', 'page') : link.removeAttribute('aria-current')));
    element.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    tell('page', page);
  };
  addEventListener('hashchange', route);
  /* Gradio sets a base address, against which "#plan" would leave the query and load the whole page anew. */
  document.addEventListener('click', event => {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    location.hash = link.getAttribute('href');
  });
  route();

  const dark = on => {
    document.body.classList.toggle('dark', on);
    root.dataset.theme = on ? 'dark' : 'light';
  };
  const kept = localStorage.getItem('workbench-theme');
  const asked = new URLSearchParams(location.search).get('__theme');
  dark(asked ? asked === 'dark' : kept ? kept === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches);
  find('.theme-button').addEventListener('click', () => {
    const on = !document.body.classList.contains('dark');
    localStorage.setItem('workbench-theme', on ? 'dark' : 'light');
    dark(on);
  });

  /* What the server knows of the study, and over it what this page knows: the painted plan, the running job. */
  let refused = '';
  let painted = null;
  let wanted = null;
  let making = {};
  let drawn = '';
  const drawSteps = () => {
    const value = host.get();
    if (!value?.steps) return;
    const steps = value.steps.map(step => {
      if (making[step.name]) return { ...step, state: 'running', text: making[step.name] };
      if (step.name === 'plan' && painted && step.state === 'done' && painted.plan.some(op => op !== 'softmax') && painted.short !== value.plan) return { ...step, state: 'stale', text: `painted: ${painted.short}` };
      return step;
    });
    const next = wanted ?? value.next;
    const html = steps.map(step =>
      `<li><a class="study-step" href="#${text(step.page)}" data-state="${text(step.state)}" data-part="${text(step.name)}">${state(step.state)}<b>${text(step.name)}${step.state === 'done' ? '' : ` · ${text(step.state)}`}</b><span>${text(step.text)}</span></a></li>`).join('');
    const told = next ? `<p>${text(next.sentence)}</p><a class="button" href="#${text(next.page)}">${text(next.verb)}</a>` : '';
    if (html + told === drawn) return;
    drawn = html + told;
    find('.study-steps').innerHTML = html;
    find('.study-next').innerHTML = told;
  };
  on('painted', plan => {
    painted = plan;
    drawSteps();
  });
  on('next', next => {
    wanted = next;
    drawSteps();
  });
  on('jobs', answer => {
    making = {};
    for (const job of answer.jobs) if (isLive(job.state) && PARTS[job.kind]) making[PARTS[job.kind]] = job.state === 'queued' ? 'waits for its turn' : job.steps > 1 ? `${job.stage}, ${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : job.stage || 'starting';
    drawSteps();
  });
  /* The value travels with the event only once gradio has taken it. */
  const request = change => {
    host.set({ ...(host.get() ?? {}), ...change });
    setTimeout(() => host.emit('settled'), TICK);
  };
  on('chosen', chosen => request({ settled: [...unanswered], chosen }));
  /* The first event can get lost too: what the page should show is asked for until it is there. */
  const awake = () => {
    if (host.get()?.steps || !element.isConnected) return;
    request({ ids: Object.fromEntries(new URLSearchParams(location.search)), settled: [] });
    setTimeout(awake, 2 * ANSWER);
  };
  setTimeout(awake, ANSWER);
  const about = (tries = 5) => ask('about', {}, { quiet: true }).then(answer => (find('.device').textContent = answer.device), () => tries && setTimeout(about, 3000, tries - 1));
  about();

  const unanswered = new Set(); // ended jobs whose results the server has not shown yet
  const show = () => {
    const value = host.get();
    if (!value?.steps) return;
    find('.model-link').textContent = value.device ?? '';
    if (value.refused && value.refused !== refused) say((refused = value.refused), 'error');
    drawSteps();
    const query = new URLSearchParams(location.search);
    for (const [name, id] of Object.entries(value.ids ?? {})) id ? query.set(name, id) : query.delete(name);
    const next = `${location.pathname}${[...query].length ? `?${query}` : ''}${location.hash}`;
    history.replaceState(null, '', next);
    (value.handled ?? []).forEach(id => unanswered.delete(id));
  };
  host.watch(show);
  show();

  /* The running job, on every page, where it moves nothing. */
  let barred = null;
  const jobBar = jobs => {
    const live = jobs.filter(job => isLive(job.state));
    const job = live.find(j => j.state !== 'queued') ?? live.at(-1);
    const bar = find('.job-bar');
    barred = job?.id ?? null;
    bar.hidden = !job;
    root.style.setProperty('--job-bar', job ? `${bar.offsetHeight}px` : '0px');
    if (!job) return;
    const glyph = `${state(job.state)}<b>${text(job.state)}</b>`;
    if (bar.dataset.state !== job.state) find('.job-state').innerHTML = glyph;
    bar.dataset.state = job.state;
    const at = job.steps > 1 ? `, ${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : '';
    const more = live.length > 1 ? ` · ${live.length - 1} more waiting` : '';
    find('.job-words').textContent = `${job.kind} · ${job.title} · ${job.state === 'queued' ? 'waits for its turn' : `${job.stage}${at}`}${more}`;
    find('.job-left').textContent = job.left ? `about ${duration(job.left)} left` : duration(job.seconds);
    find('.job-bar .progress').style.setProperty('--done', `${(job.done * 100).toFixed(1)}%`);
    find('.job-bar .progress').setAttribute('aria-valuenow', Math.round(job.done * 100));
  };
  find('[data-verb=cancel]').addEventListener('click', () => barred && ask('cancel', { id: barred }).then(() => say('Cancelling; what was saved is kept.'), () => {}));

  /* One question a second: the jobs, and of the watched one only what is new. */
  const seen = new Map();
  let watched = null;
  let after = 0;
  let first = true;
  let lost = false;
  let told = 0;
  let jobs = [];
  let version = '';
  const pulse = async () => {
    if (!element.isConnected) return;
    try {
      const answer = await ask('pulse', { job: watched, after, version }, { quiet: true });
      answer.jobs ??= jobs;
      ({ jobs, version } = answer);
      const back = lost;
      lost = false;
      find('.server-lost').hidden = true;
      const settled = answer.jobs.filter(job => !isLive(job.state) && (seen.has(job.id) ? isLive(seen.get(job.id)) : !first));
      first = false;
      answer.jobs.forEach(job => seen.set(job.id, job.state));
      const live = answer.jobs.find(job => job.state !== 'queued' && isLive(job.state)) ?? answer.jobs.find(job => isLive(job.state));
      tell('jobs', answer);
      jobBar(answer.jobs);
      if (answer.job) after = answer.next;
      const wanted = live?.id ?? watched ?? null;
      if (wanted !== watched) {
        watched = wanted;
        after = 0;
      }
      settled.filter(job => job.kind !== 'render').forEach(job => unanswered.add(job.id));
      if (back || settled.some(job => unanswered.has(job.id)) || (unanswered.size && Date.now() - told > ANSWER)) {
        told = Date.now();
        request({ settled: [...unanswered] });
        settled.filter(job => job.kind !== 'render').forEach(job => say(job.state === 'done' ? `Done: ${job.kind}, ${job.title}.` : `${job.kind}, ${job.title}: ${job.message || job.state}`, job.state === 'done' || job.state === 'cancelled' ? 'info' : 'error'));
      }
    } catch (error) {
      lost = true;
      find('.server-lost').hidden = false;
      find('.server-lost').textContent = error.refusal ?? 'The server does not answer; a running job goes on, and this page follows it again when the server is back.';
    }
    setTimeout(pulse, document.hidden ? 4 * PULSE : PULSE);
  };
  pulse();

  const tip = find('.tip');
  document.addEventListener('pointerover', event => {
    const node = event.target.closest?.('[data-tip]');
    tip.hidden = !node?.dataset.tip;
    if (tip.hidden) return;
    tip.textContent = node.dataset.tip;
    const box = node.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - 290))}px`;
    tip.style.top = `${box.bottom + 6}px`;
  });
};
