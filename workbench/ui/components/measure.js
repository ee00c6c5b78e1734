/* The form that measures cells: which blocks, which operators, how long; its price before it is pressed.
   mount(element, host) with host {data(), ask, say}; returns {refresh(), only(block, op)}. */
import { on } from './bus.js';
import { duration, isLive, operatorMeaning, operatorName, swatch, text } from './draw.js';

const KEPT = 'workbench-measure';

export const mount = (element, host) => {
  let rates = null;
  let price = '';
  let of = '';
  element.innerHTML = `<form class="measure-form"><div class="line-of measure-state"></div><label class="field">blocks to measure<input class="input blocks" value="all" autocomplete="off" spellcheck="false"></label>
    <div class="line-of chips-slot" role="group" aria-label="Operators to measure"></div><label class="field">updates<input class="input updates" type="number" min="1" step="1"></label><button type="submit" class="button" id="measure-button">Measure</button></form>
    <div class="wanted" role="status" hidden></div>`;
  const find = selector => element.querySelector(selector);
  const button = find('#measure-button');
  const settings = () => ({ blocks: find('.blocks').value, rates: [...rates], updates: find('.updates').value === '' ? null : +find('.updates').value });

  const words = (count, seconds) => `Measure ${count} ${count === 1 ? 'cell' : 'cells'}${seconds == null ? '' : `, about ${duration(seconds)}`}`;
  let asked = 0;
  const tellPrice = async () => {
    const mine = ++asked;
    try {
      const answer = await host.ask('measure_price', settings(), { quiet: true });
      if (mine !== asked) return;
      price = words(answer.cells, answer.seconds);
      if (!button.disabled) button.textContent = price;
      button.dataset.tip = answer.basis ? `Estimated ${answer.basis}` : 'Nothing of this kind has run here yet, so its time is not known';
    } catch {
      if (mine === asked && !button.disabled) button.textContent = price = 'Measure';
    }
  };
  const refresh = () => {
    const { measure, table } = host.data();
    if (!measure) return;
    if (!rates) find('.updates').value = +localStorage.getItem(KEPT) || measure.updates;
    const known = `${host.data().model} ${host.data().ids?.bank}`;
    if (of !== known) {
      // what lacks is proposed; once nothing does, everything
      of = known;
      const lacks = (block, op) => !table.cells[block][table.columns.indexOf(op)];
      const blocks = table.cells.map((_, block) => block).filter(block => measure.rates.some(op => lacks(block, op)));
      const wanted = measure.rates.filter(op => blocks.some(block => lacks(block, op)));
      rates = new Set(wanted.length ? wanted : measure.rates);
      find('.blocks').value = blocks.length && blocks.length < table.cells.length ? blocks.join(',') : 'all';
    }
    const all = table.cells.length * (table.columns.length - 1);
    find('.measure-state').innerHTML = measure.missing ? `<b>${all - measure.missing} of ${all}</b> cells measured` : `<b>All ${all}</b> cells measured`;
    find('.chips-slot').innerHTML = measure.rates.map(op => `<button type="button" class="chip" data-rate="${text(op)}" aria-pressed="${rates.has(op)}" data-tip="${text(operatorMeaning(op))}">${swatch(op)}${text(op)}</button>`).join('');
    const first = measure.missing === all;
    find('#measure-button').classList.toggle('primary', first);
    tellPrice();
  };
  element.addEventListener('click', event => {
    const op = event.target.closest('[data-rate]')?.dataset.rate;
    if (op) {
      if (!rates.delete(op)) rates.add(op);
      refresh();
    }
    if (event.target.closest('[data-verb=only]')) start(event.target.closest('[data-verb=only]').dataset);
  });
  element.addEventListener('change', () => {
    localStorage.setItem(KEPT, find('.updates').value);
    tellPrice();
  });
  const start = async only => {
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    const wish = only ? { ...settings(), blocks: only.block, rates: [only.op] } : settings();
    try {
      await host.ask('measure', wish);
      find('.wanted').hidden = true;
      host.say('Measuring is queued; it goes on when this page is closed.');
    } catch {
      // the refusal is on the page
    } finally {
      button.removeAttribute('aria-busy');
    }
  };
  find('form').addEventListener('submit', event => {
    event.preventDefault();
    start();
  });
  on('jobs', answer => {
    const job = answer.jobs.find(j => j.kind === 'measure' && isLive(j.state));
    button.disabled = Boolean(job);
    button.textContent = job ? (job.state === 'queued' ? 'Waits for its turn' : `Measuring, ${Math.round(100 * job.done)} %`) : price || 'Measure';
  });
  /* One cell that somebody wanted to paint. */
  const only = async (block, op) => {
    const box = find('.wanted');
    if (!rates) refresh();
    if (!host.data().measure.rates.includes(op)) {
      box.hidden = false;
      box.innerHTML = `<div class="notice warn"><span>Block ${block} at ${text(op)} is not measured, and its feature map is not the usual one: measure it with the command line or a notebook.</span></div>`;
      return null;
    }
    const show = seconds => {
      box.hidden = false;
      box.innerHTML = `<div class="notice warn"><span>Block ${block} at ${operatorName(op)} is not measured. ${seconds == null ? '' : `Measuring takes about ${duration(seconds)}; `}until then it cannot be painted.</span><span class="end"><button type="button" class="button small" data-verb="only" data-block="${block}" data-op="${text(op)}">Measure it${seconds == null ? '' : `, ${duration(seconds)}`}</button></span></div>`;
    };
    show(null);
    const answer = await host.ask('measure_price', { ...settings(), blocks: String(block), rates: [op] }, { quiet: true }).catch(() => null);
    if (answer) show(answer.seconds);
    return answer?.seconds ?? null;
  };
  on('restore measure', made => {
    if (!rates) return;
    find('.blocks').value = made.blocks?.length ? made.blocks.join(',') : 'all';
    const offered = host.data().measure.rates;
    rates = new Set((made.rates ?? []).filter(op => offered.includes(op)));
    if (made.updates) find('.updates').value = made.updates;
    refresh();
  });
  return { refresh, only, settled: () => (find('.wanted').hidden = true) };
};
