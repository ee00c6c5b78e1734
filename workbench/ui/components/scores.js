/* Cost and measured quality of all students; a point or a row opens its clips.
   mount(element, {ask, open}); returns {load(), stale()}. */
import { chart, empty, fraction, onSegment, planOperator, segmented, swatch, text, ticks } from './draw.js';

const MEASURES = {
  psnr: { label: 'PSNR', axis: 'PSNR to the teacher, dB', show: value => value.toFixed(1), span: 1 },
  ssim: { label: 'SSIM', axis: 'SSIM to the teacher', show: value => fraction(value), span: 0.02 },
  adherence: { label: 'adherence', axis: 'stated attributes that are right', show: value => `${(100 * value).toFixed(0)} %`, span: 0.05 },
  motion: { label: 'motion', axis: 'motion over the teacher’s', show: value => fraction(value, 2), span: 0.05 },
};

export const mount = (element, { ask, open }) => {
  let rows = null;
  let measure = 'psnr';
  let fresh = false;
  const range = mean => (mean.low == null ? '' : `${MEASURES[measure].show(mean.low)} to ${MEASURES[measure].show(mean.high)}`);
  const draw = () => {
    if (!rows) {
      element.innerHTML = '<div class="rack"><div class="panel"><p class="pad muted pad-top">Reading the clips…</p></div></div>';
      return;
    }
    const students = rows.filter(row => row.psnr || row.ssim);
    if (!students.length) {
      element.innerHTML = `<div class="rack"><div class="panel"><div class="panel-body pad-top">${empty('No score yet', 'Every comparison adds its clips to the scores of its students: cost against measured quality, with intervals.')}</div></div></div>`;
      return;
    }
    const clips = students.reduce((sum, row) => sum + row.clips.length, 0);
    element.innerHTML = `<div class="rack scores-rack"><section class="panel"><header class="panel-head"><h2>Cost and quality</h2><span class="hint">${clips} clips; click a point for its clips</span><div class="end">${segmented('Measure', Object.entries(MEASURES).map(([key, one]) => [key, one.label]), measure)}</div></header><div class="panel-body"><div class="scatter"></div></div></section>
      <section class="panel"><header class="panel-head"><h2>Students</h2><span class="hint">means with 95 % intervals</span></header><div class="table-scroll" tabindex="0"><table class="table scores-table"><thead><tr><th>student</th><th class="number">transformer</th><th class="number">s a clip</th><th class="number">${MEASURES[measure].label}</th><th class="number">interval</th><th class="number">clips</th></tr></thead><tbody>${rows.map((row, at) =>
        `<tr data-score="${at}" tabindex="0"><td><span class="line-of">${swatch(planOperator(row.plan))}<span class="mono clipped">${text(row.name)}</span></span></td><td class="number">${row.dit_ratio == null ? '–' : `${(100 * row.dit_ratio).toFixed(0)} %`}</td><td class="number">${row.seconds == null ? '–' : row.seconds.toFixed(1)}</td><td class="number">${row[measure] ? MEASURES[measure].show(row[measure].value) : at ? '–' : 'reference'}</td><td class="number muted">${row[measure] ? range(row[measure]) || 'one clip' : ''}</td><td class="number">${row.clips.length}</td></tr>`).join('')}</tbody></table></div></section></div>`;
    onSegment(element.querySelector('[data-choice=Measure]'), next => {
      measure = next;
      draw();
    });
    const points = rows.map((row, at) => ({ row, at, mean: row[measure] })).filter(point => point.mean && point.row.dit_ratio != null);
    const node = element.querySelector('.scatter');
    if (!points.length) {
      node.innerHTML = `<p class="muted">No clip has been judged for ${MEASURES[measure].label} yet.</p>`;
      return;
    }
    const values = points.flatMap(({ mean }) => [mean.low ?? mean.value, mean.high ?? mean.value]);
    const { span, show, axis } = MEASURES[measure];
    const costs = points.map(({ row }) => 100 * row.dit_ratio);
    const [low, high] = [Math.min(...values) - span, Math.max(...values) + span];
    const [left, right] = [Math.max(0, Math.floor(Math.min(...costs) - 3)), Math.ceil(Math.max(100, ...costs) + 2)];
    const paint = chart(node, () => ({
      height: 320, x: [left, right], y: [low, high], right: 20, xTicks: ticks(left, right, 6), yTicks: ticks(low, high, 5),
      xFormat: value => `${value} %`, yFormat: show, yLabel: axis, xLabel: 'transformer operations of the teacher’s, counted', label: 'Cost and quality of all students',
      draw: ({ sx, sy }) => {
        const placed = []; // names of points that lie close step aside
        return points.map(({ row, at, mean }) => {
        const [x, y] = [sx(100 * row.dit_ratio), sy(mean.value)];
        let line = y + 4;
        while (placed.some(([px, py]) => Math.abs(px - x) < 160 && Math.abs(py - line) < 14)) line += 14;
        placed.push([x, line]);
        const bar = mean.low == null ? '' : `<path class="interval" d="M${x} ${sy(mean.low)}V${sy(mean.high)}M${x - 4} ${sy(mean.low)}h8M${x - 4} ${sy(mean.high)}h8"/>`;
        return `<g class="score-point" data-score="${at}" data-op="${text(planOperator(row.plan))}" tabindex="0" role="button" aria-label="${text(`${row.name}: ${show(mean.value)} at ${(100 * row.dit_ratio).toFixed(0)} %`)}">${bar}<circle cx="${x}" cy="${y}" r="6" ${row.linear_branch ? '' : 'class="hollow"'}/><text x="${x + 10}" y="${line}">${text(row.name)}</text></g>`;
        }).join('');
      },
    }));
    paint();
  };
  const show = at => {
    const clip = rows[at]?.clips.at(-1);
    if (clip) open(clip[0]).catch(() => {});
  };
  element.addEventListener('click', event => {
    const at = event.target.closest('[data-score]')?.dataset.score;
    if (at != null) show(+at);
  });
  element.addEventListener('keydown', event => {
    const at = event.target.dataset?.score;
    if (at == null || (event.key !== 'Enter' && event.key !== ' ')) return;
    event.preventDefault();
    show(+at);
  });
  const load = async () => {
    if (fresh) return;
    fresh = true;
    draw();
    try {
      ({ scores: rows } = await ask('scores', {}));
      draw();
    } catch {
      fresh = false;
    }
  };
  return { load, stale: () => {
    fresh = false;
    if (!element.closest('[hidden]')) load();
  } };
};
