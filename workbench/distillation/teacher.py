"""What one self-attention of the teacher gives to the cells of its block. Knows tensors alone.

Shapes: B batch, M chosen queries, N tokens, L linear keys, H heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kernels.hybrid_attention.fused_softmax import fused_softmax
from kernels.hybrid_attention.reference import linear_branch, merge, softmax_branch
from kernels.hybrid_attention.sdpa import linear_tokens, row_maximum
from workbench.types import TokenGrid

Stabilizer = Literal["lse", "rowmax"]


class Kept(NamedTuple):
    """The softmax branch of kept keys: numerator [B, M, H, D], denominator [B, M, H], offset [B, H, M]."""

    numerator: Tensor
    mass: Tensor
    offset: Tensor


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
    _kept: dict[tuple[int, Stabilizer], Kept] = field(default_factory=dict)
    _linear: dict[int | None, tuple[Tensor, Tensor]] = field(default_factory=dict)

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
    def kept(self, rate: int, stabilizer: Stabilizer) -> Kept:
        """Return the softmax branch over every `rate`-th key; computed once."""
        if (rate, stabilizer) not in self._kept:
            key, value = self.key[:, ::rate], self.value[:, ::rate]
            branch = fused_softmax(self.query, key, value, need_lse=True)
            assert branch.log_sum_exp is not None
            if stabilizer == "lse":
                kept = Kept(branch.output, torch.ones_like(self.query[..., 0]), branch.log_sum_exp)
            else:
                numerator, mass = softmax_branch(self.query, key, value, stabilizer=stabilizer)
                kept = Kept(numerator, mass, row_maximum(self.query, key)[0])
            self._kept[rate, stabilizer] = kept
        return self._kept[rate, stabilizer]

    def linear(self, rate: int | None) -> tuple[Tensor, Tensor]:
        """Return keys and values that keep no softmax, [B, L, H, D] each."""
        if rate not in self._linear:
            self._linear[rate] = (linear_tokens(self.key, rate), linear_tokens(self.value, rate))
        return self._linear[rate]

    def student(
        self,
        query_features: Tensor,
        key_features: Tensor,
        *,
        rate: int | None,
        stabilizer: Stabilizer,
        rows: slice = slice(None),
    ) -> Tensor:
        """Return the hybrid's output for the chosen queries `rows`, [B, m, H, D].

        Args:
            query_features: of those queries, [B, m, H, F].
            key_features: of the linear keys, [B, L, H, F].
        """
        linear_sum, linear_mass = linear_branch(query_features, key_features, self.linear(rate)[1])
        if rate is None:
            return merge(None, None, linear_sum, linear_mass)
        kept = self.kept(rate, stabilizer)
        return merge(kept.numerator[:, rows], kept.mass[:, rows], linear_sum, linear_mass)
