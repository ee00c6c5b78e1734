"""Weights of a student whose whole transformer was finetuned: put in, and the teacher's own put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors
from workbench.planning.bank import file_digest

WEIGHTS = "transformer.safetensors"
KEPT = "_teacher_weights"
"""Attribute of the transformer that keeps what the student replaced; no part of its state dict."""


def read_weights(folder: Path, *, sha256: str) -> dict[str, Tensor]:
    """Read the transformer weights of a student folder strictly.

    Raises:
        InputError: missing, cut, changed or not finite.
    """
    what = f"student {folder.name}: {WEIGHTS}"
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{what} is missing; finetune the student again.")
    tensors = load_tensors(path, what=what)
    if file_digest(path) != sha256:
        raise InputError(f"{what} is not the file that was saved (its sha256 differs); finetune it again.")
    return tensors


def own_parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """Return the transformer's own parameters by the names of its untouched class: no operator, no LoRA."""
    return {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in transformer.named_parameters()
        if ".operator." not in name and ".lora_" not in name
    }


@torch.no_grad()
def put_in(transformer: nn.Module, tensors: dict[str, Tensor], *, what: str) -> None:
    """Put a student's weights into a transformer, keeping the teacher's.

    Raises:
        InputError: names or shapes differ; nothing was changed.
    """
    own = own_parameters(transformer)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in own.items()}:
        odd = sorted(set(shapes) ^ set(own))
        named = odd[0] if odd else next(name for name in own if shapes[name] != tuple(own[name].shape))
        raise InputError(f"The weights of {what} do not fit this model ({named}).")
    keep_own(transformer)
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def keep_own(transformer: nn.Module) -> None:
    """Keep a copy of the transformer's present weights on the CPU, unless one is kept already."""
    holder: Any = transformer
    if getattr(transformer, KEPT, None) is None:
        own = own_parameters(transformer)
        kept = {name: parameter.detach().to("cpu", copy=True) for name, parameter in own.items()}
        setattr(holder, KEPT, kept)


@torch.no_grad()
def put_back(transformer: nn.Module) -> None:
    """Give the transformer its own weights back, if a student replaced them."""
    kept: dict[str, Tensor] | None = getattr(transformer, KEPT, None)
    if kept is None:
        return
    for name, parameter in own_parameters(transformer).items():
        parameter.data = parameter.data.to(kept[name].dtype)
        parameter.copy_(kept[name])
    delattr(transformer, KEPT)
