"""The formulas, readable: everything in fp32 (fp64 for fp64), rounded once where a result leaves."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Return ``x`` in the precision that the formulas are evaluated in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gated_sum_reference(hidden: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    """Return hidden + update * gate [B, N, C]."""
    scaled = wide(update) if gate is None else wide(update) * wide(gate)
    return (wide(hidden) + scaled).to(hidden.dtype)


def norm_reference(
    hidden: Tensor, scale: Tensor | None, shift: Tensor | None, *, one_plus: bool, eps: float
) -> Tensor:
    """Return the layer norm of hidden [B, N, C], times scale (or 1 + scale), plus shift."""
    x = wide(hidden)
    centred = x - x.mean(dim=-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    if scale is not None:
        normed = normed * (1 + wide(scale) if one_plus else wide(scale))
    if shift is not None:
        normed = normed + wide(shift)
    return normed.to(hidden.dtype)


def rms_norm_rotate_reference(
    states: Tensor, weight: Tensor, rotary: tuple[Tensor, Tensor] | None, *, heads: int, eps: float
) -> Tensor:
    """Return the RMS norm over all heads of [B, N, H*D], times weight, rotated in pairs: [B, N, H, D]."""
    x = wide(states)
    normed = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * wide(weight)
    by_head = normed.unflatten(2, (heads, -1))
    if rotary is not None:
        first, second = by_head.unflatten(-1, (-1, 2)).unbind(-1)
        cosine, sine = (wide(table)[..., 0::2] for table in rotary)
        pairs = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
        by_head = pairs.flatten(-2)
    return by_head.to(states.dtype)
