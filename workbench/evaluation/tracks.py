"""Measure objects over a clip: the edges of each mask, which of them are in full view, and crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from workbench.evaluation.pixels import MIN_AREA, SIDE, Blob

CROP = 24
NEAR = 3
"""Pixels within which another object may hide an edge."""


@dataclass(frozen=True)
class Track:
    """Edges of one object, in shorter sides of the frame.

    Attributes:
        edges: [F, 4] left, top, right, bottom.
        valid: [F, 4] whether the edge is in full view: off the frame's border, not beside another object.
        area: [F] share of the squared shorter side.
        shown: [F] whether the object is seen at all.
    """

    edges: np.ndarray
    valid: np.ndarray
    area: np.ndarray
    shown: np.ndarray


def track(blob: Blob, others: np.ndarray) -> Track:
    """Measure a blob beside the union of the other objects' masks [F, h, w]."""
    num_frames, height, width = blob.mask.shape
    edges, valid = np.zeros((num_frames, 4)), np.zeros((num_frames, 4), bool)
    area = blob.mask.sum((1, 2)) / SIDE**2
    shown = area * SIDE**2 >= MIN_AREA
    for frame in np.flatnonzero(shown):
        rows, columns = np.nonzero(blob.mask[frame])
        left, right, top, bottom = columns.min(), columns.max(), rows.min(), rows.max()
        edges[frame] = (left, top, right + 1, bottom + 1)
        beside = np.zeros_like(blob.mask[frame])
        if others[frame].any():
            beside = ndimage.binary_dilation(others[frame], iterations=NEAR)
        hidden = beside[rows, columns]
        at_edge = (columns <= left + 1, rows <= top + 1, columns >= right - 1, rows >= bottom - 1)
        in_frame = (left > 1, top > 1, right < width - 2, bottom < height - 2)
        for edge in range(4):
            valid[frame, edge] = in_frame[edge] and hidden[at_edge[edge]].mean() < 0.2
    return Track(edges / SIDE, valid, area, shown)


def crops(frames: np.ndarray, blob: Blob, others: np.ndarray, chosen: np.ndarray) -> torch.Tensor:
    """Cut square crops of an object: [N, 3, CROP, CROP] of its mask, its light, and the others' masks.

    Light is the value of the pixel over the object's median value in the clip, inside the mask.
    """
    result = []
    usual = float(np.median(frames.max(-1)[blob.mask])) if blob.mask.any() else 1.0
    for frame in chosen:
        mask = torch.from_numpy(blob.mask[frame]).float()
        value = torch.from_numpy(frames[frame]).amax(-1)
        light = (value / usual).clamp(0, 2.5) * mask
        planes = torch.stack([mask, light, torch.from_numpy(others[frame]).float()])
        result.append(_square(planes, mask))
    return torch.stack(result)


def _square(planes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.nonzero(mask, as_tuple=True)
    middle_y, middle_x = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
    half = 0.55 * float(max(rows.max() - rows.min(), columns.max() - columns.min()) + 1)
    height, width = mask.shape
    step = (torch.arange(CROP) + 0.5) / CROP * 2 - 1
    y = (middle_y + step * half) / height * 2 - 1
    x = (middle_x + step * half) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    scale = half * 2 / CROP
    if scale > 1.5:
        planes = torch.nn.functional.avg_pool2d(planes[None], 3, 1, 1)[0]
    return torch.nn.functional.grid_sample(planes[None], grid[None], align_corners=False)[0]


def lone_frames(blob: Blob, others: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Keep the chosen frames in which no other object comes into the object's box, if there are enough."""
    lone = []
    for frame in chosen:
        rows, columns = np.nonzero(blob.mask[frame])
        top, left = max(0, rows.min() - NEAR), max(0, columns.min() - NEAR)
        if not others[frame, top : rows.max() + NEAR + 1, left : columns.max() + NEAR + 1].any():
            lone.append(frame)
    return np.array(lone) if len(lone) >= 5 else chosen


def clear_frames(measured: Track, most: int) -> np.ndarray:
    """Choose up to `most` frames in which the object is best seen, spread over the clip."""
    quality = measured.shown * (1.0 + measured.valid.sum(1))
    best = np.flatnonzero(quality >= max(1.0, quality.max()))
    if len(best) < 3:
        best = np.sort(np.argsort(-quality * (measured.area > 0), kind="stable")[:3])
        best = best[measured.shown[best]]
    if len(best) > most:
        best = best[np.linspace(0, len(best) - 1, most).round().astype(int)]
    return best
