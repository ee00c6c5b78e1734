"""Make a comparison: one model, sampled as it is and with a plan installed, on the same prompt and seed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from workbench.comparison.page import page
from workbench.comparison.record import FILE, PAGE, ComparedClip, Comparison, Fidelity, player_data
from workbench.errors import InputError
from workbench.models import LoadedModel
from workbench.operators import label
from workbench.planning import Cost, Plan, cost, load, load_bank, make_plan
from workbench.sampling import GenerateConfig, Sample, sample
from workbench.surgery import CellSource, install, is_student, open_model, read_student, restore
from workbench.types import CheckpointState, Reporter
from workbench.video import write_mp4
from workbench.workspace import Workspace, write_json

TEACHER_FILE = "teacher.mp4"
STUDENT_FILE = "student.mp4"


class CompareConfig(GenerateConfig):
    """Two clips of one prompt and seed.

    Attributes:
        model: a student folder, or with `plan` and `bank` the teacher by any of its names.
        plan: a plan file or a short name; empty takes the student's own.
        bank: the bank folder that holds the cells of `plan`; empty takes the student's own.
    """

    plan: str = ""
    bank: str = ""
    name: str = ""


@dataclass(frozen=True)
class Pair:
    """A loaded model, untouched, and what turns it into the student."""

    model: LoadedModel
    plan: Plan
    cells: CellSource
    student: str


def compare(config: CompareConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Sample teacher and student and put the clips, their figures and an offline page into one folder.

    Returns:
        The folder: index.html, comparison.json, teacher.mp4, student.mp4.

    Raises:
        InputError: neither a student nor a plan with its bank, or a prompt or size that the model refuses.
        Cancelled, Paused: when the reporter says so.
    """
    check(config)
    reporter.stage("loading the model", 1)
    pair = open_pair(config)
    settings = GenerateConfig(**{name: getattr(config, name) for name in GenerateConfig.model_fields})
    settings = settings.resolved(pair.model.facts)
    teacher = sample(pair.model, settings, reporter=_Named(reporter, "teacher"))
    install(pair.model, pair.plan, pair.cells)
    student = sample(pair.model, settings, reporter=_Named(reporter, "student"))
    reporter.stage("comparing frames", 1)
    record = _record(pair, settings, teacher, student)
    with workspace.new_folder("comparisons", name=config.name or config.prompt) as folder:
        write_mp4(folder.path / TEACHER_FILE, teacher.frames, fps=record.fps)
        write_mp4(folder.path / STUDENT_FILE, student.frames, fps=record.fps)
        write_json(folder.path / FILE, record.model_dump(mode="json"))
        (folder.path / PAGE).write_text(page(player_data(record), made=_made_line(record)), encoding="utf-8")
    return folder.final


def check(config: CompareConfig) -> None:
    """Refuse a comparison without a student, before anything is loaded.

    Raises:
        InputError: a plan without a bank, a bank without a plan, or neither and no student folder.
    """
    if bool(config.plan) != bool(config.bank):
        given, missing = ("plan", "bank") if config.plan else ("bank", "plan")
        raise InputError(
            f"A {given} alone makes no student; give the {missing} too, or a student folder as the model."
        )
    if not config.plan and not is_student(config.model):
        raise InputError(
            f"{Path(config.model).name!r} is not a student folder; choose one, or give a plan and its bank."
        )


def open_pair(config: CompareConfig) -> Pair:
    """Load the teacher once, and the plan and cells of its student.

    Raises:
        InputError: as `open_model`, `load_bank` and the plan's own checks.
    """
    if not config.plan:
        student = read_student(config.model)
        model = open_model(config.model)
        restore(model)
        model.name = student.manifest.teacher.name
        return Pair(model, student.plan, student, student.name)
    model = open_model(config.model)
    restore(model)
    bank = load_bank(Path(config.bank), model.facts)
    plan = load(config.plan, model.facts)
    bank.check_complete(plan)
    return Pair(model, plan, bank, "")


class _Named:
    """Says which of the two clips a stage belongs to; neither clip has a state to go on from."""

    def __init__(self, outer: Reporter, name: str) -> None:
        self._outer = outer
        self._name = name

    def stage(self, name: str, steps: int) -> None:
        self._outer.stage(f"{self._name}: {name}", steps)

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        self._outer.step(step, state=state, **metrics)

    def restore(self) -> CheckpointState | None:
        return None

    def note(self, text: str) -> None:
        self._outer.note(text)

    def offer_sample(self, make: Callable[[], Path]) -> None:
        self._outer.offer_sample(make)


def _record(pair: Pair, settings: GenerateConfig, teacher: Sample, student: Sample) -> Comparison:
    facts = pair.model.facts
    size = settings.size(facts)
    steps = settings.steps or facts.default_steps
    dense = make_plan({}, facts, size=size)
    passes = steps * (2 if (settings.guidance or 0) > 1 else 1)

    def clip(role: str, name: str, path: str, plan: Plan, made: Sample) -> ComparedClip:
        counted = cost(plan, facts, size, num_steps=steps)
        return ComparedClip(
            role="teacher" if role == "teacher" else "student",
            name=name,
            path=path,
            plan=tuple(label(spec) for spec in plan.operators),
            seconds=round(made.seconds, 3),
            decode_seconds=round(made.decode_seconds, 3),
            tflop=counted.dit_tflop * passes,
        )

    planned = cost(pair.plan, facts, size, num_steps=steps)
    return Comparison(
        settings=settings.model_copy(update={"model": facts.source or facts.name}),
        model={"name": facts.name, "fingerprint": pair.model.fingerprint},
        student=pair.student,
        plan=pair.plan.short_name,
        size=(size.frames, size.height, size.width),
        tokens=planned.tokens,
        fps=facts.fps,
        clips=(
            clip("teacher", "teacher", TEACHER_FILE, dense, teacher),
            clip("student", pair.plan.short_name, STUDENT_FILE, pair.plan, student),
        ),
        metrics=fidelity(teacher.frames, student.frames),
        cost=_ratios(planned),
        made={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": str(pair.model.device),
            "dtype": str(pair.model.transformer.dtype).removeprefix("torch."),
            "python": platform.python_version(),
            "torch": version("torch"),
            "diffusers": version("diffusers"),
        },
        notes=(*teacher.notes, *planned.notes),
    )


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


def _made_line(record: Comparison) -> str:
    made = record.made
    return (
        f"{record.model['name']}, plan {record.plan}; measured on {made['device']} ({made['dtype']}), "
        f"torch {made['torch']}, diffusers {made['diffusers']}, {made['created']}. "
        "Operations are counted, times are one run each."
    )
