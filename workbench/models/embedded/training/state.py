"""The state of a training part: weights, their running average, AdamW's moments, counters and randomness.

A part is saved as four safetensors files, so that a continued run neither restarts its optimizers nor repeats
noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from workbench.orthogonal import OrthogonalMomentum

WEIGHTS, AVERAGE, FIRST, SECOND = "weights", "average", "first_moment", "second_moment"
RNG_KEY = "generator"


@dataclass
class Progress:
    """How far a part has come.

    Attributes:
        stage: Name of the running stage.
        stage_steps: Steps done in it.
        stage_seconds: Seconds spent in it.
        steps: Steps done in all stages of the part.
        samples: Clips or images seen in all stages.
        seconds: Seconds spent in all stages.
        done: Names of the finished stages.
        facts: Anything else that a continued run must know.
    """

    stage: str = ""
    stage_steps: int = 0
    stage_seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    done: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def enter(self, stage: str) -> None:
        """Start `stage`, or go on with it."""
        if self.stage != stage:
            self.stage, self.stage_steps, self.stage_seconds = stage, 0, 0.0

    def count(self, samples: int, seconds: float) -> None:
        """Count one step."""
        self.stage_steps += 1
        self.steps += 1
        self.samples += samples
        self.stage_seconds += seconds
        self.seconds += seconds


class Part:
    """A module in training together with everything a continued run needs.

    Args:
        module: What is trained; kept in float32.
        seed: Seed of the part's own generator.
        weight_decay: Of matrices and kernels; vectors have none.
        orthogonal: Beginnings of the names whose matrices `OrthogonalMomentum` moves; the rest is AdamW's.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        seed: int,
        weight_decay: float = 0.0,
        orthogonal: tuple[str, ...] = (),
    ) -> None:
        self.module = module
        self.named = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.parameters: list[torch.Tensor] = list(self.named.values())
        device = self.parameters[0].device
        turned = [p for name, p in self.named.items() if p.ndim == 2 and name.startswith(orthogonal)]
        self.turning = OrthogonalMomentum(turned, weight_decay=weight_decay) if turned else None
        known = {id(value) for value in turned}
        rest = [value for value in self.parameters if id(value) not in known]
        groups = [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-8, fused=device.type == "cuda"
        )
        self.average = [value.detach().clone() for value in self.parameters]
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(seed)
        self.seed = seed
        self.progress = Progress()

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def freeze(self, prefixes: tuple[str, ...]) -> None:
        """Train on from the averaged weights, with those whose names start so left as they are."""
        if not self.progress.stage_steps:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.average)
        for name, value in self.named.items():
            value.requires_grad_(not name.startswith(prefixes))

    def replace(self, values: Mapping[str, torch.Tensor]) -> None:
        """Put new values for the named weights, into the average too, and start their moments afresh."""
        index = {name: number for number, name in enumerate(self.named)}
        with torch.no_grad():
            for name, value in values.items():
                own = self.parameters[index[name]]
                own.copy_(value)
                self.average[index[name]].copy_(value)
                for key in ("exp_avg", "exp_avg_sq"):
                    if key in self._state(own):
                        self._state(own)[key].zero_()

    def update(self, learning_rate: float, *, clip: float, decay: float) -> torch.Tensor:
        """Take one AdamW step from the gradients in place and move the average; returns the gradient norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip, foreach=True)
        for optimizer in (self.optimizer, *([self.turning] if self.turning else [])):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = self.progress.stage_steps
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - min(decay, (1 + done) / (10 + done)))
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place for the length of the block."""
        own = [value.detach().clone() for value in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, own)

    def save(self, folder: Path, *, compact: bool = False) -> None:
        """Write the part; `compact` keeps 16 bits of every number, for transport."""
        folder.mkdir(parents=True, exist_ok=True)
        states = [self._state(value) for value in self.parameters]
        first = [s.get("exp_avg", torch.zeros_like(p)) for s, p in zip(states, self.parameters, strict=True)]
        second = [
            s.get("exp_avg_sq", torch.zeros_like(p)) for s, p in zip(states, self.parameters, strict=True)
        ]
        half = torch.float16 if compact else torch.float32
        moment = torch.bfloat16 if compact else torch.float32
        meta = {
            "progress": asdict(self.progress),
            "adam_steps": max((int(state["step"].item()) for state in states if "step" in state), default=0),
            "seed": self.seed,
            "device": self.device.type,
            "compact": compact,
        }
        weights = self._named(self.parameters, half)
        weights[RNG_KEY] = self.generator.get_state()
        _write(folder / f"{WEIGHTS}.safetensors", weights, meta)
        _write(folder / f"{AVERAGE}.safetensors", self._named(self.average, half), meta)
        _write(folder / f"{FIRST}.safetensors", self._named(first, moment), meta)
        if compact:
            second = [value.sqrt() for value in second]
        _write(folder / f"{SECOND}.safetensors", self._named(second, moment), meta)

    def load(self, folder: Path) -> None:
        """Go on from a saved part.

        Raises:
            ValueError: if the files are of another architecture or do not belong together.
        """
        meta = read_meta(folder)
        weights, average = _read(folder / f"{WEIGHTS}.safetensors"), _read(folder / f"{AVERAGE}.safetensors")
        first, second = _read(folder / f"{FIRST}.safetensors"), _read(folder / f"{SECOND}.safetensors")
        state = weights.pop(RNG_KEY)
        if set(weights) != set(self.named):
            raise ValueError(f"{folder} was written by another architecture.")
        with torch.no_grad():
            for index, (name, value) in enumerate(self.named.items()):
                value.copy_(weights[name])
                self.average[index].copy_(average[name])
                if meta["adam_steps"]:
                    spread = second[name].float()
                    self._restore(value, first[name], spread.square() if meta["compact"] else spread, meta)
        self.progress = Progress(**meta["progress"])
        if meta["device"] == self.device.type:
            self.generator.set_state(state)
        else:
            self.generator.manual_seed(self.seed + self.progress.steps)

    def _state(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what an optimizer remembers of a weight, empty before its first step."""
        for optimizer in (self.optimizer, self.turning):
            if optimizer is not None and value in optimizer.state:
                state: dict[str, torch.Tensor] = optimizer.state[value]
                return state
        return {}

    def _restore(
        self, value: torch.Tensor, first: torch.Tensor, second: torch.Tensor, meta: Mapping[str, Any]
    ) -> None:
        moment = first.float().to(value.device)
        if self.turning is not None and any(value is own for own in self.turning.param_groups[0]["params"]):
            self.turning.state[value] = {"exp_avg": moment}
            return
        step = torch.tensor(float(meta["adam_steps"]))
        self.optimizer.state[value] = {
            "step": step.to(value.device) if value.is_cuda else step,
            "exp_avg": moment,
            "exp_avg_sq": second.float().to(value.device),
        }

    def _named(self, values: list[torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {
            name: value.detach().to(dtype).cpu().contiguous()
            for name, value in zip(self.named, values, strict=True)
        }


def is_saved(folder: Path) -> bool:
    """Tell whether a complete part lies in `folder`."""
    return all((folder / f"{name}.safetensors").is_file() for name in (WEIGHTS, AVERAGE, FIRST, SECOND))


def has_average(folder: Path) -> bool:
    """Tell whether averaged weights lie in `folder`, alone or with the rest of a part."""
    return (folder / f"{AVERAGE}.safetensors").is_file()


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the counters of a saved part."""
    with safe_open(folder / f"{AVERAGE}.safetensors", framework="pt") as file:
        return dict(json.loads(file.metadata()["state"]))


def save_average(folder: Path, values: Mapping[str, torch.Tensor], *, facts: Mapping[str, Any]) -> None:
    """Write averaged weights alone, in 16 bits, as `load_average` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.to(torch.float16).contiguous() for name, value in values.items()}
    meta = {"progress": asdict(Progress(facts=dict(facts)))}
    _write(folder / f"{AVERAGE}.safetensors", half, meta)


def load_average(folder: Path, module: torch.nn.Module) -> dict[str, Any]:
    """Put the averaged weights of a saved part into `module`; only `average.safetensors` is read.

    Returns:
        The part's facts.
    """
    values = _read(folder / f"{AVERAGE}.safetensors")
    own = dict(module.named_parameters())
    if set(values) != set(own):
        raise ValueError(f"{folder} was written by another architecture.")
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return dict(read_meta(folder)["progress"]["facts"])


def _write(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished, metadata={"state": json.dumps(meta)})
    unfinished.replace(path)


def _read(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
