"""What the workbench asks of a video transformer: where its self-attention is, and how to get at q, k and v.

Everything that is specific to an architecture is behind this protocol; nothing else looks into a transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from workbench.types import TokenGrid

if TYPE_CHECKING:
    from torch import Tensor, nn


class QueryKeyValue(NamedTuple):
    """Query, key and value of one self-attention as the softmax sees them, [B, N, H, D] each."""

    query: Tensor
    key: Tensor
    value: Tensor


class ForwardInputs(NamedTuple):
    """What one forward pass of a transformer works on; `timesteps` is [B], or [B, N] for one a token."""

    grid: TokenGrid
    timesteps: Tensor | None


class AttentionShape(NamedTuple):
    """Blocks, heads and head dimension of a transformer."""

    num_blocks: int
    num_heads: int
    head_dim: int


class Adapter(Protocol):
    """One architecture of video transformers."""

    def accepts(self, transformer: nn.Module) -> bool:
        """Return whether this adapter knows the class of `transformer`."""

    def shape(self, transformer: nn.Module) -> AttentionShape:
        """Return blocks, heads and head dimension."""

    def attention(self, transformer: nn.Module, block: int) -> nn.Module:
        """Return the self-attention module of a block."""

    def attention_name(self, block: int) -> str:
        """Return the name of that module inside the transformer."""

    def inputs(self, transformer: nn.Module, arguments: Mapping[str, Any]) -> ForwardInputs:
        """Return token grid and timesteps of a forward pass called with `arguments` (all by name)."""

    def query_key_value(self, attention: nn.Module, hidden_states: Tensor, **arguments: Any) -> QueryKeyValue:
        """Project hidden states [B, N, H*D] to q, k, v after norm and rotary embedding."""

    def output(self, attention: nn.Module, result: Tensor) -> Tensor:
        """Bring an attention result [B, N, H, D] through the output projection to [B, N, H*D]."""
