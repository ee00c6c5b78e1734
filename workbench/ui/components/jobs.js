/* All jobs of the workspace with their verbs, the chosen one in full, and everything the workspace holds. */
import { asker, on, say, tell } from './bus.js';
import { duration, empty, icon, isLive, state, text } from './draw.js';
import { lossChart } from './loss.js';
import { armed, bytesText, mount as mountStock } from './stock.js';

const KINDS = ['capture', 'measure', 'surgery', 'finetune', 'generate', 'compare', 'render', 'sensitivity', 'evaluate', 'study'];
const progress = job => {
  const words = job.state === 'done' ? job.result : job.message && !isLive(job.state) ? job.message : job.stage ? `${job.stage}${job.steps > 1 ? `, ${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : ''}` : '';
  return `<span class="muted clipped">${text(words)}</span>${isLive(job.state) && job.state !== 'queued' ? `<div class="progress" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${Math.round(job.done * 100)}" style="--done:${(job.done * 100).toFixed(1)}%"><i></i></div>` : ''}`;
};
const row = (job, chosen) => `<tr data-job="${text(job.id)}" aria-selected="${job.id === chosen}" tabindex="0">
  <td><span class="line-of">${state(job.state)}${text(job.state)}</span></td><td class="what"><b>${text(job.kind)}</b> <span>${text(job.title)}</span></td><td class="job-progress">${progress(job)}</td>
  <td class="number" data-label="time">${duration(job.seconds)}</td><td class="number" data-label="left">${isLive(job.state) ? duration(job.left) : ''}</td><td class="muted" data-label="made">${text(job.made)}</td>
  <td class="verbs">${ROW_VERBS(job.state).map(verbButton).join('')}</td></tr>`;

/* Which verbs a state has; the first ones stand in the row, all of them with the chosen job. */
const VERBS = { pause: 'Pause', resume: 'Resume', save_now: 'Save now', sample_now: 'Sample now', clone: 'Clone', cancel: 'Cancel', mark_stopped: 'Mark stopped', delete: 'Delete' };
const TIPS = { mark_stopped: 'For a job that does not answer: kill its worker and mark it', clone: 'Queue once more with the same settings', save_now: 'A checkpoint at the next step', sample_now: 'A sample at the next step', delete: 'With its log and checkpoints; what it made stays' };
const verbsOf = state =>
  state === 'queued' ? ['pause', 'cancel']
    : state === 'starting' || state === 'running' || state === 'saving' ? ['pause', 'save_now', 'sample_now', 'cancel', 'mark_stopped']
      : state === 'pausing' || state === 'cancelling' ? ['mark_stopped']
        : state === 'done' ? ['clone', 'delete'] : ['resume', 'clone', 'delete'];
const ROW_VERBS = state => verbsOf(state).filter(verb => ['pause', 'resume', 'cancel'].includes(verb) || (state === 'done' && verb === 'clone'));
const verbButton = verb => `<button type="button" class="button small ${['cancel', 'delete', 'mark_stopped'].includes(verb) ? 'quiet danger' : ''}" data-act="${verb}"${TIPS[verb] ? ` data-tip="${TIPS[verb]}"` : ''}>${VERBS[verb]}</button>`;

export const mount = (element, host) => {
  const ask = asker(host.call);
  let jobs = null;
  let kind = 'all';
  let chosen = new URLSearchParams(location.search).get('job');
  let next = 0;
  let more = {};
  let words = '';
  element.innerHTML = `<div class="rack"><section class="panel"><header class="panel-head"><h2>Jobs</h2><span class="hint counts"></span><div class="end"><input class="input search" type="search" aria-label="Search jobs and things" placeholder="search"><select class="input kind-choice" aria-label="Kind">${['all', ...KINDS].map(k => `<option value="${k}">${k === 'all' ? 'all kinds' : k}</option>`).join('')}</select></div></header>
      <div class="jobs-slot"></div></section></div>
    <div class="rack job-rack" hidden><section class="panel"><header class="panel-head"><h2 class="job-title"></h2><span class="hint mono job-id"></span><div class="end job-verbs"></div></header>
      <div class="panel-body"><dl class="facts job-facts"></dl><p class="job-message muted" hidden></p><div class="job-loss"></div><div class="job-samples" hidden></div><div class="command"><span class="command-text"></span><button type="button" class="button small icon-only" data-verb="copy" aria-label="Copy the command">${icon('copy')}</button></div></div></section>
      <section class="panel"><header class="panel-head"><h2>Log</h2><span class="hint">last 40 lines</span></header><div class="panel-body"><pre class="log" tabindex="0"></pre></div></section></div>
    <div class="stock-part"></div>`;
  const find = selector => element.querySelector(selector);
  const loss = lossChart(find('.job-loss'));
  find('.job-loss').hidden = true;

  const drawTable = () => {
    const shown = (jobs ?? []).filter(job => (kind === 'all' || job.kind === kind) && `${job.id} ${job.kind} ${job.title} ${job.state}`.toLowerCase().includes(words));
    const live = (jobs ?? []).filter(job => isLive(job.state) && job.state !== 'queued').length;
    const queued = (jobs ?? []).filter(job => job.state === 'queued').length;
    find('.counts').textContent = jobs?.length ? `${live} running, ${queued} queued, one at a time on this device` : '';
    const focus = document.activeElement?.closest?.('[data-job]')?.dataset.job;
    const html = !jobs ? '<p class="pad muted">Reading the jobs…</p>'
      : !shown.length ? `<div class="pad">${empty(words ? 'No job has these words' : jobs.length ? `No ${kind} job yet` : 'No job yet', 'A job is anything that takes longer than a moment: capturing, measuring, comparing. Start one on Attention; it goes on when this page is closed.', '<a class="button" href="#attention">Go to Attention</a>')}</div>`
      : `<table class="table jobs"><thead><tr><th>state</th><th>what</th><th>progress</th><th class="number">time</th><th class="number">left</th><th>made</th><th><span class="visually-hidden">verbs</span></th></tr></thead><tbody>${shown.map(job => row(job, chosen)).join('')}</tbody></table>`;
    if (drawTable.last === html) return;
    drawTable.last = html;
    find('.jobs-slot').innerHTML = html;
    if (focus) element.querySelector(`[data-job="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  };
  const drawChosen = () => {
    const job = jobs?.find(j => j.id === chosen);
    find('.job-rack').hidden = !job;
    if (!job) return;
    find('.job-title').textContent = job.title;
    find('.job-id').textContent = job.id;
    const verbs = verbsOf(job.state).map(verbButton).join('') + '<button type="button" class="button small" data-form="" data-tip="Fill the form that made it">Restore form</button>';
    if (drawChosen.verbs !== `${job.id} ${verbs}`) find('.job-verbs').innerHTML = verbs;
    drawChosen.verbs = `${job.id} ${verbs}`;
    find('.job-message').hidden = !job.message;
    find('.job-message').textContent = job.message;
    const facts = [['state', job.state], ['stage', job.stage || '–'], ['step', job.steps > 1 ? `${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : '–'], ['time', duration(job.seconds) || '–'], ['left', (isLive(job.state) && duration(job.left)) || '–'], ['peak memory', more.memory ? bytesText(more.memory) : '–'], ['last checkpoint', more.saved ? `step ${more.saved.toLocaleString('en')}` : '–']];
    find('.job-facts').innerHTML = facts.map(([name, value]) => `<div><dt>${name}</dt><dd class="clipped">${text(value)}</dd></div>`).join('');
  };
  const follow = async (force = false) => {
    if (!chosen) return;
    const id = chosen;
    const answer = await ask('job', { id, after: next, log: force || document.documentElement.dataset.page === 'runs' });
    if (id !== chosen) return;
    next = answer.next;
    loss.feed(answer.rows);
    find('.job-loss').hidden = !loss.count();
    find('.command-text').textContent = answer.command;
    more = { memory: answer.memory, saved: answer.saved };
    drawChosen();
    const samples = find('.job-samples');
    answer.samples.forEach(sample => samples.insertAdjacentHTML('beforeend', `<figure><video src="${text(sample.url)}" muted loop playsinline controls preload="metadata"></video><figcaption class="muted">step ${text(sample.step)}</figcaption></figure>`));
    samples.hidden = !samples.children.length;
    const log = find('.log');
    if (answer.log !== log.textContent) {
      const stick = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      log.textContent = answer.log;
      if (stick) log.scrollTop = log.scrollHeight;
    }
  };
  const choose = id => {
    if (chosen !== id) {
      chosen = id;
      next = 0;
      loss.clear();
      find('.log').textContent = '';
      find('.job-samples').replaceChildren();
      more = {};
      const query = new URLSearchParams(location.search);
      query.set('job', id);
      history.replaceState(null, '', `?${query}${location.hash}`);
    }
    drawTable();
    drawChosen();
    follow(true).catch(() => {});
  };
  const act = async (id, verb, button) => {
    if ((verb === 'delete' || verb === 'mark_stopped') && !armed(button)) return;
    const answer = await ask('act', { id, verb });
    say(answer.say);
    if (verb === 'delete') stock.load();
  };
  const restore = async question => {
    const { kind: made, settings } = await ask('form', question);
    const page = { capture: 'attention', measure: 'plan', surgery: 'plan', render: 'plan', finetune: 'train', compare: 'compare' }[made];
    if (!page) return say(`A ${made} job has no form here; its exact command stands with the job.`);
    location.hash = `#${page}`;
    tell(`restore ${made}`, settings);
    say('The form is filled as it was; nothing has been started.');
  };
  element.addEventListener('click', event => {
    const verb = event.target.closest('[data-verb]')?.dataset.verb;
    const id = event.target.closest('[data-job]')?.dataset.job;
    const button = event.target.closest('[data-act]');
    if (button) act(id ?? chosen, button.dataset.act, button).catch(() => {});
    else if (event.target.closest('[data-form=""]')) restore({ job: chosen }).catch(() => {});
    else if (verb === 'copy') navigator.clipboard?.writeText(find('.command-text').textContent).then(() => say('Copied.'));
    else if (id) choose(id);
  });
  element.addEventListener('keydown', event => {
    const line = event.target.closest('tr[data-job]');
    if (!line || event.target !== line) return;
    if (event.key === 'Enter') choose(line.dataset.job);
    const beside = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling }[event.key];
    if (beside) {
      event.preventDefault();
      beside.focus();
    }
  });
  find('.kind-choice').addEventListener('change', event => {
    kind = event.target.value;
    drawTable();
  });
  find('.search').addEventListener('input', event => {
    words = event.target.value.trim().toLowerCase();
    drawTable();
    stock.search(words);
  });
  const stock = mountStock(find('.stock-part'), { ask, restore });
  on('jobs', answer => {
    const before = jobs?.find(j => j.id === chosen)?.state;
    const ended = jobs && answer.jobs.some(job => !isLive(job.state) && jobs.some(old => old.id === job.id && isLive(old.state)));
    jobs = answer.jobs;
    if (ended) stock.load();
    if (!jobs.some(j => j.id === chosen)) chosen = null;
    if (!chosen && jobs.length) choose((jobs.find(j => isLive(j.state)) ?? jobs[0]).id);
    drawTable();
    drawChosen();
    const now = jobs.find(j => j.id === chosen)?.state;
    if (now && (isLive(now) || now !== before)) follow().catch(() => {});
  });
  drawTable();
};
