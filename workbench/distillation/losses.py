"""Losses between a teacher's attention and a student's. Knows tensors alone.

Shapes: B batch, M chosen queries, L linear keys, H heads, D head dimension, F features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LossName = Literal["value", "value-normalised", "mse", "mse-normalised", "score"]

SMALLEST_SCALE = 1e-12


def value_loss(output: Tensor, target: Tensor, *, name: LossName) -> Tensor:
    """Return the mean distance of two attention outputs, [B, M, H, D] each.

    "value" is the mean absolute difference, the loss of Attention Surgery (arXiv 2509.24899); "mse" the mean
    square. The normalised forms divide every head by the mean magnitude (or square) of its target, so that
    heads with small outputs count as much as the others.
    """
    difference = output - target
    distance, size = (
        (difference.abs(), target.abs()) if name.startswith("value") else (difference**2, target**2)
    )
    if name.endswith("normalised"):
        return (distance.mean(dim=(0, 1, 3)) / size.mean(dim=(0, 1, 3)).clamp_min(SMALLEST_SCALE)).mean()
    return distance.mean()


def score_loss(
    query: Tensor,
    key: Tensor,
    query_features: Tensor,
    key_features: Tensor,
    *,
    offset: Tensor,
) -> Tensor:
    """Return the mean over queries and heads of log(1 + Σ_j (exp(q·k_j/√D − c) − φ_q·φ_k(k_j))²).

    Args:
        query: [B, M, H, D].
        key: the linear keys alone, [B, L, H, D].
        query_features: [B, M, H, F].
        key_features: [B, L, H, F].
        offset: c, the stabilizer of every query, [B, H, M].

    The score distillation of Attention Surgery (arXiv 2509.24899), with a stabilizer, as in the hybrid.
    """
    scores = torch.einsum("bmhd,blhd->bhml", query, key) / query.shape[-1] ** 0.5
    implied = torch.einsum("bmhf,blhf->bhml", query_features, key_features)
    return torch.log1p((torch.exp(scores - offset.unsqueeze(-1)) - implied).square().sum(dim=-1)).mean()


def relative_error(output: Tensor, target: Tensor) -> float:
    """Return ‖ŷ − y‖₁ / ‖y‖₁ over all elements."""
    return float((output - target).abs().sum() / target.abs().sum().clamp_min(SMALLEST_SCALE))
