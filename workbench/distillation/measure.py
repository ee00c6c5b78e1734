"""Measuring (stage 1): one teacher forward pass feeds every chosen cell; maps and errors become a bank."""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workbench.distillation.cell_pool import CellPool
from workbench.distillation.cells import CellTrainer
from workbench.distillation.config import MeasureConfig, MeasurePlan, check
from workbench.distillation.held_out import CellErrors, StateId, mean
from workbench.distillation.measured import CellResult, thinned, write_bank
from workbench.distillation.teacher import TeacherAttention
from workbench.distillation.team import Team
from workbench.distillation.trajectories import Branch, Trajectory, TrajectoryCache, velocity
from workbench.errors import InputError
from workbench.models import LoadedModel
from workbench.operators import AttentionContext, OperatorSpec, build, label, observe
from workbench.planning.bank import Cell, TimestepError
from workbench.types import CheckpointState, Reporter
from workbench.workspace import Workspace

HELD_OUT_QUERIES = 512
GATHERED_BYTES = 256 * 1024 * 1024
"""Keys and values of the teacher that are held for cells before these are worked on."""


def measure(model: LoadedModel, config: MeasureConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Distil the feature maps of the chosen cells and measure every cell's error on held-out prompts.

    Only the feature maps are trained, from the teacher's own q, k and v; the model gets no gradient.
    Goes on exactly (bit-equal on a CPU with the same number of threads) from `reporter.restore()`. Under
    `accelerate launch` the cells are divided among the processes.

    Returns:
        The folder of the bank.

    Raises:
        InputError: see `config.check`; nothing was started.
        Cancelled, Paused: as the reporter says.

    Source: attention distillation of Attention Surgery, arXiv 2509.24899, section 3.
    """
    plan = check(config, model)
    team = Team(model.device)
    if team.size > len(plan.blocks) * len(plan.specs):
        raise InputError(
            f"{len(plan.blocks) * len(plan.specs)} cells cannot be divided among {team.size} processes; "
            "start fewer, or measure more cells."
        )
    reporter = team.reporter(reporter)
    for note in plan.notes:
        reporter.note(note)
    cache = TrajectoryCache(
        model, workspace, settings=plan.sampling, max_bytes=config.cache_megabytes * 1_000_000
    )
    prompts = plan.prompts
    wanted = (*prompts.training, *prompts.held_out)
    with team.first_goes_ahead():
        trajectories = cache.prepare(wanted, seed=config.seed, reporter=reporter)
    training, held_out = trajectories[: len(prompts.training)], trajectories[len(prompts.training) :]
    with CellPool(model.device) as pool:
        run = Distillation(model, config, plan, pool=pool, team=team)
        run.train(training, reporter)
        run.evaluate(held_out, reporter)
    found = team.gather([run.result(block, trainer) for block, trainer in run.cells])
    return team.from_first(lambda: write_bank(run, found, workspace, reporter))


class Distillation:
    """The cells of one measurement that this process trains, state by state."""

    def __init__(
        self, model: LoadedModel, config: MeasureConfig, plan: MeasurePlan, *, pool: CellPool, team: Team
    ) -> None:
        self.model = model
        self.config = config
        self.plan = plan
        self.pool = pool
        self.trainers: dict[int, list[CellTrainer]] = defaultdict(list)
        self.specs: dict[str, OperatorSpec] = {}
        self.losses: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)
        self.errors: dict[str, CellErrors] = defaultdict(CellErrors)
        self.whole_seconds = 0.0
        for block, spec in team.share([(block, spec) for block in plan.blocks for spec in plan.specs]):
            name = cell_name(block, spec)
            operator = build(spec, model.facts, seed=config.seed * 1000 + block).to(model.device)
            self.specs[name] = spec
            self.trainers[block].append(CellTrainer(name, operator, choices=plan.training))

    @property
    def cells(self) -> list[tuple[int, CellTrainer]]:
        return [(block, trainer) for block, group in self.trainers.items() for trainer in group]

    @property
    def num_visits(self) -> int:
        """Forward passes of the teacher in training."""
        return -(-self.config.updates // self.config.updates_per_state)

    def train(self, trajectories: Sequence[Trajectory], reporter: Reporter) -> None:
        """Take all updates of all cells; goes on from the reporter's state."""
        states = [
            (trajectory, step, branch)
            for trajectory in trajectories
            for step in range(trajectory.num_steps)
            for branch in self.plan.sampling.branches
        ]
        first = self._restore(reporter.restore())
        reporter.stage("distilling", self.num_visits)
        for visit in range(first, self.num_visits):
            epoch, place = divmod(visit, len(states))
            order = np.random.default_rng([self.config.seed, epoch]).permutation(len(states))
            if all(trainer.is_done for _, trainer in self.cells):
                reporter.note(f"No cell gains any more after {visit:,} of {self.num_visits:,} states.")
                break
            trajectory, step, branch = states[int(order[place])]
            begun = time.perf_counter()
            metrics = self._visit(trajectory, step, branch, visit, reporter)
            self.whole_seconds += time.perf_counter() - begun
            reporter.step(visit + 1, state=functools.partial(self._state, visit + 1), **metrics)

    def evaluate(self, trajectories: Sequence[Trajectory], reporter: Reporter) -> None:
        """Measure every cell on held-out states: every step, the branches in turn."""
        branches = self.plan.sampling.branches
        states = [(index, step) for index, one in enumerate(trajectories) for step in range(one.num_steps)]
        reporter.stage("errors on held-out prompts", len(states))
        for done, (index, step) in enumerate(states, start=1):
            trajectory = trajectories[index]
            state = StateId(index, float(trajectory.timesteps[step]))

            def look(trainer: CellTrainer, attention: TeacherAttention, state: StateId = state) -> None:
                self.errors[trainer.name].add(trainer, attention, state)

            generator = torch.Generator().manual_seed(self.config.seed + 1_000_003 * done)
            branch = branches[(index + step) % len(branches)]
            begun = time.perf_counter()
            with self._watch(look, queries=HELD_OUT_QUERIES, parts=1, generator=generator):
                velocity(self.model, trajectory, step=step, branch=branch)
            self.whole_seconds += time.perf_counter() - begun
            reporter.step(done)

    def result(self, block: int, trainer: CellTrainer) -> CellResult:
        """Return what this process found of one of its cells."""
        name = trainer.name
        errors = self.errors[name]
        error = errors.interval(seed=self.config.seed)
        cell = Cell(
            block=block,
            spec=self.specs[name],
            error=error.mean,
            error_low=error.low,
            error_high=error.high,
            error_off=mean(errors.off),
            error_undistilled=mean(errors.undistilled),
            first_loss=mean(errors.first_loss),
            last_loss=mean(errors.last_loss),
            updates=trainer.num_updates,
            seconds=round(self.seconds[name], 3),
            losses=thinned(self.losses[name]),
            by_timestep=tuple(
                TimestepError(timestep=timestep, error=value.mean, low=value.low, high=value.high)
                for timestep, value in errors.by_timestep(seed=self.config.seed)
            ),
        )
        return CellResult(cell, trainer.weights())

    def _visit(
        self, trajectory: Trajectory, step: int, branch: Branch, visit: int, reporter: Reporter
    ) -> dict[str, float]:
        """Run the teacher once and take a few updates of every cell; returns the mean loss by cell."""
        config = self.config
        first = visit * config.updates_per_state
        num_updates = min(config.updates_per_state, config.updates - first)
        found: dict[str, list[float]] = {}

        def learn(trainer: CellTrainer, attention: TeacherAttention) -> None:
            queries = attention.query.shape[1] // num_updates
            if trainer.is_done:
                return
            started = time.perf_counter()
            values = [
                trainer.update(
                    attention,
                    rows=slice(part * queries, (part + 1) * queries),
                    progress=(first + part + 1) / config.updates,
                )
                for part in range(num_updates)
            ]
            self.seconds[trainer.name] += time.perf_counter() - started
            found[trainer.name] = [value for value in values if math.isfinite(value)]

        generator = torch.Generator().manual_seed(self.config.seed + 7919 * (visit + 1))
        with self._watch(learn, queries=config.queries, parts=num_updates, generator=generator):
            velocity(self.model, trajectory, step=step, branch=branch)
        metrics: dict[str, float] = {}
        for _, trainer in self.cells:
            if found.get(trainer.name):
                metrics[trainer.name] = mean(found[trainer.name])
                self.losses[trainer.name].append((trainer.num_updates, metrics[trainer.name]))
            if trainer.name in found and trainer.stopped_at is not None:
                reporter.note(
                    f"{trainer.name} stopped at update {trainer.stopped_at}: "
                    "its loss was no longer finite; its last good weights are kept."
                )
        return metrics

    @contextmanager
    def _watch(
        self,
        act: Callable[[CellTrainer, TeacherAttention], None],
        *,
        queries: int,
        parts: int,
        generator: torch.Generator,
    ) -> Iterator[None]:
        """Call `act` with every cell that is at work and the teacher's attention of its block.

        Attentions are gathered until they fill `GATHERED_BYTES`, so that many cells can be worked on side by
        side; the forward pass ends after the last block.
        """
        last = max(self.trainers)
        chosen: Tensor | None = None
        work: list[Callable[[], None]] = []
        num_bytes = 0

        def look(block: int, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> None:
            nonlocal chosen, num_bytes
            if chosen is None:
                chosen = _choose(query.shape[1], queries, parts, generator).to(query.device)
            attention = TeacherAttention.of(query, key, value, chosen=chosen, grid=context.grid)
            work.extend(functools.partial(act, trainer, attention) for trainer in self.trainers[block])
            num_bytes += 2 * attention.key.nbytes
            if block == last or num_bytes > GATHERED_BYTES:
                self.pool.run(work)
                work.clear()
                num_bytes = 0
            if block == last:
                raise _SeenEnough

        try:
            with torch.no_grad(), observe(self.model, look, blocks=sorted(self.trainers)):
                yield
        except _SeenEnough:
            pass

    def _state(self, visit: int) -> CheckpointState:
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, dict[str, float | None]] = {}
        for _, trainer in self.cells:
            mine, numbers[trainer.name] = trainer.state()
            tensors |= {f"{trainer.name}.{name}": tensor for name, tensor in mine.items()}
        meta = {
            "work": "measure",
            "visit": visit,
            "numbers": numbers,
            "losses": {name: [list(point) for point in points] for name, points in self.losses.items()},
            "seconds": dict(self.seconds),
            "whole_seconds": self.whole_seconds,
        }
        return CheckpointState(tensors, meta)

    def _restore(self, state: CheckpointState | None) -> int:
        if state is None:
            return 0
        meta = state.meta
        if meta.get("work") != "measure" or set(meta["numbers"]) != set(self.specs):
            raise InputError("The saved state belongs to other cells than those to measure; start anew.")
        for _, trainer in self.cells:
            prefix = f"{trainer.name}."
            mine = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.tensors.items()
                if name.startswith(prefix)
            }
            trainer.restore(mine, meta["numbers"][trainer.name])
        for name, points in meta["losses"].items():
            self.losses[name] = [(int(step), float(loss)) for step, loss in points]
        self.seconds.update(meta["seconds"])
        self.whole_seconds = float(meta["whole_seconds"])
        return int(meta["visit"])


class _SeenEnough(Exception):
    """Ends a forward pass of which nothing more is wanted."""


def cell_name(block: int, spec: OperatorSpec) -> str:
    """Return the name of a cell in metrics and files, "block-03-R4"."""
    return f"block-{block:02d}-{label(spec)}"


def _choose(num_tokens: int, queries: int, parts: int, generator: torch.Generator) -> Tensor:
    """Draw `parts` sets of different queries, one after the other, [parts · queries]."""
    count = min(queries, num_tokens)
    pool = torch.cat([torch.randperm(num_tokens, generator=generator) for _ in range(parts)])
    if parts * count <= num_tokens:
        return pool[: parts * count]
    return torch.cat([pool[part * num_tokens :][:count] for part in range(parts)])
