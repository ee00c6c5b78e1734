"""Conditions: what is measured in one go, what it needs first, and the rows that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from workbench.distillation.held_out import bootstrap, mean
from workbench.distillation.sensitivity import distance, guided_velocity
from workbench.evaluation.statistics import bootstrap_interval, paired_bootstrap, paired_ratio
from workbench.evaluation.temporal import STILL
from workbench.experiments.clips import Numbers, clip_numbers
from workbench.experiments.laboratory import SEED, Laboratory
from workbench.experiments.results import Row
from workbench.experiments.settings import TEACHER, Setup
from workbench.experiments.tasks import ClipsTask, Task, TrajectoryTask, weights_tasks
from workbench.planning import cost

POINTS = 100
SUMMARISED = ("adherence", "flicker", "subject_consistency", "background_consistency", "psnr", "ssim")


class Condition(Protocol):
    """One thing to measure; picklable, because a worker process does it."""

    @property
    def key(self) -> str:
        """Stable between runs and unique within an experiment."""

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        """Return what must be there first."""

    def run(self, lab: Laboratory) -> list[Row]:
        """Measure; the model is the teacher before and after."""


@dataclass(frozen=True)
class StudentCondition:
    """A teacher or student: what it costs, its velocity on held-out states, its clips.

    Attributes:
        clips: how many are sampled; 0 for none.
        frames: of the clips and of the trajectories; None takes the model's default.
    """

    setup: Setup
    clips: int = 0
    frames: int | None = None

    @property
    def key(self) -> str:
        return self.setup.key if self.frames is None else f"{self.setup.key}-{self.frames}f"

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        count = lab.shared.num_held_out
        parts = -(-self.clips // lab.shared.clips_a_task)
        return (
            *(TrajectoryTask(index, held_out=True, frames=self.frames) for index in range(count)),
            *weights_tasks(self.setup),
            *(ClipsTask(self.setup, part, self.frames) for part in range(parts)),
        )

    def run(self, lab: Laboratory) -> list[Row]:
        setup, plan = self.setup, lab.plan(self.setup)
        spent = cost(plan, lab.facts, lab.size(self.frames))
        row: Row = {
            "setup": setup.name,
            "plan": plan.short_name,
            "converted": len(plan.converted),
            "weights": setup.weights,
            "loss": setup.bank.loss if setup.bank is not None else None,
            "linear_branch": setup.linear_branch,
            "frames": lab.size(self.frames).frames,
            "attention_ratio": spent.attention_ratio,
            "dit_ratio": spent.dit_ratio,
        }
        if setup.bank is not None:
            bank = lab.bank(setup.bank)
            cells = [bank.cell(block, spec) for block, spec in plan.converted.items()]
            row["cell_error"] = mean([cell.error for cell in cells]) if cells else 0.0
            row["cell_error_off"] = mean([cell.error_off for cell in cells]) if cells else 0.0
        name = f"{lab.identity(setup)}-{row['frames']}-velocity"
        row["velocity_error"] = lab.kept(name, lambda: self._velocity_error(lab))
        if self.clips:
            row |= self._clips(lab)
        return [row]

    def _velocity_error(self, lab: Laboratory) -> Row:
        """Return the relative error of the guided velocity, its interval over prompts."""
        states = lab.states(self.frames)
        with lab.installed(self.setup) as model:
            errors = [
                distance(
                    guided_velocity(model, state.guidance, state.trajectory, step=state.step), state.target
                )
                for state in states
            ]
        prompts = [state.prompt for state in states]
        interval = bootstrap(errors, prompts, seed=SEED)
        return {**interval._asdict(), "states": len(errors), "by_prompt": by_prompt(errors, prompts)}

    def _clips(self, lab: Laboratory) -> Row:
        own = clip_numbers(lab, self.setup, range(self.clips), frames=self.frames)
        row: Row = {"clips": len(own), **{name: _summary(own, name) for name in SUMMARISED if name in own[0]}}
        if self.setup == TEACHER:
            return row
        teacher = clip_numbers(lab, TEACHER, range(self.clips), frames=self.frames)
        ratio = paired_ratio(_column(own, "speed"), _column(teacher, "speed"), offset=STILL, seed=SEED)
        row["motion_ratio"] = {"mean": ratio.ratio, "low": ratio.low, "high": ratio.high}
        change = paired_bootstrap(_column(own, "adherence"), _column(teacher, "adherence"), seed=SEED)
        row["adherence_change"] = {
            "mean": POINTS * change.mean,
            "low": POINTS * change.low,
            "high": POINTS * change.high,
        }
        return row


def by_prompt(errors: Sequence[float], prompts: Sequence[int]) -> list[float]:
    """Return the mean error of every prompt, so that conditions can be compared prompt by prompt."""
    groups: dict[int, list[float]] = {}
    for error, prompt in zip(errors, prompts, strict=True):
        groups.setdefault(prompt, []).append(error)
    return [mean(groups[prompt]) for prompt in sorted(groups)]


def _summary(numbers: Sequence[Numbers], name: str) -> Mapping[str, float]:
    values = _column(numbers, name)
    low, high = bootstrap_interval(values, seed=SEED)
    return {"mean": mean(values), "low": low, "high": high}


def _column(numbers: Sequence[Numbers], name: str) -> list[float]:
    return [one[name] for one in numbers]
