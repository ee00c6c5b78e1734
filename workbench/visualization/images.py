"""Arrays to colours and pictures: maps as tiles, attention over a frame. Knows numpy and pillow alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.visualization.theme import MASS

Pixels = NDArray[np.uint8]

GAMMA = 0.5
"""Display gamma of attention mass: lifts the faint parts."""
TOP_QUANTILE = 0.995


def colours_of(values: NDArray[Any], stops: Sequence[str] = MASS) -> Pixels:
    """Map values in 0..1 through colour stops; returns [..., 3]."""
    ramp = np.array(
        [[int(stop[index : index + 2], 16) for index in (1, 3, 5)] for stop in stops], dtype=float
    )
    place = np.clip(values, 0.0, 1.0) * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    share = (place - low)[..., None]
    return np.rint(ramp[low] * (1 - share) + ramp[low + 1] * share).astype(np.uint8)


def normalised(mass: NDArray[Any]) -> NDArray[np.float64]:
    """Scale mass to 0..1: divided by its 99.5 % quantile (by its maximum where that is 0), then gamma."""
    mass = np.asarray(mass, dtype=np.float64)
    top = float(np.quantile(mass, TOP_QUANTILE)) or float(mass.max(initial=0.0)) or 1.0
    scaled: NDArray[np.float64] = np.clip(mass / top, 0.0, 1.0) ** GAMMA
    return scaled


def tile_sheet(maps: NDArray[Any], *, gap: int = 1, background: str = "#ffffff") -> Pixels:
    """Lay pooled maps [blocks, heads, S, S] out as one picture, rows are blocks; a scale per tile."""
    blocks, heads, side, _ = maps.shape
    step = side + gap
    sheet = np.empty((blocks * step - gap, heads * step - gap, 3), dtype=np.uint8)
    sheet[:] = colours_of(np.zeros(1), (background, background))
    for block in range(blocks):
        for head in range(heads):
            tile = colours_of(normalised(maps[block, head]))
            sheet[block * step : block * step + side, head * step : head * step + side] = tile
    return sheet


def overlay(frame: Pixels, mass: NDArray[Any]) -> Pixels:
    """Blend attention mass in 0..1 [H, W] over a frame [h, w, 3]; opacity .39 + .47 × mass."""
    height, width = frame.shape[:2]
    rows = np.arange(height) * mass.shape[0] // height
    columns = np.arange(width) * mass.shape[1] // width
    spread = np.asarray(mass, dtype=np.float64)[rows][:, columns]
    opacity = (0.39 + 0.47 * spread)[..., None]
    return np.rint(frame * (1 - opacity) + colours_of(spread) * opacity).astype(np.uint8)


def data_uri(picture: Pixels, *, scale: int = 1) -> str:
    """Return a picture [h, w, 3] as a PNG data URI, each pixel repeated `scale` times."""
    from PIL import Image

    buffer = io.BytesIO()
    enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(np.ascontiguousarray(enlarged)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
