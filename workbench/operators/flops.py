"""Floating-point operations of one self-attention; 1 multiply-accumulate = 2. Knows no tensors."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class HeadShape(Protocol):
    """Anything that has heads: `ModelFacts`, `AttentionShape`."""

    @property
    def num_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...


class AttentionFlops(NamedTuple):
    """Operations of one self-attention without its projections: softmax core, feature maps, linear state."""

    softmax: float
    feature_maps: float = 0.0
    linear: float = 0.0

    @property
    def total(self) -> float:
        return self.softmax + self.feature_maps + self.linear


def dense_core(num_queries: float, num_keys: float, shape: HeadShape) -> float:
    """Return the operations of softmax attention: 4 x queries x keys x width (scores and weighted sum)."""
    return 4.0 * num_queries * num_keys * shape.num_heads * shape.head_dim
