"""The LoRA of a finetuned student: a standard LoRA file beside its cells, put on and taken off with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors
from workbench.planning.bank import file_digest

LORA = "pytorch_lora_weights.safetensors"
"""The name that diffusers' `load_lora_weights` looks for."""
ADAPTER = "student"
PREFIX = "transformer"


def read_lora(folder: Path, *, sha256: str) -> dict[str, Tensor]:
    """Read the LoRA of a student folder strictly; half precision is how it is kept, not how it computes.

    Raises:
        InputError: missing, cut, changed or not finite.
    """
    what = f"student {folder.name}: {LORA}"
    path = folder / LORA
    if not path.is_file():
        raise InputError(f"{what} is missing; finetune the student again.")
    tensors = load_tensors(path, what=what)
    if file_digest(path) != sha256:
        raise InputError(f"{what} is not the file that was saved (its sha256 differs); finetune it again.")
    return {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()
    }


def put_on(transformer: nn.Module, tensors: dict[str, Tensor], *, what: str) -> None:
    """Put a LoRA on a transformer.

    Raises:
        InputError: it does not fit the transformer.
    """
    model: Any = transformer
    wanted = {name.removeprefix(f"{PREFIX}.").rsplit(".lora_", 1)[0] for name in tensors}
    known = {name for name, _ in transformer.named_modules()}
    foreign = sorted(wanted - known)
    if foreign or not tensors:
        raise InputError(f"The LoRA of {what} does not fit this model ({foreign[:1] or 'it is empty'}).")
    try:
        model.load_lora_adapter(tensors, prefix=PREFIX, adapter_name=ADAPTER)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The LoRA of {what} does not fit this model ({str(error)[:120]}).") from error


def take_off(transformer: nn.Module) -> None:
    """Take the student's LoRA off, if it is there; other adapters stay."""
    model: Any = transformer
    adapters = getattr(model, "peft_config", {})
    if ADAPTER not in adapters:
        return
    if len(adapters) == 1:
        model.unload_lora()
    else:
        model.delete_adapters(ADAPTER)
