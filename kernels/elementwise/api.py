"""Public operators: check, choose an implementation, run it. Layout [B, N, C]; no gradient."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from kernels.elementwise.reference import (
    gated_sum_reference,
    norm_reference,
    rms_norm_rotate_reference,
)
from kernels.hybrid_attention.validation import check_choice

Impl = Literal["auto", "reference", "triton"]
HAS_TRITON = find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def resolve_elementwise_impl(hidden: Tensor, *, impl: str = "auto") -> str:
    """Name the implementation that runs for ``hidden``: ``triton`` on CUDA, else ``reference``.

    Raises:
        ValueError: if a forced choice is unknown or cannot run, with the reason.
    """
    check_choice("impl", impl, get_args(Impl))
    obstacle = None
    if not HAS_TRITON:
        obstacle = "triton is not installed"
    elif not hidden.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        obstacle = f"it needs a CUDA device, got {hidden.device}"
    elif hidden.dtype not in DTYPES:
        obstacle = f"it needs float32, bfloat16 or float16, got {hidden.dtype}"
    if impl == "triton" and obstacle is not None:
        raise ValueError(f"impl 'triton' cannot run here: {obstacle}")
    if impl == "auto":
        return "triton" if obstacle is None and hidden.is_cuda else "reference"
    return impl


def gated_sum(hidden: Tensor, update: Tensor, gate: Tensor | None, *, impl: Impl = "auto") -> Tensor:
    """Return hidden + update * gate.

    Args:
        hidden: [B, N, C].
        update: [B, N, C].
        gate: [B or 1, N or 1, C], any floating dtype; None is 1.
        impl: ``auto``, ``reference`` or ``triton``.

    Raises:
        ValueError: for shapes or choices that do not fit, before anything runs.
    """
    _check(hidden, {"gate": gate}, update)
    if resolve_elementwise_impl(hidden, impl=impl) == "reference":
        return gated_sum_reference(hidden, update, gate)
    from kernels.elementwise import triton_host

    summed, _ = triton_host.residual_norm_triton(hidden, update, gate, None)
    return summed


def residual_norm(
    hidden: Tensor,
    *,
    update: Tensor | None = None,
    gate: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    one_plus: bool = True,
    eps: float = 1e-6,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Return hidden + update * gate, and its layer norm times (1 + scale) plus shift.

    Args:
        hidden: [B, N, C].
        update: [B, N, C]; None leaves hidden as it is.
        gate: [B or 1, N or 1, C]; None is 1.
        scale: [B or 1, N or 1, C], or [C]; None is no factor.
        shift: as scale.
        one_plus: False multiplies by scale itself, as an affine layer norm does.
        eps: added to the variance.
        impl: ``auto``, ``reference`` or ``triton``.

    Returns:
        The sum (``hidden`` itself without an update) and its norm, in the dtype of hidden. The norm is taken
        of the sum as rounded to that dtype, in fp32.

    Raises:
        ValueError: for shapes or choices that do not fit, before anything runs.
    """
    _check(hidden, {"gate": gate, "scale": scale, "shift": shift}, update)
    if update is None and gate is not None:
        raise ValueError("gate needs an update")
    if resolve_elementwise_impl(hidden, impl=impl) == "reference":
        summed = hidden if update is None else gated_sum_reference(hidden, update, gate)
        return summed, norm_reference(summed, scale, shift, one_plus=one_plus, eps=eps)
    from kernels.elementwise import triton_host

    norm = triton_host.Norm(scale, shift, one_plus, eps)
    summed, normed = triton_host.residual_norm_triton(hidden, update, gate, norm)
    assert normed is not None
    return summed, normed


def rms_norm_rotate(
    states: Tensor,
    weight: Tensor,
    *,
    heads: int,
    rotary: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    impl: Impl = "auto",
) -> Tensor:
    """Return queries or keys [B, N, H, D] after the norm over all heads and rotary position embedding.

    Args:
        states: [B, N, H*D].
        weight: [H*D].
        heads: H.
        rotary: cosines and sines [1, N, 1, D], each value twice, for pairs (0, 1), (2, 3), ...; None leaves
            the rotation out.
        eps: added to the mean square.
        impl: ``auto``, ``reference`` or ``triton``.

    Raises:
        ValueError: for shapes or choices that do not fit, before anything runs.
    """
    _check(states, {}, None)
    tokens, width = states.shape[1:]
    if weight.shape != (width,) or width % heads or (width // heads) % 2:
        raise ValueError(
            f"weight must be [{width}] and the width a multiple of twice {heads} heads, got "
            f"{list(weight.shape)} and width {width}"
        )
    for table in rotary or ():
        if tuple(table.shape) != (1, tokens, 1, width // heads):
            raise ValueError(f"rotary must be [1, {tokens}, 1, {width // heads}], got {list(table.shape)}")
    if resolve_elementwise_impl(states, impl=impl) == "reference":
        return rms_norm_rotate_reference(states, weight, rotary, heads=heads, eps=eps)
    from kernels.elementwise import triton_host

    return triton_host.rms_norm_rotate_triton(states, weight, rotary, heads=heads, eps=eps)


def _check(hidden: Tensor, factors: dict[str, Tensor | None], update: Tensor | None) -> None:
    if hidden.dim() != 3 or not hidden.is_floating_point():
        raise ValueError(f"expected floating [batch, tokens, width], got {list(hidden.shape)} {hidden.dtype}")
    if update is not None and update.shape != hidden.shape:
        raise ValueError(f"update must have the shape {list(hidden.shape)}, got {list(update.shape)}")
    batch, tokens, width = hidden.shape
    for name, factor in factors.items():
        if factor is None:
            continue
        shape = (*(1,) * (3 - factor.dim()), *factor.shape)
        fits = len(shape) == 3 and shape[0] in (1, batch) and shape[1] in (1, tokens) and shape[2] == width
        if not fits:
            raise ValueError(f"{name} must broadcast to {list(hidden.shape)}, got {list(factor.shape)}")
    if torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (hidden, update, *factors.values())
    ):
        raise ValueError("the fused element-wise operators have no gradient, call them under torch.no_grad()")
