"""What one self-attention of the teacher gives to the cells of its block. Knows tensors alone.

Shapes: B batch, M chosen queries, N tokens, H heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.hybrid_attention.fused_softmax import fused_softmax
from workbench.types import TokenGrid


@dataclass(frozen=True)
class TeacherAttention:
    """One self-attention of the teacher, for some of its queries; all cells of the block share it.

    Attributes:
        query: the chosen queries, [B, M, H, D], fp32, after norm and rotary embedding.
        key: all keys, [B, N, H, D], fp32.
        value: [B, N, H, D], fp32.
        output: what the teacher gives the chosen queries, [B, M, H, D], fp32.
        all_queries: [B, N, H, D], in the model's dtype.
        chosen: indices of the chosen queries, [M].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    all_queries: Tensor
    chosen: Tensor
    grid: TokenGrid

    @classmethod
    @torch.no_grad()
    def of(
        cls, query: Tensor, key: Tensor, value: Tensor, *, chosen: Tensor, grid: TokenGrid
    ) -> TeacherAttention:
        """Compute the teacher's output for some queries.

        Args:
            query: [B, N, H, D] in the model's dtype, as key and value.
            chosen: indices of the queries, [M].
            grid: of the N tokens.
        """
        wide = torch.promote_types(query.dtype, torch.float32)
        picked = query.detach().index_select(1, chosen)
        output = fused_softmax(picked, key.detach(), value.detach(), need_lse=False).output
        key, value = key.detach().to(wide), value.detach().to(wide)
        return cls(picked.to(wide), key, value, output.to(wide), query.detach(), chosen, grid)

    @torch.no_grad()
    def kept_output(self, rate: int | None) -> Tensor:
        """Return softmax over every `rate`-th key alone, [B, M, H, D]; zeros where no key is kept."""
        if rate is None:
            return torch.zeros_like(self.output)
        kept = slice(None, None, rate)
        return fused_softmax(self.query, self.key[:, kept], self.value[:, kept], need_lse=False).output

    @torch.no_grad()
    def offset(self, rate: int | None, *, rows: slice) -> Tensor:
        """Return the log-sum-exp over the kept keys (over all keys where none is), [B, H, m]."""
        kept = slice(None, None, rate or 1)
        branch = fused_softmax(self.query[:, rows], self.key[:, kept], self.value[:, kept], need_lse=True)
        assert branch.log_sum_exp is not None
        return branch.log_sum_exp
