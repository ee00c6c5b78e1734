"""Finetuning (stage 3): the whole student learns the teacher's velocity on cached trajectories, no videos.

LoRA on the transformer (through peft, saved as a standard LoRA file) and the feature maps together. Under
`accelerate launch` the states of an update are divided among the processes; the result is that of one.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from workbench.distillation.config import Prompts
from workbench.distillation.finetuned import save_finetuned
from workbench.distillation.prompts import PromptSplit, choose_prompts
from workbench.distillation.sensitivity import velocity_error
from workbench.distillation.team import Team
from workbench.distillation.trajectories import (
    Branch,
    SamplingSettings,
    Trajectory,
    TrajectoryCache,
    velocity,
)
from workbench.errors import Diverged
from workbench.jobs.training import TrainingParts
from workbench.models import LoadedModel
from workbench.surgery import Student, install, operators_of, read_student, restore
from workbench.surgery.lora import ADAPTER, put_on
from workbench.types import ClipSize, Reporter, StrictModel
from workbench.workspace import Workspace

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ffn.net.0.proj", "ffn.net.2")


class FinetuneConfig(StrictModel):
    """How a student is finetuned.

    Attributes:
        model: student folder.
        method: "lora" trains a LoRA and the feature maps, "maps" the feature maps alone.
        rank: of the LoRA.
        updates: optimiser steps; each sees `accumulate` states, of all processes together.
        lr: of the LoRA; `maps_lr` of the feature maps.
        ema: decay of the averaged weights, which are the ones that are kept; 0 keeps the last weights.
        prompts, num_prompts, held_out_prompts, num_held_out, steps, guidance, frames, height, width: of the
            teacher's trajectories, as in measuring.
        gradient_checkpointing: trades time for memory.
    """

    model: str
    method: Literal["lora", "maps"] = "lora"
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    updates: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    lr: Annotated[float, Field(gt=0, le=1)] = 5e-4
    maps_lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    prompts: Prompts = ()
    held_out_prompts: Prompts = ()
    num_prompts: Annotated[int, Field(ge=1, le=512)] = 16
    num_held_out: Annotated[int, Field(ge=1, le=512)] = 4
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    gradient_checkpointing: bool = False
    cache_megabytes: Annotated[int, Field(ge=1)] = 1024
    name: Annotated[str, Field(max_length=200)] = ""


class State(NamedTuple):
    """One forward pass of the teacher that a student learns from."""

    prompt: int
    step: int
    branch: Branch


def finetune(model: LoadedModel, config: FinetuneConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Finetune a student on the velocities of its teacher; goes on exactly from `reporter.restore()`.

    Args:
        model: the student of `config.model`, as `surgery.open_model` gives it; finetuned afterwards.

    Returns:
        A new student folder: plan, feature maps, `pytorch_lora_weights.safetensors` and `finetune.json`.

    Raises:
        InputError: no student folder, or prompts or sizes that the model refuses; nothing was started.
        Diverged: the loss became NaN or infinite; nothing was saved.
        Cancelled, Paused: as the reporter says.

    Source: light finetuning of Attention Surgery, arXiv 2509.24899; the target is the teacher's velocity.
    """
    student = read_student(config.model)
    facts = model.facts
    usual = facts.default_size
    size = ClipSize(config.frames or usual.frames, config.height or usual.height, config.width or usual.width)
    facts.check_size(size)
    sampling = SamplingSettings(
        steps=config.steps,
        guidance=facts.default_guidance if config.guidance is None else config.guidance,
        size=size,
    )
    prompts = choose_prompts(
        model,
        training=config.prompts,
        held_out=config.held_out_prompts,
        num_training=config.num_prompts,
        num_held_out=config.num_held_out,
        seed=config.seed,
    )
    cache = TrajectoryCache(model, workspace, settings=sampling, max_bytes=config.cache_megabytes * 1_000_000)
    team = Team(model.device)
    reporter = team.reporter(reporter)
    restore(model)
    everything = (*prompts.training, *prompts.held_out)
    with team.first_goes_ahead():
        trajectories = cache.prepare(everything, seed=config.seed, reporter=reporter)
    lesson = Lesson(model, config, sampling, prompts, trajectories, team)
    lesson.prepare(reporter)
    install(model, student.plan, student)
    run = Finetuning(model, config, student, lesson)
    before = lesson.errors(reporter)
    run.train(reporter)
    if config.ema:
        run.use_average()
    after = lesson.errors(reporter)
    return team.from_first(lambda: save_finetuned(run, student, before, after, workspace))


class Lesson:
    """Which states are learnt from and examined, and the teacher's velocity at each."""

    def __init__(
        self,
        model: LoadedModel,
        config: FinetuneConfig,
        sampling: SamplingSettings,
        prompts: PromptSplit,
        trajectories: Sequence[Trajectory],
        team: Team,
    ) -> None:
        self.team = team
        self.model = model
        self.config = config
        self.prompts = prompts
        self.trajectories = trajectories
        self.targets: dict[State, Tensor] = {}
        states = [
            State(prompt, step, branch)
            for prompt in range(len(prompts.training))
            for step in range(sampling.steps)
            for branch in sampling.branches
        ]
        self.order = _order(states, config.updates * config.accumulate, seed=config.seed)
        branches = sampling.branches
        examined = [
            State(len(prompts.training) + index, step, branches[(index + step) % len(branches)])
            for index in range(len(prompts.held_out))
            for step in range(sampling.steps)
        ]
        self.examined = examined if team.is_first else []

    def share(self, update: int) -> Sequence[State]:
        """Return the states of an update that this process learns from."""
        count = self.config.accumulate
        return self.team.share(self.order[update * count : (update + 1) * count])

    def prepare(self, reporter: Reporter) -> None:
        """Compute the teacher's velocity at every state; the model must be the teacher."""
        mine = [state for update in range(self.config.updates) for state in self.share(update)]
        wanted = list(dict.fromkeys([*mine, *self.examined]))
        reporter.stage("teacher velocities", len(wanted))
        for done, state in enumerate(wanted, start=1):
            self.targets[state] = self.velocity(state).float().cpu()
            reporter.step(done)

    @torch.no_grad()
    def velocity(self, state: State) -> Tensor:
        """Return the model's velocity at a state, [1, C, T, H, W]."""
        trajectory = self.trajectories[state.prompt]
        return velocity(self.model, trajectory, step=state.step, branch=state.branch)

    def loss(self, state: State) -> Tensor:
        """Return the squared error of the velocity over the teacher's square, with gradient."""
        trajectory = self.trajectories[state.prompt]
        found = velocity(self.model, trajectory, step=state.step, branch=state.branch).float()
        target = self.targets[state].to(found.device)
        return (found - target).square().mean() / target.square().mean()

    def errors(self, reporter: Reporter) -> dict[State, float]:
        """Return the relative velocity error at every held-out state."""
        reporter.stage("velocity errors on held-out prompts", len(self.examined))
        found = {}
        for done, state in enumerate(self.examined, start=1):
            found[state] = velocity_error(self.velocity(state).float().cpu(), self.targets[state])
            reporter.step(done)
        return found


class Finetuning:
    """The trainable parts of a student, their optimiser and their average."""

    def __init__(self, model: LoadedModel, config: FinetuneConfig, student: Student, lesson: Lesson) -> None:
        self.model = model
        self.config = config
        self.lesson = lesson
        self.losses: list[float] = []
        transformer: Any = model.transformer
        transformer.requires_grad_(False)
        if student.lora:
            put_on(transformer, student.lora, what=f"student {student.name}")
        elif config.method == "lora":
            _add_lora(transformer, rank=config.rank, seed=config.seed)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        self.maps: dict[str, Any] = {
            f"block.{block}.{name}": parameter.requires_grad_()
            for block, operator in operators_of(model).items()
            for name, parameter in operator.named_parameters()
        }
        self.lora: dict[str, Any] = {
            name: parameter.requires_grad_(config.method == "lora")
            for name, parameter in transformer.named_parameters()
            if f".lora_A.{ADAPTER}." in name or f".lora_B.{ADAPTER}." in name
        }
        trained = self.lora if config.method == "lora" else {}
        self.weights: dict[str, nn.Parameter] = {**self.maps, **trained}
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        groups = [{"params": list(self.maps.values()), "lr": config.maps_lr, "peak": config.maps_lr}]
        if trained:
            groups.append({"params": list(trained.values()), "lr": config.lr, "peak": config.lr})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
        self.parts = TrainingParts(
            optimizers={"adamw": self.optimizer},
            tensors={
                **{f"weight.{name}": weight for name, weight in self.weights.items()},
                **{f"average.{name}": weight for name, weight in self.average.items()},
            },
        )

    def train(self, reporter: Reporter) -> None:
        """Take all updates; goes on from the reporter's state."""
        state = reporter.restore()
        first = 0
        if state is not None:
            meta = self.parts.unpack(state)
            first, self.losses = int(meta["update"]), [float(loss) for loss in meta["losses"]]
        self.model.transformer.train()
        reporter.stage("finetuning", self.config.updates)
        for update in range(first, self.config.updates):
            loss = self.update(update)
            self.losses.append(loss)
            pack = functools.partial(self.parts.pack, {"update": update + 1, "losses": self.losses})
            reporter.step(update + 1, state=pack, loss=loss)
        self.model.transformer.eval()

    def update(self, update: int) -> float:
        """Take one optimiser step and return the mean loss of its states.

        Raises:
            Diverged: the loss or a gradient is not finite; the weights are those before.
        """
        config = self.config
        self.optimizer.zero_grad()
        weights = list(self.weights.values())
        sums = torch.zeros(1, device=self.model.device)
        for state in self.lesson.share(update):
            loss = self.lesson.loss(state) / config.accumulate
            loss.backward()
            sums += loss.detach()
        self.lesson.team.add_up([sums, *(_gradient(weight) for weight in weights)])
        total, norm = float(sums), float(nn.utils.clip_grad_norm_(weights, 1.0))
        if not math.isfinite(total + norm):
            raise Diverged(
                f"The finetuning loss became NaN or infinite at update {update + 1}; nothing was saved. "
                "Try a lower lr."
            )
        share = _schedule(update + 1, config.updates, warmup=config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.step()
        decay = min(config.ema, (update + 1) / (update + 10)) if config.ema else 0.0
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.average[name].lerp_(weight.detach(), 1 - decay)
        return total

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the model."""
        for name, weight in self.weights.items():
            weight.copy_(self.average[name])


def _add_lora(transformer: Any, *, rank: int, seed: int) -> None:
    """Add a LoRA to every self-attention and feed-forward of the transformer; it starts at zero effect."""
    from peft import LoraConfig

    names = [*(f"attn1.{name}" for name in ATTENTION), *FEED_FORWARD]
    pattern = rf".*\.({'|'.join(map(re.escape, names))})"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=pattern), adapter_name=ADAPTER
        )


def _gradient(weight: nn.Parameter) -> Tensor:
    """Return the gradient, made zero where a process had no state to learn from."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _order(states: Sequence[State], count: int, *, seed: int) -> list[State]:
    """Return `count` states, each epoch in another order."""
    order: list[State] = []
    while len(order) < count:
        shuffle = np.random.default_rng([seed, len(order) // len(states)]).permutation(len(states))
        order += [states[int(index)] for index in shuffle]
    return order[:count]


def _schedule(update: int, updates: int, *, warmup: float) -> float:
    """Return the share of the peak rate: linear rise, then a cosine fall to a tenth."""
    progress = update / updates
    if progress < warmup:
        return progress / warmup
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
