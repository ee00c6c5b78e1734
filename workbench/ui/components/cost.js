/* What a plan costs and how far it is off, from what was counted and measured. Plain numbers, no page.
   data: {table, costs: {attention: {op: TFLOP}, core, rest, steps}, timings: {attention: {op: ms}, rest} | null, clip} */

/** Score a plan: ratios of operations, errors as measured, milliseconds and whole-clip seconds where they can be told. */
export const score = (plan, dense, data) => {
  const { costs, table, timings, clip } = data;
  const blocks = plan.length;
  const share = Math.min(dense, costs.steps) / costs.steps;
  const sum = prices => plan.reduce((total, op) => total + (prices[op] ?? NaN), 0);
  const mixed = (own, full) => share * full + (1 - share) * own;
  const attention = mixed(sum(costs.attention), blocks * costs.core);
  const whole = attention + blocks * costs.rest;
  const dit = whole / (blocks * (costs.core + costs.rest));
  const cells = plan.map((op, block) => (op === 'softmax' ? { error: 0, low: 0, high: 0 } : table.cells[block]?.[table.columns.indexOf(op)]));
  const missing = plan.map((op, block) => ({ block, op })).filter(({ block }) => !cells[block]);
  const mean = key => (missing.length ? null : cells.reduce((total, cell) => total + (cell[key] ?? cell.error), 0) / blocks);
  const timed = timings && plan.every(op => timings.attention[op] != null);
  const full = timings ? blocks * (timings.attention.softmax + timings.rest) : null;
  const ms = timed ? mixed(sum(timings.attention), blocks * timings.attention.softmax) + blocks * timings.rest : null;
  const pace = ms == null ? dit : ms / full;
  const clipSeconds = clip ? clip.decode + (clip.seconds - clip.decode) * pace : null;
  return {
    attention: attention / (blocks * costs.core), dit, error: mean('error'), low: mean('low'), high: mean('high'), missing, share,
    converted: plan.filter(op => op !== 'softmax').length, ms, full, pace, clipSeconds,
    speedup: clip ? clip.seconds / clipSeconds : 1 / pace,
  };
};

/** How a budget is counted: what the slider holds, and what all attentions may then cost in one converted step. */
export const UNITS = {
  FLOPs: {
    range: () => [0.05, 1, 0.01],
    of: s => s.attention,
    format: v => `${Math.round(100 * v)} %`,
    axis: 'attention FLOPs of softmax',
    attention: (value, dense, { costs, table }) => ({ unit: 'flops', budget: (thin(value, share(dense, costs)) * costs.core) * table.cells.length }),
  },
  ms: {
    range: (_, data) => { const s = full(data); return [s * 0.2, s, s / 200]; },
    of: s => s.ms,
    format: v => `${v.toLocaleString('en', { maximumFractionDigits: v < 100 ? 1 : 0 })} ms`,
    axis: 'ms for one pass of the transformer, measured operators',
    attention: (value, dense, { costs, timings, table }) => {
      const blocks = table.cells.length;
      const own = (value - blocks * timings.rest) / (blocks * timings.attention.softmax);
      return { unit: 'ms', budget: thin(own, share(dense, costs)) * blocks * timings.attention.softmax };
    },
  },
  'speed-up': {
    range: (_, data) => [1, Math.max(1.05, limit(data)), 0.01],
    of: s => s.speedup,
    format: v => `${v.toFixed(2)}×`,
    axis: 'speed-up',
    rising: true,
    attention: (value, dense, data) => {
      const { clip, costs, timings, table } = data;
      const pace = clip ? (clip.seconds / value - clip.decode) / (clip.seconds - clip.decode) : 1 / value;
      const blocks = table.cells.length;
      const [core, rest, unit] = timings ? [timings.attention.softmax, timings.rest, 'ms'] : [costs.core, costs.rest, 'flops'];
      const own = (pace * (core + rest) - rest) / core;
      return { unit, budget: thin(own, share(dense, costs)) * blocks * core };
    },
  },
};
const share = (dense, costs) => Math.min(dense, costs.steps) / costs.steps;
const thin = (ratio, dense) => (dense >= 1 ? ratio : Math.max(0, (ratio - dense) / (1 - dense)));
const full = ({ timings, table }) => table.cells.length * (timings.attention.softmax + timings.rest);
/** The speed-up with the attention core free of charge. */
const limit = ({ clip, costs, timings }) => {
  const pace = timings ? timings.rest / (timings.rest + timings.attention.softmax) : costs.rest / (costs.rest + costs.core);
  return clip ? clip.seconds / (clip.decode + (clip.seconds - clip.decode) * pace) : 1 / pace;
};
