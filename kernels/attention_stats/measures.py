"""What is measured, apart from how: the result, the bins of distance, the reference with its whole matrix."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# A bin holds the distances up to its edge and above the one before; tokens are one apart.
DISTANCE_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, math.inf)
NEAR_DISTANCE = 2.0
NEAR_BINS = sum(edge <= NEAR_DISTANCE for edge in DISTANCE_EDGES)


class AttentionStats(NamedTuple):
    """Statistics of softmax attention per head, means over the queries looked at (fp32, or fp64 for fp64).

    Attributes:
        entropy: [B, H] in nats.
        normalized_entropy: [B, H], entropy / log N (1 for N = 1).
        same_frame: [B, H], mass on keys of the query's frame, the query's own token included.
        same_place: [B, H], mass on keys at the query's place (h, w) in other frames.
        near: [B, H], mass on keys at most ``NEAR_DISTANCE`` away in the image plane, in any frame.
        first_frame: [B, H], mass on keys of frame 0.
        by_frame_distance: [B, H, T], mass on keys |t - t'| frames away; sums to 1.
        by_distance: [B, H, len(DISTANCE_EDGES)], mass by Euclidean distance in the image plane; sums to 1.
        pooled: [B, H, map, map], mean over the queries of bin a of their mass on the keys of bin b; rows
        sum to 1.
            Token i is in bin i * map // N. A row without sampled queries is zero.
        rows: [B, H, rows, N], the attention of the chosen queries, exact.
    """

    entropy: Tensor
    normalized_entropy: Tensor
    same_frame: Tensor
    same_place: Tensor
    near: Tensor
    first_frame: Tensor
    by_frame_distance: Tensor
    by_distance: Tensor
    pooled: Tensor
    rows: Tensor


def distance_bins(height: int, width: int, device: torch.device) -> Tensor:
    """Return the bin of every displacement (|dh|, |dw|): [height, width] int64."""
    dh = torch.arange(height, device=device, dtype=torch.float64).reshape(-1, 1)
    dw = torch.arange(width, device=device, dtype=torch.float64)
    edges = torch.tensor(DISTANCE_EDGES[:-1], device=device, dtype=torch.float64)
    return torch.bucketize(torch.sqrt(dh**2 + dw**2) - 1e-9, edges)


def pool_bins(tokens: int, map_size: int, device: torch.device) -> Tensor:
    """Return the bin of every token: [N] int64."""
    return torch.arange(tokens, device=device) * map_size // tokens


def finish(
    *,
    entropy: Tensor,
    frame_pairs: Tensor,
    same_place: Tensor,
    by_distance: Tensor,
    pooled: Tensor,
    rows: Tensor,
    tokens: int,
) -> AttentionStats:
    """Assemble the result from means over queries; ``frame_pairs`` [B, H, T, T] is mass between frames."""
    frames = frame_pairs.shape[-1]
    index = torch.arange(frames, device=frame_pairs.device)
    apart = (index.reshape(-1, 1) - index).abs().flatten()
    by_frame_distance = frame_pairs.new_zeros(*frame_pairs.shape[:2], frames)
    by_frame_distance.index_add_(2, apart, frame_pairs.flatten(2))
    return AttentionStats(
        entropy=entropy.clamp_min(0),
        normalized_entropy=entropy / math.log(tokens) if tokens > 1 else torch.ones_like(entropy),
        same_frame=by_frame_distance[..., 0].clone(),
        same_place=same_place,
        near=by_distance[..., :NEAR_BINS].sum(dim=-1),
        first_frame=frame_pairs[..., 0].sum(dim=-1),
        by_frame_distance=by_frame_distance,
        by_distance=by_distance,
        pooled=pooled,
        rows=rows,
    )


def exact_rows(query: Tensor, key: Tensor, row_queries: tuple[int, ...]) -> Tensor:
    """Return softmax attention of the chosen queries, [B, H, rows, N]."""
    chosen = query[:, list(row_queries)].transpose(1, 2) / math.sqrt(query.shape[-1])
    return torch.softmax(torch.matmul(chosen, key.permute(0, 2, 3, 1)), dim=-1)


def attention_stats_reference(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, int, int],
    query_stride: int,
    row_queries: tuple[int, ...],
    map_size: int,
) -> AttentionStats:
    """Measure on the whole attention matrix [B, H, N/stride, N]."""
    frames, height, width = grid
    tokens, device = query.shape[1], query.device
    scores = torch.einsum("bnhd,bmhd->bhnm", query[:, ::query_stride], key) / math.sqrt(query.shape[-1])
    log_attention = torch.log_softmax(scores, dim=-1)
    attention = log_attention.exp()
    count = attention.shape[2]

    time = torch.arange(frames, device=device).repeat_interleave(height * width)
    row = torch.arange(height, device=device).repeat_interleave(width).repeat(frames)
    column = torch.arange(width, device=device).repeat(frames * height)
    query_time, query_row, query_column = (x[::query_stride].reshape(-1, 1) for x in (time, row, column))

    frame_pairs = attention.new_zeros(*attention.shape[:2], frames, frames)
    for t in range(frames):
        for s in range(frames):
            pairs = (query_time == t) & (time == s)
            frame_pairs[:, :, t, s] = (attention * pairs).sum(dim=(2, 3)) / count
    bins = distance_bins(height, width, device)[(query_row - row).abs(), (query_column - column).abs()]
    by_distance = torch.stack(
        [(attention * (bins == b)).sum(dim=(2, 3)) / count for b in range(len(DISTANCE_EDGES))], dim=-1
    )
    pool = pool_bins(tokens, map_size, device)
    pooled = attention.new_zeros(*attention.shape[:2], map_size, map_size)
    for a in range(map_size):
        chosen = attention[:, :, pool[::query_stride] == a]
        for b in range(map_size):
            if chosen.shape[2]:
                pooled[:, :, a, b] = chosen[..., pool == b].sum(dim=-1).mean(dim=-1)
    place = (query_row == row) & (query_column == column) & (query_time != time)
    return finish(
        entropy=-(attention * log_attention).sum(dim=-1).mean(dim=-1),
        frame_pairs=frame_pairs,
        same_place=(attention * place).sum(dim=-1).mean(dim=-1),
        by_distance=by_distance,
        pooled=pooled,
        rows=exact_rows(query, key, row_queries),
        tokens=tokens,
    )
