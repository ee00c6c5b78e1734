/* What changed since a plan that was kept, the dense first steps, and what can be made of the painted plan.
   mount(element, host) with host {data(), plan(), dense(), setDense(n), ask, say, load(plan, dense), learn(prices)}; returns {refresh()}. */
import { score } from './cost.js';
import { fraction, operatorMeaning, text } from './draw.js';

export const mount = (element, host) => {
  let base = '';
  element.innerHTML = `<section class="panel"><header class="panel-head"><h2>Changes since</h2><select class="input base" aria-label="Compare with"></select><button type="button" class="button small quiet" data-verb="back">Load it</button>
      <div class="end"><label class="field" data-tip="The first steps decide what the clip shows; softmax there costs little where few are kept.">dense first steps<input class="input dense" type="number" min="0" step="1" value="0"></label><label class="field">name<input class="input plan-label" autocomplete="off" placeholder="its short name"></label><button type="button" class="button small" data-verb="save" id="save-plan">Save plan</button></div></header>
    <div class="panel-body"><div class="changes"></div></div></section>`;
  const find = selector => element.querySelector(selector);
  const bases = () => {
    const { student, saved, table } = host.data();
    return [
      ...(student ? [{ key: 'student', name: `student ${student.name}`, plan: student.plan, dense: student.dense }] : []),
      { key: 'softmax', name: 'all softmax', plan: table.start, dense: 0 },
      ...saved.map(one => ({ key: one.file, name: one.name, plan: one.plan, dense: one.dense })),
    ];
  };
  const chosen = () => bases().find(one => one.key === base) ?? bases()[0];
  const tag = op => `<span class="op-tag" data-op="${text(op)}" data-tip="${text(operatorMeaning(op))}">${text(op)}</span>`;
  const refresh = () => {
    if (!host.data().table?.cells?.length) return;
    const all = bases();
    find('.base').innerHTML = all.map(one => `<option value="${text(one.key)}">${text(one.name)}</option>`).join('');
    find('.base').value = chosen().key;
    if (document.activeElement !== find('.dense')) find('.dense').value = host.dense();
    find('.dense').max = host.data().costs.steps;
    const from = chosen();
    const plan = host.plan();
    const changed = plan.map((op, block) => [block, from.plan[block], op]).filter(([, old, op]) => old !== op);
    const [before, after] = [score(from.plan, from.dense, host.data()), score(plan, host.dense(), host.data())];
    const number = value => (value == null ? '–' : fraction(value));
    const percent = value => (Number.isFinite(value) ? Math.round(100 * value) : '–');
    const dense = from.dense === host.dense() ? '' : `<span class="change">dense first steps ${from.dense} → ${host.dense()}</span>`;
    find('.changes').innerHTML = `<div class="change-list">${changed.map(([block, old, op]) => `<span class="change">block ${block} ${tag(old)} → ${tag(op)}</span>`).join('') || (dense ? '' : '<span class="muted">none</span>')}${dense}</div>
      <p class="muted change-sum">error ${number(before.error)} → ${number(after.error)}, attention ${percent(before.attention)} → ${percent(after.attention)} %</p>`;
  };
  find('.base').addEventListener('change', event => {
    base = event.target.value;
    refresh();
  });
  find('.dense').addEventListener('input', event => {
    const steps = +event.target.value;
    if (Number.isInteger(steps) && steps >= 0 && steps <= host.data().costs.steps) host.setDense(steps);
  });
  find('.dense').addEventListener('change', refresh);
  element.addEventListener('click', async event => {
    const verb = event.target.closest('[data-verb]')?.dataset.verb;
    if (verb === 'back') host.load(chosen().plan, chosen().dense);
    if (verb === 'save') {
      const answer = await host.ask('save_plan', host.wish()).catch(() => null);
      if (!answer) return;
      host.data().saved = answer.saved;
      host.learn(answer.attention);
      base = answer.file;
      host.say(`Saved as ${answer.file}.`);
      refresh();
    }
  });
  return { refresh, name: () => find('.plan-label').value, setName: name => (find('.plan-label').value = name) };
};
