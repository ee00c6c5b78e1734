"""Public operator: check, choose an implementation, run it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from kernels.block_sparse_attention.flex import block_sparse_attention_flex
from kernels.block_sparse_attention.reference import block_sparse_attention_reference
from kernels.hybrid_attention.validation import check_choice, check_query_key_value

Impl = Literal["auto", "reference", "flex"]


def block_sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tile_mask: Tensor,
    *,
    tile: int,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Attend by softmax to the keys of chosen tiles.

    Args:
        query: [B, N, H, D]; scores are q.k / sqrt(D).
        key: [B, M, H, D].
        value: [B, M, H, D].
        tile_mask: bool [B, H, ceil(N / tile), ceil(M / tile)], True where a tile of queries sees a tile of
        keys. The
            last tiles may be ragged.
        tile: tokens of a tile; ``flex`` on CUDA needs a multiple of 128.
        impl: ``flex`` (FlexAttention), ``reference`` (the whole matrix), ``auto``
            is flex on CUDA where the tile allows it, else reference. Neither is tuned for speed.

    Returns:
        Output [B, N, H, D] in the dtype of ``query`` and natural log-sum-exp [B, H, N]. Queries whose row
        has no tile get zeros and minus infinity.

    Raises:
        ValueError: for shapes, dtypes, devices or tiles that do not fit, before anything runs.
    """
    check_choice("impl", impl, get_args(Impl))
    check_query_key_value(query, key, value)
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile must be a whole number of at least 1 token, got {tile!r}")
    shape = (query.shape[0], query.shape[2], -(-query.shape[1] // tile), -(-key.shape[1] // tile))
    if tile_mask.dtype != torch.bool or tuple(tile_mask.shape) != shape:
        raise ValueError(
            f"tile_mask must be bool {list(shape)}, got {tile_mask.dtype} {list(tile_mask.shape)}"
        )
    if tile_mask.device != query.device:
        raise ValueError(f"tile_mask must be on the device of query {query.device}, got {tile_mask.device}")
    whole = tile % 128 == 0
    if impl == "flex" and query.is_cuda and not whole:
        raise ValueError(f"impl 'flex' on CUDA needs a tile of a multiple of 128 tokens, got {tile}")
    if impl == "reference" or (impl == "auto" and not (query.is_cuda and whole)):
        return block_sparse_attention_reference(query, key, value, tile_mask, tile=tile)
    return block_sparse_attention_flex(query, key, value, tile_mask, tile=tile)
