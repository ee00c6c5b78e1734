"""Block-sparse attention through FlexAttention: compiled on CUDA, eager (the whole matrix) elsewhere."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def block_mask(tile_mask: Tensor, *, query_tokens: int, key_tokens: int, tile: int) -> BlockMask:
    """Turn a tile mask into FlexAttention's lists of key tiles, without a mask over tokens in memory."""
    counts = tile_mask.sum(dim=-1, dtype=torch.int32)
    order = torch.argsort(tile_mask.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)

    def allowed(batch: Tensor, head: Tensor, query_index: Tensor, key_index: Tensor) -> Tensor:
        return tile_mask[batch, head, query_index // tile, key_index // tile]

    return BlockMask.from_kv_blocks(
        counts, order, BLOCK_SIZE=tile, mask_mod=allowed, seq_lengths=(query_tokens, key_tokens)
    )


def block_sparse_attention_flex(
    query: Tensor, key: Tensor, value: Tensor, tile_mask: Tensor, *, tile: int
) -> tuple[Tensor, Tensor]:
    """Return output [B, N, H, D] in the dtype of ``query`` and log-sum-exp [B, H, N]."""
    mask = block_mask(tile_mask, query_tokens=query.shape[1], key_tokens=key.shape[1], tile=tile)
    attend = _compiled() if query.is_cuda else flex_attention
    output, log_sum_exp = attend(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), block_mask=mask, return_lse=True
    )
    empty = ~tile_mask.any(dim=-1).repeat_interleave(tile, dim=2)[..., : query.shape[1]]
    output = output.transpose(1, 2).masked_fill(empty.transpose(1, 2).unsqueeze(-1), 0)
    return output, log_sum_exp.masked_fill(empty, -math.inf)
