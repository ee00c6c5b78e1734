"""Bring a clip of one's own into a comparison: checked, bounded, written anew. Nothing refused stays."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from workbench.comparison.compare import fidelity, moved
from workbench.comparison.page import write_page
from workbench.comparison.record import FILE, PAGE, Column, ComparedClip, Comparison, read
from workbench.errors import InputError
from workbench.video import read_mp4, write_mp4
from workbench.workspace import Workspace, write_json

MAX_BYTES = 64 << 20
MAX_FRAMES = 257
MAX_SIDE = 1280
MAX_COLUMNS = 12
SIGNATURE = b"ftyp"


def import_clip(path: Path, workspace: Workspace, *, comparison: Path, row: int = 0, name: str = "") -> Path:
    """Set a clip beside those of a comparison, as one more column of a copy of it.

    The clip is decoded and written again, so that players can step through it, and nothing of the file but
    its pixels is kept. PSNR and SSIM are measured where size and length are the teacher's.

    Args:
        path: an MP4 with at most 64 MB, 257 frames and 1,280 pixels a side.
        comparison: the folder of the comparison; it stays as it is.
        row: which of its prompts the clip belongs to.
        name: what to call the clip; empty takes the name of the file.

    Returns:
        The new comparison.

    Raises:
        InputError: no MP4, too large, or no such row.
    """
    record = read(comparison)
    if not 0 <= row < len(record.prompts):
        raise InputError(f"The comparison has {len(record.prompts)} prompts, so there is no row {row + 1}.")
    frames = checked_frames(path)
    column = _column(record, row)
    shown = " ".join((name or path.stem).split())[:200] or "imported"
    reference = record.at(row, 0)
    teacher = read_mp4(comparison / reference.path) if reference else None
    same = teacher is not None and teacher.shape == frames.shape
    clip = ComparedClip(
        row=row,
        column=column,
        role="imported",
        name=shown,
        path=f"imported-{row}-{column}.mp4",
        metrics=fidelity(teacher, frames) if same and teacher is not None else None,
        motion_ratio=moved(frames, teacher) if teacher is not None else None,
    )
    columns = record.columns
    if column == len(columns):
        columns = (*columns, Column(role="imported", name=shown))
    grown = record.model_copy(
        update={
            "columns": columns,
            "clips": tuple(sorted((*record.clips, clip), key=lambda one: (one.row, one.column))),
            "made": {**record.made, "imported": datetime.now(UTC).isoformat(timespec="seconds")},
        }
    )
    with workspace.new_folder("comparisons", name=record.settings.prompt) as folder:
        _copy_clips(comparison, folder.path)
        write_mp4(folder.path / clip.path, frames, fps=record.fps)
        write_json(folder.path / FILE, grown.model_dump(mode="json"))
        write_page(folder.path, grown)
    return folder.final


def checked_frames(path: Path) -> np.ndarray:
    """Return the frames of a file from outside, uint8 [F, H, W, 3] with even sides.

    Raises:
        InputError: no MP4, damaged, or beyond the limits; the file is named by its base name only.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"Clip {path.name!r} is above {MAX_BYTES >> 20} MB; cut it or lower its quality.")
    with path.open("rb") as file:
        if file.read(12)[4:8] != SIGNATURE:
            raise InputError(f"{path.name!r} is not an MP4 file; convert it to H.264 MP4 first.")
    _check_stream(path)
    frames = read_mp4(path)
    height, width = (side - side % 2 for side in frames.shape[1:3])
    if not height or not width:
        raise InputError(f"Clip {path.name!r} is too small to be shown.")
    return np.ascontiguousarray(frames[:MAX_FRAMES, :height, :width])


def _check_stream(path: Path) -> None:
    """Look at what the file says of itself before anything is decoded."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), format="mp4") as container:
            stream = container.streams.video[0]
            width, height, count = stream.width, stream.height, stream.frames
    except (FFmpegError, OSError, IndexError, ValueError):
        raise InputError(f"Clip {path.name!r} is not a video that can be read.") from None
    if max(width, height) > MAX_SIDE:
        raise InputError(
            f"Clip {path.name!r} is {width}×{height}; at most {MAX_SIDE:,} pixels a side are accepted."
        )
    if not 1 <= count <= MAX_FRAMES:
        raise InputError(
            f"Clip {path.name!r} has {count:,} frames; 1 to {MAX_FRAMES} are accepted, so cut it first."
        )


def _column(record: Comparison, row: int) -> int:
    """Return the first column of imported clips that is free in a row, or a new one."""
    for place, column in enumerate(record.columns):
        if column.role == "imported" and record.at(row, place) is None:
            return place
    if len(record.columns) >= MAX_COLUMNS:
        raise InputError(f"A comparison shows at most {MAX_COLUMNS} columns; start another one.")
    return len(record.columns)


def _copy_clips(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.is_symlink() and file.name not in (FILE, PAGE):
            shutil.copyfile(file, target / file.name)
