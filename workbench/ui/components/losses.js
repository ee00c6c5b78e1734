/* The loss of the measurement that runs, or of the last one watched by this page; see loss.js for the chart. */
import { on } from './bus.js';
import { empty } from './draw.js';
import { lossChart } from './loss.js';

export const mount = element => {
  let shown = null;
  element.innerHTML = `<section class="panel loss-panel"><div class="panel-body"><div class="loss-live" hidden></div><div class="loss-none">${empty('No loss yet', 'While cells are distilled, the loss of every cell is drawn here.')}</div></div></section>`;
  const live = element.querySelector('.loss-live');
  const chart = lossChart(live);
  on('jobs', answer => {
    const job = answer.jobs.find(j => j.id === answer.job);
    if (!job || !answer.rows.length) return;
    if (shown !== job.id) {
      shown = job.id;
      chart.clear();
    }
    chart.feed(answer.rows);
    live.hidden = !chart.count();
    element.querySelector('.loss-none').hidden = chart.count() > 0;
  });
};
