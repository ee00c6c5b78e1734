"""Errors of cells on held-out states: distilled, before distilling, and with the linear branch off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from workbench.distillation.cells import CellTrainer
from workbench.distillation.losses import relative_error
from workbench.distillation.teacher import TeacherAttention

RESAMPLES = 1000


class StateId(NamedTuple):
    """One held-out state: which prompt, and its timestep."""

    prompt: int
    timestep: float


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass
class CellErrors:
    """What was seen of one cell, one entry a held-out state; errors are relative L1."""

    states: list[StateId] = field(default_factory=list)
    distilled: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    undistilled: list[float] = field(default_factory=list)
    first_loss: list[float] = field(default_factory=list)
    last_loss: list[float] = field(default_factory=list)

    def add(self, trainer: CellTrainer, attention: TeacherAttention, state: StateId) -> None:
        """Measure a cell on one attention of the teacher."""
        target = attention.output
        before, after = trainer.undistilled_output(attention), trainer.output(attention)
        self.states.append(state)
        self.distilled.append(relative_error(after, target))
        self.undistilled.append(relative_error(before, target))
        self.off.append(relative_error(trainer.branch_off_output(attention), target))
        self.first_loss.append(mean_distance(before, target))
        self.last_loss.append(mean_distance(after, target))

    def interval(self, *, seed: int) -> Interval:
        """Return the mean distilled error and its interval over held-out prompts."""
        return bootstrap(self.distilled, [state.prompt for state in self.states], seed=seed)

    def by_timestep(self, *, seed: int) -> list[tuple[float, Interval]]:
        """Return (timestep, error with its interval), early steps (large timesteps) first."""
        groups: dict[float, list[int]] = defaultdict(list)
        for index, state in enumerate(self.states):
            groups[state.timestep].append(index)
        return [
            (
                timestep,
                bootstrap(
                    [self.distilled[index] for index in groups[timestep]],
                    [self.states[index].prompt for index in groups[timestep]],
                    seed=seed,
                ),
            )
            for timestep in sorted(groups, reverse=True)
        ]


def bootstrap(values: Sequence[float], groups: Sequence[int], *, seed: int) -> Interval:
    """Return the mean and its 95 % percentile interval, resampling whole groups (values if there is one).

    Args:
        values: one number a state.
        groups: the prompt of every value; values of a prompt are not independent.
    """
    numbers = np.asarray(values, dtype=np.float64)
    labels = np.asarray(groups)
    names = np.unique(labels)
    if len(names) < 2:
        labels, names = np.arange(len(numbers)), np.arange(len(numbers))
    sums = np.array([numbers[labels == name].sum() for name in names])
    counts = np.array([(labels == name).sum() for name in names])
    picks = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(numbers.mean()), float(low), float(high))


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one number."""
    return sum(values) / len(values)


def mean_distance(output: Tensor, target: Tensor) -> float:
    """Return the value loss: the mean absolute difference."""
    return float((output - target).abs().mean())
