"""Contact sheets: a few frames of many clips in one labelled picture, for looking at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRAMES = 5
MOST_WIDTH = 480
"""Strips wider than this many pixels are reduced to it."""
LINE = 16
GAP = 10
PAPER, INK = (255, 255, 255), (40, 40, 40)


def strip(frames: np.ndarray, *, count: int = FRAMES, most_width: int = MOST_WIDTH) -> np.ndarray:
    """Return `count` frames of a clip side by side, uint8 [h, w, 3], at most `most_width` wide.

    Args:
        frames: uint8 [F, H, W, 3].
        count: How many, evenly over the clip.
        most_width: In pixels.
    """
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    image = Image.fromarray(np.concatenate(list(frames[chosen]), axis=1))
    if image.width > most_width:
        height = max(1, round(image.height * most_width / image.width))
        image = image.resize((most_width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def save_sheet(
    path: Path,
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str],
    heads: Sequence[str] = (),
    columns: int = 1,
) -> None:
    """Write strips with their prompts as one PNG.

    Args:
        path: Where to write.
        rows: One list of strips a prompt, all strips of one size.
        titles: What stands above each row.
        heads: What stands above the strips of the first row, one a strip.
        columns: Rows side by side.
    """
    height, width = rows[0][0].shape[:2]
    row_width = max(len(row) for row in rows) * (width + GAP) - GAP
    font = ImageFont.load_default(size=12)
    lines = [textwrap.wrap(title, max(20, row_width // 6))[:2] for title in titles]
    text_lines = max(map(len, lines))
    row_height = text_lines * LINE + height + GAP
    top = GAP + (LINE if heads else 0)
    per_column = -(-len(rows) // columns)
    size = (columns * (row_width + 2 * GAP), top + per_column * row_height + GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, head in enumerate(heads):
        pen.text((GAP + number * (width + GAP), GAP - 4), head, INK, font=font)
    for index, row in enumerate(rows):
        column, line = divmod(index, per_column)
        left, y = GAP + column * (row_width + 2 * GAP), top + line * row_height
        for number, text in enumerate(lines[index]):
            pen.text((left, y + number * LINE), text, INK, font=font)
        for number, image in enumerate(row):
            sheet.paste(Image.fromarray(image), (left + number * (width + GAP), y + text_lines * LINE))
    sheet.save(path)
