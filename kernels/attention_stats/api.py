"""Public operator: check, choose an implementation, run it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from kernels.attention_stats.chunked import attention_stats_chunked
from kernels.attention_stats.measures import (
    DISTANCE_EDGES,
    NEAR_DISTANCE,
    AttentionStats,
    attention_stats_reference,
)
from kernels.attention_stats.triton_tiles import why_not
from kernels.hybrid_attention.fused_softmax import fused_softmax
from kernels.hybrid_attention.validation import check_choice, check_query_key_value

__all__ = [
    "DISTANCE_EDGES",
    "NEAR_DISTANCE",
    "AttentionStats",
    "attention_stats",
    "resolve_stats_impl",
    "softmax_with_lse",
]

Impl = Literal["auto", "reference", "chunked", "triton"]
HAS_TRITON = find_spec("triton") is not None


def resolve_stats_impl(query: Tensor, *, map_size: int = 32, impl: str = "auto") -> str:
    """Name the implementation that ``attention_stats`` runs for ``query`` [B, N, H, D].

    ``auto`` is ``triton`` on CUDA in 16 bits where its kernel serves, else ``chunked``.

    Raises:
        ValueError: if a forced choice is unknown or cannot run, with the reason.
    """
    check_choice("impl", impl, get_args(Impl))
    if impl not in ("auto", "triton"):
        return impl
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    obstacle = why_not(query, map_size, interpreted=interpreted) if HAS_TRITON else "triton is not installed"
    if impl == "triton" and obstacle is not None:
        raise ValueError(f"impl 'triton' cannot run here: {obstacle}")
    serves = obstacle is None and query.is_cuda and query.dtype != torch.float32
    return "triton" if impl == "triton" or serves else "chunked"


def softmax_with_lse(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax attention [B, N, H, D] and its log-sum-exp [B, H, N] from one fused call.

    The output is what ``torch.nn.functional.scaled_dot_product_attention`` gives where it takes the same
    kernel (on a CPU, its flash kernel). Without gradient. Raises ValueError where no fused kernel serves.
    """
    check_query_key_value(query, key, value)
    with torch.no_grad():
        branch = fused_softmax(query, key, value, need_lse=True)
    assert branch.log_sum_exp is not None
    return branch.output, branch.log_sum_exp


def attention_stats(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, int, int],
    log_sum_exp: Tensor | None = None,
    query_stride: int = 1,
    row_queries: Sequence[int] = (),
    map_size: int = 32,
    impl: Impl = "auto",
) -> AttentionStats:
    """Measure where softmax attention looks.

    Args:
        query: [B, N, H, D] after norm and position embedding; scores are q.k / sqrt(D).
        key: [B, N, H, D].
        grid: (T, H, W) with T*H*W = N, tokens frame-major.
        log_sum_exp: [B, H, N] natural log-sum-exp of the rows, if the caller has it from its own attention;
        faster.
        query_stride: look at queries 0, s, 2s, ... (all keys always). One that shares factors with W sees
        the same
            columns in every frame.
        row_queries: tokens whose exact attention rows are wanted.
        map_size: bins of the pooled map, at most N.
        impl: ``triton`` (one kernel on CUDA), ``chunked`` (torch, nothing of size N x N), ``reference`` (the
            whole matrix), ``auto``; see ``resolve_stats_impl``.

    Returns:
        ``AttentionStats`` in fp64 for fp64 inputs, else fp32. Without gradient.

    Raises:
        ValueError: for shapes, dtypes, grids or numbers that do not fit, before anything runs.
    """
    check_choice("impl", impl, get_args(Impl))
    check_query_key_value(query, key, key)
    _check(query, key, grid, log_sum_exp, query_stride, map_size)
    chosen_rows = _check_rows(row_queries, query.shape[1])
    used = resolve_stats_impl(query, map_size=map_size, impl=impl)
    if used == "triton":
        from kernels.attention_stats.triton_host import attention_stats_triton

        with torch.no_grad():
            return attention_stats_triton(
                query,
                key,
                grid=grid,
                log_sum_exp=log_sum_exp,
                query_stride=query_stride,
                row_queries=chosen_rows,
                map_size=map_size,
            )
    wide = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(wide), key.to(wide)
    with torch.no_grad():
        if used == "reference":
            return attention_stats_reference(
                query,
                key,
                grid=grid,
                query_stride=query_stride,
                row_queries=chosen_rows,
                map_size=map_size,
            )
        return attention_stats_chunked(
            query,
            key,
            grid=grid,
            log_sum_exp=log_sum_exp,
            query_stride=query_stride,
            row_queries=chosen_rows,
            map_size=map_size,
        )


def _check(
    query: Tensor,
    key: Tensor,
    grid: tuple[int, int, int],
    log_sum_exp: Tensor | None,
    query_stride: int,
    map_size: int,
) -> None:
    batch, tokens, heads, _ = query.shape
    if key.shape != query.shape:
        raise ValueError(f"key must have the shape of query {list(query.shape)}, got {list(key.shape)}")
    if len(grid) != 3 or min(grid) < 1 or grid[0] * grid[1] * grid[2] != tokens:
        raise ValueError(f"grid must be (frames, height, width) of {tokens} tokens, got {tuple(grid)}")
    if log_sum_exp is not None and tuple(log_sum_exp.shape) != (batch, heads, tokens):
        raise ValueError(f"log_sum_exp must be {[batch, heads, tokens]}, got {list(log_sum_exp.shape)}")
    for name, number, highest in (("query_stride", query_stride, tokens), ("map_size", map_size, tokens)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= highest:
            raise ValueError(f"{name} must be a whole number from 1 to {highest} tokens, got {number!r}")


def _check_rows(row_queries: Sequence[int], tokens: int) -> tuple[int, ...]:
    for token in row_queries:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < tokens:
            raise ValueError(f"row_queries must be tokens from 0 to {tokens - 1}, got {token!r}")
    return tuple(row_queries)
