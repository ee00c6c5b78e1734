/* One clip with what is known of it: name, score at this frame, verdicts, facts. */
import { icon, planOperator, swatch, text } from './draw.js';

const WORDS = { right: 'followed', wrong: 'missed', undecided: 'not clear' };
const MARKS = {
  right: '<path d="m3 8.5 3.2 3.2L13 5"/>',
  wrong: '<path d="m4 4 8 8M12 4l-8 8"/>',
  undecided: '<path d="M2.5 9.5c1.5-3 3.5-3 5.5-1s4 2 5.5-1"/>',
};
const ATTRIBUTES = { camera: 'camera', count: 'number' };

/** The colour of a clip: its plan's operator; an imported clip has none. */
export const operatorOf = clip => (clip.plan?.length ? planOperator(clip.plan) : 'imported');

export const verdict = ([attribute, found]) =>
  `<span class="verdict" data-verdict="${text(found)}" data-tip="${text(attribute)}: ${text(WORDS[found] ?? found)}"><svg class="icon" viewBox="0 0 16 16" aria-hidden="true">${MARKS[found] ?? ''}</svg>${text(ATTRIBUTES[attribute] ?? attribute)}<span class="visually-hidden"> ${WORDS[found] ?? text(found)}</span></span>`;

export const figure = (clip, row) => {
  const operator = operatorOf(clip);
  return `<figure class="clip" data-row="${row}" data-column="${clip.column}">
  <div class="screen"><video src="${text(clip.url)}" muted playsinline preload="auto" tabindex="-1" aria-label="Clip of ${text(clip.name)}"></video>
    ${clip.column ? '<canvas class="over" aria-hidden="true"></canvas><i class="wipe-line" hidden></i><span class="flip-name">teacher</span>' : ''}</div>
  <figcaption><div class="clip-name" data-op="${text(operator)}">${clip.role === 'imported' ? icon('copy') : swatch(operator)}<b class="${clip.role === 'student' ? 'mono ' : ''}clipped" data-tip="${text(clip.name)}">${text(clip.name)}</b><span class="clip-score"></span></div>
  ${clip.verdicts?.length ? `<div class="verdicts">${clip.verdicts.map(verdict).join('')}</div>` : ''}
  <dl class="clip-facts">${clip.facts.map(([label, value, unit, tip]) => `<div data-tip="${text(`${label}. ${tip ?? ''}`)}"><dt class="visually-hidden">${text(label)}</dt><dd>${text(value)} <span>${text(unit ?? '')}${label === 'motion' ? ' motion' : ''}</span></dd></div>`).join('')}</dl></figcaption></figure>`;
};
