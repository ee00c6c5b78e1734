/* Clips in sync: rows are prompts, columns are the teacher and its students; grid, wipe, difference, flip;
   one transport and one curve for all.
   value: {columns: [name], rows: [{prompt, clips: [{role, column, name, plan, branch, url, facts: [[label, value, unit, tip]],
   verdicts: [[attribute, verdict]], curves: {psnr, ssim} | null, means}]}], seed, fps, frames, page}
   The first clip of a row is its reference. */
import { curveOf, scoreAt } from './curve.js';
import { figure, operatorOf } from './clip.js';
import { chartPlace, chartX, empty, icon, onSegment, segmented, text } from './draw.js';

const MODES = [['grid', 'grid'], ['wipe', 'wipe'], ['difference', 'difference'], ['flip', 'flip']];
const SPEEDS = [['0.25', '¼×'], ['0.5', '½×'], ['1', '1×'], ['2', '2×']];
const GAINS = [['1', '1×'], ['4', '4×'], ['16', '16×']];
const NOTES = {
  grid: '', wipe: 'drag over a clip, or Shift and arrows: left of the line is the teacher',
  difference: 'teacher minus student, black is equal', flip: 'teacher and student in turn; F flips by hand',
};
const FLIP_MS = 500;

const frameOf = value => {
  const twins = value.rows.some(row => row.clips.some(clip => !clip.branch));
  return `<section class="panel player" tabindex="-1" aria-label="Clips">
  <header class="panel-head mode-line">${value.columns.length > 1 ? segmented('Mode', MODES, 'grid') : ''}
    ${twins ? '<label class="toggle branch-toggle" data-tip="The same students with the linear branch switched off while sampling"><input type="checkbox" checked>linear branch</label>' : ''}
    <span class="gain" hidden>${segmented('Amplified', GAINS, '4')}</span><span class="hint mode-note"></span>
    <div class="end">${segmented('Speed', SPEEDS, '1')}<button type="button" class="button icon-only" data-verb="loop" aria-pressed="true" aria-label="Loop">${icon('loop')}</button></div></header>
  <div class="panel-body">${value.rows.map((row, at) => `<section class="clip-row" data-row="${at}"><p class="row-prompt line-of"><b>${text(row.prompt)}</b> <span class="muted">seed ${text(value.seed)}</span>${at === 0 && value.page ? ` <a class="button quiet small page-link" href="${text(value.page)}" target="_blank" rel="noopener">Open as a page</a>` : ''}</p>
    <div class="clip-grid">${row.clips.map(clip => figure(clip, at)).join('')}</div></section>`).join('')}</div>
  <div class="scrub"><div class="transport">
      <button type="button" class="button quiet icon-only" data-verb="back" aria-label="One frame back">${icon('back')}</button>
      <button type="button" class="button icon-only" data-verb="play" aria-label="Play">${icon('play')}</button>
      <button type="button" class="button quiet icon-only" data-verb="forward" aria-label="One frame forward">${icon('forward')}</button>
      <input class="slider" type="range" min="0" max="${value.frames - 1}" value="0" step="1" aria-label="Frame"><output class="frame-note"></output></div>
    <div class="curve-line"><div class="curve" aria-label="Metric by frame, click to seek"></div><div class="curve-side">
      ${segmented('Metric', [['psnr', 'PSNR'], ['ssim', 'SSIM']], 'psnr')}${value.rows.length > 1 ? `<select class="input curve-row" aria-label="Prompt of the curve">${value.rows.map((row, at) => `<option value="${at}">${text(row.prompt)}</option>`).join('')}</select>` : ''}<div class="legend curve-legend"></div></div></div></div></section>`;
};

/** Show `host.get()` and again whenever it changes. */
export const mount = (element, host) => {
  let stop = () => {};
  let shown = null;
  const show = () => {
    const value = host.get();
    const now = JSON.stringify(value);
    if (now === shown) return;
    shown = now;
    stop();
    stop = () => {};
    if (!value?.rows?.length) {
      const verb = value?.verb ? `<a class="button" href="${text(value.page)}">${text(value.verb)}</a>` : '';
      element.innerHTML = value?.title ? `<div class="panel"><div class="panel-body pad-top">${empty(value.title, value.why, verb)}</div></div>` : '';
      return;
    }
    element.innerHTML = frameOf(value);
    stop = run(element, value);
  };
  host.watch(show);
  show();
};

const run = (element, value) => {
  const find = selector => element.querySelector(selector);
  const all = selector => [...element.querySelectorAll(selector)];
  const root = find('.player');
  const videos = all('video');
  const last = value.frames - 1;
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const view = { frame: 0, playing: false, loop: true, mode: 'grid', metric: 'psnr', wipe: 0.5, flip: false, row: 0, branch: true, speed: 1 };
  let alive = true;
  let flipper = 0;

  const seen = new Set([0]); // rows on the screen: only these play
  const live = () => videos.filter(video => seen.has(+video.closest('.clip-row').dataset.row) && !video.closest('.clip').hidden);
  const lead = () => live()[0] ?? videos[0];
  const reference = video => video.closest('.clip-row').querySelector('video');
  const time = number => (number + 0.5) / value.fps;

  videos[0].addEventListener('loadedmetadata', () => root.style.setProperty('--ratio', (videos[0].videoWidth / videos[0].videoHeight || 1).toFixed(4)));
  const seek = number => {
    view.frame = ((number % value.frames) + value.frames) % value.frames;
    videos.forEach(video => (video.currentTime = Math.min(time(view.frame), (video.duration || Infinity) - 1e-3)));
    paint();
  };
  const play = on => {
    view.playing = on;
    if (!on) {
      videos.forEach(video => video.pause());
      seek(view.frame);
      return;
    }
    if (view.frame >= last) live().forEach(video => (video.currentTime = 0));
    Promise.all(live().map(video => video.play())).catch(() => alive && play(false));
    follow();
    paint();
  };
  let following = 0;
  const follow = () => {
    const mine = ++following;
    const tick = () => {
      if (!alive || mine !== following || !element.isConnected) return;
      if (view.playing) {
        const head = lead();
        view.frame = Math.min(last, Math.floor(head.currentTime * value.fps + 1e-3));
        live().forEach(video => {
          if (video !== head && Math.abs(video.currentTime - head.currentTime) > 0.5 / value.fps) video.currentTime = head.currentTime;
        });
        paint();
      }
      const head = lead();
      if ('requestVideoFrameCallback' in head) head.requestVideoFrameCallback(tick);
      else requestAnimationFrame(tick);
    };
    tick();
  };
  const ended = event => {
    if (!view.playing || event.target !== lead()) return;
    if (!view.loop) {
      view.frame = last;
      play(false);
      return;
    }
    live().forEach(video => {
      video.currentTime = 0;
      video.play().catch(() => {});
    });
  };
  videos.forEach(video => {
    video.addEventListener('ended', ended);
    video.addEventListener('seeked', () => over(video));
    video.addEventListener('loadeddata', () => over(video));
  });

  /* Wipe, difference and flip are painted over the student's clip, from both videos as they are now. */
  const over = video => {
    const clip = video.closest('.clip');
    const canvas = clip.querySelector('canvas');
    if (view.mode === 'grid') return;
    const other = reference(video);
    if (video === other) {
      clip.closest('.clip-row').querySelectorAll('.clip:not([data-column="0"]) video').forEach(over);
      return;
    }
    if (!canvas || !video.videoWidth || !other.videoWidth) return;
    const [width, height] = [video.videoWidth, video.videoHeight];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const c = canvas.getContext('2d');
    c.globalCompositeOperation = 'source-over';
    c.drawImage(view.mode === 'flip' && view.flip ? other : video, 0, 0, width, height);
    if (view.mode === 'difference') {
      c.globalCompositeOperation = 'difference';
      c.drawImage(other, 0, 0, width, height);
    } else if (view.mode === 'wipe') {
      const cut = Math.round(view.wipe * width);
      if (cut) c.drawImage(other, 0, 0, (cut / width) * other.videoWidth, other.videoHeight, 0, 0, cut, height);
    }
  };
  const overAll = () => live().forEach(video => video !== reference(video) && over(video));

  const shownClips = row => value.rows[row].clips.filter(clip => clip.column === 0 || clip.branch === view.branch || !hasTwin(clip, row));
  const hasTwin = (clip, row) => value.rows[row].clips.some(other => other !== clip && other.column && other.branch !== clip.branch && JSON.stringify(other.plan) === JSON.stringify(clip.plan));
  const curve = curveOf(find('.curve'), () => ({ clips: shownClips(view.row), metric: view.metric, frames: value.frames, frame: view.frame }));
  const legend = () => {
    find('.curve-legend').innerHTML = shownClips(view.row).filter(clip => clip.curves).map((clip, place) =>
      `<span data-op="${text(operatorOf(clip))}"><i class="stroke" data-dash="${place % 4}"></i><span class="mono clipped">${text(clip.name)}</span></span>`).join('');
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
    all('.clip').forEach(node => {
      const clip = value.rows[+node.dataset.row].clips.find(one => one.column === +node.dataset.column);
      node.querySelector('.clip-score').textContent = scoreAt(clip, view.metric, view.frame);
    });
    const now = find('.curve .now');
    if (now && curve.scale) {
      const x = chartPlace(curve, view.frame);
      now.setAttribute('x1', x);
      now.setAttribute('x2', x);
    }
    if (view.mode !== 'grid') overAll();
  };
  const layout = () => {
    root.dataset.mode = view.mode;
    const note = find('.mode-note');
    note.textContent = NOTES[view.mode];
    find('.gain').hidden = view.mode !== 'difference';
    all('.wipe-line').forEach(line => {
      line.hidden = view.mode !== 'wipe';
      line.style.left = `${view.wipe * 100}%`;
    });
    clearInterval(flipper);
    if (view.mode === 'flip') flipper = setInterval(() => flip(), FLIP_MS);
    flip(false);
    paint();
  };
  const flip = (on = !view.flip) => {
    if (!alive || !element.isConnected) return clearInterval(flipper);
    view.flip = on;
    all('.clip').forEach(node => (node.dataset.flipped = view.mode === 'flip' && on));
    overAll();
  };
  const branch = on => {
    view.branch = on;
    value.rows.forEach((row, at) => {
      const kept = new Set(shownClips(at).map(clip => clip.column));
      all(`.clip[data-row="${at}"]`).forEach(node => (node.hidden = !kept.has(+node.dataset.column)));
    });
    root.style.setProperty('--count', Math.max(...value.rows.map((_, at) => shownClips(at).length)));
    curve();
    legend();
    if (view.playing) play(true);
    paint();
  };

  const slide = (screen, event) => {
    const box = screen.getBoundingClientRect();
    view.wipe = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    layout();
  };
  all('.clip:not([data-column="0"]) .screen').forEach(screen => {
    screen.addEventListener('pointerdown', event => view.mode === 'wipe' && (screen.setPointerCapture(event.pointerId), slide(screen, event)));
    screen.addEventListener('pointermove', event => view.mode === 'wipe' && event.buttons && slide(screen, event));
  });
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
    if (event.target.matches('input:not(.slider):not([type="checkbox"]), textarea, select')) return;
    if (view.mode === 'wipe' && event.shiftKey && /^Arrow(Left|Right)$/.test(event.key)) {
      event.preventDefault();
      view.wipe = Math.max(0, Math.min(1, view.wipe + (event.key === 'ArrowLeft' ? -0.05 : 0.05)));
      layout();
      return;
    }
    const act = {
      ' ': () => !event.target.closest('button, label') && play(!view.playing),
      ArrowLeft: () => (play(false), seek(view.frame - 1)),
      ArrowRight: () => (play(false), seek(view.frame + 1)),
      Home: () => (play(false), seek(0)),
      End: () => (play(false), seek(last)),
      f: () => view.mode === 'flip' && (clearInterval(flipper), flip()),
    }[event.key];
    if (!act) return;
    if (event.key !== ' ' || !event.target.closest('button, label')) event.preventDefault();
    act();
  });
  find('.slider').addEventListener('input', event => {
    const to = +event.target.value;
    play(false);
    seek(to);
  });
  const chartNode = find('.curve');
  chartNode.addEventListener('click', event => {
    play(false);
    seek(Math.max(0, Math.min(last, Math.round(chartX(curve, event, chartNode)))));
  });
  const choice = (name, act) => find(`[data-choice="${name}"]`) && onSegment(find(`[data-choice="${name}"]`), act);
  choice('Mode', mode => {
    view.mode = mode;
    layout();
  });
  choice('Amplified', gain => root.style.setProperty('--gain', gain));
  choice('Speed', speed => {
    view.speed = +speed;
    videos.forEach(video => (video.playbackRate = view.speed));
  });
  choice('Metric', metric => {
    view.metric = metric;
    curve();
    paint();
  });
  find('.branch-toggle input')?.addEventListener('change', event => branch(event.target.checked));
  find('.curve-row')?.addEventListener('change', event => {
    view.row = +event.target.value;
    curve();
    legend();
    paint();
  });
  const watcher = new IntersectionObserver(entries => {
    entries.forEach(({ target, isIntersecting }) => (isIntersecting ? seen.add(+target.dataset.row) : seen.delete(+target.dataset.row)));
    if (!view.playing) return;
    const now = new Set(live());
    videos.forEach(video => (now.has(video) ? video.paused && video.play().catch(() => {}) : video.pause()));
    follow();
  });
  if (value.rows.length > 1) all('.clip-row').forEach(row => watcher.observe(row));

  branch(true);
  layout();
  seek(0);
  follow();
  if (!still) Promise.all(live().map(video => new Promise(ready => (video.readyState > 2 ? ready() : video.addEventListener('canplay', ready, { once: true }))))).then(() => alive && play(true));
  return () => {
    alive = false;
    clearInterval(flipper);
    watcher.disconnect();
    videos.forEach(video => {
      video.pause();
      video.removeAttribute('src');
      video.load();
    });
  };
};
