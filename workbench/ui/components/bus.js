/* What the parts of one page share: the live jobs, the sentence shown to the user, tooltips. */

const listeners = new Map();
export const on = (name, act) => {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(act);
};
export const tell = (name, detail) => listeners.get(name)?.forEach(act => act(detail));

/** Show one sentence; it leaves by itself, or at once by its button. */
export const say = (sentence, kind = 'info') => {
  const stack = document.querySelector('.toasts');
  if (!stack || !sentence) return;
  const toast = document.createElement('div');
  toast.className = `toast ${kind}`;
  toast.setAttribute('role', kind === 'error' ? 'alert' : 'status');
  const words = document.createElement('span');
  words.textContent = sentence;
  const close = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Close' });
  close.addEventListener('click', () => toast.remove());
  toast.append(words, close);
  stack.append(toast);
  setTimeout(() => toast.remove(), kind === 'error' ? 15000 : 6000);
};

/** Call Python; a refusal becomes one sentence on the page and an exception here. */
export const asker = call => async (name, question = {}, { quiet = false } = {}) => {
  let answer;
  try {
    answer = await call(name, question);
  } catch {
    throw new Error('The server does not answer.');
  }
  if (answer?.error) {
    if (!quiet) say(answer.error, 'error');
    throw Object.assign(new Error(answer.error), { refusal: answer.error });
  }
  return answer;
};
