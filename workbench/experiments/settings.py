"""What the experiments share: prompts, steps, the bank, how long finetuning is; and how a student is named.

Frozen configurations alone; knows no weights and no files.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from workbench.distillation.finetune_config import Method
from workbench.distillation.losses import LossName
from workbench.types import StrictModel

Scale = Literal["quick", "full"]
Count = Annotated[int, Field(ge=1)]
Weights = Literal["teacher", "undistilled", "distilled", "finetuned"]
Allocated = Literal["optimal", "uniform", "greedy", "best_k"]


class BankRecipe(StrictModel):
    """Which cells an experiment needs and how they are distilled; equal recipes share one bank.

    Attributes:
        blocks: None for all.
        pieces: into how many parts, by blocks, the work is cut for the worker processes.
    """

    rates: Annotated[tuple[str, ...], Field(min_length=1)]
    blocks: tuple[int, ...] | None = None
    updates: Count
    loss: LossName = "value"
    pieces: Count = 2

    def parts(self, num_blocks: int) -> tuple[tuple[int, ...], ...]:
        """Return the blocks of every piece, none empty."""
        blocks = tuple(range(num_blocks)) if self.blocks is None else self.blocks
        count = min(self.pieces, len(blocks))
        ends = [index * len(blocks) // count for index in range(count + 1)]
        return tuple(blocks[first:last] for first, last in pairwise(ends))


class FinetuneRecipe(StrictModel):
    """How students are finetuned, on the trajectories that the bank was distilled on.

    Attributes:
        method: "full" where there is the time: it gives back most (`docs/results/finetuning.json`).
        states: of one update, in one pass.
    """

    updates: Count
    method: Method = "lora"
    rank: Count = 8
    states: Count = 1
    lr: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98


class Shared(StrictModel):
    """One setting for all experiments, so that their rows can be set side by side.

    Attributes:
        num_prompts: trajectories to train on; `num_held_out` others to measure velocities on.
        steps: of these trajectories.
        states: of each held-out trajectory, at which velocities are compared.
        queries: of one update of a cell.
        clip_steps: sampling steps of the clips; None takes the model's default.
        clips_a_task: how many clips a worker process makes before it takes other work.
        batch: clips sampled at once where there is a GPU; 1 on a CPU.
        bank: cells that most experiments draw on.
    """

    scale: Scale
    model: str = "embedded"
    num_prompts: Count
    num_held_out: Count
    steps: Count = 8
    states: Count
    queries: Count = 128
    clip_steps: Count | None
    clips_a_task: Count
    batch: Count = 8
    bank: BankRecipe
    finetune: FinetuneRecipe
    cache_megabytes: Count = 1024


QUICK = Shared(
    scale="quick",
    num_prompts=12,
    num_held_out=4,
    states=2,
    clip_steps=8,
    clips_a_task=2,
    bank=BankRecipe(rates=("R2", "R4", "R8", "linear"), updates=200),
    finetune=FinetuneRecipe(updates=60),
)
FULL = Shared(
    scale="full",
    num_prompts=96,
    num_held_out=16,
    states=4,
    clip_steps=None,
    clips_a_task=8,
    bank=BankRecipe(rates=("R2", "R4", "R8", "R16", "linear"), updates=2000, pieces=10),
    finetune=FinetuneRecipe(updates=1000, method="full", states=16, lr=2e-4, ema=0.995),
    cache_megabytes=4096,
)
SHARED: dict[Scale, Shared] = {"quick": QUICK, "full": FULL}


class Setup(StrictModel):
    """A teacher or one of its students.

    Attributes:
        plan: short name such as 5xR4; empty where `allocated` chooses the plan.
        allocated: how the plan is chosen from the bank under `budget`, a share of the dense attention's
            operations.
        weights: the student's: fresh maps, distilled ones, or finetuned.
        bank: where distilled maps, and errors to choose by, come from.
        linear_branch: off is the ablation in which only the kept tokens are attended to.
    """

    plan: str = ""
    allocated: Allocated | None = None
    budget: Annotated[float, Field(gt=0)] | None = None
    weights: Weights
    bank: BankRecipe | None = None
    linear_branch: bool = True

    @property
    def name(self) -> str:
        """A name for people, the same for all weights of a plan."""
        if self.allocated is None:
            return self.plan or "teacher"
        return f"{self.allocated} ≤ {self.budget:.3g}"

    @property
    def key(self) -> str:
        """What tells this setup from all others, stable between runs."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]
        off = "" if self.linear_branch else "-off"
        return f"{self.name.replace(' ', '')}-{self.weights}{off}-{digest}"


class KeptStudent(Setup):
    """A student in a folder; `plan` is the short name of its plan.

    Attributes:
        folder: of the student; says nothing of what is in it, so it is no part of a cached result's name.
        digest: of its weights and its plan, what tells it from all others.
    """

    folder: str
    digest: str

    @property
    def key(self) -> str:
        return f"{self.plan}-{self.weights}-{self.digest[:8]}"


TEACHER = Setup(weights="teacher")
