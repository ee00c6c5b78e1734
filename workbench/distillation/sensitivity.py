"""Sensitivity: one cell at a time is installed, and the model's velocity is compared on cached states.

It says how well the local error of a cell predicts what the cell does to the whole model, and may serve as
the objective of planning in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

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
from workbench.models import LoadedModel
from workbench.planning.bank import Bank, Cell, load_bank
from workbench.planning.plan import make_plan
from workbench.surgery import install, installed, restore
from workbench.types import CheckpointState, ClipSize, Reporter, StrictModel
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


class _State(NamedTuple):
    prompt: int
    trajectory: Trajectory
    step: int
    target: Tensor


def measure_sensitivity(
    model: LoadedModel, config: SensitivityConfig, workspace: Workspace, *, reporter: Reporter
) -> Path:
    """Install every cell of a bank alone and measure what it does to the velocity; goes on where it stopped.

    Returns:
        `sensitivity.json` in the folder of the bank.

    Raises:
        InputError: a student in place of its teacher, or a bank of another model.
    """
    if installed(model) is not None:
        raise InputError(f"{model.name} is a student; measure on its teacher, {model.facts.name}.")
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
    states = _states(model, sampling, trajectories, count=config.states)
    cells = bank.manifest.cells
    reporter.stage("velocity errors", len(cells))
    for done, cell in enumerate(cells, start=1):
        name = f"block-{cell.block:02d}-{cell.label}"
        if name not in found:
            found[name] = _errors(model, bank, cell, sampling, states)
        reporter.step(done, state=lambda: CheckpointState({}, {"work": "sensitivity", "found": dict(found)}))
    groups = [state.prompt for state in states]
    measured = tuple(_summary(cell, found, groups, seed=config.seed) for cell in cells)
    result = Sensitivity(config=config, cells=measured, rank_correlation=_rank_correlation(measured))
    path = bank.folder / FILE
    write_json(path, json.loads(result.model_dump_json()))
    return path


def load_sensitivity(bank: Bank) -> Sensitivity | None:
    """Read what was measured for a bank, None where nothing was.

    Raises:
        InputError: the file is damaged.
    """
    path = bank.folder / FILE
    if not path.is_file():
        return None
    what = f"{FILE} of bank {bank.folder.name}"
    return Sensitivity.parse(read_json(path, what=what), what=what)


@torch.no_grad()
def guided_velocity(
    model: LoadedModel, sampling: SamplingSettings, trajectory: Trajectory, *, step: int
) -> Tensor:
    """Return the velocity that the sampler would use at a cached state, with guidance, [1, C, T, H, W]."""
    conditional = velocity(model, trajectory, step=step, branch="cond").float()
    if len(sampling.branches) == 1:
        return conditional
    unconditional = velocity(model, trajectory, step=step, branch="uncond").float()
    return unconditional + sampling.guidance * (conditional - unconditional)


def velocity_error(student: Tensor, teacher: Tensor) -> float:
    """Return ‖v' − v‖₂ / ‖v‖₂."""
    return float((student - teacher).norm() / teacher.norm())


def _states(
    model: LoadedModel, sampling: SamplingSettings, trajectories: Sequence[Trajectory], *, count: int
) -> list[_State]:
    chosen = []
    for index, trajectory in enumerate(trajectories):
        parts = min(count, trajectory.num_steps)
        for part in range(parts):
            step = int((part + 0.5) * trajectory.num_steps / parts)
            target = guided_velocity(model, sampling, trajectory, step=step)
            chosen.append(_State(index, trajectory, step, target))
    return chosen


def _errors(
    model: LoadedModel, bank: Bank, cell: Cell, sampling: SamplingSettings, states: Sequence[_State]
) -> list[float]:
    install(model, make_plan({cell.block: cell.spec}, model.facts), bank)
    try:
        return [
            velocity_error(guided_velocity(model, sampling, state.trajectory, step=state.step), state.target)
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
