"""Hybrid attention out of torch's own attention and matrix products; nothing of size N x N.

The softmax branch is one call of the device's fused attention (cuDNN or flash on CUDA, torch's flash on the CPU) on the
strided views ``key[:, ::R]`` and ``value[:, ::R]``, which costs no copy. The linear branch is three products. One
autograd function merges both, so that a distillation step (gradients of features alone) never enters the backward of
the softmax branch. Not twice differentiable: ``impl="reference"`` is.

Gradient of the softmax branch: with weights p_ij = exp(s_ij - lse_i), every fused backward computes
dS = P * (dO V^T - delta), delta = rowsum(dO * out), and takes ``out`` as an argument. With c_i constant the branch's
mass carries a gradient too, and delta becomes rowsum(dO * y) with y the merged output: the same backward serves, given y
in the place of its own output. With c_i = lse_i the mass is constant and ``out`` is the branch's own output.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.hybrid_attention.feature_map import MapParameters, unscaled_features
from kernels.hybrid_attention.fused_softmax import fused_softmax, fused_softmax_backward
from kernels.hybrid_attention.reference import MASS_FLOOR, accumulation_dtype
from kernels.hybrid_attention.validation import ChunkSpec

ROWMAX_SCORES = 1 << 24


def linear_tokens(x: Tensor, rate: int | None) -> Tensor:
    """Return the tokens [B, N_L, ...] that keep no softmax: a view for rate 2 and linear, else one copy."""
    if rate is None:
        return x
    if rate <= 2:
        return x[:, 1::rate] if rate == 2 else x[:, :0]
    tokens = x.shape[1]
    whole = tokens // rate * rate
    groups = x[:, :whole].unflatten(1, (whole // rate, rate))[:, :, 1:].flatten(1, 2)
    tail = x[:, whole + 1 :]
    return torch.cat([groups, tail], dim=1) if tail.shape[1] else groups


def rows_by_head(x: Tensor) -> Tensor:
    """View [B, N, H, F] as [B*H, N, F], without a copy when B is 1."""
    return x.permute(2, 0, 1, 3).flatten(0, 1) if x.shape[0] == 1 else x.permute(0, 2, 1, 3).flatten(0, 1)


def linear_state(key_features: Tensor, value: Tensor) -> Tensor:
    """Return the mean over the keys of phi_k(k_j) [v_j, 1]: [B*H, F, D + 1] from rows [B*H, N_L, F] and [B*H, N_L, D].

    The mean, not the sum, keeps fp16 in range; ``linear_output`` multiplies the count back in wide arithmetic.
    """
    ones = value.new_ones(()).expand(*value.shape[:2], 1)
    return torch.bmm(key_features.transpose(1, 2), torch.cat([value, ones], dim=2) / value.shape[1])


def linear_output(
    query_features: Tensor, state: Tensor, *, count: int | Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """Return numerator [B, N, H, D] and mass [B, N, H] of the linear branch from rows [B*H, N, F] and its state."""
    both = torch.bmm(query_features, state.to(query_features.dtype))
    both_BNHD = both.to(accumulation_dtype(both.dtype)).unflatten(0, (batch, -1)).transpose(1, 2)
    both_BNHD = both_BNHD * count
    return both_BNHD[..., :-1], both_BNHD[..., -1]


def row_maximum(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest score of every query [B, H, N] and the key that has it, a few queries at a time."""
    query_, key_ = query.transpose(1, 2), key.permute(0, 2, 3, 1)
    batch, heads, tokens, head_dim = query_.shape
    step = max(1, ROWMAX_SCORES // (batch * heads * key.shape[1]))
    values, indices = [], []
    for first in range(0, tokens, step):
        scores = torch.matmul(query_[:, :, first : first + step], key_).to(accumulation_dtype(query.dtype))
        best = scores.max(dim=-1)
        values.append(best.values / math.sqrt(head_dim))
        indices.append(best.indices)
    return torch.cat(values, dim=-1), torch.cat(indices, dim=-1)


class HybridMerge(torch.autograd.Function):
    """Softmax over the kept keys, merged with a linear numerator [B, N, H, D] and mass [B, N, H]."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        linear_sum: Tensor,
        linear_mass: Tensor,
        stabilizer: str,
    ) -> Tensor:
        trains_softmax = any(ctx.needs_input_grad[:3])
        branch = fused_softmax(query, key, value, need_lse=trains_softmax or stabilizer == "rowmax")
        weight, peak = None, None
        denominator = linear_mass.clamp_min(0)
        if stabilizer == "rowmax":
            maximum, peak = row_maximum(query, key)
            weight = torch.exp(branch.log_sum_exp - maximum).transpose(1, 2)
            output = (branch.output * weight.unsqueeze(-1)).add_(linear_sum)
            denominator = denominator.add_(weight).unsqueeze(-1)
        else:
            output = branch.output.to(linear_sum.dtype, copy=False) + linear_sum
            denominator = denominator.add_(1).unsqueeze(-1)
        merged = output.div_(denominator).to(query.dtype)
        ctx.branch = branch.state if trains_softmax else None
        ctx.save_for_backward(
            query, key, value, branch.output, merged, linear_mass, denominator, weight, peak
        )
        return merged

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, own, merged, linear_mass, denominator, weight, peak = ctx.saved_tensors
        grad_sum = grad.to(denominator.dtype) / denominator
        grad_mass = (grad_sum * merged).sum(dim=-1).neg_().masked_fill_(linear_mass < 0, 0)
        if not any(ctx.needs_input_grad[:3]):
            return None, None, None, grad_sum, grad_mass, None
        if weight is None:
            softmax_grad, delta_output = grad_sum, own
        else:
            softmax_grad, delta_output = grad_sum * weight.unsqueeze(-1), merged
        grads = fused_softmax_backward(
            softmax_grad.to(query.dtype), query, key, value, delta_output, ctx.branch
        )
        grad_query, grad_key, grad_value = grads
        if weight is not None:
            grad_peak = (softmax_grad * (merged - own)).sum(dim=-1) / math.sqrt(query.shape[-1])
            grad_query, grad_key = _add_peak_gradient(grad_query, grad_key, query, key, grad_peak, peak)
        return grad_query, grad_key, grad_value, grad_sum, grad_mass, None


def _add_peak_gradient(
    grad_query: Tensor, grad_key: Tensor, query: Tensor, key: Tensor, grad_peak: Tensor, peak: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the gradient that the row maximum q_i.k_peak carries; ``index_add`` order varies on CUDA."""
    index = peak.transpose(1, 2).unsqueeze(-1).expand(query.shape)
    grad_score = grad_peak.unsqueeze(-1).to(query.dtype)
    grad_query = grad_query + grad_score * key.gather(1, index)
    return grad_query, grad_key.contiguous().scatter_add(1, index, grad_score * query)


def hybrid_attention_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    rate: int | None,
    stabilizer: str,
) -> Tensor:
    """Evaluate hybrid attention on given features (arguments as ``hybrid_attention``)."""
    if rate == 1 or (rate is not None and query.shape[1] == 1):
        return dense_attention(query, key, value)
    assert query_features is not None and key_features is not None
    return _hybrid(
        query,
        key,
        value,
        rows_by_head(query_features),
        rows_by_head(linear_tokens(key_features, rate)),
        rate=rate,
        stabilizer=stabilizer,
    )


def hybrid_attention_from_maps_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: MapParameters,
    key_map: MapParameters,
    *,
    rate: int | None,
    stabilizer: str,
) -> Tensor:
    """Evaluate hybrid attention with phi inside (arguments as ``hybrid_attention_from_maps``).

    phi_k runs on the linear tokens alone, and both scales act on the small state.
    """
    if rate == 1 or (rate is not None and query.shape[1] == 1):
        return dense_attention(query, key, value)
    scale = (query_map.log_scale + key_map.log_scale).to(accumulation_dtype(query.dtype)).exp()
    return _hybrid(
        query,
        key,
        value,
        _feature_rows(query, query_map),
        _feature_rows(linear_tokens(key, rate), key_map),
        rate=rate,
        stabilizer=stabilizer,
        state_scale=scale,
    )


def dense_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return torch's scaled dot product attention, [B, N, H, D] in and out."""
    return F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    ).transpose(1, 2)


def _feature_rows(x: Tensor, parameters: MapParameters) -> Tensor:
    """Return unscaled features as rows [B*H, N, F]."""
    features_HMF = unscaled_features(x, parameters).to(x.dtype)
    batch, tokens = x.shape[:2]
    if batch == 1:
        return features_HMF
    return features_HMF.unflatten(1, (batch, tokens)).transpose(0, 1).flatten(0, 1)


def _hybrid(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_rows: Tensor,
    key_rows: Tensor,
    *,
    rate: int | None,
    stabilizer: str,
    state_scale: Tensor | None = None,
) -> Tensor:
    batch, _, heads, _ = query.shape
    state = linear_state(key_rows, rows_by_head(linear_tokens(value, rate)))
    if state_scale is not None:
        state = state * state_scale.expand(heads).repeat(batch).reshape(-1, 1, 1)
    linear_sum, linear_mass = linear_output(query_rows, state, count=key_rows.shape[1], batch=batch)
    if rate is None:
        guarded = linear_mass.masked_fill(linear_mass <= MASS_FLOOR, math.inf)
        return (linear_sum / guarded.unsqueeze(-1)).to(query.dtype)
    return HybridMerge.apply(query, key[:, ::rate], value[:, ::rate], linear_sum, linear_mass, stabilizer)


def rehyat_attention_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor,
    key_features: Tensor,
    *,
    chunks: ChunkSpec,
    stabilizer: str,
    form: str,
) -> Tensor:
    """Evaluate ReHyAt chunk by chunk.

    ``parallel`` forms the states of all chunks first by a cumulative sum (chunks are then independent); ``recurrent``
    carries one state from chunk to chunk and adds only the tokens that became far, so memory does not grow with N.
    """
    boundaries = chunks.boundaries(query.shape[1])
    query_rows, key_rows, value_rows = (rows_by_head(x) for x in (query_features, key_features, value))
    wide = accumulation_dtype(query.dtype)
    steps = [far for far, _, _ in boundaries]
    previous = [0, *steps[:-1]]

    def increment(first: int, last: int) -> Tensor:
        """Return the summed state of the tokens first..last-1 that became far in one step."""
        if first == last:
            return key_rows.new_zeros(
                key_rows.shape[0], key_rows.shape[2], value_rows.shape[2] + 1, dtype=wide
            )
        mean = linear_state(key_rows[:, first:last].contiguous(), value_rows[:, first:last])
        return mean.to(wide) * (last - first)

    if form == "parallel":
        increments = [increment(first, last) for first, last in zip(previous, steps, strict=True)]
        states = list(torch.stack(increments).cumsum(dim=0).unbind(0))
    outputs = []
    running = increment(0, 0)
    for index, (first_key, first, end) in enumerate(boundaries):
        if form == "parallel":
            running = states[index]
        else:
            running = running + increment(previous[index], steps[index])
        linear_sum, linear_mass = linear_output(
            query_rows[:, first:end],
            running / max(first_key, 1),
            count=max(first_key, 1),
            batch=query.shape[0],
        )
        window = slice(first_key, end)
        outputs.append(
            HybridMerge.apply(
                query[:, first:end], key[:, window], value[:, window], linear_sum, linear_mass, stabilizer
            )
        )
    return torch.cat(outputs, dim=1)
