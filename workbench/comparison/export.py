"""A comparison for other people: a folder that opens without a server, a film side by side, plain JSON."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from workbench.comparison.page import write_page
from workbench.comparison.record import FILE, Comparison, read
from workbench.errors import InputError
from workbench.video import read_mp4, write_mp4
from workbench.workspace import write_json

Form = Literal["html", "vote", "mp4", "gif", "json"]
FORMS: tuple[Form, ...] = ("html", "vote", "mp4", "gif", "json")
GAP = 4
GAP_LEVEL = 24


def export(comparison: Path, target: Path, *, form: Form) -> Path:
    """Write a comparison in one form.

    Args:
        comparison: its folder.
        target: for "html" and "vote" a folder to make, else a file.
        form: "vote" is "html" that begins with a blind vote and returns a CSV.

    Returns:
        The folder or file that was written.

    Raises:
        InputError: no comparison, a target that exists, an unknown form.
    """
    record = read(comparison)
    if form not in FORMS:
        raise InputError(f"There is no export {str(form)[:40]!r}; known: {', '.join(FORMS)}.")
    if target.exists():
        raise InputError(f"{target.name!r} exists already; choose another place for the export.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if form in ("html", "vote"):
        return _folder(record, comparison, target, vote=form == "vote")
    if form == "json":
        write_json(target, record.model_dump(mode="json"))
        return target
    film = side_by_side(record, comparison)
    if form == "mp4":
        write_mp4(target, film, fps=record.fps)
    else:
        write_gif(target, film, fps=record.fps)
    return target


def side_by_side(record: Comparison, folder: Path) -> np.ndarray:
    """Return all clips in one picture, uint8 [F, H, W, 3]: a row for each prompt, a column for each model."""
    frames, height, width = record.size
    rows, columns = len(record.prompts), len(record.columns)
    film = np.full(
        (frames, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), GAP_LEVEL, np.uint8
    )
    for clip in record.clips:
        shown = _fitted(read_mp4(folder / clip.path), record.size)
        top, left = clip.row * (height + GAP), clip.column * (width + GAP)
        film[:, top : top + height, left : left + width] = shown
    even = film[:, : film.shape[1] // 2 * 2, : film.shape[2] // 2 * 2]
    return np.ascontiguousarray(even)


def write_gif(path: Path, frames: np.ndarray, *, fps: int) -> None:
    """Write frames, uint8 [F, H, W, 3], as an animation that loops; colours are cut down to 256."""
    from PIL import Image

    images = [Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, optimize=False
    )


def _folder(record: Comparison, source: Path, target: Path, *, vote: bool) -> Path:
    target.mkdir()
    for clip in record.clips:
        shutil.copyfile(source / clip.path, target / clip.path)
    write_json(target / FILE, record.model_dump(mode="json"))
    write_page(target, record, vote=vote)
    return target


def _fitted(clip: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Return a clip of another size or length in the size of the comparison, letterboxed, last frame held."""
    frames, height, width = size
    held = clip[np.minimum(np.arange(frames), len(clip) - 1)]
    if held.shape[1:3] == (height, width):
        return held
    from PIL import Image

    scale = min(height / held.shape[1], width / held.shape[2])
    new = (max(1, round(held.shape[2] * scale)), max(1, round(held.shape[1] * scale)))
    fitted = np.full((frames, height, width, 3), GAP_LEVEL, np.uint8)
    top, left = (height - new[1]) // 2, (width - new[0]) // 2
    for place, frame in enumerate(held):
        image = np.asarray(Image.fromarray(frame).resize(new, Image.Resampling.BICUBIC))
        fitted[place, top : top + new[1], left : left + new[0]] = image
    return fitted
