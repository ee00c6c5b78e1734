"""Describe how a clip moves and how steady it is, without any learned weights.

The measures follow dimensions of VBench (Huang et al., "VBench: Comprehensive Benchmark Suite for Video
Generative Models", 2023) in what they ask, but replace its networks by classical image measures: they are
VBench-like, are to be compared only with each other, and are no VBench scores. Clips are uint8 [F, H, W, 3].
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from skimage.feature import hog
from skimage.registration import optical_flow_ilk
from skimage.transform import resize

from workbench.errors import InputError

FLOW_SIDE = 96
"""Shorter side at which motion is measured."""
SOFTEN = 1.0
"""Blur (pixels of the reduced frame) that takes out noise before motion is measured."""
STILL = 0.00005
"""Movement (sides per frame) of a clip in which nothing moves: the noise of the measure."""


def check_clip(frames: np.ndarray, *, least: int = 1) -> np.ndarray:
    """Return a clip as an array after checking its form.

    Raises:
        InputError: when it is not uint8 [F, H, W, 3] or shorter than `least` frames.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise InputError(
            f"A clip must be uint8 of shape [frames, height, width, 3], not {frames.dtype} "
            f"{list(frames.shape)}; convert it first."
        )
    if len(frames) < least:
        raise InputError(f"This measure needs at least {least} frames, but the clip has {len(frames)}.")
    return frames


def _grey(frames: np.ndarray) -> np.ndarray:
    """Luminance 0 to 1 [F, h, w], reduced to FLOW_SIDE."""
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    height, width = grey.shape[1:]
    scale = min(1.0, FLOW_SIDE / min(height, width))
    if scale < 1:
        size = (round(height * scale), round(width * scale))
        grey = np.stack([resize(image, size, anti_aliasing=True) for image in grey])
    return ndimage.gaussian_filter(grey, (0, SOFTEN, SOFTEN))


def flow(frames: np.ndarray, *, step: int = 1) -> np.ndarray:
    """Measure optical flow from each frame to the `step`-th after it by iterative Lucas-Kanade
    (scikit-image).

    Returns:
        [F - step, 2, h, w]: down and right, in pixels of the frame reduced to FLOW_SIDE.
    """
    grey = _grey(check_clip(frames, least=step + 1))
    return np.stack([_flow(first, second) for first, second in zip(grey[:-step], grey[step:], strict=True)])


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if np.abs(second - first).max() < 1 / 255:
        return np.zeros((2, *first.shape), np.float32)
    return optical_flow_ilk(first, second, radius=5, num_warp=4, dtype=np.float32)


def _speeds(frames: np.ndarray) -> np.ndarray:
    """Speed of every pixel [F - 1, h, w] in shorter sides per frame; unchanged places count as still."""
    grey = _grey(check_clip(frames, least=2))
    moved = flow(frames)
    speed = np.sqrt((moved**2).sum(1)) / min(grey.shape[1:])
    changed = ndimage.maximum_filter(np.abs(np.diff(grey, axis=0)), (0, 5, 5)) > 0.02
    return np.minimum(speed, 0.2) * changed


def mean_speed(frames: np.ndarray) -> float:
    """Return the mean movement of all pixels, in shorter sides per frame."""
    return float(_speeds(frames).mean())


def dynamic_degree(frames: np.ndarray) -> float:
    """Return how fast the fastest twentieth of the picture moves, in shorter sides per frame (VBench-like).

    VBench thresholds the same quantity of a learned flow to yes or no.
    """
    speed = _speeds(frames).reshape(len(frames) - 1, -1)
    count = max(1, speed.shape[1] // 20)
    return float(np.partition(speed, -count, axis=1)[:, -count:].mean())


def motion_ratio(student: np.ndarray, teacher: np.ndarray) -> float:
    """Return how much the student moves over how much the teacher does: 0.88 is 12 % less."""
    return (mean_speed(student) + STILL) / (mean_speed(teacher) + STILL)


def flicker(frames: np.ndarray) -> float:
    """Return the unsteadiness of the calmer half of the picture, in levels of 255.

    How far each pixel is from the mean of its two neighbours in time, averaged over the half of the pixels
    where that is smallest over the clip, so that moving objects do not count. A still clip gives 0.
    """
    frames = check_clip(frames, least=3).astype(np.float32)
    jump = np.abs(frames[1:-1] - (frames[:-2] + frames[2:]) / 2).mean((0, 3)).ravel()
    return float(np.sort(jump)[: max(1, jump.size // 2)].mean())


def motion_smoothness(frames: np.ndarray) -> float:
    """Return 1 minus the mean error (of 255) of every second frame interpolated along the flow (VBench-like).

    VBench interpolates with a learned network.
    """
    grey = _grey(check_clip(frames, least=3))
    rows, columns = np.meshgrid(*map(np.arange, grey.shape[1:]), indexing="ij")
    errors = []
    for middle in range(1, len(grey) - 1, 2):
        before, after = grey[middle - 1], grey[middle + 1]
        down, right = _flow(before, after) / 2
        from_before = ndimage.map_coordinates(before, [rows - down, columns - right], order=1, mode="nearest")
        from_after = ndimage.map_coordinates(after, [rows + down, columns + right], order=1, mode="nearest")
        errors.append(np.abs((from_before + from_after) / 2 - grey[middle]).mean())
    return float(1 - np.mean(errors))


def _over_time(features: np.ndarray) -> float:
    """Mean cosine of each frame to the first and to the one before, half and half, as in VBench."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(norms, 1e-8)
    first = unit[1:] @ unit[0]
    before = np.array([a @ b for a, b in itertools.pairwise(unit)])
    return float(((first + before) / 2).mean())


def subject_consistency(frames: np.ndarray) -> float:
    """Return how alike the frames stay in shapes and colours (VBench-like; VBench compares DINO features).

    Features: oriented gradients (8 directions, 4 × 4 cells) and a 4 × 4 × 4 colour histogram, each of length
        one.
    """
    frames = check_clip(frames, least=2)
    features = []
    for frame, grey in zip(frames, _grey(frames), strict=True):
        small = resize(grey, (64, 64), anti_aliasing=True)
        shape = hog(small, orientations=8, pixels_per_cell=(16, 16), cells_per_block=(1, 1))
        levels = (frame // 64).reshape(-1, 3).astype(int)
        colour = np.bincount(levels @ np.array([16, 4, 1]), minlength=64).astype(float)
        parts = [part / max(float(np.linalg.norm(part)), 1e-8) for part in (shape, colour)]
        features.append(np.concatenate(parts))
    return _over_time(np.array(features))


def background_consistency(frames: np.ndarray) -> float:
    """Return how alike the calmer half of the picture stays in colour (VBench-like; VBench compares CLIP
    features).

    Features: mean colours of 16 × 16 tiles, centred on mid grey, of the half of the tiles that change least.
    """
    frames = check_clip(frames, least=2)
    tiles = np.stack([resize(frame / 255.0, (16, 16, 3), anti_aliasing=True) for frame in frames]) - 0.5
    tiles = tiles.reshape(len(frames), 256, 3)
    change = tiles.std(0).mean(-1)
    calm = change <= np.median(change)
    return _over_time(tiles[:, calm].reshape(len(frames), -1))
