"""Put a linearized student onto a stock diffusers pipeline, and take it off again.

    from linearized import linearize
    linearize(pipeline)        # a WanPipeline, or its transformer

It needs torch and diffusers, and peft where the student has a LoRA. Knows nothing of how it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from workbench.errors import InputError
from workbench.models.wan import CLASSES, WanAdapter
from workbench.operators import (
    AttentionOperator,
    ElementwiseSpec,
    HedgehogSpec,
    HybridSpec,
    Impl,
    LinearSpec,
    PolynomialSpec,
    RehyatSpec,
    Schedule,
    attach_operators,
    build,
    detach_operators,
)

MANIFEST = "manifest.json"
PLAN = "plan.json"
CELLS = "cells.safetensors"
LORA = "pytorch_lora_weights.safetensors"
WEIGHTS = "transformer.safetensors"
READ = (PLAN, CELLS, LORA, WEIGHTS)
ADAPTER = "student"
MAPS: dict[str, Any] = {
    "polynomial": PolynomialSpec, "hedgehog": HedgehogSpec,
    "elu": ElementwiseSpec, "relu": ElementwiseSpec, "exp": ElementwiseSpec,
}  # fmt: skip
SPECS: dict[str, Any] = {"hybrid": HybridSpec, "linear": LinearSpec, "rehyat": RehyatSpec}


def linearize(
    target: Any,
    folder: str | Path | None = None,
    *,
    linear_branch: bool = True,
    impl: Impl = "auto",
) -> tuple[int, ...]:
    """Install the student into a pipeline or transformer of its teacher's architecture, in place.

    Args:
        target: a diffusers pipeline with a Wan transformer, or that transformer.
        folder: the bundle; None takes the one that this module lies in.
        linear_branch: False switches the linear branch off.
        impl: "auto", "reference", "sdpa" or "triton".

    Returns:
        The blocks that were converted.

    Raises:
        InputError: a file that is missing or not the one that was exported, or a model that does not fit;
            one sentence, and nothing was changed.
    """
    transformer: Any = target if isinstance(target, nn.Module) else getattr(target, "transformer", None)
    adapter = WanAdapter()
    if transformer is None or not adapter.accepts(transformer):
        raise InputError(f"{type(target).__name__} is no Wan pipeline or transformer ({', '.join(CLASSES)}).")
    place = Path(folder) if folder is not None else Path(__file__).resolve().parent.parent
    files = _checked_files(place)
    plan = json.loads((place / PLAN).read_text(encoding="utf-8"))
    shape = adapter.shape(transformer)
    planned = tuple(plan["model"][name] for name in ("num_blocks", "num_heads", "head_dim"))
    if planned != tuple(shape):
        raise InputError(
            f"The student is for {planned[0]} blocks with {planned[1]} heads of {planned[2]}, and the "
            f"transformer has {shape.num_blocks} with {shape.num_heads} of {shape.head_dim}."
        )
    cells = load_file(place / CELLS)
    operators = {
        block: _operator(spec, shape, _of_block(cells, block), linear_branch=linear_branch, impl=impl)
        for block, spec in _converted(plan).items()
    }
    restore(transformer)
    if WEIGHTS in files:
        _put_in(transformer, load_file(place / WEIGHTS))
    schedule = Schedule(**plan["schedule"])
    attach_operators(
        transformer, adapter, operators, is_dense_step=schedule.is_dense, installation=place.name
    )
    if LORA in files:
        transformer.load_lora_adapter(load_file(place / LORA), prefix="transformer", adapter_name=ADAPTER)
    return tuple(operators)


def restore(target: Any) -> tuple[int, ...]:
    """Take the student off: the blocks get their own attention back and its LoRA goes.

    The weights of a student whose whole transformer was finetuned stay; load the pipeline again to be rid
    of them.

    Returns:
        The blocks that were restored.
    """
    transformer: Any = target if isinstance(target, nn.Module) else target.transformer
    adapters = getattr(transformer, "peft_config", {})
    if ADAPTER in adapters:
        if len(adapters) == 1:
            transformer.unload_lora()
        else:
            transformer.delete_adapters(ADAPTER)
    return detach_operators(transformer)


def _checked_files(folder: Path) -> tuple[str, ...]:
    """Return the data files of the bundle after comparing their digests."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder.name!r} is no bundle: {MANIFEST} cannot be read ({error}).") from None
    files = tuple(name for name in READ if name in listed)
    for name in {PLAN, CELLS} | set(files):
        path = folder / name
        if name not in listed or not path.is_file():
            raise InputError(f"{name} is missing from {folder.name!r}; export the student again.")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != listed[name]["sha256"]:
            raise InputError(f"{name} is not the file that was exported (its sha256 differs).")
    return files


def _converted(plan: Mapping[str, Any]) -> dict[int, Any]:
    """Return the specs of the blocks that do not keep softmax."""
    return {
        planned["block"]: _spec(planned["operator"])
        for planned in plan["blocks"]
        if planned["operator"]["kind"] != "softmax"
    }


def _spec(data: Mapping[str, Any]) -> Any:
    feature_map = data["feature_map"]
    if data["kind"] not in SPECS or feature_map["kind"] not in MAPS:
        raise InputError(
            f"This loader does not know the operator {data['kind']!r} with {feature_map['kind']!r} features."
        )
    return SPECS[data["kind"]](**{**data, "feature_map": MAPS[feature_map["kind"]](**feature_map)})


def _of_block(cells: Mapping[str, Tensor], block: int) -> dict[str, Tensor]:
    prefix = f"block.{block}."
    return {name.removeprefix(prefix): value for name, value in cells.items() if name.startswith(prefix)}


def _operator(
    spec: Any, shape: Any, weights: dict[str, Tensor], *, linear_branch: bool, impl: Impl
) -> AttentionOperator:
    operator = build(spec, shape)
    own = {name: tuple(value.shape) for name, value in operator.state_dict().items()}
    if own != {name: tuple(value.shape) for name, value in weights.items()}:
        raise InputError(f"The weights in {CELLS} do not fit the plan.")
    operator.load_state_dict(weights)
    operator.linear_branch, operator.impl = linear_branch, impl
    return operator


@torch.no_grad()
def _put_in(transformer: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = dict(transformer.named_parameters())
    if {name: tuple(value.shape) for name, value in weights.items()} != {
        name: tuple(value.shape) for name, value in own.items()
    }:
        raise InputError(f"{WEIGHTS} does not fit this transformer; take other LoRAs off first.")
    for name, value in weights.items():
        own[name].copy_(value)
