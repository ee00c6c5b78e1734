/* Chips that build a prompt of the embedded world; a typed prompt chooses them in turn.
   mount(element, {vocabulary, prompt(), set(prompt), ask}); returns {read()}: look at the prompt again. */
import { text } from './draw.js';

const SECOND = 'second ';
const SHORT = { size: 'size', colour: 'colour', texture: 'texture', shape: 'shape', motion: 'motion', relation: 'second object', background: 'place', camera: 'camera' };
const WAIT = 350;

export const mount = (element, host) => {
  const { vocabulary } = host;
  let choices = {};
  let timer = 0;
  let ticket = 0;
  const options = name => {
    const kind = name.replace(SECOND, '');
    return vocabulary.attributes[kind].filter(one =>
      !(name === `${SECOND}motion` && !vocabulary.second_motions.includes(one.value)) &&
      !(name === 'camera' && one.value !== 'static' && choices.background && !vocabulary.pannable.includes(choices.background)));
  };
  const chip = name => {
    const kind = name.replace(SECOND, '');
    const chosen = choices[name] ?? '';
    const phrase = options(name).find(one => one.value === chosen)?.phrase ?? '';
    return `<label class="chip choose" aria-pressed="${Boolean(chosen)}"><span>${text(chosen ? phrase : SHORT[kind])}</span><select aria-label="${text(name)}" data-choice="${text(name)}"><option value="">${text(kind === 'shape' && !name.startsWith(SECOND) ? 'any shape' : `no ${SHORT[kind]}`)}</option>${options(name).map(one => `<option value="${text(one.value)}"${one.value === chosen ? ' selected' : ''}>${text(one.phrase)}</option>`).join('')}</select></label>`;
  };
  const draw = () => {
    const focus = document.activeElement?.dataset?.choice;
    const two = Boolean(choices.relation);
    const names = vocabulary.order.filter(name => two || !name.startsWith(SECOND));
    const html = names.map(chip).join('');
    if (draw.last === html) return;
    draw.last = html;
    element.innerHTML = `<div class="chips" role="group" aria-label="Build the prompt">${html}</div>`;
    if (focus) element.querySelector(`[data-choice="${focus}"]`)?.focus();
  };
  element.addEventListener('change', async event => {
    const name = event.target.dataset?.choice;
    if (!name) return;
    const next = { ...choices, [name]: event.target.value };
    if (!next[name]) delete next[name];
    if (name === 'relation') {
      if (next.relation) {
        next[`${SECOND}shape`] ??= 'cube';
        next[`${SECOND}colour`] ??= next.colour === 'blue' ? 'red' : 'blue';
        if (next.relation === 'orbiting') next.motion = 'orbit';
        else if (next.motion === 'orbit') delete next.motion;
      } else Object.keys(next).filter(key => key.startsWith(SECOND)).forEach(key => delete next[key]);
    }
    if (next.camera && next.camera !== 'static' && next.background && !vocabulary.pannable.includes(next.background)) delete next.camera;
    if (next.camera && !next.background) next.background = vocabulary.pannable[0];
    next.shape ??= 'ball';
    try {
      const { prompt } = await host.ask('build', { choices: next });
      choices = next;
      host.set(prompt);
    } catch {
      draw.last = '';
    }
    draw();
  });
  const look = async () => {
    const mine = ++ticket;
    const answer = await host.ask('chosen', { prompt: host.prompt() }, { quiet: true });
    if (mine !== ticket) return;
    ({ choices } = answer);
    element.dataset.fault = answer.fault;
    draw();
    host.fault?.(answer.fault);
  };
  const read = () => {
    clearTimeout(timer);
    timer = setTimeout(() => look().catch(() => {}), WAIT);
  };
  draw();
  look().catch(() => {});
  return { read };
};
