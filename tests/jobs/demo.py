"""A step of real work without a model: a small seeded optimisation with noise, for testing the jobs.

Plugged into the worker with `WORKBENCH_STEPS=tests.jobs.demo:STEPS`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from workbench.jobs import Queue, memory
from workbench.jobs.tensors import save_tensors
from workbench.jobs.training import TrainingParts
from workbench.types import CheckpointState, Reporter, StrictModel
from workbench.workspace import Workspace, write_json


class DemoConfig(StrictModel):
    """What the demo does; every field past `seed` is a way to go wrong.

    At the step `hold_at`, counted over all stages, it waits for `let_go`, so that a test need not be quick.
    """

    steps: int = 20
    width: int = 8
    optimizer: Literal["plain", "adam"] = "plain"
    seed: int = 0
    delay: float = 0.0
    load_seconds: float = 0.0
    two_stages: bool = False
    keep_random: bool = True
    with_state: bool = True
    nan_at: int = -1
    nan_weight_at: int = -1
    memory: Literal["", "limit", "cuda", "killed", "killed for memory"] = ""
    pause_at: int = -1
    ignore_wishes_at: int = -1
    raise_at: int = -1
    small_files_at: int = -1
    hold_at: int = -1
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
    """Descent on a noisy target: weights, momentum or Adam with a schedule, and an average of the weights."""

    def __init__(self, config: DemoConfig) -> None:
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)
        random.seed(config.seed)
        self.weight = torch.nn.Parameter(torch.randn(config.width, config.width))
        self.average = self.weight.detach().clone()
        self.momentum = torch.zeros_like(self.weight)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedules: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}
        if (
            config.optimizer == "adam"
        ):  # importing torch.optim's compiler hooks takes a second of processor time
            self.optimizers["adam"] = torch.optim.Adam([self.weight], lr=0.05)
            self.schedules["steps"] = torch.optim.lr_scheduler.StepLR(
                self.optimizers["adam"], step_size=7, gamma=0.9
            )

    def update(self) -> float:
        noise = torch.randn_like(self.weight) + float(np.random.rand()) + random.random()
        loss = ((self.weight - noise) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, [self.weight])
        if self.optimizers:
            self.weight.grad = gradient
            self.optimizers["adam"].step()
            self.schedules["steps"].step()
        else:
            self.momentum.mul_(0.9).add_(gradient)
            self.weight.data.sub_(0.05 * self.momentum)
        self.average.lerp_(self.weight.detach(), 0.1)
        return float(loss.detach())

    @property
    def parts(self) -> TrainingParts:
        return TrainingParts(
            optimizers=self.optimizers,
            schedulers=self.schedules,
            tensors={"weight": self.weight, "average": self.average, "momentum": self.momentum},
        )

    def state(self, stage: int, step: int) -> CheckpointState:
        return self.parts.pack({"stage": stage, "step": step})

    def load(self, state: CheckpointState) -> tuple[int, int]:
        meta = self.parts.unpack(state)
        return int(meta["stage"]), int(meta["step"])

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self.parts.pack().tensors.items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()


def run(config: DemoConfig, workspace: Workspace, reporter: Reporter) -> DemoResult:
    """Run the optimisation, going on from a checkpoint where there is one."""
    alone(workspace)
    time.sleep(config.load_seconds)
    training = Training(config)
    stages = ["first", "second"] if config.two_stages else ["train"]
    state = reporter.restore()
    at_stage, at_step = 0, 0
    if state is not None:
        at_stage, at_step = training.load(state)
        if not config.keep_random:
            torch.manual_seed(config.seed)
    reporter.offer_sample(lambda: _make_sample(workspace, training))
    loss = 0.0
    for number in range(at_stage, len(stages)):
        reporter.stage(stages[number], config.steps)
        for step in range(at_step if number == at_stage else 0, config.steps):
            loss = training.update()
            if number * config.steps + step + 1 == config.hold_at:
                wait_to_go(workspace)
            misbehave(config, step + 1, training, workspace)
            if step + 1 == config.pause_at and state is None:
                pause_me(workspace)
            reporter.step(
                step + 1,
                state=_state_of(training, number, step + 1) if config.with_state else None,
                loss=float("nan") if step + 1 == config.nan_at else loss,
            )
            time.sleep(config.delay)
    made = _make_artefact(config, workspace, training) if config.artefact else ""
    return DemoResult(training.sha256(), loss, torch.get_num_threads(), made)


def alone(workspace: Workspace) -> None:
    """Leave a file behind if another process runs a job of this workspace at the same time."""
    descriptor = os.open(workspace.root / "one-at-a-time", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (workspace.root / "TWICE").touch()


def misbehave(config: DemoConfig, step: int, training: Training, workspace: Workspace) -> None:
    """Fail in the way the configuration asks for, at the second step or the one it names."""
    if step == config.nan_weight_at:
        training.weight.data[0, 0] = float("nan")
    if step == config.raise_at:
        raise KeyError("a mistake in the code <b>&</b>")
    if step == config.ignore_wishes_at:
        time.sleep(3600)
    if step == config.small_files_at:
        allow_small_files_only(workspace)
    if step == 2 and config.memory == "limit":
        resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, resource.RLIM_INFINITY))
        torch.empty(8_000_000_000, dtype=torch.uint8)
    if step == 2 and config.memory == "cuda":
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if step == 2 and config.memory == "killed for memory":
        (job,) = Queue(workspace).list(states=("running", "saving"))
        pretend_system_kill(workspace.folder("jobs") / job.id)
    if step == 2 and config.memory.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)


def allow_small_files_only(workspace: Workspace) -> None:
    """Have the system refuse to write past a megabyte per file until `let_go`, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))

    def lift() -> None:
        wait_to_go(workspace)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    threading.Thread(target=lift, daemon=True).start()


def wait_to_go(workspace: Workspace) -> None:
    while not (workspace.root / "go").exists():
        time.sleep(0.01)


def let_go(workspace: Workspace) -> None:
    """Let held work go on."""
    (workspace.root / "go").touch()


def pretend_system_kill(folder: Path) -> None:
    """Leave the record that a kill by the system leaves: its count of kills has risen since the start."""
    before = memory.system_kills() - 1
    memory.system_kills = lambda: before
    memory.note_memory(folder, peak=5_000_000_000)


def pause_me(workspace: Workspace) -> None:
    """Do what a user does, at exactly this step."""
    queue = Queue(workspace)
    queue.pause(queue.list(states=("running", "saving"))[0].id)


def _state_of(training: Training, stage: int, step: int) -> Callable[[], CheckpointState]:
    return lambda: training.state(stage, step)


def _make_sample(workspace: Workspace, training: Training) -> Path:
    """Write a clip of the present weights; it uses random numbers, as sampling does."""
    path = workspace.folder("cache") / "sample.safetensors"
    save_tensors(path, {"clip": training.weight.detach() + torch.randn(training.weight.shape)})
    return path


def _make_artefact(config: DemoConfig, workspace: Workspace, training: Training) -> str:
    with workspace.new_folder("banks", name="demo") as folder:
        save_tensors(folder.path / "weights.safetensors", training.parts.pack().tensors)
        write_json(folder.path / "bank.json", {"sha256": training.sha256()})
        Path(folder.path / "padding.bin").write_bytes(b"\1" * config.artefact_bytes)
    return workspace.relative(folder.final)


@dataclass(frozen=True)
class DemoStep:
    config: type[StrictModel]
    run: Callable[[Any, Workspace, Reporter], DemoResult]


STEPS = {"demo": DemoStep(DemoConfig, run)}
