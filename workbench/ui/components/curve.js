/* How near clips are to their reference, frame by frame: one line for each, and the frame being shown. */
import { operatorOf } from './clip.js';
import { chart, ticks } from './draw.js';

const DASHES = ['', '6 3', '2 3', '8 3 2 3'];

/** The score of a clip at a frame, in words. */
export const scoreAt = (clip, metric, frame) => {
  if (!clip || clip.column === 0) return 'reference';
  if (!clip.curves) return '';
  const at = clip.curves[metric]?.[frame];
  if (at == null) return metric === 'psnr' && frame < clip.curves.psnr.length ? 'equal' : '';
  return metric === 'ssim' ? `SSIM ${at.toFixed(3).replace(/^0/, '')}` : `${at.toFixed(1)} dB`;
};

/** A chart in `node`; `state()` gives {clips, metric, frames, frame}. */
export const curveOf = (node, state) => {
  const paint = chart(node, () => {
    const { clips, metric, frames, frame } = state();
    const lines = clips.filter(clip => clip.curves).map(clip => ({ clip, values: clip.curves[metric] }));
    const finite = lines.flatMap(line => line.values.filter(value => value != null));
    const [least, most] = finite.length ? [Math.min(...finite), Math.max(...finite)] : metric === 'ssim' ? [0.9, 1] : [20, 40];
    const [low, high] = metric === 'ssim' ? [Math.max(0, Math.min(0.98, least) - 0.02), 1] : [Math.floor(least - 1), Math.ceil(most + 1)];
    const last = frames - 1;
    return {
      height: 120, x: [0, Math.max(1, last)], y: [low, high],
      xTicks: ticks(0, last, 6).filter(Number.isInteger), yTicks: ticks(low, high, 3),
      xFormat: value => value + 1, yFormat: value => (metric === 'ssim' ? value.toFixed(2).replace(/^0/, '') : value),
      yLabel: metric === 'ssim' ? 'SSIM to the teacher' : 'PSNR to the teacher, dB', label: 'Metric by frame, click to seek',
      draw: ({ sx, sy, opLine, height, pad }) => lines.map(({ clip, values }, place) => {
        const points = values.map((value, at) => [at, value]).filter(([, value]) => value != null);
        const dash = DASHES[place % DASHES.length];
        return opLine(points, operatorOf(clip), dash ? `stroke-dasharray="${dash}"` : '') +
          (points.length === 1 ? `<circle cx="${sx(points[0][0])}" cy="${sy(points[0][1])}" r="3"/>` : '');
      }).join('') + `<line class="now" x1="${sx(frame)}" x2="${sx(frame)}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--accent)" stroke-width="1.5"/>`,
    };
  });
  return paint;
};
