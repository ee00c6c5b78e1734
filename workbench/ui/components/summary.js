/* What the painted plan costs and how far its cells are off.
   value: {readouts: [{label, value, unit, note}], notes: [sentence], warn: sentence | null} */
import { notice, text } from './draw.js';

export const mount = (element, host) => {
  const draw = () => {
    const value = host.get();
    if (!value?.readouts) return;
    element.innerHTML = `<section class="panel"><header class="panel-head"><h2>This plan</h2><span class="hint">${text(value.hint ?? '')}</span></header><div class="panel-body">
      <dl class="readouts">${value.readouts.map(r => `<div class="readout"><dt>${text(r.label)}</dt><dd>${text(r.value)} <small>${text(r.unit ?? '')}</small></dd><div class="note">${text(r.note ?? '')}</div></div>`).join('')}</dl>
      ${value.warn ? notice('warn', value.warn) : ''}${(value.notes ?? []).map(note => `<p class="muted">${text(note)}</p>`).join('')}
      ${value.command ? `<div class="command"><span>${text(value.command)}</span></div>` : ''}</div></section>`;
  };
  host.watch(draw);
  draw();
};
