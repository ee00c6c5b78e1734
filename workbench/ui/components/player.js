/* Clips in sync: side by side, wipe, difference; one transport, one curve for all.
   value: {clips: [{role, name, plan, url, facts: [[label, value, unit]]}], readouts: [{label, value, unit, note}], prompt, seed, fps, frames, curves: {psnr: [..], ssim: [..]}}
   The first clip is the reference; the curves compare the second with it, frame by frame. */
import { chart, chartX, empty, icon, onSegment, planOperator, segmented, swatch, text, ticks } from './draw.js';

const MODES = [['side', 'side by side'], ['wipe', 'wipe'], ['difference', 'difference']];
const SPEEDS = [['0.25', '¼×'], ['0.5', '½×'], ['1', '1×'], ['2', '2×']];
const NOTES = { side: '', wipe: 'drag over the clip, or Shift and arrows: teacher left, student right', difference: 'teacher minus student, amplified 4×; black is equal' };

const figure = (clip, place) => `<figure class="clip" data-place="${place}">
  <div class="screen"><video src="${text(clip.url)}" muted playsinline preload="auto" tabindex="-1" aria-label="Clip of the ${text(clip.name)}"></video>
    ${place ? '<i class="wipe-line" hidden></i>' : ''}</div>
  <figcaption><div class="clip-name" data-op="${planOperator(clip.plan)}">${swatch(planOperator(clip.plan))}<b class="${place ? 'mono' : ''} clipped">${text(clip.name)}</b><span class="clip-score" data-score="${place}"></span></div>
  <dl class="clip-facts">${clip.facts.map(([label, value, unit]) => `<div><dt>${text(label)}</dt><dd>${text(value)} <span>${text(unit ?? '')}</span></dd></div>`).join('')}</dl></figcaption></figure>`;

const frame = value => `<section class="panel player" tabindex="-1" aria-label="Clips">
  <header class="panel-head mode-line">${segmented('Mode', MODES, 'side')}<span class="hint mode-note"></span>
    <div class="end">${segmented('Speed', SPEEDS, '1')}<button type="button" class="button icon-only" data-verb="loop" aria-pressed="true" aria-label="Loop">${icon('loop')}</button></div></header>
  <div class="panel-body"><p class="row-prompt line-of"><b>${text(value.prompt)}</b> <span class="muted">seed ${text(value.seed)}</span>${value.page ? ` <a class="button quiet small page-link" href="${text(value.page)}" target="_blank" rel="noopener">Open as a page</a>` : ''}</p>
    <div class="clip-stage"><div class="clip-grid">${value.clips.map(figure).join('')}</div>${value.readouts?.length ? `<dl class="readouts clip-readouts">${value.readouts.map(r => `<div class="readout"><dt>${text(r.label)}</dt><dd>${text(r.value)} <small>${text(r.unit ?? '')}</small></dd><div class="note">${text(r.note ?? '')}</div></div>`).join('')}</dl>` : ''}</div></div>
  <div class="scrub"><div class="transport">
      <button type="button" class="button quiet icon-only" data-verb="back" aria-label="One frame back">${icon('back')}</button>
      <button type="button" class="button icon-only" data-verb="play" aria-label="Play">${icon('play')}</button>
      <button type="button" class="button quiet icon-only" data-verb="forward" aria-label="One frame forward">${icon('forward')}</button>
      <input class="slider" type="range" min="0" max="${value.frames - 1}" value="0" step="1" aria-label="Frame"><output class="frame-note"></output></div>
    <div class="curve-line"><div class="curve-choice">${segmented('Metric', [['psnr', 'PSNR'], ['ssim', 'SSIM']], 'psnr')}</div><div class="curve" aria-label="Metric by frame, click to seek"></div></div></div></section>`;

/** Show `host.get()`; returns {seek, play} for tests and notebooks. */
export const mount = (element, host) => {
  let stop = () => {};
  const show = () => {
    stop();
    const value = host.get();
    if (!value || !value.clips?.length) {
      const verb = value?.page ? `<a class="button" href="${text(value.page)}">${text(value.verb)}</a>` : '';
      element.innerHTML = value?.title ? `<div class="panel"><div class="panel-body pad-top">${empty(value.title, value.why, verb)}</div></div>` : '';
      return;
    }
    element.innerHTML = frame(value);
    stop = run(element, value);
  };
  host.watch(show);
  show();
};

const run = (element, value) => {
  const find = selector => element.querySelector(selector);
  const root = find('.player');
  const videos = [...element.querySelectorAll('video')];
  const [lead] = videos;
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const view = { frame: 0, playing: false, loop: true, mode: 'side', metric: 'psnr', wipe: 0.5 };
  const last = value.frames - 1;
  let alive = true;

  const time = number => (number + 0.5) / value.fps;
  lead.addEventListener('loadedmetadata', () => root.style.setProperty('--ratio', (lead.videoWidth / lead.videoHeight).toFixed(4)));
  const seek = number => {
    view.frame = ((number % value.frames) + value.frames) % value.frames;
    videos.forEach(video => (video.currentTime = time(view.frame)));
    paint();
  };
  const play = on => {
    view.playing = on;
    if (!on) {
      videos.forEach(video => video.pause());
      seek(view.frame);
      return;
    }
    if (view.frame >= last) videos.forEach(video => (video.currentTime = 0));
    Promise.all(videos.map(video => video.play())).catch(() => play(false));
    paint();
  };
  const follow = () => {
    if (!alive || !element.isConnected) return;
    if (view.playing) {
      view.frame = Math.min(last, Math.floor(lead.currentTime * value.fps + 1e-3));
      videos.slice(1).forEach(video => {
        if (Math.abs(video.currentTime - lead.currentTime) > 0.5 / value.fps) video.currentTime = lead.currentTime;
      });
      paint();
    }
    if ('requestVideoFrameCallback' in lead) lead.requestVideoFrameCallback(follow);
    else requestAnimationFrame(follow);
  };

  lead.addEventListener('ended', () => {
    if (!view.playing) return;
    if (!view.loop) {
      view.frame = last;
      play(false);
      return;
    }
    videos.forEach(video => (video.currentTime = 0));
    videos.forEach(video => video.play().catch(() => {}));
  });

  const series = () => value.curves[view.metric];
  const curve = chart(find('.curve'), () => {
    const values = series();
    const finite = values.filter(v => v != null);
    const [low, high] = view.metric === 'ssim' ? [Math.min(0.9, ...finite) - 0.02, 1] : [Math.min(...finite) - 2, Math.max(...finite) + 2];
    const yTicks = ticks(low, high, 4);
    return {
      height: 120, x: [0, Math.max(1, last)], y: [low, high],
      xTicks: ticks(0, last, 6).filter(Number.isInteger), yTicks,
      xFormat: v => v + 1, yFormat: v => (view.metric === 'ssim' ? v.toFixed(2).replace(/^0/, '') : v),
      yLabel: view.metric === 'ssim' ? 'SSIM to the teacher' : 'PSNR to the teacher, dB', label: 'Metric by frame, click to seek',
      draw: ({ sx, sy, opLine, height, pad }) => {
        const op = planOperator(value.clips[1]?.plan ?? []);
        const points = values.map((v, f) => [f, v]).filter(([, v]) => v != null);
        return opLine(points, op) + points.map(([f, v]) => `<circle cx="${sx(f)}" cy="${sy(v)}" r="2.5" data-op="${op}" style="fill:var(--op)"/>`).join('') +
          `<line class="now" x1="${sx(view.frame)}" x2="${sx(view.frame)}" y1="${pad.top}" y2="${height - pad.bottom}" stroke="var(--accent)" stroke-width="1.5"/>`;
      },
    };
  });
  const score = () => {
    const at = value.curves[view.metric]?.[view.frame];
    if (at == null) return 'equal';
    return view.metric === 'ssim' ? `SSIM ${at.toFixed(3).replace(/^0/, '')}` : `${at.toFixed(1)} dB`;
  };
  const paint = () => {
    find('.slider').value = view.frame;
    find('.frame-note').textContent = `frame ${view.frame + 1} of ${value.frames}`;
    const button = find('[data-verb=play]');
    if (button.dataset.on !== String(view.playing)) {
      button.dataset.on = view.playing;
      button.innerHTML = icon(view.playing ? 'pause' : 'play');
      button.setAttribute('aria-label', view.playing ? 'Pause' : 'Play');
    }
    element.querySelectorAll('[data-score]').forEach(node => (node.textContent = +node.dataset.score ? score() : 'reference'));
    const now = find('.curve .now');
    if (now && curve.scale) {
      const x = curve.scale.sx(view.frame);
      now.setAttribute('x1', x);
      now.setAttribute('x2', x);
    }
  };
  const layout = () => {
    root.dataset.mode = view.mode;
    find('.mode-note').textContent = NOTES[view.mode];
    const over = find('[data-place="1"] .screen');
    if (!over) return;
    const under = find('[data-place="0"] .screen');
    const home = view.mode === 'side' ? under : over;
    if (lead.parentNode !== home) home.prepend(lead);
    lead.style.clipPath = view.mode === 'wipe' ? `inset(0 ${100 - view.wipe * 100}% 0 0)` : '';
    const edge = find('.wipe-line');
    edge.hidden = view.mode !== 'wipe';
    edge.style.left = `${view.wipe * 100}%`;
    if (view.playing) videos.forEach(video => video.play().catch(() => {}));
    else seek(view.frame);
  };

  const screen = find('[data-place="1"] .screen');
  const slide = event => {
    const box = screen.getBoundingClientRect();
    view.wipe = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    layout();
  };
  screen?.addEventListener('pointerdown', event => view.mode === 'wipe' && (screen.setPointerCapture(event.pointerId), slide(event)));
  screen?.addEventListener('pointermove', event => view.mode === 'wipe' && event.buttons && slide(event));
  root.addEventListener('click', event => {
    const verb = event.target.closest('[data-verb]')?.dataset.verb;
    if (verb === 'play') play(!view.playing);
    if (verb === 'back' || verb === 'forward') {
      play(false);
      seek(view.frame + (verb === 'back' ? -1 : 1));
    }
    if (verb === 'loop') {
      view.loop = !view.loop;
      event.target.closest('button').setAttribute('aria-pressed', view.loop);
    }
  });
  root.addEventListener('keydown', event => {
    if (event.target.matches('input:not(.slider), textarea, select')) return;
    if (view.mode === 'wipe' && event.shiftKey && /^Arrow(Left|Right)$/.test(event.key)) {
      event.preventDefault();
      view.wipe = Math.max(0, Math.min(1, view.wipe + (event.key === 'ArrowLeft' ? -0.05 : 0.05)));
      layout();
      return;
    }
    const act = {
      ' ': () => !event.target.closest('button') && play(!view.playing),
      ArrowLeft: () => (play(false), seek(view.frame - 1)),
      ArrowRight: () => (play(false), seek(view.frame + 1)),
      Home: () => (play(false), seek(0)),
      End: () => (play(false), seek(last)),
    }[event.key];
    if (!act) return;
    if (event.key !== ' ' || !event.target.closest('button')) event.preventDefault();
    act();
  });
  find('.slider').addEventListener('input', event => {
    const to = +event.target.value;
    play(false);
    seek(to);
  });
  const chartNode = find('.curve');
  chartNode.addEventListener('click', event => {
    const to = Math.round(chartX(curve, event, chartNode));
    play(false);
    seek(Math.max(0, Math.min(last, to)));
  });
  onSegment(find('[data-choice=Mode]'), mode => {
    view.mode = mode;
    layout();
  });
  onSegment(find('[data-choice=Speed]'), speed => videos.forEach(video => (video.playbackRate = +speed)));
  onSegment(find('[data-choice=Metric]'), metric => {
    view.metric = metric;
    curve();
    paint();
  });
  curve();
  layout();
  paint();
  seek(0);
  follow();
  if (!still) Promise.all(videos.map(video => new Promise(ready => (video.readyState > 2 ? ready() : video.addEventListener('canplay', ready, { once: true }))))).then(() => alive && play(true));
  return () => {
    alive = false;
    videos.forEach(video => {
      video.pause();
      video.removeAttribute('src');
      video.load();
    });
  };
};
