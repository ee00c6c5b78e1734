/* Paint and see: teacher, painted plan and their difference on one prompt and seed, rendered again as the plan changes.
   A clip is a job, kept by what made it. mount(element, host) with host {data(), plan(), dense(), ask}; returns {refresh()}. */
import { on } from './bus.js';
import { duration, fraction, isLive, state, text } from './draw.js';

const DEBOUNCE = 1200;
const AGAIN = 2500; // an answer can get lost: what is awaited is asked for again
const KEPT = 'workbench-preview';

export const mount = (element, host) => {
  const kept = JSON.parse(localStorage.getItem(KEPT) ?? '{}');
  let model = '';
  let live = false;
  let last = null;
  let fault = '';
  let timer = 0;
  let waiting = 0;
  element.innerHTML = `<section class="panel"><header class="panel-head"><h2>Paint, then see</h2><span class="line-of muted preview-state" role="status"></span><div class="end"><label class="toggle"><input type="checkbox" class="follow">follow the painter</label><button type="button" class="button small render" hidden>Render</button></div></header>
    <div class="panel-body"><div class="preview"><figure class="clip"><div class="screen" data-view="teacher"></div><figcaption>teacher</figcaption></figure><figure class="clip"><div class="screen" data-view="plan"></div><figcaption>this plan</figcaption></figure><figure class="clip"><div class="screen" data-view="difference"></div><figcaption>difference, ×3</figcaption></figure><dl class="facts preview-facts"></dl></div>
      <form class="preview-form"><label class="field grow">prompt<input class="input prompt" autocomplete="off"></label><label class="field">seed<input class="input seed" type="number" min="0" step="1"></label></form></div></section>`;
  const find = selector => element.querySelector(selector);
  const wish = () => ({ plan: host.plan(), dense: host.dense(), prompt: find('.prompt').value, seed: find('.seed').value === '' ? null : +find('.seed').value });
  const same = () => last && JSON.stringify(last.wish) === JSON.stringify(wish());

  const screens = { teacher: [], plan: [], difference: [] };
  const place = (view, urls) => {
    const box = find(`[data-view="${view}"]`);
    const now = JSON.stringify(urls);
    if (box.dataset.urls === now) return;
    box.dataset.urls = now;
    box.replaceChildren(...urls.map(url => {
      const video = Object.assign(document.createElement('video'), { src: url, muted: true, loop: true, playsInline: true, preload: 'auto' });
      video.setAttribute('aria-label', view);
      return video;
    }));
    screens[view] = [...box.children];
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    const all = Object.values(screens).flat();
    all.forEach(video => {
      if (video.readyState) video.currentTime = 0;
      if (!still) video.play().catch(() => {});
    });
  };
  /* One clock: the teacher's. */
  const follow = () => {
    const [leader] = screens.teacher;
    if (leader && !leader.paused && element.offsetParent) {
      Object.values(screens).flat().forEach(video => {
        if (video !== leader && video.readyState > 1 && Math.abs(video.currentTime - leader.currentTime) > 0.06 && !video.seeking) video.currentTime = leader.currentTime;
      });
    }
    setTimeout(follow, 120);
  };
  follow();

  const draw = () => {
    const answer = last?.answer;
    const fresh = same() && answer?.state === 'done';
    const going = answer && (answer.state === 'missing' ? false : isLive(answer.state));
    find('.preview').classList.toggle('behind', !fresh);
    const dense = host.plan().every(op => op === 'softmax');
    const [glyph, word] = dense && !fault ? ['missing', 'paint a block and its clip stands here'] : fault ? ['failed', fault] : fresh ? ['done', 'up to date'] : going ? ['running', answer.state === 'queued' ? 'waits for its turn' : 'rendering'] : answer && same() && ['failed', 'oom', 'diverged'].includes(answer.state) ? ['failed', answer.message || answer.state] : ['stale', 'of another plan'];
    find('.preview-state').innerHTML = `${state(glyph)}<span class="clipped">${text(!answer && !fault && !dense ? 'not rendered yet' : word)}</span>`;
    const button = find('.render');
    button.hidden = live || fresh || going || dense;
    button.textContent = `Render${answer?.price ? `, ${duration(answer.price)}` : ''}`;
    if (!answer) return;
    if (answer.teacher) place('teacher', [answer.teacher]);
    if (answer.clip) {
      place('plan', [answer.clip]);
      place('difference', [answer.teacher, answer.clip]);
    }
    if (answer.state === 'done') {
      const facts = [
        answer.velocity == null ? null : ['velocity error', fraction(answer.velocity)],
        ['PSNR', answer.equal || dense ? 'equal' : answer.psnr == null ? '–' : `${answer.psnr.toFixed(1)} dB`],
        ['rendered', `${duration(answer.seconds)} on ${answer.device}`],
      ].filter(Boolean);
      find('.preview-facts').innerHTML = facts.map(([name, value]) => `<div><dt>${name}</dt><dd>${text(value)}</dd></div>`).join('');
    }
  };
  const look = async start => {
    clearTimeout(waiting);
    const asked = wish();
    if (!host.data().table?.cells?.length || !asked.plan.length) return;
    try {
      const answer = await host.ask('preview', { ...asked, start }, { quiet: true });
      if (JSON.stringify(asked) !== JSON.stringify(wish())) return;
      fault = '';
      last = { wish: asked, answer: answer.state === 'done' ? answer : { ...last?.answer, ...answer, clip: last?.answer?.clip, teacher: answer.teacher || last?.answer?.teacher } };
      if (answer.state !== 'done' && isLive(answer.state)) waiting = setTimeout(() => look(false), AGAIN);
      // another job took its place, or it was lost with the page that asked
      if (answer.state === 'cancelled' && live && !start) waiting = setTimeout(() => look(!host.busy()), AGAIN);
    } catch (error) {
      fault = error.refusal ?? error.message;
      if (!error.refusal) waiting = setTimeout(() => look(start), AGAIN);
    }
    draw();
  };
  const refresh = () => {
    const first = host.data().preview;
    if (!first) return;
    if (model !== host.data().model) {
      model = host.data().model;
      find('.prompt').value = kept[model]?.prompt ?? first.prompt;
      find('.seed').value = kept[model]?.seed ?? first.seed;
      live = kept[model]?.live ?? first.live;
      find('.follow').checked = live;
    }
    clearTimeout(timer);
    if (!same()) draw();
    timer = setTimeout(() => {
      const painted = host.plan().some(op => op !== 'softmax');
      look(live && painted && visible());
    }, DEBOUNCE);
  };
  const visible = () => document.documentElement.dataset.page === 'plan' || !document.documentElement.dataset.page;
  const keep = () => {
    kept[model] = { prompt: find('.prompt').value, seed: find('.seed').value, live };
    localStorage.setItem(KEPT, JSON.stringify(kept));
  };
  find('.follow').addEventListener('change', event => {
    live = event.target.checked;
    keep();
    refresh();
  });
  find('.render').addEventListener('click', () => look(true));
  find('.preview-form').addEventListener('submit', event => event.preventDefault());
  find('.preview-form').addEventListener('change', () => {
    keep();
    refresh();
  });
  on('restore render', made => {
    find('.prompt').value = made.prompt;
    if (made.seed != null) find('.seed').value = made.seed;
    keep();
    refresh();
  });
  on('page', page => page === 'plan' && refresh());
  draw();
  return { refresh };
};
