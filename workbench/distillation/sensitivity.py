"""Sensitivity: one cell at a time is installed, and the model's velocity is compared on cached states.

It says how well the local error of a cell predicts what the cell does to the whole model, and may serve as
the objective of planning in its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from workbench.distillation.config import Prompts
from workbench.distillation.held_out import bootstrap
from workbench.distillation.prompts import check_prompts, draw_prompts
from workbench.distillation.trajectories import (
    SamplingSettings,
    Trajectory,
    TrajectoryCache,
    velocity,
)
from workbench.errors import InputError
from workbench.models import LoadedModel, check_words
from workbench.planning.bank import SHIPPED, Bank, Cell, load_bank
from workbench.planning.plan import Plan, make_plan
from workbench.surgery import CellSource, install_student, installed, open_facts, restore
from workbench.types import CheckpointState, ClipSize, Reporter, SilentReporter, StrictModel
from workbench.workspace import Workspace, read_json, write_json

FILE = "sensitivity.json"


class SensitivityConfig(StrictModel):
    """What to measure.

    Attributes:
        bank: folder of the bank whose cells are installed one by one.
        prompts: sampled by the teacher; empty takes the bank's held-out prompts, or draws `num_prompts`.
        steps: of the teacher's sampling runs.
        states: how many steps of each run are looked at, evenly spread.
    """

    model: str = "embedded"
    bank: str
    prompts: Prompts = ()
    num_prompts: Annotated[int, Field(ge=1, le=512)] = 4
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    states: Annotated[int, Field(ge=1, le=1000)] = 2
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    cache_megabytes: Annotated[int, Field(ge=1)] = 1024


class CellSensitivity(StrictModel):
    """Relative error ‖v' − v‖₂ / ‖v‖₂ of the guided velocity with one cell installed; 95 % interval."""

    block: Annotated[int, Field(ge=0)]
    label: str
    error: Annotated[float, Field(ge=0)]
    error_low: Annotated[float, Field(ge=0)]
    error_high: Annotated[float, Field(ge=0)]
    local_error: Annotated[float, Field(ge=0)]


class Sensitivity(StrictModel):
    """The content of `sensitivity.json`.

    Attributes:
        rank_correlation: Spearman's, between the local errors and these; None for fewer than three cells.
    """

    schema_version: int = 1
    config: SensitivityConfig
    cells: tuple[CellSensitivity, ...]
    rank_correlation: float | None

    @property
    def errors(self) -> dict[tuple[int, str], float]:
        """By (block, label), as `planning.choices` takes them."""
        return {(cell.block, cell.label): cell.error for cell in self.cells}


class TeacherState(NamedTuple):
    """A cached state of the teacher and the guided velocity that it has there, [1, C, T, H, W]."""

    prompt: int
    trajectory: Trajectory
    step: int
    guidance: float
    target: Tensor


def measure_sensitivity(
    model: LoadedModel,
    config: SensitivityConfig,
    workspace: Workspace,
    *,
    reporter: Reporter,
    ships: bool = False,
) -> Path:
    """Install every cell of a bank alone and measure what it does to the velocity; goes on where it stopped.

    A bank that ships stays as it is: a copy of it in the workspace gets the file.

    Args:
        model: the teacher.
        config: what to measure.
        workspace: keeps the teacher's trajectories, and that copy.
        reporter: hears of progress.
        ships: write into a bank that ships all the same, for whoever makes it.

    Returns:
        `sensitivity.json` in the folder of the bank.

    Raises:
        InputError: a student in place of its teacher, or a bank of another model.
    """
    _refuse_student(model)
    bank = load_bank(Path(config.bank), model.facts)
    facts = model.facts
    sampling = SamplingSettings(
        steps=config.steps,
        guidance=facts.default_guidance if config.guidance is None else config.guidance,
        size=ClipSize(*bank.manifest.size),
    )
    prompts = _prompts(model, bank, config)
    cache = TrajectoryCache(model, workspace, settings=sampling, max_bytes=config.cache_megabytes * 1_000_000)
    trajectories = cache.prepare(prompts, seed=config.seed, reporter=reporter)
    found = _restored(reporter.restore())
    states = _states(model, sampling.guidance, trajectories, count=config.states)
    cells = bank.manifest.cells
    reporter.stage("velocity errors", len(cells))
    for done, cell in enumerate(cells, start=1):
        name = f"block-{cell.block:02d}-{cell.label}"
        if name not in found:
            found[name] = _errors(model, make_plan({cell.block: cell.spec}, facts), bank, states)
        reporter.step(done, state=lambda: CheckpointState({}, {"work": "sensitivity", "found": dict(found)}))
    groups = [state.prompt for state in states]
    measured = tuple(_summary(cell, found, groups, seed=config.seed) for cell in cells)
    result = Sensitivity(config=config, cells=measured, rank_correlation=_rank_correlation(measured))
    document = json.loads(result.model_dump_json())
    if bank.folder.resolve().parent != SHIPPED.resolve() or ships:
        write_json(bank.folder / FILE, document)
        return bank.folder / FILE
    copy = _copy(bank, workspace, sensitivity=document)
    reporter.note(f"The bank that ships is not changed; bank {copy.name} is a copy with its sensitivity.")
    return copy / FILE


def _copy(bank: Bank, workspace: Workspace, *, sensitivity: Mapping[str, Any]) -> Path:
    """Copy a bank into the workspace with another sensitivity beside it; returns the new bank."""
    with workspace.new_folder("banks", name=f"{bank.folder.name} sensitivity") as made:
        shutil.copytree(bank.folder, made.path, dirs_exist_ok=True)
        write_json(made.path / FILE, sensitivity)
    return made.final


def check_sensitivity(config: SensitivityConfig) -> None:
    """Refuse what can be refused without loading weights.

    Raises:
        InputError: a student in place of its teacher, no bank or one of another model, a word unknown to it.
    """
    facts, plan = open_facts(config.model)
    if plan is not None:
        raise InputError(f"{Path(config.model).name} is a student; measure on its teacher, {facts.name}.")
    load_bank(Path(config.bank), facts)
    for prompt in config.prompts:
        check_words(facts, prompt)


def load_sensitivity(bank: Bank) -> Sensitivity | None:
    """Return what was measured for a bank, None where nothing was.

    Raises:
        InputError: the file is damaged.
    """
    path = bank.folder / FILE
    return read_sensitivity(path) if path.is_file() else None


def read_sensitivity(path: Path) -> Sensitivity:
    """Read a `sensitivity.json`.

    Raises:
        InputError: missing or damaged.
    """
    what = f"{path.name} of bank {path.parent.name}"
    return Sensitivity.parse(read_json(path, what=what), what=what)


def teacher_states(
    model: LoadedModel,
    workspace: Workspace,
    *,
    prompts: Sequence[str] = (),
    count: int = 1,
    steps: int | None = None,
    size: ClipSize | None = None,
) -> list[TeacherState]:
    """Return a few cached states of a teacher with its velocities, for `velocity_error`.

    The trajectories are sampled the first time and read from the workspace's cache afterwards.

    Args:
        model: the teacher.
        prompts: one trajectory each; empty draws one held-out prompt.
        count: states of each trajectory, evenly spread.
        steps: of the sampling runs; None takes 8.
        size: None takes the model's default.

    Raises:
        InputError: a student, or prompts that the model refuses.
    """
    _refuse_student(model)
    sampling = SamplingSettings(
        steps=steps or 8, guidance=model.facts.default_guidance, size=size or model.facts.default_size
    )
    wanted = check_prompts(model, prompts) or draw_prompts(model, 1, held_out=True, seed=0)
    cache = TrajectoryCache(model, workspace, settings=sampling, max_bytes=1024 * 1_000_000)
    trajectories = cache.prepare(wanted, seed=0, reporter=SilentReporter())
    return _states(model, sampling.guidance, trajectories, count=count)


def velocity_error(
    model: LoadedModel, plan: Plan, cells: CellSource, states: Sequence[TeacherState]
) -> float:
    """Return how far a plan moves the guided velocity: mean ‖v' - v‖₂ / ‖v‖₂ over states of the teacher.

    Quick (two forward passes a state), so that a plan can be judged while it is painted. The model is the
    teacher before and after.

    Args:
        model: the teacher.
        plan: for this model; cells that are not measured are refused.
        cells: a bank, a student or fresh cells.
        states: as `teacher_states` returns them.

    Raises:
        InputError: as `surgery.install`, or a student in place of the teacher.
    """
    _refuse_student(model)
    errors = _errors(model, plan, cells, states)
    return sum(errors) / len(errors)


@torch.no_grad()
def guided_velocity(model: LoadedModel, guidance: float, trajectory: Trajectory, *, step: int) -> Tensor:
    """Return the velocity that the sampler would use at a cached state, with guidance, [1, C, T, H, W]."""
    conditional = velocity(model, trajectory, step=step, branch="cond").float()
    if guidance <= 1:
        return conditional
    unconditional = velocity(model, trajectory, step=step, branch="uncond").float()
    return unconditional + guidance * (conditional - unconditional)


def distance(student: Tensor, teacher: Tensor) -> float:
    """Return ‖v' − v‖₂ / ‖v‖₂."""
    return float((student - teacher).norm() / teacher.norm())


def _refuse_student(model: LoadedModel) -> None:
    if installed(model) is not None:
        raise InputError(f"{model.name} is a student; measure on its teacher, {model.facts.name}.")


def _states(
    model: LoadedModel, guidance: float, trajectories: Sequence[Trajectory], *, count: int
) -> list[TeacherState]:
    chosen = []
    for index, trajectory in enumerate(trajectories):
        parts = min(count, trajectory.num_steps)
        for part in range(parts):
            step = int((part + 0.5) * trajectory.num_steps / parts)
            target = guided_velocity(model, guidance, trajectory, step=step)
            chosen.append(TeacherState(index, trajectory, step, guidance, target))
    return chosen


def _errors(model: LoadedModel, plan: Plan, cells: CellSource, states: Sequence[TeacherState]) -> list[float]:
    install_student(model, plan, cells)
    try:
        return [
            distance(guided_velocity(model, state.guidance, state.trajectory, step=state.step), state.target)
            for state in states
        ]
    finally:
        restore(model)


def _prompts(model: LoadedModel, bank: Bank, config: SensitivityConfig) -> tuple[str, ...]:
    recorded = bank.manifest.provenance.get("held_out_prompts")
    known = tuple(str(prompt) for prompt in recorded) if isinstance(recorded, list) else ()
    wanted = config.prompts or known[: config.num_prompts]
    return check_prompts(model, wanted) or draw_prompts(
        model, config.num_prompts, held_out=True, seed=config.seed
    )


def _restored(state: CheckpointState | None) -> dict[str, list[float]]:
    if state is None or state.meta.get("work") != "sensitivity":
        return {}
    return {name: [float(error) for error in errors] for name, errors in state.meta["found"].items()}


def _summary(
    cell: Cell, found: Mapping[str, list[float]], groups: Sequence[int], *, seed: int
) -> CellSensitivity:
    interval = bootstrap(found[f"block-{cell.block:02d}-{cell.label}"], groups, seed=seed)
    return CellSensitivity(
        block=cell.block,
        label=cell.label,
        error=interval.mean,
        error_low=interval.low,
        error_high=interval.high,
        local_error=cell.error,
    )


def _rank_correlation(cells: Sequence[CellSensitivity]) -> float | None:
    if len(cells) < 3:
        return None
    from scipy.stats import spearmanr

    value = float(spearmanr([cell.local_error for cell in cells], [cell.error for cell in cells]).statistic)
    return value if value == value else None
