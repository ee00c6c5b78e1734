"""Launch the element-wise kernels: one program a token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from kernels.elementwise.triton_kernels import residual_norm_kernel, rms_norm_rotate_kernel
from kernels.hybrid_attention.fused_softmax import unit_stride


@dataclass(frozen=True, eq=False)
class Norm:
    """Say what a layer norm is multiplied by (1 + scale where ``one_plus``) and shifted by."""

    scale: Tensor | None
    shift: Tensor | None
    one_plus: bool
    eps: float


def warps_for(block: int) -> int:
    """Return warps for a row of ``block`` elements."""
    return 4 if block <= 2048 else 8


def broadcast(factor: Tensor | None, hidden: Tensor) -> tuple[Tensor, int, int]:
    """Return a factor with its strides over batch and tokens, 0 where it repeats; a stand-in for None."""
    if factor is None:
        return hidden, 0, 0
    full = unit_stride(factor).expand(hidden.shape)
    return full, full.stride(0), full.stride(1)


def residual_norm_triton(
    hidden: Tensor, update: Tensor | None, gate: Tensor | None, norm: Norm | None
) -> tuple[Tensor, Tensor | None]:
    """Return the sum and, if asked for, its norm (arguments as ``residual_norm``)."""
    hidden = unit_stride(hidden)
    batch, tokens, width = hidden.shape
    update = None if update is None else unit_stride(update)
    summed = hidden if update is None else torch.empty(hidden.shape, device=hidden.device, dtype=hidden.dtype)
    normed = None if norm is None else torch.empty(hidden.shape, device=hidden.device, dtype=hidden.dtype)
    gate_, gate_b, gate_n = broadcast(gate, hidden)
    scale_, scale_b, scale_n = broadcast(norm.scale if norm else None, hidden)
    shift_, shift_b, shift_n = broadcast(norm.shift if norm else None, hidden)
    block = triton.next_power_of_2(width)
    read = hidden if update is None else update
    residual_norm_kernel[(batch * tokens,)](
        hidden,
        read,
        gate_,
        scale_,
        shift_,
        summed,
        summed if normed is None else normed,
        *hidden.stride()[:2],
        *read.stride()[:2],
        gate_b,
        gate_n,
        scale_b,
        scale_n,
        shift_b,
        shift_n,
        tokens,
        norm.eps if norm else 0.0,
        C=width,
        BLOCK=block,
        HAS_UPDATE=update is not None,
        HAS_GATE=gate is not None,
        HAS_NORM=norm is not None,
        HAS_SCALE=norm is not None and norm.scale is not None,
        HAS_SHIFT=norm is not None and norm.shift is not None,
        ONE_PLUS=norm is not None and norm.one_plus,
        num_warps=warps_for(block),
    )
    return summed, normed


def rms_norm_rotate_triton(
    states: Tensor, weight: Tensor, rotary: tuple[Tensor, Tensor] | None, *, heads: int, eps: float
) -> Tensor:
    """Return normed and rotated states [B, N, H, D] (arguments as ``rms_norm_rotate``)."""
    states = unit_stride(states)
    batch, tokens, width = states.shape
    out = torch.empty(batch, tokens, width, device=states.device, dtype=states.dtype)
    cosine, sine = (unit_stride(table) for table in rotary) if rotary is not None else (weight, weight)
    pairs = triton.next_power_of_2(width) // 2
    rms_norm_rotate_kernel[(batch * tokens,)](
        states,
        weight.contiguous(),
        cosine,
        sine,
        out,
        *states.stride()[:2],
        0 if rotary is None else cosine.stride(1),
        0 if rotary is None else sine.stride(1),
        tokens,
        eps,
        C=width,
        D=width // heads,
        PAIRS=pairs,
        ROTATE=rotary is not None,
        num_warps=warps_for(2 * pairs),
    )
    return out.unflatten(2, (heads, -1))
