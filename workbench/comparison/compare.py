"""Make a comparison: the same prompts and seed through a teacher and several students of it.

The teacher is loaded once; each student is installed into it, sampled on every prompt, and taken out again.
Finished clips survive a pause.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.comparison.asked import verdicts
from workbench.comparison.config import CompareConfig, Side, check
from workbench.comparison.page import write_page
from workbench.comparison.peak import peak_memory
from workbench.comparison.preview import Preview, can_decode
from workbench.comparison.record import FILE, Column, ComparedClip, Comparison, Fidelity
from workbench.models import LoadedModel, ModelFacts
from workbench.operators import label
from workbench.planning import Cost, Plan, cost, load, load_bank, make_plan
from workbench.sampling import sample
from workbench.surgery import CellSource, Student, install_student, open_model, read_student, restore
from workbench.types import CheckpointState, Reporter
from workbench.video import write_mp4
from workbench.workspace import NewFolder, Workspace, write_json

PREVIEW_FILE = "preview.png"


@dataclass(frozen=True)
class Candidate:
    """What stands in one column; the teacher has no cells."""

    column: Column
    plan: Plan
    cells: CellSource | None


@dataclass(frozen=True)
class Taken:
    """One sampled clip: frames, and what was measured while it was made."""

    frames: np.ndarray
    facts: dict[str, Any]


def compare(config: CompareConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Sample every prompt with teacher and students; put clips, figures and an offline page into one folder.

    Returns:
        The folder: index.html, comparison.json and the clips.

    Raises:
        InputError: neither a student nor a plan with its bank, or a prompt or size that the model refuses.
        Cancelled, Paused: when the reporter says so; finished clips are kept in the checkpoint.
    """
    check(config)
    reporter.stage("loading the model", 1)
    teacher, candidates = open_columns(config)
    reporter.step(1)
    with workspace.new_folder("comparisons", name=config.name or config.prompt) as folder:
        taken, notes = _sample_all(config, teacher, candidates, reporter=reporter, folder=folder)
        reporter.stage("comparing frames", len(taken))
        record = _record(config, teacher, candidates, taken, notes)
        for count, clip in enumerate(record.clips, start=1):
            write_mp4(folder.path / clip.path, taken[clip.row, clip.column].frames, fps=record.fps)
            reporter.step(count)
        write_json(folder.path / FILE, record.model_dump(mode="json"))
        write_page(folder.path, record)
    return folder.final


def open_columns(config: CompareConfig) -> tuple[LoadedModel, tuple[Candidate, ...]]:
    """Load the teacher, untouched, and the plans and cells of the columns; the teacher's own comes first.

    Raises:
        InputError: as `open_model`, `load_bank` and the plans' own checks.
    """
    sides = config.columns
    model = open_model(sides[0].model if not config.sides and sides[0].model else config.model)
    restore(model)
    students = [read_student(side.model) if side.model else None for side in sides]
    named = next((student.manifest.teacher.name for student in students if student), "")
    model.name = named or model.name
    first = Candidate(Column(role="teacher", name="teacher"), make_plan({}, model.facts), None)
    others = [_candidate(side, student, model.facts) for side, student in zip(sides, students, strict=True)]
    return model, (first, *others)


def _candidate(side: Side, student: Student | None, facts: ModelFacts) -> Candidate:
    cells: CellSource
    if student is not None:
        student.plan.model.check(facts, what=f"student {student.name}")
        plan, cells, name, bank = student.plan, student, student.name, ""
    else:
        opened = load_bank(Path(side.bank), facts)
        plan = load(side.plan, facts)
        opened.check_complete(plan)
        cells, name, bank = opened, plan.name or plan.short_name, opened.folder.name
    column = Column(
        role="student",
        name=side.name or (name if side.linear_branch else f"{name}, branch off"),
        student=student.folder.name if student else "",
        bank=bank,
        plan=plan.short_name,
        linear_branch=side.linear_branch,
    )
    return Candidate(column, plan, cells)


def _sample_all(
    config: CompareConfig,
    model: LoadedModel,
    candidates: tuple[Candidate, ...],
    *,
    reporter: Reporter,
    folder: NewFolder,
) -> tuple[dict[tuple[int, int], Taken], tuple[str, ...]]:
    """Sample column by column, so that each student is installed once."""
    progress = _Progress(reporter.restore())
    preview = Preview(model, folder.path / PREVIEW_FILE)
    if can_decode(model):
        reporter.offer_sample(preview.draw)
    notes: dict[str, None] = {}
    for place, candidate in enumerate(candidates):
        rows = [row for row in range(len(config.prompts)) if (row, place) not in progress.taken]
        if not rows:
            continue
        _put_in(model, candidate)
        for row in rows:
            preview.start()
            settings = config.settings(config.prompts[row])
            label_of = candidate.column.name + (f", prompt {row + 1}" if config.more_prompts else "")
            named = _Named(reporter, label_of, progress.state)
            with peak_memory(model.device) as peak:
                made = sample(model, settings, reporter=named, on_latents=preview.follow)
            notes |= dict.fromkeys(made.notes)
            facts = {
                "seconds": round(made.seconds - preview.seconds, 3),
                "decode_seconds": round(made.decode_seconds, 3),
                "peak_bytes": peak.bytes,
            }
            progress.taken[row, place] = Taken(made.frames, facts)
        restore(model)
    preview.file.unlink(missing_ok=True)
    return progress.taken, tuple(notes)


def _put_in(model: LoadedModel, candidate: Candidate) -> None:
    if candidate.cells is None:
        return
    install_student(model, candidate.plan, candidate.cells, linear_branch=candidate.column.linear_branch)


class _Progress:
    """The clips finished so far."""

    def __init__(self, state: CheckpointState | None) -> None:
        self.taken: dict[tuple[int, int], Taken] = {}
        for name, facts in (state.meta["clips"] if state else {}).items():
            row, column = map(int, name.split("."))
            self.taken[row, column] = Taken(state.tensors[name].numpy(), facts)  # type: ignore[union-attr]

    def state(self) -> CheckpointState:
        named = {f"{row}.{column}": taken for (row, column), taken in self.taken.items()}
        return CheckpointState(
            tensors={name: torch.from_numpy(taken.frames) for name, taken in named.items()},
            meta={"clips": {name: taken.facts for name, taken in named.items()}},
        )


class _Named:
    """Says which of the clips a stage belongs to, and offers the finished ones as the state to go on from."""

    def __init__(self, outer: Reporter, name: str, state: Callable[[], CheckpointState]) -> None:
        self._outer = outer
        self._name = name
        self._state = state

    def stage(self, name: str, steps: int) -> None:
        self._outer.stage(f"{self._name}: {name}", steps)

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        self._outer.step(step, state=state or self._state, **metrics)

    def restore(self) -> CheckpointState | None:
        return None

    def note(self, text: str) -> None:
        self._outer.note(text)

    def offer_sample(self, make: Callable[[], Path], every: int = 0) -> None:
        self._outer.offer_sample(make, every)


def _record(
    config: CompareConfig,
    model: LoadedModel,
    candidates: tuple[Candidate, ...],
    taken: dict[tuple[int, int], Taken],
    notes: tuple[str, ...],
) -> Comparison:
    facts = model.facts
    settings = config.settings(config.prompt).resolved(facts)
    size, steps = settings.size(facts), settings.steps or facts.default_steps
    costs = [cost(candidate.plan, facts, size, num_steps=steps) for candidate in candidates]
    passes = steps * (2 if (settings.guidance or 0) > 1 else 1)
    clips = [
        _clip(
            candidates[column],
            (row, column),
            taken,
            prompt=config.prompts[row],
            facts=facts,
            tflop=costs[column].dit_tflop * passes,
        )
        for row in range(len(config.prompts))
        for column in range(len(candidates))
    ]
    columns = [
        candidate.column.model_copy(update={"cost": _ratios(counted)})
        for candidate, counted in zip(candidates, costs, strict=True)
    ]
    notes += tuple(dict.fromkeys(note for counted in costs for note in counted.notes))
    return Comparison(
        settings=settings.model_copy(update={"model": facts.source or facts.name}),
        prompts=config.prompts,
        columns=tuple(columns),
        model={"name": facts.name, "fingerprint": model.fingerprint},
        student=columns[1].student,
        plan=columns[1].plan,
        size=(size.frames, size.height, size.width),
        tokens=costs[0].tokens,
        fps=facts.fps,
        clips=tuple(clips),
        metrics=clips[1].metrics,
        cost=columns[1].cost,
        made=made_with(model),
        notes=notes,
        restore=config.model_dump(mode="json"),
    )


def _clip(
    candidate: Candidate,
    at: tuple[int, int],
    taken: dict[tuple[int, int], Taken],
    *,
    prompt: str,
    facts: ModelFacts,
    tflop: float,
) -> ComparedClip:
    row, column = at
    frames, reference = taken[at].frames, taken[row, 0].frames
    return ComparedClip(
        row=row,
        column=column,
        role=candidate.column.role,
        name=candidate.column.name,
        path=clip_file(row, column),
        plan=tuple(label(spec) for spec in candidate.plan.operators),
        linear_branch=candidate.column.linear_branch,
        tflop=tflop,
        metrics=fidelity(reference, frames) if column else None,
        verdicts=verdicts(frames, prompt, facts),
        motion_ratio=moved(frames, reference) if column else None,
        **taken[at].facts,
    )


def clip_file(row: int, column: int) -> str:
    """Return the name of a clip's file."""
    if row == 0 and column < 2:
        return ("teacher.mp4", "student.mp4")[column]
    return f"clip-{row}-{column}.mp4"


def made_with(model: LoadedModel) -> dict[str, str]:
    """Return device, dtype, versions and date of a measurement."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(model.device),
        "dtype": str(model.transformer.dtype).removeprefix("torch."),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }


def moved(clip: np.ndarray, teacher: np.ndarray) -> float | None:
    """Return the motion of a clip over the teacher's, None where a clip is too short or small to tell."""
    from workbench.errors import InputError
    from workbench.evaluation.temporal import motion_ratio

    try:
        return round(motion_ratio(clip, teacher), 4)
    except InputError:
        return None


def fidelity(teacher: np.ndarray, student: np.ndarray) -> Fidelity:
    """Return PSNR and SSIM by frame; a frame that is equal has no PSNR."""
    from workbench.evaluation.fidelity import MAX_PSNR, psnr, ssim

    decibel = [float(value) for value in psnr(teacher, student)]
    similar = [float(value) for value in ssim(teacher, student)]
    finite = [value for value in decibel if value < MAX_PSNR]
    return Fidelity(
        psnr=tuple(round(value, 3) if value < MAX_PSNR else None for value in decibel),
        ssim=tuple(round(value, 5) for value in similar),
        mean_psnr=round(sum(finite) / len(finite), 3) if finite else None,
        mean_ssim=round(sum(similar) / len(similar), 5),
        equal_frames=len(decibel) - len(finite),
    )


def _ratios(planned: Cost) -> dict[str, float]:
    return {
        "attention_ratio": planned.attention_ratio,
        "dit_ratio": planned.dit_ratio,
        "dit_tflop": planned.dit_tflop,
        "dense_tflop": planned.dense_tflop,
    }


def check_rows(config: CompareConfig, facts: ModelFacts) -> None:
    """Refuse prompts and sizes that the model cannot make, without loading weights.

    Raises:
        InputError: one sentence that names the prompt or the size.
    """
    from workbench.models import check_words

    facts.check_size(config.size(facts))
    for prompt in config.prompts:
        check_words(facts, prompt)
