"""Read what is behind the objects: which background it is, and how the camera turns."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import ndimage

from workbench.evaluation.pixels import SIDE
from workbench.models.embedded.world.layout import HORIZON
from workbench.models.embedded.world.scene import BACKGROUNDS, Background

BANDS = ((0.0, 0.12), (0.19, 0.29), (0.33, 0.42), (0.5, 0.7), (0.85, 1.0))
"""Rows of a square frame: high and low sky, far, middle and near ground."""
LAG = 4
REACH = 12
MAX_DISTANCE = 9.0
"""Mean squared distance, in standard deviations, beyond which a backdrop is none of the known ones."""


def free_pixels(labels: np.ndarray) -> np.ndarray:
    """Where only background shows: bool [F, h, w], four pixels clear of any object."""
    return ~ndimage.binary_dilation(labels > 0, np.ones((1, 9, 9), bool))


def backdrop_features(frames: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Describe the backdrop of a standard clip: median colours and unevenness of five bands (20 numbers)."""
    height = frames.shape[1]
    top = (height - SIDE) // 2
    features = []
    for low, high in BANDS:
        rows = slice(top + round(low * SIDE), top + round(high * SIDE))
        band, open_ = frames[::LAG, rows], free[::LAG, rows]
        if open_.sum() < 40:
            open_ = np.ones_like(open_)
        features.append(np.median(band[open_], axis=0))
    for low, high in BANDS:
        rows = slice(top + round(low * SIDE), top + round(high * SIDE))
        grey = frames[::LAG, rows].mean(-1)
        weight = free[::LAG, rows] + 1e-6
        line = (grey * weight).sum(2, keepdims=True) / weight.sum(2, keepdims=True)
        features.append([float(np.sqrt((((grey - line) ** 2) * weight).sum() / weight.sum())) * 2])
    return np.concatenate(features)


def read_background(features: np.ndarray, weights: dict[str, torch.Tensor]) -> Background | None:
    """Name the background nearest to the features, or None when none is near."""
    mean, spread = (weights[f"backdrop.{name}"].double().numpy() for name in ("mean", "spread"))
    distance = (((features - mean) / spread) ** 2).mean(1)
    best = int(distance.argmin())
    return BACKGROUNDS[best] if distance[best] < MAX_DISTANCE else None


def background_shift(frames: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, float]:
    """Follow the sideways movement of ground and skyline.

    Returns:
        The shift [F] relative to the first frame in shorter sides (to the right positive), and how sure it
        is: the contrast by which the found shift matches better than others (0 on a featureless backdrop).
    """
    num_frames, height = frames.shape[:2]
    top = (height - SIDE) // 2
    rows = np.r_[top + round((HORIZON - 0.12) * SIDE) : top + round((HORIZON - 0.005) * SIDE),
                 top + round((HORIZON + 0.06) * SIDE) : height]  # fmt: skip
    grey = ndimage.gaussian_filter(frames[:, rows].mean(-1), (0, 0, 1.0))
    open_ = free[:, rows]
    marks = np.arange(0, num_frames, LAG)
    if marks[-1] != num_frames - 1:
        marks = np.append(marks, num_frames - 1)
    total, places, sureness = 0.0, [0.0], []
    for start, end in itertools.pairwise(marks):
        step, sure = _match(grey[start], grey[end], open_[start], open_[end])
        total += step
        places.append(total)
        sureness.append(sure)
    shift = np.interp(np.arange(num_frames), marks, places) if num_frames > 1 else np.zeros(1)
    return shift / SIDE, float(np.median(sureness)) if sureness else 0.0


def _match(
    first: np.ndarray, second: np.ndarray, free_first: np.ndarray, free_second: np.ndarray
) -> tuple[float, float]:
    """Sub-pixel shift by which the second image lies to the right of the first, and its contrast."""
    costs, width = [], first.shape[1]
    for shift in range(-REACH, REACH + 1):
        a = slice(max(0, -shift), min(width, width - shift))
        b = slice(max(0, shift), min(width, width + shift))
        both = free_first[:, a] & free_second[:, b]
        if both.sum() < 200:
            costs.append(np.inf)
            continue
        difference = np.minimum(np.abs(second[:, b] - first[:, a])[both], 0.08)
        costs.append(float(difference.mean()))
    cost = np.array(costs)
    finite = cost[np.isfinite(cost)]
    if len(finite) < 5:
        return 0.0, 0.0
    best = int(np.argmin(cost))
    contrast = float(np.median(finite) - cost[best])
    offset = 0.0
    if 0 < best < len(cost) - 1 and np.isfinite(cost[[best - 1, best + 1]]).all():
        left, right = cost[best - 1], cost[best + 1]
        bend = left + right - 2 * cost[best]
        offset = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return best - REACH + float(np.clip(offset, -0.5, 0.5)), contrast
