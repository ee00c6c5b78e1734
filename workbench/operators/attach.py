"""Put operators into a transformer and take them out again. Knows no plans and no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from workbench.models.adapter import Adapter
from workbench.operators.context import attach_clock, clock_of, release_clock
from workbench.operators.module import AttentionOperator
from workbench.operators.processor import OPERATOR, OperatorProcessor


def attach_operators(
    transformer: nn.Module,
    adapter: Adapter,
    operators: Mapping[int, AttentionOperator],
    *,
    is_dense_step: Callable[[int], bool],
    installation: Any,
) -> None:
    """Give blocks their operators; without any, the transformer stays as it is.

    Args:
        transformer: has no operators.
        adapter: of its architecture.
        operators: by block; moved to the block's device.
        is_dense_step: on which sampling steps the blocks keep their softmax.
        installation: what the clock remembers of this, not None.
    """
    if not operators:
        return
    clock = attach_clock(transformer, adapter)
    clock.installation = installation
    clock.is_dense_step = is_dense_step
    for block, operator in operators.items():
        attention: Any = adapter.attention(transformer, block)
        operator.to(_device_of(attention)).train(attention.training)
        attention.add_module(OPERATOR, operator)
        attention.set_processor(OperatorProcessor(attention.processor, clock=clock, block=block))


def detach_operators(transformer: nn.Module) -> tuple[int, ...]:
    """Give blocks their own attention back; the state dict has its old keys again.

    Returns:
        The blocks that had an operator.
    """
    clock = clock_of(transformer)
    if clock is None or clock.installation is None:
        return ()
    shape = clock.adapter.shape(transformer)
    restored = []
    for block in range(shape.num_blocks):
        attention: Any = clock.adapter.attention(transformer, block)
        if hasattr(attention, OPERATOR):
            attention.set_processor(attention.processor.original)
            delattr(attention, OPERATOR)
            restored.append(block)
    clock.installation = None
    clock.is_dense_step = None
    clock.reset()
    release_clock(transformer)
    return tuple(restored)


def _device_of(attention: nn.Module) -> torch.device:
    device = next((parameter.device for parameter in attention.parameters()), torch.device("cpu"))
    return torch.device("cpu") if device.type == "meta" else device
