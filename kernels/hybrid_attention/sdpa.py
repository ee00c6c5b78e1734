"""Hybrid attention out of torch's own attention and matrix products; nothing of size N x N.

The softmax branch is one call of the device's fused attention (cuDNN or flash on CUDA, torch's flash on the
CPU) on the strided views ``key[:, ::R]`` and ``value[:, ::R]``, which costs no copy. The linear branch is
three products. One autograd function merges both, so that a distillation step (gradients of features alone)
never enters the backward of the softmax branch. Not twice differentiable: ``impl="reference"`` is.

Gradient of the softmax branch: with weights p_ij = exp(s_ij - lse_i), every fused backward computes dS = P
* (dO V^T - delta), delta = rowsum(dO * out), and takes ``out`` as an argument. With c_i constant the mass
of the branch carries a gradient too, and delta becomes rowsum(dO * y) with y the merged output: the same
backward serves, given y in the place of its own output. With c_i = lse_i the mass is constant and ``out``
is the own output of the branch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.hybrid_attention.feature_map import MapParameters, apply_feature_map, unscaled_features
from kernels.hybrid_attention.fused_softmax import (
    SoftmaxBranch,
    fused_softmax,
    fused_softmax_backward,
)
from kernels.hybrid_attention.reference import accumulation_dtype, merge

ROWMAX_SCORES = 1 << 24
SLICE_TOKENS = 256
SLICE_ELEMENTS = 1 << 18


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


def num_linear_tokens(tokens: int, rate: int | None) -> int:
    """Return how many tokens keep no softmax."""
    return tokens if rate is None else tokens - -(-tokens // rate)


def at_linear_tokens(features: Tensor, tokens: int, *, rate: int | None) -> Tensor:
    """Put features of the linear tokens alone to their places among all, zeros elsewhere; [B, N, H, F]."""
    if features.shape[1] == tokens:
        return features
    kept = torch.arange(tokens, device=features.device) % (rate or tokens + 1) == 0
    spread = features.new_zeros(features.shape[0], tokens, *features.shape[2:])
    return spread.index_copy(1, (~kept).nonzero().squeeze(1), features)


def rows_by_head(x: Tensor) -> Tensor:
    """View [B, N, H, F] as [B*H, N, F], without a copy when B is 1."""
    return x.permute(2, 0, 1, 3).flatten(0, 1) if x.shape[0] == 1 else x.permute(0, 2, 1, 3).flatten(0, 1)


def state_divisor(value: Tensor) -> int:
    """Return what the state is divided by: the number of keys in fp16 (a sum would overflow), else 1."""
    return value.shape[1] if value.dtype == torch.float16 else 1


def linear_state(key_features: Tensor, value: Tensor) -> Tensor:
    """Return sum_j phi_k(k_j) [v_j, 1] over ``state_divisor``.

    [B*H, F, D + 1] from rows [B*H, N_L, F] and [B*H, N_L, D].
    """
    divisor = state_divisor(value)
    ones = value.new_full((), 1 / divisor).expand(*value.shape[:2], 1)
    value = value if divisor == 1 else value / divisor
    return torch.bmm(key_features.transpose(1, 2), torch.cat([value, ones], dim=2))


def linear_output(
    query_features: Tensor, state: Tensor, *, divisor: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Return numerator [B, N, H, D] and mass [B, N, H] of the linear branch from rows [B*H, N, F]."""
    both = torch.bmm(query_features, state.to(query_features.dtype))
    both_BNHD = both.to(accumulation_dtype(both.dtype)).unflatten(0, (batch, -1)).transpose(1, 2)
    if divisor != 1:
        both_BNHD = both_BNHD * divisor
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


def softmax_and_weight(
    query: Tensor, key: Tensor, value: Tensor, *, stabilizer: str, need_lse: bool
) -> tuple[SoftmaxBranch, Tensor | None, Tensor | None]:
    """Return the softmax branch, its mass [B, N, H] (None where it is 1) and the keys of the row maxima."""
    branch = fused_softmax(query, key, value, need_lse=need_lse or stabilizer == "rowmax")
    if stabilizer == "lse":
        return branch, None, None
    assert branch.log_sum_exp is not None
    maximum, peak = row_maximum(query, key)
    return branch, torch.exp(branch.log_sum_exp - maximum).transpose(1, 2), peak


def merge_in_place(output: Tensor, weight: Tensor | None, linear_sum: Tensor, linear_mass: Tensor) -> Tensor:
    """Turn the softmax output [B, N, H, D] into the hybrid's; return its denominator [B, N, H, 1]."""
    denominator = linear_mass.clamp_min(0)
    denominator = denominator.add_(1 if weight is None else weight).unsqueeze(-1)
    wide = output.to(linear_sum.dtype)
    if weight is not None:
        wide.mul_(weight.unsqueeze(-1))
    wide.add_(linear_sum).div_(denominator)
    if wide is not output:
        output.copy_(wide)
    return denominator


class HybridMerge(torch.autograd.Function):
    """Softmax over the kept keys, merged with a linear numerator [B, N, H, D] and mass [B, N, H]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        linear_sum: Tensor,
        linear_mass: Tensor,
        stabilizer: str,
    ) -> Tensor:
        trains_softmax = any(ctx.needs_input_grad[:3])
        branch, weight, peak = softmax_and_weight(
            query, key, value, stabilizer=stabilizer, need_lse=trains_softmax
        )
        own = branch.output if trains_softmax else None
        merged = branch.output.clone() if trains_softmax else branch.output
        denominator = merge_in_place(merged, weight, linear_sum, linear_mass)
        ctx.branch = branch.state if trains_softmax else None
        ctx.save_for_backward(query, key, value, own, merged, linear_mass, denominator, weight, peak)
        return merged

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
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
            grad_query, grad_key = add_peak_gradient(grad_query, grad_key, query, key, grad_peak, peak)
        return grad_query, grad_key, grad_value, grad_sum, grad_mass, None


def add_peak_gradient(
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
    if rate == 1 or (rate is not None and key.shape[1] == 1):
        return dense_attention(query, key, value)
    assert query_features is not None and key_features is not None
    if key_features.shape[1] == key.shape[1]:
        key_features = linear_tokens(key_features, rate)
    return _hybrid(
        query,
        key,
        value,
        rows_by_head(query_features),
        rows_by_head(key_features),
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

    phi_k runs on the linear tokens alone. Both scales act on the small state, except in fp16, whose range
    features without their scale can leave.
    """
    if rate == 1 or (rate is not None and key.shape[1] == 1):
        return dense_attention(query, key, value)
    if query.dtype == torch.float16:
        linear_keys = linear_tokens(key, rate)
        features = apply_feature_map(query, query_map), apply_feature_map(linear_keys, key_map)
        return hybrid_attention_sdpa(query, key, value, *features, rate=rate, stabilizer=stabilizer)
    scale = (query_map.log_scale + key_map.log_scale).to(accumulation_dtype(query.dtype)).exp()
    trains = any(x.requires_grad for x in (query, key, value, *query_map.tensors, *key_map.tensors))
    if query.device.type == "cpu" and not (trains and torch.is_grad_enabled()):
        return _from_maps_in_slices(
            query, key, value, query_map, key_map, rate=rate, stabilizer=stabilizer, state_scale=scale
        )
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


def merge_with_softmax(output: Tensor, query_features: Tensor, key_features: Tensor, value: Tensor) -> Tensor:
    """Merge a softmax over the kept keys that was computed elsewhere with linear attention to the others.

    With the stabilizer ``lse`` the mass of the softmax branch is 1, so its output is all that is needed.

    Args:
        output: of the softmax over the kept keys alone, [B, N, H, D].
        query_features: [B, N, H, F].
        key_features: of the linear keys alone, [B, M_L, H, F].
        value: of the linear keys alone, [B, M_L, H, D].
    """
    value_rows = rows_by_head(value)
    state = linear_state(rows_by_head(key_features), value_rows)
    linear_sum, linear_mass = linear_output(
        rows_by_head(query_features), state, divisor=state_divisor(value_rows), batch=output.shape[0]
    )
    return merge(output, torch.ones_like(linear_mass), linear_sum, linear_mass).to(output.dtype)


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
    value_rows = rows_by_head(linear_tokens(value, rate))
    state = linear_state(key_rows, value_rows)
    if state_scale is not None:
        state = state * scale_rows(state_scale, batch, heads)
    linear_sum, linear_mass = linear_output(query_rows, state, divisor=state_divisor(value_rows), batch=batch)
    if rate is None:
        return merge(None, None, linear_sum, linear_mass).to(query.dtype)
    return HybridMerge.apply(query, key[:, ::rate], value[:, ::rate], linear_sum, linear_mass, stabilizer)


def scale_rows(scale: Tensor, batch: int, heads: int) -> Tensor:
    """Expand a scalar or per-head scale to [B*H, 1, 1]."""
    return scale.expand(heads).repeat(batch).reshape(-1, 1, 1)


def _from_maps_in_slices(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: MapParameters,
    key_map: MapParameters,
    *,
    rate: int | None,
    stabilizer: str,
    state_scale: Tensor,
) -> Tensor:
    """Do the same without gradients, a slice of tokens at a time, so that features stay in a CPU's cache."""
    batch, _, heads, _ = query.shape
    step = max(SLICE_TOKENS, SLICE_ELEMENTS // (batch * heads * query_map.num_features))
    state: Tensor | None = None
    keys, values = linear_tokens(key, rate), linear_tokens(value, rate)
    for key_, value_ in zip(keys.split(step, dim=1), values.split(step, dim=1), strict=True):
        part = linear_state(_feature_rows(key_, key_map), rows_by_head(value_)).to(state_scale.dtype)
        state = part if state is None else state.add_(part)
    assert state is not None
    state *= scale_rows(state_scale, batch, heads)
    if rate is None:
        output, weight = torch.empty_like(query, memory_format=torch.contiguous_format), None
    else:
        branch, weight, _ = softmax_and_weight(
            query, key[:, ::rate], value[:, ::rate], stabilizer=stabilizer, need_lse=False
        )
        output = branch.output
    for first in range(0, query.shape[1], step):
        here = slice(first, first + step)
        rows = _feature_rows(query[:, here], query_map)
        linear_sum, linear_mass = linear_output(rows, state, divisor=1, batch=batch)
        if rate is None:
            output[:, here] = merge(None, None, linear_sum, linear_mass)
        else:
            merge_in_place(
                output[:, here], None if weight is None else weight[:, here], linear_sum, linear_mass
            )
    return output
