"""Softmax attention with log-sum-exp from torch's fused kernels, forward and backward, layout [B, N, H, D].

Knows which of torch's operators serves which device, dtype and shape; nothing about hybrid attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)

aten = torch.ops.aten
USUAL_TOKENS = 1024
CPU_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class SoftmaxBranch:
    """Hold output [B, N, H, D], log-sum-exp [B, H, N] (None where not asked) and what the backward needs."""

    output: Tensor
    log_sum_exp: Tensor | None
    state: tuple[Any, ...]


def softmax_backend(query: Tensor, key: Tensor) -> str | None:
    """Name the operator that serves these tensors: ``cpu``, ``cudnn``, ``flash``, ``efficient`` or None.

    Asks as ``fused_softmax`` runs: a last dimension that is not dense counts as copied.
    """
    if query.device.type == "cpu":
        return "cpu" if query.dtype in CPU_DTYPES else None
    if query.device.type != "cuda":
        return None
    if torch.compiler.is_compiling():
        return _usual_backend(query.device, query.dtype, query.shape[-1])
    return _cuda_backend(as_copied(query).transpose(1, 2), as_copied(key).transpose(1, 2))


def as_copied(x: Tensor) -> Tensor:
    """Return ``x``, or where ``unit_stride`` would copy it, a stand-in of that shape without the memory."""
    return x if x.stride(-1) == 1 else x.new_empty(x.shape[-1]).expand(x.shape)


def _cuda_backend(query: Tensor, key: Tensor) -> str | None:
    """Ask torch about query [B, H, N, D] and key [B, H, M, D]."""
    params = SDPAParams(query, key, key, None, 0.0, False, False)
    if can_use_cudnn_attention(params):
        return "cudnn"
    if can_use_flash_attention(params) and query.shape[-1] % 8 == 0:
        return "flash"
    return "efficient" if can_use_efficient_attention(params) and query.shape[-1] % 8 == 0 else None


def _usual_backend(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Ask about a usual shape: the compiler cannot trace the question, and has no strides to ask about."""
    usual = torch.empty(head_dim, device=device, dtype=dtype).expand(1, 1, USUAL_TOKENS, head_dim)
    return _cuda_backend(usual, usual)


# What torch.compiler.assume_constant_result does, which imports the whole compiler (2 s) to do it.
_usual_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def fused_softmax(query: Tensor, key: Tensor, value: Tensor, *, need_lse: bool) -> SoftmaxBranch:
    """Attend from query [B, N, H, D] to key and value [B, M, H, D], strided views included.

    Raises:
        ValueError: where none of torch's fused operators serves the device, dtype or head dimension.
    """
    query, key, value = (unit_stride(x) for x in (query, key, value))
    backend = softmax_backend(query, key)
    query_, key_, value_ = (x.transpose(1, 2) for x in (query, key, value))
    if backend == "cpu":
        output, raw = aten._scaled_dot_product_flash_attention_for_cpu(query_, key_, value_)
        rest: tuple[Any, ...] = ()
    elif backend == "cudnn":
        output, raw, *rest_ = aten._scaled_dot_product_cudnn_attention(query_, key_, value_, None, need_lse)
        rest = tuple(rest_[:6])
    elif backend == "flash":
        output, raw, *rest_ = aten._scaled_dot_product_flash_attention(query_, key_, value_)
        rest = tuple(rest_[:6])
    elif backend == "efficient":
        output, raw, *rest_ = aten._scaled_dot_product_efficient_attention(
            query_, key_, value_, None, need_lse
        )
        rest = tuple(rest_)
    else:
        raise ValueError(
            f"no fused attention of torch serves {query.dtype} with head_dim {query.shape[-1]} on "
            f"{query.device}: use impl 'reference'"
        )
    lse = raw.reshape(*raw.shape[:2], -1)[..., : query.shape[1]] if need_lse else None
    return SoftmaxBranch(output.transpose(1, 2), lse, (backend, raw if need_lse else None, rest))


def fused_softmax_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, state: tuple[Any, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of query, key and value [B, ., H, D] for a forward made with ``need_lse``.

    ``output`` enters only through rowsum(grad * output): pass another tensor to account for a gradient of the
    log-sum-exp. On CUDA the order of the sums for the query's gradient may vary from run to run.
    """
    backend, raw, rest = state
    grad, query, key, value, output = (
        unit_stride(x).transpose(1, 2) for x in (grad, query, key, value, output)
    )
    tensors = (grad, query, key, value)
    if backend == "cpu":
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(*tensors, output, raw, 0.0, False)
    elif backend == "cudnn":
        cum_q, cum_k, max_q, max_k, seed, offset = rest
        grads = aten._scaled_dot_product_cudnn_attention_backward(
            *tensors, output, raw, seed, offset, None, cum_q, cum_k, max_q, max_k, 0.0, False
        )
    elif backend == "flash":
        cum_q, cum_k, max_q, max_k, seed, offset = rest
        grads = aten._scaled_dot_product_flash_attention_backward(
            *tensors, output, raw, cum_q, cum_k, max_q, max_k, 0.0, False, seed, offset
        )
    else:
        seed, offset = rest
        grads = aten._scaled_dot_product_efficient_attention_backward(
            *tensors, None, output, raw, seed, offset, 0.0, [True, True, True, False], False
        )
    grad_query, grad_key, grad_value = (x.transpose(1, 2) for x in grads[:3])
    return grad_query, grad_key, grad_value


def unit_stride(x: Tensor) -> Tensor:
    """Return ``x`` with its last dimension dense, copied only if it is not."""
    return x if x.stride(-1) == 1 else x.contiguous()
