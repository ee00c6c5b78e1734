"""The loop that every stage runs in: budget, learning rate, log and checkpoints."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.models.embedded.training.parallel import ALONE, Processes
from workbench.models.embedded.training.state import Part, Progress

SAVE_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class Budget:
    """How long a stage runs: a number of steps (repeatable to the bit) or minutes."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, steps: int, seconds: float) -> float:
        """Return how much of the budget is used, 0 to 1."""
        if self.steps is not None:
            return min(1.0, steps / max(1, self.steps))
        if self.minutes is None:
            raise ValueError("A stage needs a number of steps or of minutes.")
        return min(1.0, seconds / max(1e-9, self.minutes * 60))


@dataclass(frozen=True)
class Schedule:
    """Learning rate and averaging of a stage.

    Attributes:
        peak: Highest learning rate.
        final: Learning rate at the end of the stage, as a share of the peak; the way there is a cosine.
        warmup: Steps of linear rise.
        decay: Decay of the weights' running average.
        clip: Largest gradient norm.
    """

    peak: float
    final: float = 1.0
    warmup: int = 50
    decay: float = 0.998
    clip: float = 1.0

    def rate(self, steps: int, progress: float) -> float:
        """Return the learning rate after `steps` steps and `progress` of the budget."""
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return (
            self.peak * min(1.0, (steps + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * cosine)
        )


@dataclass
class Recorder:
    """Where a run writes: its log, its checkpoints, and the moment at which it must have ended.

    Attributes:
        folder: Output folder.
        deadline: `time.monotonic()` by which every stage stops cleanly, or None.
        compact: Whether checkpoints keep 16 bits of every number.
        save_every: Seconds between checkpoints.
        log_every: Steps between log lines.
        processes: Those that train together; only the first writes.
    """

    folder: Path
    deadline: float | None = None
    compact: bool = False
    save_every: float = SAVE_EVERY_SECONDS
    log_every: int = 20
    processes: Processes = ALONE

    def write(self, **line: Any) -> None:
        """Append one line to `log.jsonl` and show it on stderr."""
        if not self.processes.first:
            return
        text = json.dumps({key: _short(value) for key, value in line.items()})
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(text + "\n")
        sys.stderr.write(text + "\n")

    def out_of_time(self) -> bool:
        """Tell whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


StepFunction = Callable[[], tuple[torch.Tensor, dict[str, torch.Tensor]]]
"""Draws a batch and returns (loss, further values to log)."""


@dataclass(frozen=True)
class StagePlan:
    """One stage: its name, the folder of its part, how long, how fast, and clips a step."""

    name: str
    part: str
    budget: Budget
    schedule: Schedule
    batch: int


def run_stage(
    part: Part,
    plan: StagePlan,
    *,
    step: StepFunction,
    recorder: Recorder,
    watch: Callable[[], dict[str, Any]] | None = None,
) -> bool:
    """Run or go on with one stage, saving the part every minute and at the end.

    Args:
        part: What is trained.
        plan: The stage.
        step: The loss of one fresh batch.
        recorder: Log, checkpoints, deadline.
        watch: Measures to log with every checkpoint.

    Returns:
        Whether the stage is finished (False: the deadline came first).

    Raises:
        FloatingPointError: if the loss is no longer finite; the last checkpoint is kept.
    """
    progress, processes = part.progress, recorder.processes
    if plan.name in progress.done:
        return True
    progress.enter(plan.name)
    processes.share([*part.parameters, *part.average])
    last_save = last_log = time.monotonic()
    moment = time.perf_counter()
    while True:
        share, late = processes.agree(
            [plan.budget.progress(progress.stage_steps, progress.stage_seconds), recorder.out_of_time()]
        )
        if share >= 1.0 or late:
            break
        rate = plan.schedule.rate(progress.stage_steps, share)
        loss, values = step()
        loss.backward()
        processes.average_gradients(part.parameters)
        norm = part.update(rate, clip=plan.schedule.clip, decay=plan.schedule.decay)
        shown: dict[str, float] = {}
        if (progress.stage_steps + 1) % recorder.log_every == 0 or progress.stage_steps == 0:
            shown = {"loss": loss.item(), "norm": norm.item()} | {k: v.item() for k, v in values.items()}
            if not math.isfinite(shown["loss"]):
                raise FloatingPointError(
                    f"The loss of {plan.name} is not finite; the last checkpoint is kept."
                )
        now = time.perf_counter()
        progress.count(plan.batch * processes.count, now - moment)
        moment = now
        if shown and (
            time.monotonic() - last_log > 2 or progress.stage_steps == 1 or recorder.log_every == 1
        ):
            last_log = time.monotonic()
            recorder.write(**_line(progress), rate=rate, **shown)
        if time.monotonic() - last_save > recorder.save_every:
            _checkpoint(part, plan, recorder, watch)
            last_save, moment = time.monotonic(), time.perf_counter()
    if share >= 1.0:
        progress.done.append(plan.name)
    _checkpoint(part, plan, recorder, watch)
    return share >= 1.0


def _checkpoint(
    part: Part, plan: StagePlan, recorder: Recorder, watch: Callable[[], dict[str, Any]] | None
) -> None:
    if not recorder.processes.first:
        return
    part.save(recorder.folder / plan.part, compact=recorder.compact)
    if watch is not None:
        with part.averaged():
            recorder.write(**_line(part.progress), measures=watch())


def _line(progress: Progress) -> dict[str, Any]:
    return {
        "stage": progress.stage,
        "step": progress.stage_steps,
        "minutes": progress.stage_seconds / 60,
        "samples": progress.samples,
    }


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return value
