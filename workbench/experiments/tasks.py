"""What conditions share and need first: trajectories, banks, finetuned students, clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from workbench.experiments.clips import clip_numbers
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.results import Row
from workbench.experiments.settings import TEACHER, BankRecipe, Setup


class Task(Protocol):
    """Work that a worker process does once; equal keys are equal work."""

    @property
    def key(self) -> str:
        """Names the work."""

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        """Return what must be there first; looks at no weights."""

    def run(self, lab: Laboratory) -> list[Row]:
        """Do it, or find that it is done."""


@dataclass(frozen=True)
class TrajectoryTask:
    """One of the teacher's sampling runs, kept in the cache."""

    index: int
    held_out: bool
    frames: int | None = None

    @property
    def key(self) -> str:
        kind = "held-out" if self.held_out else "training"
        return f"trajectory {kind} {self.index} {self.frames or ''}".strip()

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        return ()

    def run(self, lab: Laboratory) -> list[Row]:
        lab.trajectory(self.index, held_out=self.held_out, frames=self.frames)
        return []


@dataclass(frozen=True)
class PieceTask:
    """Some blocks of a bank."""

    recipe: BankRecipe
    piece: int

    @property
    def key(self) -> str:
        return f"bank {_named(self.recipe)} piece {self.piece}"

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        return trajectory_tasks(lab)

    def run(self, lab: Laboratory) -> list[Row]:
        lab.measured(self.recipe, self.piece)
        return []


@dataclass(frozen=True)
class BankTask:
    """A whole bank, joined from its pieces."""

    recipe: BankRecipe

    @property
    def key(self) -> str:
        return f"bank {_named(self.recipe)}"

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        count = len(self.recipe.parts(lab.facts.num_blocks))
        return tuple(PieceTask(self.recipe, piece) for piece in range(count))

    def run(self, lab: Laboratory) -> list[Row]:
        lab.bank(self.recipe)
        return []


@dataclass(frozen=True)
class StudentTask:
    """A finetuned student."""

    setup: Setup

    @property
    def key(self) -> str:
        return f"finetuning {self.start.key}"

    @property
    def start(self) -> Setup:
        """The setup with its linear branch on: a student is the same with it off."""
        return self.setup.model_copy(update={"linear_branch": True})

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        assert self.setup.bank is not None, "a finetuned student starts from a bank"
        return (*trajectory_tasks(lab), BankTask(self.setup.bank))

    def run(self, lab: Laboratory) -> list[Row]:
        lab.student(self.setup)
        return []


@dataclass(frozen=True)
class ClipsTask:
    """Some clips of a setup, sampled and measured.

    Attributes:
        part: which: `Shared.clips_a_task` from that many times this.
    """

    setup: Setup
    part: int
    frames: int | None = None

    @property
    def key(self) -> str:
        return f"clips {self.setup.key} {self.part} {self.frames or ''}".strip()

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        if self.setup == TEACHER:
            return ()
        return (ClipsTask(TEACHER, self.part, self.frames), *weights_tasks(self.setup))

    def run(self, lab: Laboratory) -> list[Row]:
        size = lab.shared.clips_a_task
        clip_numbers(lab, self.setup, range(self.part * size, (self.part + 1) * size), frames=self.frames)
        return []


def weights_tasks(setup: Setup) -> tuple[Task, ...]:
    """Return the tasks that make the weights of a setup."""
    if setup.bank is None:
        return ()
    bank = BankTask(setup.bank)
    return (bank, StudentTask(setup)) if setup.weights == "finetuned" else (bank,)


def trajectory_tasks(lab: Laboratory) -> tuple[Task, ...]:
    """Return the tasks of all trajectories that banks and finetuning need."""
    training = [TrajectoryTask(index, held_out=False) for index in range(lab.shared.num_prompts)]
    held_out = [TrajectoryTask(index, held_out=True) for index in range(lab.shared.num_held_out)]
    return (*training, *held_out)


def _named(recipe: BankRecipe) -> str:
    blocks = "all" if recipe.blocks is None else ",".join(map(str, recipe.blocks))
    return f"{','.join(recipe.rates)} on {blocks}, {recipe.loss}, {recipe.updates}"
