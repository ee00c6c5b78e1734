/* All jobs of the workspace, and the chosen one in full: progress, live loss, log, exact command, cancel. */
import { asker, on, say } from './bus.js';
import { duration, empty, icon, isLive, segmented, onSegment, state, text } from './draw.js';
import { lossChart } from './loss.js';

const KINDS = ['capture', 'measure', 'surgery', 'generate', 'compare', 'study'];
const progress = job => {
  const words = job.state === 'done' ? job.result : job.message && !isLive(job.state) ? job.message : job.stage ? `${job.stage}${job.steps > 1 ? `, ${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : ''}` : '';
  return `<span class="muted clipped">${text(words)}</span>${isLive(job.state) && job.state !== 'queued' ? `<div class="progress" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${Math.round(job.done * 100)}" style="--done:${(job.done * 100).toFixed(1)}%"><i></i></div>` : ''}`;
};
const row = (job, chosen) => `<tr data-job="${text(job.id)}" aria-selected="${job.id === chosen}" tabindex="0">
  <td><span class="line-of">${state(job.state)}${text(job.state)}</span></td><td class="what"><b>${text(job.kind)}</b> <span>${text(job.title)}</span></td><td class="job-progress">${progress(job)}</td>
  <td class="number" data-label="time">${duration(job.seconds)}</td><td class="number" data-label="left">${isLive(job.state) ? duration(job.left) : ''}</td><td class="muted" data-label="made">${text(job.made)}</td>
  <td class="verbs">${isLive(job.state) ? '<button type="button" class="button small quiet danger" data-verb="cancel">Cancel</button>' : ''}</td></tr>`;

export const mount = (element, host) => {
  const ask = asker(host.call);
  let jobs = null;
  let kind = 'all';
  let chosen = new URLSearchParams(location.search).get('job');
  let next = 0;
  let logAt = 0;
  element.innerHTML = `<div class="rack"><section class="panel"><header class="panel-head"><h2>Jobs</h2><span class="hint counts"></span><div class="end">${segmented('Kind', ['all', ...KINDS].map(k => [k, k]), 'all')}</div></header>
      <div class="jobs-slot"></div></section></div>
    <div class="rack job-rack" hidden><section class="panel"><header class="panel-head"><h2 class="job-title"></h2><span class="hint mono job-id"></span><div class="end"><button type="button" class="button danger small" data-verb="cancel-chosen" hidden>Cancel</button></div></header>
      <div class="panel-body"><dl class="facts job-facts"></dl><div class="job-loss"></div><div class="command"><span class="command-text"></span><button type="button" class="button small icon-only" data-verb="copy" aria-label="Copy the command">${icon('copy')}</button></div></div></section>
      <section class="panel"><header class="panel-head"><h2>Log</h2><span class="hint">last 40 lines</span></header><div class="panel-body"><pre class="log" tabindex="0"></pre></div></section></div>`;
  const find = selector => element.querySelector(selector);
  const loss = lossChart(find('.job-loss'));
  find('.job-loss').hidden = true;

  const drawTable = () => {
    const shown = (jobs ?? []).filter(job => kind === 'all' || job.kind === kind);
    const live = (jobs ?? []).filter(job => isLive(job.state) && job.state !== 'queued').length;
    const queued = (jobs ?? []).filter(job => job.state === 'queued').length;
    find('.counts').textContent = jobs?.length ? `${live} running, ${queued} queued, one at a time on this device` : '';
    const focus = document.activeElement?.closest?.('[data-job]')?.dataset.job;
    const html = !jobs ? '<p class="pad muted">Reading the jobs…</p>'
      : !shown.length ? `<div class="pad">${empty(jobs.length ? `No ${kind} job yet` : 'No job yet', 'A job is anything that takes longer than a moment: capturing, measuring, comparing. Start one on Attention; it goes on when this page is closed.', '<a class="button" href="#attention">Go to Attention</a>')}</div>`
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
    find('[data-verb=cancel-chosen]').hidden = !isLive(job.state);
    const facts = [['state', job.state], ['stage', job.stage || '–'], ['step', job.steps > 1 ? `${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : '–'], ['time', duration(job.seconds) || '–'], ['left', (isLive(job.state) && duration(job.left)) || '–']];
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
      const query = new URLSearchParams(location.search);
      query.set('job', id);
      history.replaceState(null, '', `?${query}${location.hash}`);
    }
    drawTable();
    drawChosen();
    follow(true).catch(() => {});
  };
  const cancel = async id => {
    await ask('cancel', { id });
    say('Cancelling; what was saved is kept.');
  };
  element.addEventListener('click', event => {
    const verb = event.target.closest('[data-verb]')?.dataset.verb;
    const id = event.target.closest('[data-job]')?.dataset.job;
    if (verb === 'cancel') cancel(id).catch(() => {});
    else if (verb === 'cancel-chosen') cancel(chosen).catch(() => {});
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
  onSegment(find('[data-choice=Kind]'), value => {
    kind = value;
    drawTable();
  });
  on('jobs', answer => {
    const before = jobs?.find(j => j.id === chosen)?.state;
    jobs = answer.jobs;
    if (!jobs.some(j => j.id === chosen)) chosen = null;
    if (!chosen && jobs.length) choose((jobs.find(j => isLive(j.state)) ?? jobs[0]).id);
    drawTable();
    drawChosen();
    const now = jobs.find(j => j.id === chosen)?.state;
    if (now && (isLive(now) || now !== before)) follow().catch(() => {});
  });
  drawTable();
};
