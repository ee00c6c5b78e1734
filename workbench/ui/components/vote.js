/* A blind vote: two clips of one prompt without names, in random order; the answers leave as a CSV.
   value: the player's value. Emits "voted" when all pairs are answered; `element.votes` holds them. */
import { icon, text } from './draw.js';

const CHOICES = [['left', 'Left is better', '1'], ['same', 'No difference', '2'], ['right', 'Right is better', '3']];

/** One CSV cell; a leading sign that a spreadsheet would run is quoted away. */
const cell = value => `"${String(value).replace(/^([=+\-@\t\r])/, "'$1").replace(/"/g, '""')}"`;
export const csv = votes =>
  [['prompt', 'left', 'right', 'choice', 'preferred', 'seconds'], ...votes.map(vote => [vote.prompt, vote.left, vote.right, vote.choice, vote.preferred, vote.seconds.toFixed(1)])]
    .map(row => row.map(cell).join(',')).join('\r\n') + '\r\n';

const shuffled = list => {
  const order = [...list];
  for (let i = order.length - 1; i > 0; i--) {
    const other = Math.floor(Math.random() * (i + 1));
    [order[i], order[other]] = [order[other], order[i]];
  }
  return order;
};
export const pairsOf = value => shuffled(value.rows.flatMap(row =>
  row.clips.slice(1).map(clip => {
    const pair = Math.random() < 0.5 ? [row.clips[0], clip] : [clip, row.clips[0]];
    return { prompt: row.prompt, left: pair[0], right: pair[1] };
  })));

export const mount = (element, host) => {
  const value = host.get();
  const pairs = pairsOf(value);
  const votes = [];
  let since = 0;
  const answer = choice => {
    const pair = pairs[votes.length];
    if (!pair) return;
    const preferred = choice === 'same' ? '' : pair[choice].name;
    votes.push({ prompt: pair.prompt, left: pair.left.name, right: pair.right.name, choice, preferred, seconds: (performance.now() - since) / 1000 });
    draw();
  };
  const result = () => {
    const names = [...new Set(pairs.flatMap(pair => [pair.left.name, pair.right.name]))];
    const rows = names.map(name => {
      const of = votes.filter(vote => vote.left === name || vote.right === name);
      return `<tr><td class="clipped">${text(name)}</td><td class="number">${of.filter(vote => vote.preferred === name).length}</td><td class="number">${of.filter(vote => !vote.preferred).length}</td><td class="number">${of.length}</td></tr>`;
    });
    element.innerHTML = `<section class="panel vote"><header class="panel-head"><h2>Your votes</h2><span class="hint">${votes.length} pairs</span><div class="end"><button type="button" class="button primary" data-verb="csv">Download the CSV</button></div></header>
      <div class="table-scroll"><table class="table"><thead><tr><th>clip</th><th class="number">preferred</th><th class="number">no difference</th><th class="number">shown</th></tr></thead><tbody>${rows.join('')}</tbody></table></div></section>`;
    element.querySelector('[data-verb=csv]').addEventListener('click', () => {
      const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(new Blob([csv(votes)], { type: 'text/csv' })), download: 'votes.csv' });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    host.emit?.('voted');
  };
  const draw = () => {
    const pair = pairs[votes.length];
    element.votes = votes;
    if (!pair) return result();
    since = performance.now();
    const side = name => `<div class="screen"><video src="${text(pair[name].url)}" muted loop playsinline autoplay aria-label="${name} clip"></video></div>`;
    element.innerHTML = `<section class="panel vote" tabindex="-1"><header class="panel-head"><h2>Which clip is better?</h2><span class="hint">pair ${votes.length + 1} of ${pairs.length}; keys 1, 2, 3</span></header>
      <div class="panel-body"><p class="row-prompt"><b>${text(pair.prompt)}</b></p><div class="vote-pair">${side('left')}${side('right')}</div>
      <div class="vote-choices">${CHOICES.map(([choice, words, key]) => `<button type="button" class="button" data-choice="${choice}"><kbd>${key}</kbd> ${words}</button>`).join('')}<button type="button" class="button quiet icon-only" data-verb="again" aria-label="From the start">${icon('undo')}</button></div></div></section>`;
    const videos = [...element.querySelectorAll('video')];
    const start = () => videos.forEach(video => {
      video.currentTime = 0;
      video.play().catch(() => {});
    });
    videos[0].addEventListener('seeked', () => Math.abs(videos[1].currentTime - videos[0].currentTime) > 0.2 && (videos[1].currentTime = videos[0].currentTime));
    element.querySelector('[data-verb=again]').addEventListener('click', start);
    element.querySelector('.vote').focus({ preventScroll: true });
  };
  element.addEventListener('click', event => {
    const choice = event.target.closest('[data-choice]')?.dataset.choice;
    if (choice) answer(choice);
  });
  element.addEventListener('keydown', event => {
    const chosen = CHOICES.find(([, , key]) => key === event.key);
    if (chosen) answer(chosen[0]);
  });
  draw();
};
