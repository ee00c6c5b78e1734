/* The Plan page. value: {table, costs, timings, clip, front, saved, student, measure, preview, ids, model}; see the parts for the shapes.
   One state: the painted plan and its dense first steps, kept in the link. */
import { asker, on, say, tell } from './bus.js';
import { mount as mountBudget } from './budget.js';
import { mount as mountChanges } from './changes.js';
import { icon, isLive, operatorName, text } from './draw.js';
import { mount as mountLosses } from './losses.js';
import { mount as mountMeasure } from './measure.js';
import { mount as mountPainter, shortName } from './painter.js';
import { mount as mountPreview } from './preview.js';

const MAX_FILE = 256 * 1024;

export const mount = (element, host) => {
  const call = asker(host.call);
  const data = () => host.get() ?? {};
  const ask = (name, question, options) => call(name, { ids: data().ids ?? {}, ...question }, options);
  element.innerHTML = `<div class="page-line"><h1>Plan</h1><input class="input plan-text mono" aria-label="Write a plan" placeholder="write a plan: 5xR4" autocomplete="off" spellcheck="false" data-tip="A short name such as 5xR4, or 0-3:softmax,4-:R4; Enter loads it">
      <div class="end"><select class="input presets" aria-label="Preset"></select><button type="button" class="button" data-verb="import">Import</button><input type="file" accept=".json,application/json" hidden><button type="button" class="button" data-verb="export">Export</button><button type="button" class="button primary" id="make-student">Make student</button></div></div>
    <div class="rack plan-rack"><div class="panel painter-panel"><div class="painter-part"></div><div class="measure-slot"></div></div><div class="stack"><div class="budget-slot stack"></div><div class="preview-slot"></div></div></div>
    <div class="rack changes-slot"></div><div class="rack losses-part losses-slot" hidden></div>`;
  const find = selector => element.querySelector(selector);
  let dense = Math.max(0, parseInt(new URLSearchParams(location.search).get('dense') ?? '0', 10) || 0);
  let value = [];
  let busy = false;
  const watchers = [];

  const painterHost = {
    get: name => (name === 'table' ? data().table : value),
    set: next => (value = next),
    emit: () => changed(),
    watch: act => watchers.push(act),
    say: () => {},
    wanted: (block, op) => measure.only(block, op).then(seconds => tell('next', next(block, op, seconds))),
  };
  const next = (block, op, seconds) => ({ sentence: `Block ${block} at ${operatorName(op)} is not measured${seconds == null ? '' : `: about ${Math.round(seconds)} s`}, or keep ${operatorName(painter.plan()[block])}.`, verb: 'Measure', page: 'plan' });
  const shared = {
    data, ask, say,
    plan: () => value,
    dense: () => dense,
    busy: () => busy,
    wish: () => ({ plan: value, dense, name: changes.name() }),
    load: (plan, steps) => {
      dense = steps ?? dense;
      painter.load(plan);
      changed();
    },
    paint: (plan, { done, dense: steps }) => {
      if (!done) {
        value = plan;
        painter.show(plan);
        budget.refresh();
        return;
      }
      painter.show(before ?? painter.plan());
      before = null;
      shared.load(plan, steps);
    },
    learn: attention => learn(attention),
    setDense: steps => {
      dense = steps;
      changed();
    },
  };
  /* While the budget slides, the plan is shown and not yet kept; letting go is one step of undo. */
  let before = null;
  element.addEventListener('pointerdown', event => event.target.matches('.budget') && (before = painter.plan()), true);

  const measure = mountMeasure(find('.measure-slot'), shared);
  let painter = null;
  const budget = mountBudget(find('.budget-slot'), shared);
  const preview = mountPreview(find('.preview-slot'), shared);
  const changes = mountChanges(find('.changes-slot'), shared);
  mountLosses(find('.losses-slot'));

  const changed = () => {
    const link = new URLSearchParams(location.search);
    if (dense) link.set('dense', dense);
    else link.delete('dense');
    history.replaceState(null, '', `?${link}${location.hash}`);
    budget.painted();
    changes.refresh();
    preview.refresh();
    drawPresets();
    const lacking = value.map((op, block) => [block, op]).filter(([block, op]) => op !== 'softmax' && !data().table.cells[block]?.[data().table.columns.indexOf(op)]);
    tell('painted', { plan: value, short: shortName(value), dense, missing: lacking.length });
    if (lacking.length) {
      const [[block, op]] = lacking;
      measure.only(block, op).then(seconds => tell('next', next(block, op, seconds)));
    } else {
      measure.settled();
      tell('next', null);
    }
  };

  /* Operators that an opened plan brought along: each has a column from then on, empty until it is measured. */
  let met = {};
  let metWith = '';
  const adopt = () => {
    const { table, costs, measure, model } = data();
    if (metWith !== model) [met, metWith] = [{}, model];
    const more = Object.keys(met).filter(op => !table.columns.includes(op));
    if (!more.length) return false;
    const further = [...table.columns.slice(table.usual), ...more].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    const columns = [...table.columns.slice(0, table.usual), ...further];
    table.cells = table.cells.map(row => columns.map(op => row[table.columns.indexOf(op)] ?? null));
    table.columns = columns;
    costs.attention = { ...costs.attention, ...met };
    measure.rates = columns.filter(op => op !== 'softmax' && (measure.rates.includes(op) || more.includes(op)));
    measure.missing += more.length * table.cells.length;
    return true;
  };
  const learn = attention => {
    Object.assign(met, attention);
    if (adopt()) refresh();
  };

  const presets = () => {
    const { table, front } = data();
    const blocks = table.start;
    const every = (op, keep) => blocks.map((_, block) => (keep(block) && table.cells[block]?.[table.columns.indexOf(op)] ? op : 'softmax'));
    const columns = table.columns.slice(1).filter(op => table.cells.some(row => row[table.columns.indexOf(op)]));
    return [
      ['all softmax', () => blocks],
      ...(front.length ? [80, 65, 50, 35].map(share => [`exact optimum at ${share} % of attention`, async () => (await ask('optimum', { unit: 'flops', budget: (share / 100) * data().costs.core * blocks.length })).plan]) : []),
      ...columns.map(op => [`every other block ${operatorName(op)}`, () => every(op, block => block % 2)]),
      ...columns.map(op => [`all measured ${operatorName(op)}`, () => every(op, () => true)]),
    ];
  };
  const drawPresets = () => (find('.presets').innerHTML = `<option value="">Preset</option>${presets().map(([name], i) => `<option value="${i}">${text(name)}</option>`).join('')}`);
  find('.presets').addEventListener('change', async event => {
    const [, make] = presets()[+event.target.value] ?? [];
    event.target.value = '';
    if (!make) return;
    const plan = await Promise.resolve(make()).catch(() => null);
    if (plan) shared.load(plan, 0);
  });
  const read = async words => {
    const answer = await ask('read', { text: words }).catch(() => null);
    if (!answer) return false;
    learn(answer.attention);
    shared.load(answer.plan, answer.dense);
    return true;
  };
  find('.plan-text').addEventListener('keydown', async event => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    if (await read(event.target.value)) event.target.value = '';
  });
  const file = find('input[type=file]');
  const take = async chosen => {
    if (!chosen) return;
    if (chosen.size > MAX_FILE) say(`${chosen.name} has ${Math.round(chosen.size / 1024).toLocaleString('en')} kB; a plan has at most 256.`, 'error');
    else await read(await chosen.text());
  };
  file.addEventListener('change', async () => {
    await take(file.files[0]);
    file.value = '';
  });
  element.addEventListener('dragover', event => event.preventDefault());
  element.addEventListener('drop', event => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  const verbs = {
    import: () => file.click(),
    export: async () => {
      const answer = await ask('export', shared.wish());
      const link = Object.assign(document.createElement('a'), { download: answer.file, href: URL.createObjectURL(new Blob([`${JSON.stringify(answer.json, null, 2)}\n`], { type: 'application/json' })) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    },
  };
  element.addEventListener('click', event => verbs[event.target.closest('[data-verb]')?.dataset.verb]?.()?.catch?.(() => {}));
  const make = find('#make-student');
  make.addEventListener('click', async () => {
    if (make.getAttribute('aria-busy') === 'true') return;
    make.setAttribute('aria-busy', 'true');
    await ask('make_student', shared.wish()).then(() => say('The student is being made.'), () => {});
    make.removeAttribute('aria-busy');
  });
  on('restore surgery', async made => {
    const kept = data().saved?.find(one => one.file === made.plan.split('/').at(-1));
    if (kept) shared.load(kept.plan, kept.dense);
    else if (made.plan.includes('/')) return say('The plan of that student is no longer saved; open the student itself under Changes since.', 'error');
    else if (!(await read(made.plan))) return undefined;
    return changes.setName(made.name ?? '');
  });
  on('restore render', async made => {
    const plan = made.operators?.length ? made.operators : data().table.start;
    await read(plan.map((op, block) => `${block}:${op}`).join(',')).then(good => good && shared.load(value, made.dense_first ?? 0));
  });
  on('jobs', answer => {
    busy = answer.jobs.some(job => isLive(job.state) && job.kind !== 'render');
    if (answer.rows?.length && answer.jobs.some(job => job.id === answer.job && job.kind === 'measure')) find('.losses-slot').hidden = false;
  });

  /* A link may hold a plan with operators that have no column yet: it is read before the painter is drawn. */
  let opening = false;
  const open = async () => {
    const words = (new URLSearchParams(location.search).get('paint') ?? '').split('.');
    const strange = words.length === data().table.start.length && words.some(op => !data().table.columns.includes(op));
    opening = true;
    if (strange) await ask('read', { text: words.map((op, block) => `${block}:${op}`).join(',') }, { quiet: true }).then(answer => learn(answer.attention), () => {});
    painter = mountPainter(find('.painter-part'), painterHost);
    opening = false;
    refresh();
  };
  const refresh = () => {
    if (!data().table || opening) return;
    adopt();
    if (!painter) return void open();
    else watchers.forEach(act => act());
    find('#make-student').classList.toggle('primary', data().measure.missing < data().table.cells.length * (data().table.columns.length - 1));
    measure.refresh();
    budget.refresh();
    changes.refresh();
    preview.refresh();
    drawPresets();
  };
  host.watch(refresh);
  refresh();
};
