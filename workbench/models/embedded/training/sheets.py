"""Contact sheets: a few frames of many clips in one picture, for looking at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

FRAMES = (0, 4, 8, 12, 16)


def save_sheet(
    path: Path, clips: list[torch.Tensor], *, frames: tuple[int, ...] = FRAMES, columns: int = 2
) -> None:
    """Write clips as one PNG: a clip is a row of frames, in `columns` columns.

    Args:
        path: Where to write.
        clips: Bytes [F, H, W, 3] each; put truth and reconstruction one after the other to compare them.
        frames: Which frames to show; those beyond the end of a clip are left out.
        columns: Clips side by side.
    """
    rows = []
    for clip in clips:
        shown = [frame for frame in frames if frame < clip.shape[0]]
        rows.append(np.concatenate(list(clip[shown].cpu().numpy()), axis=1))
    while len(rows) % columns:
        rows.append(np.zeros_like(rows[0]))
    per_column = len(rows) // columns
    stacks = [np.concatenate(rows[index * per_column : (index + 1) * per_column]) for index in range(columns)]
    Image.fromarray(np.concatenate(stacks, axis=1)).save(path)
