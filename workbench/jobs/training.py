"""Pack everything a training loop is made of into a checkpoint's state, and set it back exactly.

Names in the tensors: `module/<name>/<key>`, `optimizer/<name>/<parameter>/<key>`, `tensor/<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from workbench.errors import InputError
from workbench.jobs.randomness import capture_generator, restore_generator
from workbench.jobs.tensors import show
from workbench.types import CheckpointState


class Scheduler(Protocol):
    """A learning rate schedule of torch."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainingParts:
    """The live objects of a training loop, by name; `tensors` are set in place (an average, say)."""

    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)
    schedulers: Mapping[str, Scheduler] = field(default_factory=dict)
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def pack(self, meta: Mapping[str, Any] | None = None) -> CheckpointState:
        """Return a copy of the state of every part, with the caller's own JSON data."""
        named: dict[str, torch.Tensor] = {f"tensor/{name}": value for name, value in self.tensors.items()}
        for name, module in self.modules.items():
            named |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
        packed = {
            name: _pack_optimizer(name, optimizer, named) for name, optimizer in self.optimizers.items()
        }
        return CheckpointState(
            {name: value.detach().clone() for name, value in named.items()},
            {
                "optimizers": packed,
                "schedulers": {name: part.state_dict() for name, part in self.schedulers.items()},
                "generators": {name: capture_generator(part) for name, part in self.generators.items()},
                "meta": dict(meta or {}),
            },
        )

    def unpack(self, state: CheckpointState) -> Mapping[str, Any]:
        """Set every part to a packed state.

        Returns:
            the caller's own JSON data.

        Raises:
            InputError: the state has other parts, names or shapes; the first difference is named.
        """
        self._check(state)
        for name, tensor in self.tensors.items():
            tensor.data.copy_(state.tensors[f"tensor/{name}"])
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                value.copy_(state.tensors[f"module/{name}/{key}"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(_unpack_optimizer(name, optimizer, state))
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(dict(state.meta["schedulers"][name]))
        for name, generator in self.generators.items():
            restore_generator(generator, state.meta["generators"][name])
        meta: Mapping[str, Any] = state.meta["meta"]
        return meta

    def _check(self, state: CheckpointState) -> None:
        for part in ("optimizers", "schedulers", "generators"):
            if set(state.meta.get(part, ())) != set(getattr(self, part)):
                raise InputError(
                    f"The checkpoint holds the {part} {sorted(state.meta.get(part, ()))}, "
                    f"this work has {sorted(getattr(self, part))}."
                )
        wanted = {f"tensor/{name}": value for name, value in self.tensors.items()}
        for name, module in self.modules.items():
            wanted |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
        for name, value in wanted.items():
            if name not in state.tensors:
                raise InputError(f"The checkpoint has no tensor {show(name)}.")
            if state.tensors[name].shape != value.shape:
                raise InputError(
                    f"The checkpoint's tensor {show(name)} is {list(state.tensors[name].shape)}, "
                    f"this work needs {list(value.shape)}."
                )


def _pack_optimizer(name: str, optimizer: torch.optim.Optimizer, named: dict[str, torch.Tensor]) -> Any:
    data = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, values in data["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                named[f"optimizer/{name}/{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    return {"plain": plain, "groups": data["param_groups"]}


def _unpack_optimizer(name: str, optimizer: torch.optim.Optimizer, state: CheckpointState) -> dict[str, Any]:
    packed = state.meta["optimizers"][name]
    values = {int(index): dict(plain) for index, plain in packed["plain"].items()}
    start = f"optimizer/{name}/"
    for key, tensor in state.tensors.items():
        if key.startswith(start):
            index, _, field_name = key.removeprefix(start).partition("/")
            values.setdefault(int(index), {})[field_name] = tensor.clone()
    groups = [
        {key: tuple(value) if isinstance(live.get(key), tuple) else value for key, value in group.items()}
        for group, live in zip(packed["groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": values, "param_groups": groups}
