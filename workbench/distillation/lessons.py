"""What a student learns from, update by update, and the states on which it is examined.

`TeacherLesson`: the teacher's velocity on cached trajectories. `FlowLesson`: flow matching on captioned
clips. Both divide the states of an update among the processes of a team.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from workbench.distillation.clips import Clip
from workbench.distillation.finetune_config import FinetuneConfig
from workbench.distillation.sensitivity import distance
from workbench.distillation.team import Team
from workbench.distillation.trajectories import (
    Branch,
    SamplingSettings,
    Trajectory,
    velocity,
    velocity_at,
)
from workbench.models import LoadedModel
from workbench.models.text import encode, remember
from workbench.types import Reporter

Item = TypeVar("Item")
NO_CAPTION_SHARE = 0.1
"""Share of the states of flow matching without a caption, so that guidance goes on working."""
EXAMINED_LEVELS = (0.1, 0.35, 0.6, 0.85)
"""Places along the noise schedule at which held-out clips are examined."""


class State(NamedTuple):
    """One forward pass of the teacher that a student learns from."""

    prompt: int
    step: int
    branch: Branch


class NoisyClip(NamedTuple):
    """One state of flow matching: a clip, how far along the noise schedule (0 to 1), and its noise's seed."""

    clip: int
    level: float
    seed: int
    has_caption: bool = True


class Lesson(Protocol):
    """What is learnt; `Item` is one state."""

    team: Team

    def prepare(self, reporter: Reporter) -> None:
        """Compute what needs the teacher; called while the model is the teacher."""

    def share(self, update: int) -> Sequence[Any]:
        """Return the states of an update that this process learns from."""

    def kind(self, item: Any, *, scheduled: bool) -> Hashable:
        """Return what states must share to go through the model together; with a schedule, their place."""

    def loss(self, items: Sequence[Any]) -> Tensor:
        """Return the sum of the losses at states of one kind, with gradient."""


class TeacherLesson:
    """The squared error of the velocity over the teacher's square, on cached states."""

    def __init__(
        self,
        model: LoadedModel,
        config: FinetuneConfig,
        sampling: SamplingSettings,
        trajectories: Sequence[Trajectory],
        team: Team,
    ) -> None:
        self.model = model
        self.config = config
        self.trajectories = trajectories
        self.team = team
        self.targets: dict[State, Tensor] = {}
        states = [
            State(prompt, step, branch)
            for prompt in range(len(trajectories))
            for step in range(sampling.steps)
            for branch in sampling.branches
        ]
        self.order = shuffled(states, config.updates * config.accumulate, seed=config.seed)

    def prepare(self, reporter: Reporter) -> None:
        mine = dict.fromkeys(state for update in range(self.config.updates) for state in self.share(update))
        reporter.stage("teacher velocities", len(mine))
        kind = functools.partial(self.kind, scheduled=False)
        for several in together(list(mine), kind, self.config.batch):
            with torch.no_grad():
                velocities = self._velocity(several).float().cpu()
            self.targets.update(zip(several, velocities.split(1), strict=True))
            reporter.step(len(self.targets))

    def share(self, update: int) -> Sequence[State]:
        count = self.config.accumulate
        return self.team.share(self.order[update * count : (update + 1) * count])

    def kind(self, item: State, *, scheduled: bool) -> Hashable:
        shape = self.trajectories[item.prompt].text[item.branch].shape
        return (shape, item.step, item.branch) if scheduled else shape

    def loss(self, items: Sequence[State]) -> Tensor:
        found = self._velocity(items).float()
        target = torch.cat([self.targets[item] for item in items]).to(found.device)
        distance, size = (found - target).square().flatten(1).mean(1), target.square().flatten(1).mean(1)
        return (distance / size).sum()

    def _velocity(self, states: Sequence[State]) -> Tensor:
        found = [self.trajectories[state.prompt] for state in states]
        both = list(zip(found, states, strict=True))
        return velocity_at(
            self.model,
            torch.stack([one.latents[state.step] for one, state in both]),
            torch.stack([one.timesteps[state.step] for one, state in both]),
            torch.stack([one.text[state.branch] for one, state in both]),
            place=(states[0].branch, states[0].step, found[0].num_steps),
        )


class FlowLesson:
    """Flow matching: at x = (1 - σ) clip + σ noise the velocity is noise - clip.

    Levels are uniform along the sampler's own shifted schedule. `held_out` clips are examined by `errors`.
    """

    def __init__(
        self, model: LoadedModel, config: FinetuneConfig, clips: Sequence[Clip], held_out: Sequence[Clip],
        team: Team,
    ) -> None:  # fmt: skip
        self.model = model
        self.config = config
        self.clips = [*clips, *held_out]
        self.team = team
        count = config.updates * config.accumulate
        order = shuffled(range(len(clips)), count, seed=config.seed)
        rng = np.random.default_rng([config.seed, 11])
        levels, dropped = rng.random(count), rng.random(count) < NO_CAPTION_SHARE
        self.order = [
            NoisyClip(clip, float(level), config.seed * 1_000_003 + index, not drop)
            for index, (clip, level, drop) in enumerate(zip(order, levels, dropped, strict=True))
        ]
        self.examined = [
            NoisyClip(len(clips) + index, level, 900_000_007 + index)
            for index in range(len(held_out))
            for level in EXAMINED_LEVELS
        ]
        scheduler: Any = model.pipeline.scheduler.config
        shift = scheduler.get("flow_shift", scheduler.get("shift", 1.0))
        self.shift = float(shift or 1.0)
        self.range = float(scheduler.num_train_timesteps)
        self.text: dict[str, Tensor] = {}

    def prepare(self, reporter: Reporter) -> None:
        captions = dict.fromkeys(["", *(clip.caption for clip in self.clips)])
        reporter.stage("reading captions", len(captions))
        remember(self.model, list(captions))
        for done, caption in enumerate(captions, start=1):
            self.text[caption] = encode(self.model, caption, guided=False).cond[0].cpu()
            reporter.step(done)

    def share(self, update: int) -> Sequence[NoisyClip]:
        count = self.config.accumulate
        return self.team.share(self.order[update * count : (update + 1) * count])

    def kind(self, item: NoisyClip, *, scheduled: bool) -> Hashable:
        clip = self.clips[item.clip]
        shapes = clip.latents.shape, self.text[self._caption(item)].shape
        return (shapes, self._place(item)) if scheduled else shapes

    def loss(self, items: Sequence[NoisyClip]) -> Tensor:
        clean = torch.cat([self.clips[item.clip].latents for item in items])
        noise = torch.cat([_noise(item.seed, like=self.clips[item.clip].latents) for item in items])
        share = torch.tensor([item.level for item in items])
        level = self.shift * share / (1 + (self.shift - 1) * share)
        wide = level.view(-1, 1, 1, 1, 1)
        found = velocity_at(
            self.model,
            (1 - wide) * clean + wide * noise,
            level * self.range,
            torch.stack([self.text[self._caption(item)] for item in items]),
            place=self._place(items[0]),
        ).float()
        return (found - (noise - clean).to(found.device)).square().flatten(1).mean(1).sum()

    def _caption(self, item: NoisyClip) -> str:
        return self.clips[item.clip].caption if item.has_caption else ""

    def _place(self, item: NoisyClip) -> tuple[Branch, int, int]:
        step = min(int((1 - item.level) * self.config.steps), self.config.steps - 1)
        return "cond" if item.has_caption else "uncond", step, self.config.steps

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Return the mean loss on held-out clips at fixed noise levels."""
        return sum(float(self.loss([item])) for item in self.examined) / len(self.examined)


class Exam:
    """Held-out states of the teacher: how far a student's velocity is from the teacher's."""

    def __init__(
        self, model: LoadedModel, sampling: SamplingSettings, trajectories: Sequence[Trajectory], team: Team
    ) -> None:
        self.model = model
        self.trajectories = trajectories
        branches = sampling.branches
        states = [
            State(index, step, branches[(index + step) % len(branches)])
            for index in range(len(trajectories))
            for step in range(sampling.steps)
        ]
        self.states = states if team.is_first else []
        self.targets: dict[State, Tensor] = {}

    def prepare(self, reporter: Reporter) -> None:
        """Compute the teacher's velocities; called while the model is the teacher."""
        reporter.stage("teacher velocities on held-out prompts", len(self.states))
        for done, state in enumerate(self.states, start=1):
            self.targets[state] = self._velocity(state)
            reporter.step(done)

    def errors(self, reporter: Reporter) -> dict[State, float]:
        """Return the relative velocity error at every held-out state."""
        reporter.stage("velocity errors on held-out prompts", len(self.states))
        found = {}
        for done, state in enumerate(self.states, start=1):
            found[state] = distance(self._velocity(state), self.targets[state])
            reporter.step(done)
        return found

    @torch.no_grad()
    def _velocity(self, state: State) -> Tensor:
        trajectory = self.trajectories[state.prompt]
        return velocity(self.model, trajectory, step=state.step, branch=state.branch).float().cpu()


def _noise(seed: int, *, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def together(items: Sequence[Item], kind: Callable[[Item], Hashable], size: int) -> list[list[Item]]:
    """Divide items into groups of one kind and at most `size`, as they go through a model in one pass."""
    if size == 1:
        return [[item] for item in items]
    kinds: dict[Hashable, list[Item]] = {}
    for item in items:
        kinds.setdefault(kind(item), []).append(item)
    return [alike[first : first + size] for alike in kinds.values() for first in range(0, len(alike), size)]


def shuffled(items: Sequence[Item], count: int, *, seed: int) -> list[Item]:
    """Return `count` items, each epoch in another order."""
    order: list[Item] = []
    while len(order) < count:
        shuffle = np.random.default_rng([seed, len(order) // len(items)]).permutation(len(items))
        order += [items[int(index)] for index in shuffle]
    return order[:count]
