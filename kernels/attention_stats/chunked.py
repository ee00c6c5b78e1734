"""Attention statistics out of torch's matrix products, a few queries at a time.

Queries are taken place by place, all frames of a place together, so that attention summed over the frames of
keys and queries is enough for the histogram of distances. The scores of one chunk, [queries, N] of one head,
stay in the cache of a CPU: a product, an exponential, four sums and a product with the bins of the pooled
map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kernels.attention_stats.measures import (
    DISTANCE_EDGES,
    AttentionStats,
    distance_bins,
    exact_rows,
    finish,
    pool_bins,
)

CHUNK_SCORES = {"cpu": 1 << 17, "cuda": 1 << 26}
GROUP_ELEMENTS = 1 << 20
SAFE_SCORE = 60.0


@dataclass(frozen=True, eq=False)
class _Rows:
    """Hold what is gathered per query (in the order of places), each [B*H, queries, ...].

    ``total`` is the mass before normalisation; what came before it still has to be divided by it.
    """

    by_frame: Tensor
    at_place: Tensor
    pooled: Tensor
    score: Tensor
    total: Tensor


@dataclass(frozen=True)
class _Options:
    """Say where the queries and bins are and what the scores still need."""

    grid: tuple[int, int, int]
    place: Tensor
    map_size: int
    normalized: bool
    shifted: bool


def attention_stats_chunked(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, int, int],
    log_sum_exp: Tensor | None,
    query_stride: int,
    row_queries: tuple[int, ...],
    map_size: int,
) -> AttentionStats:
    """Measure chunk by chunk (arguments as ``attention_stats``, tensors in fp32 or fp64)."""
    frames, height, width = grid
    places = height * width
    batch, tokens, heads, head_dim = query.shape
    chosen = torch.arange(0, tokens, query_stride, device=query.device)
    chosen = chosen[torch.argsort(chosen % places, stable=True)]
    time, place = chosen // places, chosen % places

    query_rows = (query[:, chosen] / math.sqrt(head_dim)).transpose(1, 2).flatten(0, 1)
    key_rows = key.permute(0, 2, 3, 1).flatten(0, 1).contiguous()
    if log_sum_exp is None:
        normalized = False
        shifted = _largest_possible_score(query_rows, key_rows) > SAFE_SCORE
    else:
        normalized, shifted = True, False
        offset = -log_sum_exp[:, :, chosen].to(query.dtype).flatten(0, 1).unsqueeze(-1)
        query_rows = torch.cat([query_rows, offset], dim=2)
        key_rows = torch.cat([key_rows, torch.ones_like(key_rows[:, :1])], dim=1)

    pool = pool_bins(tokens, map_size, query.device)
    rows, by_distance = _measure(query_rows, key_rows, _Options(grid, place, map_size, normalized, shifted))
    by_frame, at_place, row_pooled, entropy = rows.by_frame, rows.at_place, rows.pooled, -rows.score
    if not normalized:
        total = rows.total.unsqueeze(-1)
        by_frame, at_place, row_pooled = by_frame / total, at_place / total, row_pooled / total
        entropy = rows.total.log() - rows.score / rows.total

    frame_pairs = by_frame.new_zeros(batch * heads, frames, frames).index_add_(1, time, by_frame)
    at_place.scatter_(2, time.reshape(1, -1, 1).expand(batch * heads, -1, 1), 0)
    pooled = row_pooled.new_zeros(batch * heads, map_size, map_size).index_add_(1, pool[chosen], row_pooled)
    counts = torch.bincount(pool[chosen], minlength=map_size).clamp_min(1)

    def mean(x: Tensor) -> Tensor:
        return x.unflatten(0, (batch, heads)) / len(chosen)

    return finish(
        entropy=mean(entropy.sum(dim=1)),
        frame_pairs=mean(frame_pairs),
        same_place=mean(at_place.sum(dim=(1, 2))),
        by_distance=mean(by_distance),
        pooled=(pooled / counts.unsqueeze(-1)).unflatten(0, (batch, heads)),
        rows=exact_rows(query, key, row_queries),
        tokens=tokens,
    )


def _largest_possible_score(query_rows: Tensor, key_rows: Tensor) -> float:
    """Bound |q.k| by the norms of rows [B*H, queries, D] and columns [B*H, D, N]."""
    return float((query_rows.norm(dim=2).amax(dim=1) * key_rows.norm(dim=1).amax(dim=1)).amax())


def _measure(query_rows: Tensor, key_rows: Tensor, options: _Options) -> tuple[_Rows, Tensor]:
    """Return the sums of every query and the histogram of distances [B*H, bins], summed over queries.

    One head at a time, so that its keys stay in the cache. A group of places shares one buffer [places of the
    group, H*W], binned by distance when the group is done.
    """
    frames, height, width = options.grid
    places = height * width
    heads, count, _ = query_rows.shape
    new = query_rows.new_empty
    rows = _Rows(
        by_frame=new(heads, count, frames),
        at_place=new(heads, count, frames),
        pooled=new(heads, count, options.map_size),
        score=new(heads, count),
        total=new(heads, count),
    )
    by_distance = query_rows.new_zeros(heads, len(DISTANCE_EDGES))
    seen, position, repeats = torch.unique(options.place, return_inverse=True, return_counts=True)
    together = int(repeats[0]) if bool((repeats == repeats[0]).all()) else 1
    group = max(1, GROUP_ELEMENTS // places)
    ends = torch.searchsorted(position, torch.arange(group, len(seen) + group, group, device=seen.device))
    for index, (first, end) in enumerate(pairwise([0, *ends.tolist()])):
        here_seen = seen[index * group : (index + 1) * group]
        bins = _bins_of_places(here_seen, height=height, width=width)
        for head in range(heads):
            by_place = query_rows.new_zeros(len(here_seen), places)
            for here, near in _chunks(query_rows, key_rows, rows, options, head, range(first, end), together):
                by_place.index_add_(0, position[here][::together] - index * group, near)
            by_distance[head].index_add_(0, bins, by_place.flatten())
    return rows, by_distance


def _chunks(
    query_rows: Tensor,
    key_rows: Tensor,
    rows: _Rows,
    options: _Options,
    head: int,
    queries: range,
    together: int,
) -> Iterator[tuple[slice, Tensor]]:
    """Fill the rows of one head, and yield for every chunk of queries its attention by place of the keys."""
    frames, tokens = options.grid[0], key_rows.shape[2]
    step = CHUNK_SCORES.get(query_rows.device.type, 1 << 17) // tokens
    step = max(1, step // together) * together
    buffers = query_rows.new_empty(2, min(step, len(queries)), tokens)
    for begin in range(queries.start, queries.stop, step):
        here = slice(begin, min(begin + step, queries.stop))
        scores, attention = buffers[:, : here.stop - begin]
        torch.mm(query_rows[head, here], key_rows[head], out=scores)
        if options.shifted:
            scores -= scores.amax(dim=1, keepdim=True)
        torch.exp(scores, out=attention)
        _sum_rows(rows, scores, attention, head=head, here=here, options=options)
        by_frame = attention.view(-1, together, frames, tokens // frames)
        if options.normalized:
            yield here, by_frame.sum(dim=(1, 2))
        else:
            by_query = by_frame.sum(dim=2) / rows.total[head, here].view(-1, together, 1)
            yield here, by_query.sum(dim=1)


def _sum_rows(
    rows: _Rows, scores: Tensor, attention: Tensor, *, head: int, here: slice, options: _Options
) -> None:
    """Fill the rows of one chunk [queries, N]; may overwrite ``scores``."""
    size, tokens = attention.shape
    by_place = attention.view(size, options.grid[0], -1)
    torch.sum(by_place, dim=2, out=rows.by_frame[head, here])
    if options.normalized:
        rows.score[head, here] = torch.dot(scores.view(-1), attention.view(-1)) / size
    else:
        torch.sum(rows.by_frame[head, here], dim=1, out=rows.total[head, here])
        torch.sum(scores.mul_(attention), dim=1, out=rows.score[head, here])
    if tokens % options.map_size == 0:
        runs = attention.view(-1, tokens // options.map_size)
        torch.mv(runs, runs.new_ones(runs.shape[1]), out=rows.pooled[head, here].view(-1))
    else:
        bins = torch.nn.functional.one_hot(pool_bins(tokens, options.map_size, attention.device))
        torch.mm(attention, bins.to(attention.dtype), out=rows.pooled[head, here])
    index = options.place[here].view(size, 1, 1).expand(size, options.grid[0], 1)
    torch.gather(by_place, 2, index, out=rows.at_place[head, here].unsqueeze(2))


def _bins_of_places(seen: Tensor, *, height: int, width: int) -> Tensor:
    """Return the distance bin from every seen place to every place, flat [seen * H*W]."""
    table = distance_bins(height, width, seen.device)
    here, there = seen.unsqueeze(1), torch.arange(height * width, device=seen.device)
    return table[(here // width - there // width).abs(), (here % width - there % width).abs()].flatten()
