"""How good and how dear each student is, over all clips that were compared: means with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from workbench.comparison.record import Column, ComparedClip, Comparison, read
from workbench.errors import InputError
from workbench.evaluation.statistics import bootstrap_interval, wilson_interval


@dataclass(frozen=True)
class Mean:
    """A mean over `count` clips with its 95 % interval; with one clip there is no interval."""

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Score:
    """One student over all its clips.

    Attributes:
        plan: operator of every block.
        dit_ratio: transformer operations over the teacher's, counted.
        psnr: mean over clips, each the mean of its frames that differ, dB; None where all are equal.
        ssim, motion: likewise; intervals by bootstrap.
        adherence: share of the stated attributes that are right, by Wilson; None outside the embedded world.
        seconds: median time of a clip, measured, whatever the device; None where none was.
        clips: (comparison, row, column) of every clip.
    """

    name: str
    student: str
    plan: tuple[str, ...]
    linear_branch: bool
    dit_ratio: float | None
    psnr: Mean | None
    ssim: Mean | None
    motion: Mean | None
    adherence: Mean | None
    seconds: float | None
    clips: tuple[tuple[str, int, int], ...]


def scores(folders: Iterable[Path], *, fingerprint: str = "") -> list[Score]:
    """Gather the clips of comparisons by student; what cannot be read, or is of another model, is left out.

    Returns:
        The teacher first, then students from dear to cheap.
    """
    found: dict[Any, list[tuple[str, Column, ComparedClip]]] = defaultdict(list)
    seen: set[Any] = set()
    for folder in folders:
        record = _read(folder, fingerprint)
        if record is None:
            continue
        for clip in record.clips:
            column = record.columns[clip.column]
            taken = (_identity(column, clip), record.prompts[clip.row], record.settings.model_dump_json())
            if clip.role == "imported" or taken in seen:
                continue
            seen.add(taken)
            found[_identity(column, clip)].append((folder.name, column, clip))
    made = [_score(clips) for clips in found.values()]
    return sorted(made, key=lambda score: (bool(score.student or score.psnr), -(score.dit_ratio or 0)))


def _read(folder: Path, fingerprint: str) -> Comparison | None:
    try:
        record = read(folder)
    except InputError:
        return None
    return record if not fingerprint or record.model.get("fingerprint") == fingerprint else None


def _identity(column: Column, clip: ComparedClip) -> Any:
    return column.role, column.student, column.bank, clip.plan, clip.linear_branch


def _score(found: Sequence[tuple[str, Column, ComparedClip]]) -> Score:
    _, column, first = found[-1]
    clips = [clip for _, _, clip in found]
    metrics = [clip.metrics for clip in clips if clip.metrics]
    marks = [mark for clip in clips for mark in clip.verdicts.values()]
    right = marks.count("right")
    low, high = wilson_interval(right, len(marks))
    times = [clip.seconds for clip in clips if clip.seconds is not None]
    return Score(
        name=column.name,
        student=column.student,
        plan=first.plan,
        linear_branch=first.linear_branch,
        dit_ratio=column.cost.get("dit_ratio", 1.0 if column.role == "teacher" else None),
        psnr=_mean([one.mean_psnr for one in metrics if one.mean_psnr is not None]),
        ssim=_mean([one.mean_ssim for one in metrics]),
        motion=_mean([clip.motion_ratio for clip in clips if clip.motion_ratio is not None]),
        adherence=Mean(right / len(marks), low, high, len(marks)) if marks else None,
        seconds=median(times) if times else None,
        clips=tuple((folder, clip.row, clip.column) for folder, _, clip in found),
    )


def _mean(values: Sequence[float]) -> Mean | None:
    if not values:
        return None
    low, high = bootstrap_interval(values) if len(values) > 1 else (None, None)
    return Mean(fmean(values), low, high, len(values))
