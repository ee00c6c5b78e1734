"""Hybrid attention written as its formula: readable, slow, any floating dtype, differentiable twice.

This file is the oracle of every faster implementation. Shapes: B batch, N tokens, H heads, D head dimension,
F features, M softmax (kept) keys.

    y_i = [ sum_{j in S} exp(s_ij - c_i) v_j + phi_q(i) . sum_{j in L} phi_k(j) v_j ]
        / [ sum_{j in S} exp(s_ij - c_i)     + max(phi_q(i) . sum_{j in L} phi_k(j), 0) ]

with s_ij = q_i.k_j / sqrt(D). c_i is the log-sum-exp of the row over S ("lse": the first sum of the
denominator is then 1) or its maximum ("rowmax"). The linear mass of a query is never counted below zero, so
that the denominator of a hybrid stays positive whatever the features are. Without softmax keys (rate None),
a query whose linear mass is at most ``MASS_FLOOR`` gets zeros.
Source: Attention Surgery, arXiv 2509.24899, equation of hybrid attention; ReHyAt, arXiv 2601.04342.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.hybrid_attention.validation import ChunkSpec

MASS_FLOOR = 1e-20


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return fp64 for fp64 and fp32 for everything narrower."""
    return torch.promote_types(dtype, torch.float32)


def merge(
    softmax_sum: Tensor | None, softmax_mass: Tensor | None, linear_sum: Tensor, linear_mass: Tensor
) -> Tensor:
    """Divide the summed numerators [B, N, H, D] by the guarded summed denominators [B, N, H]."""
    if softmax_sum is None or softmax_mass is None:
        guarded = linear_mass.masked_fill(linear_mass <= MASS_FLOOR, math.inf)
        return linear_sum / guarded.unsqueeze(-1)
    denominator = softmax_mass + linear_mass.clamp_min(0)
    return (softmax_sum + linear_sum) / denominator.unsqueeze(-1)


def softmax_branch(
    query: Tensor, key: Tensor, value: Tensor, *, stabilizer: str, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return numerator [B, N, H, D] and denominator [B, N, H] of the softmax branch.

    ``allowed`` [N, M] says which keys a query may see; all when None.
    """
    scores_BHNM = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
    if allowed is not None:
        scores_BHNM = scores_BHNM.masked_fill(~allowed, -math.inf)
    if stabilizer == "lse":
        offset = torch.logsumexp(scores_BHNM, dim=-1, keepdim=True)
    else:
        offset = torch.amax(scores_BHNM, dim=-1, keepdim=True)
    weights_BHNM = torch.exp(scores_BHNM - offset)
    return torch.einsum("bhnm,bmhd->bnhd", weights_BHNM, value), weights_BHNM.sum(dim=-1).transpose(1, 2)


def linear_branch(query_features: Tensor, key_features: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return numerator [B, N, H, D] and mass [B, N, H] of the linear branch, key by key through its state."""
    state_BHFD = torch.einsum("bmhf,bmhd->bhfd", key_features, value)
    mass_BHF = key_features.sum(dim=1)
    numerator = torch.einsum("bnhf,bhfd->bnhd", query_features, state_BHFD)
    return numerator, torch.einsum("bnhf,bhf->bnh", query_features, mass_BHF)


def hybrid_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    rate: int | None,
    stabilizer: str,
) -> Tensor:
    """Evaluate the formula above with every matrix in memory; the result has the dtype of ``query``."""
    wide = accumulation_dtype(query.dtype)
    query_, key_, value_ = query.to(wide), key.to(wide), value.to(wide)
    kept = torch.zeros(key.shape[1], dtype=torch.bool, device=query.device)
    if rate is not None:
        kept[::rate] = True
    softmax_sum, softmax_mass = None, None
    if rate is not None:
        softmax_sum, softmax_mass = softmax_branch(
            query_, key_[:, kept], value_[:, kept], stabilizer=stabilizer
        )
    if query_features is None or key_features is None:
        assert softmax_sum is not None and softmax_mass is not None
        return (softmax_sum / softmax_mass.unsqueeze(-1)).to(query.dtype)
    linear_sum, linear_mass = linear_branch(
        query_features.to(wide), key_features.to(wide)[:, ~kept], value_[:, ~kept]
    )
    return merge(softmax_sum, softmax_mass, linear_sum, linear_mass).to(query.dtype)


def rehyat_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    chunks: ChunkSpec,
    stabilizer: str,
) -> Tensor:
    """Evaluate ReHyAt with two N x N masks: softmax near (chunk and overlap), linear over all keys before.

    Missing features, of queries without far keys and of keys that are never far, count as zero.
    """
    wide = accumulation_dtype(query.dtype)
    tokens = query.shape[1]
    near = torch.zeros(tokens, tokens, dtype=torch.bool, device=query.device)
    far = torch.zeros_like(near)
    for first_key, first, end in chunks.boundaries(tokens):
        near[first:end, first_key:end] = True
        far[first:end, :first_key] = True
    softmax_sum, softmax_mass = softmax_branch(
        query.to(wide), key.to(wide), value.to(wide), stabilizer=stabilizer, allowed=near
    )
    if query_features is None or key_features is None:
        assert softmax_sum is not None and softmax_mass is not None
        return (softmax_sum / softmax_mass.unsqueeze(-1)).to(query.dtype)
    query_features = F.pad(query_features, (0, 0, 0, 0, tokens - query_features.shape[1], 0))
    key_features = F.pad(key_features, (0, 0, 0, 0, 0, tokens - key_features.shape[1]))
    weights_BHNM = torch.einsum("bnhf,bmhf->bhnm", query_features.to(wide), key_features.to(wide)) * far
    linear_sum = torch.einsum("bhnm,bmhd->bnhd", weights_BHNM, value.to(wide))
    linear_mass = weights_BHNM.sum(dim=-1).transpose(1, 2)
    return merge(softmax_sum, softmax_mass, linear_sum, linear_mass).to(query.dtype)
