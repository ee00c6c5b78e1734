"""Find coloured solids in clips: a label per pixel, then objects with their masks over time.

Knows the world's colours through a small classifier of single pixels, and nothing of any prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from workbench.errors import InputError
from workbench.evaluation.classifiers import LEVELS, Reader
from workbench.models.embedded.world.scene import COLOURS, Colour

SIDE = 128
"""Clips are read at this length of their shorter side."""
MIN_AREA = 45
"""Pixels (at SIDE) below which a patch of colour is no object."""
MIN_PRESENCE = 0.3
"""Share of frames in which an object must be seen."""
SCATTERED = 0.3
"""Share of a colour's pixels that its largest part must hold; less is speckle, no object."""


@dataclass(frozen=True)
class Blob:
    """One coloured object over a clip.

    Attributes:
        colour: Its colour.
        mask: bool [F, h, w].
        pieces: [F] number of separate large parts of that colour.
    """

    colour: Colour
    mask: np.ndarray
    pieces: np.ndarray


def standard_frames(frames: np.ndarray) -> np.ndarray:
    """Return a clip [F, H, W, 3] uint8 as float32 0 to 1 with a shorter side of SIDE pixels.

    Raises:
        InputError: when it is no such clip.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or min(frames.shape) < 1:
        raise InputError(
            f"A clip to judge must be uint8 of shape [frames, height, width, 3], not {frames.dtype} "
            f"{list(frames.shape)}; convert it first."
        )
    height, width = frames.shape[1:3]
    if min(height, width) == SIDE:
        return frames.astype(np.float32) / 255
    scale = SIDE / min(height, width)
    size = (round(height * scale), round(width * scale))
    planes = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float() / 255
    planes = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return planes.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def colour_labels(frames: np.ndarray, reader: Reader) -> np.ndarray:
    """Label the pixels of a standard clip: uint8 [F, h, w], 0 background, else 1 + position in `COLOURS`."""
    levels = torch.from_numpy(frames).mul(LEVELS).long().clamp(max=LEVELS - 1)
    index = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    likely = reader.table[index].permute(0, 3, 1, 2)
    smooth = torch.nn.functional.avg_pool2d(likely, 3, 1, 1, count_include_pad=False)
    return smooth.argmax(1).to(torch.uint8).numpy()


def find_blobs(labels: np.ndarray) -> list[Blob]:
    """Find the coloured objects in labels [F, h, w], largest first; what spans the whole width is none."""
    blobs = []
    for number, colour in enumerate(COLOURS, start=1):
        plane = labels == number
        if plane.sum() < MIN_AREA * MIN_PRESENCE * len(labels):
            continue
        mask, pieces = _solid_parts(plane)
        seen = mask.sum((1, 2)) >= MIN_AREA
        across = mask[:, :, :2].any((1, 2)) & mask[:, :, -2:].any((1, 2))
        if seen.mean() >= MIN_PRESENCE and across.sum() <= 0.5 * seen.sum():
            blobs.append(Blob(colour, mask, pieces))
    blobs.sort(key=lambda blob: -int(blob.mask.sum()))
    return _without_fringes(blobs)


def _solid_parts(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop thin lines and specks, frame by frame; count the large parts."""
    kept, pieces = np.zeros_like(plane), np.zeros(len(plane), dtype=int)
    cross = ndimage.generate_binary_structure(2, 1)
    for frame, image in enumerate(plane):
        if image.sum() < MIN_AREA:
            continue
        opened = ndimage.binary_opening(image, cross)
        parts, number = ndimage.label(opened)
        if number == 0:
            continue
        areas = ndimage.sum_labels(opened, parts, np.arange(1, number + 1))
        if areas.max() < SCATTERED * image.sum():
            continue
        large = np.flatnonzero(areas >= max(12, 0.1 * areas.max())) + 1
        kept[frame] = np.isin(parts, large)
        pieces[frame] = int((areas >= max(MIN_AREA, 0.3 * areas.max())).sum())
    return kept, pieces


def _without_fringes(blobs: list[Blob]) -> list[Blob]:
    """Drop small blobs that are only the mixed colours at the rim, or the glare, of a larger one."""
    kept: list[Blob] = []
    for blob in blobs:
        area = blob.mask.sum()
        fringe = False
        for larger in kept:
            near = ndimage.binary_dilation(larger.mask, np.ones((1, 7, 7), bool))
            if area < 0.4 * larger.mask.sum() and (blob.mask & near).sum() > 0.72 * area:
                fringe = True
        if not fringe:
            kept.append(blob)
    return kept
