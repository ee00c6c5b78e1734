"""Block-sparse attention as its formula, with the whole matrix; the oracle of every faster form."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def token_mask(tile_mask: Tensor, *, query_tokens: int, key_tokens: int, tile: int) -> Tensor:
    """Expand [B, H, query tiles, key tiles] to tokens [B, H, N, M]; ragged last tiles are cut."""
    rows = tile_mask.repeat_interleave(tile, dim=2)[:, :, :query_tokens]
    return rows.repeat_interleave(tile, dim=3)[..., :key_tokens]


def block_sparse_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, tile_mask: Tensor, *, tile: int
) -> tuple[Tensor, Tensor]:
    """Return output [B, N, H, D] in the dtype of ``query`` and log-sum-exp [B, H, N]."""
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = torch.einsum("bnhd,bmhd->bhnm", query.to(wide), key.to(wide)) / math.sqrt(query.shape[-1])
    allowed = token_mask(tile_mask, query_tokens=query.shape[1], key_tokens=key.shape[1], tile=tile)
    scores = scores.masked_fill(~allowed, -math.inf)
    log_sum_exp = torch.logsumexp(scores, dim=-1)
    empty = ~allowed.any(dim=-1)
    offset = log_sum_exp.masked_fill(empty, 0).unsqueeze(-1)
    weights = torch.exp(scores - offset)
    return torch.einsum("bhnm,bmhd->bnhd", weights, value.to(wide)).to(query.dtype), log_sum_exp
