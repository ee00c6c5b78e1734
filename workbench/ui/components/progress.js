/* The running job of this page's kinds: state, progress, time left, live loss, cancel. Nothing when none runs.
   value: {kinds: [..], loss: boolean} */
import { asker, on } from './bus.js';
import { duration, isLive, state, text } from './draw.js';
import { lossChart } from './loss.js';

export const mount = (element, host) => {
  const ask = asker(host.call);
  let shown = null;
  let loss = null;
  const frame = job => {
    element.innerHTML = `<div class="rack"><section class="panel progress-panel"><div class="job-line"><span class="line-of job-state"></span><span class="job-words clipped"></span><span class="muted job-left"></span>
        <a class="button quiet small" href="#runs">Open in Runs</a><button type="button" class="button small quiet danger" data-verb="cancel">Cancel</button></div>
      <div class="progress" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100"><i></i></div>${host.get()?.loss ? '<div class="panel-body live-loss"></div>' : ''}</section></div>`;
    const box = element.querySelector('.live-loss');
    loss = box ? lossChart(box) : null;
    if (box) box.hidden = true;
    element.querySelector('[data-verb=cancel]').addEventListener('click', () => ask('cancel', { id: job.id }).catch(() => {}));
  };
  on('jobs', answer => {
    const kinds = host.get()?.kinds ?? [];
    const live = answer.jobs.filter(job => kinds.includes(job.kind) && isLive(job.state));
    const job = live.find(j => j.state !== 'queued') ?? live[0];
    if (!job) {
      if (shown) element.innerHTML = '';
      shown = null;
      return;
    }
    if (shown !== job.id) {
      shown = job.id;
      frame(job);
    }
    element.querySelector('.job-state').innerHTML = `${state(job.state)}<b>${text(job.state)}</b>`;
    const at = job.steps > 1 ? `, ${job.step.toLocaleString('en')} of ${job.steps.toLocaleString('en')}` : '';
    element.querySelector('.job-words').textContent = job.state === 'queued' ? `${job.title}: waits for the running job` : `${job.title} · ${job.stage}${at}`;
    element.querySelector('.job-left').textContent = job.left ? `${duration(job.left)} left` : duration(job.seconds);
    const bar = element.querySelector('.progress');
    bar.style.setProperty('--done', `${(job.done * 100).toFixed(1)}%`);
    bar.setAttribute('aria-valuenow', Math.round(job.done * 100));
    if (loss && answer.job === job.id) {
      loss.feed(answer.rows);
      element.querySelector('.live-loss').hidden = !loss.count();
    }
  });
};
