/* The Attention page: a capture in three zooms, where a patch looks, numbers of every head, the one-head playground.
   value: {ids, model, vocabulary, prompt, steps, price, sprite, overlay, heads, playground}; one selection drives all of it. */
import { mount as mountBuilder } from './builder.js';
import { asker, on, say } from './bus.js';
import { isLive } from './draw.js';
import { mount as mountHeads } from './heads.js';
import { mount as mountOverlay } from './overlay.js';
import { mount as mountPlayground } from './playground.js';
import { mount as mountSprite } from './sprite.js';

const PARTS = [['sprite', mountSprite], ['overlay', mountOverlay], ['heads', mountHeads], ['playground', mountPlayground]];
const WAIT = 300;

export const mount = (element, host) => {
  const data = () => host.get() ?? {};
  const call = (name, question) => host.call(name, { ids: data().ids ?? {}, ...question });
  const ask = asker(call);
  element.innerHTML = `<form class="compose" aria-label="Capture"><div class="page-line"><h1>Attention</h1><input class="input grow prompt" aria-label="prompt" autocomplete="off" maxlength="2000" placeholder="what the clip shows">
      <div class="end"><label class="field">seed<input class="input seed" type="number" min="0" step="1" value="7"></label><label class="field">steps<input class="input steps" type="number" min="1" max="1000" step="1"></label><button type="submit" class="button primary" id="capture-button">Capture</button></div></div>
      <div class="builder-slot"></div><p class="prompt-fault muted" role="status"></p></form>
    <div class="rack attention-rack"><div class="part sprite-part"></div><div class="part overlay-part"></div></div><div class="part heads-part"></div><div class="rack playground-rack" hidden><div class="part playground-part"></div></div>`;
  const find = selector => element.querySelector(selector);
  const watchers = [];
  let builder = null;
  let vocabulary;
  let started = false;
  let timer = 0;

  const question = () => ({ prompt: find('.prompt').value, seed: find('.seed').value === '' ? null : +find('.seed').value, steps: find('.steps').value === '' ? null : +find('.steps').value });
  const price = () => {
    clearTimeout(timer);
    timer = setTimeout(() => ask('capture_price', question(), { quiet: true }).then(({ verb }) => (find('#capture-button').textContent = verb), () => {}), WAIT);
  };
  find('.compose').addEventListener('change', price);
  find('.prompt').addEventListener('input', () => builder?.read());
  find('.compose').addEventListener('submit', async event => {
    event.preventDefault();
    const button = find('#capture-button');
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    try {
      await ask('capture', question());
      say('Queued; it goes on when this page is closed.');
    } catch { /* said already */ }
    button.removeAttribute('aria-busy');
  });

  PARTS.forEach(([name, mountPart]) => {
    let shown = '';
    mountPart(find(`.${name}-part`), {
      get: () => data()[name] ?? {},
      watch: act => watchers.push(() => {
        const now = JSON.stringify(data()[name] ?? {});
        if (now === shown) return;
        shown = now;
        act();
      }),
      call,
    });
    shown = JSON.stringify(data()[name] ?? {});
  });
  const build = () => {
    const value = data();
    if (!value.ids) return;
    find('.playground-rack').hidden = !value.playground?.capture;
    if (!started) {
      started = true;
      find('.prompt').value = value.prompt;
      find('.steps').value = value.steps;
    }
    if (JSON.stringify(vocabulary) !== JSON.stringify(value.vocabulary)) {
      vocabulary = value.vocabulary;
      find('.builder-slot').innerHTML = '';
      builder = vocabulary ? mountBuilder(find('.builder-slot'), {
        vocabulary, ask, prompt: () => find('.prompt').value,
        set: prompt => (find('.prompt').value = prompt),
        fault: sentence => (find('.prompt-fault').textContent = sentence),
      }) : null;
    }
    watchers.forEach(act => act());
    price();
  };
  host.watch(build);
  build();
  on('jobs', ({ jobs }) => {
    const empty = find('.sprite-part .empty');
    if (!empty) return;
    const job = jobs.find(one => one.kind === 'capture' && isLive(one.state));
    const { title, why } = data().sprite ?? {};
    const done = job?.steps > 1 ? ` (${job.stage}, ${job.step} of ${job.steps})` : '';
    empty.querySelector('h3').textContent = !job ? title : job.state === 'queued' ? 'The capture is queued' : 'Capturing';
    empty.querySelector('p').textContent = job ? `What every head looks at appears here when it ends${done}.` : why;
  });
  on('restore capture', settings => {
    find('.prompt').value = settings.prompt;
    if (settings.seed != null) find('.seed').value = settings.seed;
    if (settings.steps != null) find('.steps').value = settings.steps;
    builder?.read();
    price();
  });
};
