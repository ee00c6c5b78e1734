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
        edges[frame] = mask_box(blob.mask[frame])
        left, top, right, bottom = edges[frame] - (0, 0, 1, 1)
        beside = np.zeros_like(blob.mask[frame])
        if others[frame].any():
            beside = ndimage.binary_dilation(others[frame], iterations=NEAR)
        hidden = beside[rows, columns]
        at_edge = (columns <= left + 1, rows <= top + 1, columns >= right - 1, rows >= bottom - 1)
        in_frame = (left > 1, top > 1, right < width - 2, bottom < height - 2)
        for edge in range(4):
            valid[frame, edge] = in_frame[edge] and hidden[at_edge[edge]].mean() < 0.2
    return Track(edges / SIDE, valid, area, shown)


def crops(
    frames: np.ndarray, blob: Blob, others: np.ndarray, chosen: np.ndarray, *, boxes: np.ndarray | None = None
) -> torch.Tensor:
    """Cut square crops of an object: [N, 3, CROP, CROP] of its mask, its light, and the others' masks.

    Light is the value of the pixel over the object's median value in the clip, inside the mask. The crops
    hold the mask's own box in each frame, or `boxes` [F, 4] (left, top, right, bottom in pixels).
    """
    result = []
    usual = float(np.median(frames.max(-1)[blob.mask])) if blob.mask.any() else 1.0
    for frame in chosen:
        mask = torch.from_numpy(blob.mask[frame]).float()
        value = torch.from_numpy(frames[frame]).amax(-1)
        light = (value / usual).clamp(0, 2.5) * mask
        planes = torch.stack([mask, light, torch.from_numpy(others[frame]).float()])
        box = mask_box(blob.mask[frame]) if boxes is None else boxes[frame]
        result.append(_square(planes, box))
    return torch.stack(result)


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Box of a mask [h, w] that is not empty: left, top, right, bottom in pixels."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


def _square(planes: torch.Tensor, box: np.ndarray) -> torch.Tensor:
    left, top, right, bottom = (float(edge) for edge in box)
    half = 0.55 * max(right - left, bottom - top)
    height, width = planes.shape[1:]
    step = (torch.arange(CROP) + 0.5) / CROP * 2 - 1
    y = ((top + bottom) / 2 + step * half) / height * 2 - 1
    x = ((left + right) / 2 + step * half) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    if half * 2 / CROP > 1.5:
        planes = torch.nn.functional.avg_pool2d(planes[None], 3, 1, 1)[0]
    return torch.nn.functional.grid_sample(planes[None], grid[None], align_corners=False)[0]


def resting_boxes(measured: Track, shift: np.ndarray) -> np.ndarray:
    """Boxes [F, 4] in pixels of an object at rest before a background shifted by [F]; from clear edges."""
    moved = np.stack([shift, 0 * shift, shift, 0 * shift], -1)
    still = measured.edges - moved
    edges = []
    for edge in range(4):
        seen = measured.valid[:, edge] if measured.valid[:, edge].sum() >= 3 else measured.shown
        edges.append(np.median(still[seen, edge]))
    return (np.array(edges) + moved) * SIDE


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
