"""Measuring (stage 1): one teacher forward pass feeds every chosen cell; maps and errors become a bank."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.distillation.cells import CellTrainer
from workbench.distillation.config import MeasureConfig, MeasurePlan, check
from workbench.distillation.held_out import CellErrors, StateId, mean
from workbench.distillation.teacher import TeacherAttention
from workbench.distillation.trajectories import Branch, Trajectory, TrajectoryCache, velocity
from workbench.errors import InputError
from workbench.models import LoadedModel
from workbench.operators import AttentionContext, OperatorSpec, build, label, observe
from workbench.planning.bank import BankWriter, Cell, TimestepError
from workbench.types import CheckpointState, Reporter
from workbench.workspace import Workspace

HELD_OUT_QUERIES = 512
LOSS_POINTS = 200


def measure(model: LoadedModel, config: MeasureConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Distil the feature maps of the chosen cells and measure every cell's error on held-out prompts.

    Only the feature maps are trained, from the teacher's own q, k and v; the model gets no gradient.
    Goes on exactly (bit-equal on a CPU with the same number of threads) from `reporter.restore()`.

    Returns:
        The folder of the bank.

    Raises:
        InputError: see `config.check`; nothing was started.
        Cancelled, Paused: as the reporter says.

    Source: attention distillation of Attention Surgery, arXiv 2509.24899, section 3.
    """
    plan = check(config, model)
    for note in plan.notes:
        reporter.note(note)
    cache = TrajectoryCache(
        model, workspace, settings=plan.sampling, max_bytes=config.cache_megabytes * 1_000_000
    )
    prompts = plan.prompts
    trajectories = cache.prepare((*prompts.training, *prompts.held_out), seed=config.seed, reporter=reporter)
    training, held_out = trajectories[: len(prompts.training)], trajectories[len(prompts.training) :]
    run = Distillation(model, config, plan)
    run.train(training, reporter)
    errors = run.evaluate(held_out, reporter)
    return _write_bank(run, errors, workspace, reporter)


class Distillation:
    """All cells of one measurement and their training, state by state."""

    def __init__(self, model: LoadedModel, config: MeasureConfig, plan: MeasurePlan) -> None:
        self.model = model
        self.config = config
        self.plan = plan
        self.trainers: dict[int, list[CellTrainer]] = defaultdict(list)
        self.specs: dict[str, OperatorSpec] = {}
        self.losses: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)
        for block in plan.blocks:
            for spec in plan.specs:
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
            trajectory, step, branch = states[int(order[place])]
            metrics = self._visit(trajectory, step, branch, visit, reporter)
            reporter.step(visit + 1, state=functools.partial(self._state, visit + 1), **metrics)

    def evaluate(self, trajectories: Sequence[Trajectory], reporter: Reporter) -> dict[str, CellErrors]:
        """Measure every cell on held-out states: every step, the branches in turn."""
        errors: dict[str, CellErrors] = defaultdict(CellErrors)
        branches = self.plan.sampling.branches
        states = [(index, step) for index, one in enumerate(trajectories) for step in range(one.num_steps)]
        reporter.stage("errors on held-out prompts", len(states))
        for done, (index, step) in enumerate(states, start=1):
            trajectory = trajectories[index]
            state = StateId(index, float(trajectory.timesteps[step]))
            generator = torch.Generator().manual_seed(self.config.seed + 1_000_003 * done)

            def look(block: int, attention: TeacherAttention, state: StateId = state) -> None:
                for trainer in self.trainers[block]:
                    errors[trainer.name].add(trainer, attention, state)

            branch = branches[(index + step) % len(branches)]
            watch = self._watch(look, queries=HELD_OUT_QUERIES, parts=1, generator=generator)
            with torch.no_grad(), watch:
                velocity(self.model, trajectory, step=step, branch=branch)
            reporter.step(done)
        return dict(errors)

    def _visit(
        self, trajectory: Trajectory, step: int, branch: Branch, visit: int, reporter: Reporter
    ) -> dict[str, float]:
        """Run the teacher once and take a few updates of every cell; returns the mean loss by cell."""
        config = self.config
        first = visit * config.updates_per_state
        num_updates = min(config.updates_per_state, config.updates - first)
        metrics: dict[str, float] = {}

        def learn(block: int, attention: TeacherAttention) -> None:
            queries = attention.query.shape[1] // num_updates
            for trainer in self.trainers[block]:
                started, was_running = time.perf_counter(), trainer.stopped_at is None
                values = [
                    trainer.update(
                        attention,
                        rows=slice(part * queries, (part + 1) * queries),
                        progress=(first + part + 1) / config.updates,
                    )
                    for part in range(num_updates)
                ]
                self.seconds[trainer.name] += time.perf_counter() - started
                if trainer.stopped_at is None:
                    metrics[trainer.name] = mean(values)
                    self.losses[trainer.name].append((first + num_updates, mean(values)))
                elif was_running:
                    reporter.note(
                        f"{trainer.name} stopped at update {trainer.stopped_at}: "
                        "its loss was no longer finite; its last good weights are kept."
                    )

        generator = torch.Generator().manual_seed(self.config.seed + 7919 * (visit + 1))
        watch = self._watch(learn, queries=config.queries, parts=num_updates, generator=generator)
        with torch.no_grad(), watch:
            velocity(self.model, trajectory, step=step, branch=branch)
        return metrics

    @contextmanager
    def _watch(self, act: Any, *, queries: int, parts: int, generator: torch.Generator) -> Iterator[None]:
        """Give `act` the teacher's attention of every chosen block; the forward pass ends after the last."""
        last = max(self.trainers)
        chosen: Tensor | None = None

        def look(block: int, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> None:
            nonlocal chosen
            if chosen is None:
                chosen = _choose(query.shape[1], queries, parts, generator).to(query.device)
            act(block, TeacherAttention.of(query, key, value, chosen=chosen, grid=context.grid))
            if block == last:
                raise _SeenEnough

        try:
            with observe(self.model, look, blocks=sorted(self.trainers)):
                yield
        except _SeenEnough:
            pass

    def _state(self, visit: int) -> CheckpointState:
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, dict[str, int | None]] = {}
        for _, trainer in self.cells:
            mine, numbers[trainer.name] = trainer.state()
            tensors |= {f"{trainer.name}.{name}": tensor for name, tensor in mine.items()}
        meta = {
            "work": "measure",
            "visit": visit,
            "numbers": numbers,
            "losses": {name: [list(point) for point in points] for name, points in self.losses.items()},
            "seconds": dict(self.seconds),
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


def _write_bank(
    run: Distillation, errors: dict[str, CellErrors], workspace: Workspace, reporter: Reporter
) -> Path:
    config, plan, facts = run.config, run.plan, run.model.facts
    with workspace.new_folder("banks", name=config.name or facts.name) as folder:
        writer = BankWriter.create(folder.path, facts, size=plan.sampling.size, provenance=_provenance(run))
        for block, trainer in run.cells:
            found = errors[trainer.name]
            error = found.interval(seed=config.seed)
            cell = Cell(
                block=block,
                spec=run.specs[trainer.name],
                error=error.mean,
                error_low=error.low,
                error_high=error.high,
                error_off=mean(found.off),
                error_undistilled=mean(found.undistilled),
                first_loss=mean(found.first_loss),
                last_loss=mean(found.last_loss),
                updates=trainer.num_updates,
                seconds=round(run.seconds[trainer.name], 3),
                losses=_thinned(run.losses[trainer.name]),
                by_timestep=tuple(
                    TimestepError(timestep=timestep, error=value) for timestep, value in found.by_timestep()
                ),
            )
            writer.save_cell(cell, trainer.weights())
        if plan.extended is not None:
            taken = writer.merge(plan.extended)
            reporter.note(f"{len(taken)} cells were taken over from bank {plan.extended.folder.name}.")
    return folder.final


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Keep at most `LOSS_POINTS` points, each the mean of those it stands for."""
    size = -(-len(points) // LOSS_POINTS) or 1
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return tuple((group[-1][0], mean([loss for _, loss in group])) for group in groups)


def _provenance(run: Distillation) -> dict[str, Any]:
    config, plan = run.config, run.plan
    return {
        "prompts": list(plan.prompts.training),
        "held_out_prompts": list(plan.prompts.held_out),
        "steps": plan.sampling.steps,
        "guidance": plan.sampling.guidance,
        "seed": config.seed,
        "updates": config.updates,
        "updates_per_state": config.updates_per_state,
        "queries": config.queries,
        "loss": config.loss,
        "lr": config.lr,
        "device": run.model.device.type,
        "dtype": str(run.model.pipeline.transformer.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "extended": "" if plan.extended is None else plan.extended.folder.name,
    }
