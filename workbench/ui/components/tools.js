/* What can be done with a comparison: open another, import a clip of one's own, export.
   mount(element, {shown(), listed(), open(id), refresh()}); returns {draw()}. */
import { say } from './bus.js';
import { text } from './draw.js';

const MAX_BYTES = 64 * 1024 * 1024;
const FORMS = [['html', 'Offline page, zip', '.zip'], ['vote', 'Blind vote, zip', '-vote.zip'], ['mp4', 'Side by side, MP4', '.mp4'], ['gif', 'Side by side, GIF', '.gif'], ['json', 'Figures, JSON', '.json']];

export const mount = (element, host) => {
  let busy = false;
  const draw = () => {
    const { id, rows } = host.shown();
    const listed = host.listed();
    const html = `${listed.length > 1 ? `<select class="input comparisons" aria-label="Comparisons">${listed.map(one => `<option value="${text(one.id)}"${one.id === id ? ' selected' : ''}>${text(`${one.made} · ${one.prompt}${one.rows > 1 ? ` +${one.rows - 1}` : ''} · ${one.columns.join(', ')}`)}</option>`).join('')}</select>` : ''}
      ${id ? `<span class="import-line">${rows.length > 1 ? `<select class="input import-row" aria-label="Row of the imported clip">${rows.map((row, at) => `<option value="${at}">into row ${at + 1}</option>`).join('')}</select>` : ''}<button type="button" class="button" data-verb="import" data-tip="An MP4 of your own beside these clips: at most 64 MB, 257 frames, 1,280 pixels a side">Import a clip</button></span><input type="file" accept="video/mp4,.mp4" hidden>
      <details class="menu"><summary class="button">Export</summary><div class="menu-list" role="menu">${FORMS.map(([form, name, end]) => `<a role="menuitem" href="/workbench/export/${text(id)}/${form}" download="${text(id)}${end}">${name}</a>`).join('')}</div></details>` : ''}`;
    if (draw.last === html) return;
    draw.last = html;
    element.innerHTML = html;
  };
  element.addEventListener('change', async event => {
    if (event.target.matches('.comparisons')) host.open(event.target.value).catch(() => {});
    if (!event.target.matches('[type=file]')) return;
    const [file] = event.target.files;
    event.target.value = '';
    if (!file || busy) return;
    if (file.size > MAX_BYTES) return say('This clip is above 64 MB; cut it or lower its quality.', 'error');
    busy = true;
    element.querySelector('[data-verb=import]').setAttribute('aria-busy', 'true');
    try {
      const row = element.querySelector('.import-row')?.value ?? 0;
      const response = await fetch(`/workbench/import/${encodeURIComponent(host.shown().id)}/${row}?name=${encodeURIComponent(file.name.slice(0, 200))}`, { method: 'POST', body: file, headers: { 'Content-Type': 'video/mp4' } });
      const answer = response.headers.get('content-type')?.includes('json') ? await response.json() : { error: await response.text() };
      if (answer.error) say(answer.error, 'error');
      else {
        await host.refresh();
        await host.open(answer.comparison);
        say('Imported into a copy of the comparison.');
      }
    } catch {
      say('The clip could not be sent; the comparison is unchanged.', 'error');
    }
    busy = false;
    element.querySelector('[data-verb=import]')?.removeAttribute('aria-busy');
  });
  element.addEventListener('click', event => {
    if (event.target.closest('[data-verb=import]')) element.querySelector('[type=file]').click();
    if (event.target.closest('.menu-list a')) element.querySelector('.menu').open = false;
  });
  document.addEventListener('click', event => {
    const menu = element.querySelector('.menu[open]');
    if (menu && !menu.contains(event.target)) menu.open = false;
  });
  element.addEventListener('keydown', event => {
    const menu = element.querySelector('.menu[open]');
    if (event.key !== 'Escape' || !menu) return;
    menu.open = false;
    menu.querySelector('summary').focus();
  });
  return { draw };
};
