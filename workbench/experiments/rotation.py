"""φ before the rotary embedding, for the ablation alone: cells whose feature maps see q and k unrotated.

An operator is given q and k after the rotation, which is known and orthogonal: turning it back gives what
they were before it. The softmax branch sees them rotated all the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.hybrid_attention import hybrid_attention
from kernels.hybrid_attention.sdpa import linear_tokens
from workbench.distillation.cells import CellTrainer
from workbench.distillation.teacher import TeacherAttention
from workbench.models import LoadedModel
from workbench.models.wan import rotate
from workbench.operators.hybrid import HybridAttention
from workbench.types import TokenGrid


class Rotation(NamedTuple):
    """The rotary embedding of a Wan transformer: its own tables, [1, N, 1, D] each."""

    cos: Tensor
    sin: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, model: LoadedModel, grid: TokenGrid) -> Rotation:
        """Read the tables that the model itself uses for a token grid."""
        sides = [tokens * patch for tokens, patch in zip(grid, model.facts.patch_size, strict=True)]
        rope: Any = model.transformer.rope
        return cls(*rope(torch.empty(1, 1, *sides, device=model.device)))

    def undo(self, states: Tensor, positions: Tensor) -> Tensor:
        """Turn states [B, M, H, D] at token positions [M] back."""
        return rotate(states, self.cos[:, positions], -self.sin[:, positions])


class UnrotatedTrainer(CellTrainer):
    """Distils a hybrid or linear cell whose feature maps see q and k before the rotation."""

    def __init__(self, name: str, operator: HybridAttention, *, rotation: Rotation, **choices: Any) -> None:
        super().__init__(name, operator, **choices)
        self.maps = operator
        self.rotation = rotation

    def _output(self, attention: TeacherAttention, rows: slice) -> Tensor:
        attention = attention.widened
        query, key, rate = attention.query[:, rows], attention.key, self.maps.rate
        tokens = torch.arange(key.shape[1], device=key.device)
        far = linear_tokens(tokens[None, :, None, None], rate).flatten()
        query_features = self.maps.query_map(self.rotation.undo(query, attention.chosen[rows]))
        key_features = self.maps.key_map(self.rotation.undo(key[:, far], far))
        return hybrid_attention(
            query, key, attention.value, query_features, key_features,
            rate=rate, stabilizer=self.maps.stabilizer,
        )  # fmt: skip
