"""Softmax attention: what every block has before surgery."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from workbench.operators.flops import AttentionFlops, HeadShape, dense_core
from workbench.types import StrictModel, TokenGrid


class SoftmaxSpec(StrictModel):
    """The block keeps its own attention, bit for bit."""

    kind: Literal["softmax"] = "softmax"

    @property
    def needs_training(self) -> bool:
        return False

    @property
    def short(self) -> str:
        return "softmax"

    def flops(self, grid: TokenGrid, shape: HeadShape) -> AttentionFlops:
        """Return 4 N^2 d."""
        return AttentionFlops(dense_core(grid.num_tokens, grid.num_tokens, shape))


def softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, *, backend: Any = None, parallel_config: Any = None
) -> Tensor:
    """Attend with softmax through diffusers' dispatcher, as the processors of diffusers do.

    Args:
        query: [B, N, H, D]; key and value the same.
        backend: attention backend of diffusers; None is the active one.
        parallel_config: context-parallel configuration of diffusers.
    """
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    attended: Tensor = dispatch_attention_fn(
        query,
        key,
        value,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        backend=backend,
        parallel_config=parallel_config,
    )
    return attended
