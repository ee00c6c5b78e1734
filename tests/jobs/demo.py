"""A step of real work without a model: a small seeded optimisation with noise, for testing the jobs.

Plugged into the worker with `WORKBENCH_STEPS=tests.jobs.demo:STEPS`.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from workbench.jobs.tensors import save_tensors
from workbench.types import CheckpointState, Reporter, StrictModel
from workbench.workspace import Workspace, write_json


class DemoConfig(StrictModel):
    """What the demo does; every field past `seed` is a way to go wrong."""

    steps: int = 20
    width: int = 8
    seed: int = 0
    delay: float = 0.0
    load_seconds: float = 0.0
    two_stages: bool = False
    keep_random: bool = True
    with_state: bool = True
    nan_at: int = -1
    nan_weight_at: int = -1
    memory: Literal["", "limit", "cuda", "killed"] = ""
    ignore_wishes_at: int = -1
    raise_at: int = -1
    artefact: bool = False
    artefact_bytes: int = 0


@dataclass(frozen=True)
class DemoResult:
    sha256: str
    last_loss: float
    threads: int
    artefact: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Training:
    """Adam with a schedule on a noisy target: weights, optimizer, schedule and an average of the weights."""

    def __init__(self, config: DemoConfig) -> None:
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)
        random.seed(config.seed)
        self.weight = torch.nn.Parameter(torch.randn(config.width, config.width))
        self.average = self.weight.detach().clone()
        self.optimizer = torch.optim.Adam([self.weight], lr=0.05)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=7, gamma=0.9)

    def update(self) -> float:
        noise = torch.randn_like(self.weight) + float(np.random.rand()) + random.random()
        loss = ((self.weight - noise) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.average.lerp_(self.weight.detach(), 0.1)
        return float(loss.detach())

    def tensors(self) -> dict[str, torch.Tensor]:
        adam = self.optimizer.state[self.weight]
        return {
            "weight": self.weight.detach(),
            "average": self.average,
            **{f"adam.{name}": value for name, value in adam.items()},
        }

    def state(self, stage: int, step: int) -> CheckpointState:
        meta = {"stage": stage, "step": step, "schedule": self.schedule.state_dict()}
        return CheckpointState({name: value.clone() for name, value in self.tensors().items()}, meta)

    def load(self, state: CheckpointState) -> None:
        self.weight.data.copy_(state.tensors["weight"])
        self.average.copy_(state.tensors["average"])
        adam = {name.removeprefix("adam."): value for name, value in state.tensors.items() if "adam." in name}
        self.optimizer.state[self.weight].update(adam)
        self.schedule.load_state_dict(dict(state.meta["schedule"]))
        self.optimizer.param_groups[0]["lr"] = self.schedule.get_last_lr()[0]

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()


def run(config: DemoConfig, workspace: Workspace, reporter: Reporter) -> DemoResult:
    """Run the optimisation, going on from a checkpoint where there is one."""
    time.sleep(config.load_seconds)
    training = Training(config)
    stages = ["first", "second"] if config.two_stages else ["train"]
    state = reporter.restore()
    at_stage, at_step = 0, 0
    if state is not None:
        training.load(state)
        at_stage, at_step = int(state.meta["stage"]), int(state.meta["step"])
        if not config.keep_random:
            torch.manual_seed(config.seed)
    loss = 0.0
    for number in range(at_stage, len(stages)):
        reporter.stage(stages[number], config.steps)
        for step in range(at_step if number == at_stage else 0, config.steps):
            loss = training.update()
            misbehave(config, step + 1, training)
            reporter.step(
                step + 1,
                state=_state_of(training, number, step + 1) if config.with_state else None,
                loss=float("nan") if step + 1 == config.nan_at else loss,
            )
            time.sleep(config.delay)
    made = _make_artefact(config, workspace, training) if config.artefact else ""
    return DemoResult(training.sha256(), loss, torch.get_num_threads(), made)


def misbehave(config: DemoConfig, step: int, training: Training) -> None:
    """Fail in the way the configuration asks for, at the second step or the one it names."""
    if step == config.nan_weight_at:
        training.weight.data[0, 0] = float("nan")
    if step == config.raise_at:
        raise KeyError("a mistake in the code <b>&</b>")
    if step == config.ignore_wishes_at:
        time.sleep(3600)
    if step == 2 and config.memory == "limit":
        resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, resource.RLIM_INFINITY))
        torch.empty(8_000_000_000, dtype=torch.uint8)
    if step == 2 and config.memory == "cuda":
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if step == 2 and config.memory == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


def _state_of(training: Training, stage: int, step: int) -> Callable[[], CheckpointState]:
    return lambda: training.state(stage, step)


def _make_artefact(config: DemoConfig, workspace: Workspace, training: Training) -> str:
    with workspace.new_folder("banks", name="demo") as folder:
        save_tensors(folder.path / "weights.safetensors", training.tensors())
        write_json(folder.path / "bank.json", {"sha256": training.sha256()})
        Path(folder.path / "padding.bin").write_bytes(b"\1" * config.artefact_bytes)
    return workspace.relative(folder.final)


@dataclass(frozen=True)
class DemoStep:
    config: type[StrictModel]
    run: Callable[[Any, Workspace, Reporter], DemoResult]


STEPS = {"demo": DemoStep(DemoConfig, run)}
