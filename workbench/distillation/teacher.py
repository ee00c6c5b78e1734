"""What one self-attention of the teacher gives to the cells of its block. Knows tensors alone.

Shapes: B batch, M chosen queries, N tokens, H heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from kernels.hybrid_attention.fused_softmax import fused_softmax
from workbench.types import TokenGrid


@dataclass(frozen=True)
class TeacherAttention:
    """One self-attention of the teacher, for some of its queries; all cells of the block share it.

    On a GPU, query, key and value of a bfloat16 model stay what they are, so that hybrids learn through the
    kernels that will run them; everywhere else they are fp32 (fp64 of an fp64 model). Gradients of a mean
    are too small for float16.

    Attributes:
        query: the chosen queries, [B, M, H, D], after norm and rotary embedding.
        key: all keys, [B, N, H, D].
        value: [B, N, H, D].
        output: what the teacher gives the chosen queries, [B, M, H, D], always fp32 or wider.
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
        cls,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        chosen: Tensor,
        grid: TokenGrid,
        narrow: bool | None = None,
    ) -> TeacherAttention:
        """Compute the teacher's output for some queries.

        Args:
            query: [B, N, H, D] in the model's dtype, as key and value.
            chosen: indices of the queries, [M].
            grid: of the N tokens.
            narrow: whether query, key and value keep the model's dtype; None decides as the class says.
        """
        wide = torch.promote_types(query.dtype, torch.float32)
        picked = query.detach().index_select(1, chosen)
        output = fused_softmax(picked, key.detach(), value.detach(), need_lse=False).output
        if narrow is None:
            narrow = query.is_cuda and query.dtype == torch.bfloat16
        kept = query.dtype if narrow else wide
        key, value = key.detach().to(kept), value.detach().to(kept)
        return cls(picked.to(kept), key, value, output.to(wide), query.detach(), chosen, grid)

    @cached_property
    def widened(self) -> TeacherAttention:
        """The same with query, key and value in the dtype of `output`; itself where they are."""
        wide = self.output.dtype
        if self.key.dtype == wide:
            return self
        return replace(self, query=self.query.to(wide), key=self.key.to(wide), value=self.value.to(wide))

    @torch.no_grad()
    def kept_output(self, rate: int | None) -> Tensor:
        """Return softmax over every `rate`-th key alone, [B, M, H, D]; zeros where no key is kept."""
        if rate is None:
            return torch.zeros_like(self.output)
        kept = slice(None, None, rate)
        branch = fused_softmax(self.query, self.key[:, kept], self.value[:, kept], need_lse=False)
        return branch.output.to(self.output.dtype)

    @torch.no_grad()
    def offset(self, rate: int | None, *, rows: slice) -> Tensor:
        """Return the log-sum-exp over the kept keys (over all keys where none is), [B, H, m]."""
        kept = slice(None, None, rate or 1)
        branch = fused_softmax(self.query[:, rows], self.key[:, kept], self.value[:, kept], need_lse=True)
        assert branch.log_sum_exp is not None
        return branch.log_sum_exp
