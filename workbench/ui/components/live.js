/* How a running comparison looks so far: first, middle and last frame of where the present step points. Asks for a
   preview only while somebody looks. mount(element, {ask}) */
import { on, say } from './bus.js';
import { isLive, text } from './draw.js';

const SHARE = 0.2; // of the steps between two previews: each costs a decoding

export const mount = (element, { ask }) => {
  let job = null;
  let asked = '';
  let looking = false;
  element.innerHTML = `<div class="rack"><section class="panel live"><div class="live-body"><div class="live-picture"><img alt="Preview" hidden><span class="muted">the first preview comes after a few steps</span></div>
    <div class="live-words"><b class="live-stage"></b><span class="muted live-step"></span><div class="progress"><i></i></div><div class="line-of"><button type="button" class="button danger small" data-verb="abort">Abort</button><span class="muted">what is finished is kept in the job</span></div></div></div></section></div>`;
  const find = selector => element.querySelector(selector);
  find('[data-verb=abort]').addEventListener('click', () => job && ask('cancel', { id: job.id }).then(() => say('Aborting; the clips so far are not shown.'), () => {}));
  const draw = answer => {
    find('.live-stage').textContent = answer.stage || 'starting';
    find('.live-step').textContent = answer.steps > 1 ? `step ${answer.step} of ${answer.steps}` : '';
    find('.progress').style.setProperty('--done', `${answer.steps ? (100 * answer.step) / answer.steps : 0}%`);
    const image = find('img');
    if (answer.image && image.src !== answer.image) image.src = answer.image;
    image.hidden = !answer.image;
    image.nextElementSibling.hidden = Boolean(answer.image);
  };
  on('jobs', async ({ jobs }) => {
    const now = jobs.find(one => one.kind === 'compare' && isLive(one.state) && one.state !== 'queued');
    if (now?.id !== job?.id) {
      asked = '';
      find('img').hidden = true;
      find('img').nextElementSibling.hidden = false;
    }
    job = now ?? null;
    element.hidden = !job;
    if (!job || looking || document.hidden || document.documentElement.dataset.page !== 'compare') return;
    const key = `${job.stage}.${Math.floor(job.step / Math.max(1, job.steps * SHARE))}`;
    const wanted = /sampling/.test(job.stage) && job.step > 1 && key !== asked;
    if (wanted) asked = key;
    looking = true;
    try {
      draw(await ask('live', { id: job.id, ask: wanted }, { quiet: true }));
    } catch { /* it ended meanwhile */ }
    looking = false;
  });
};
