"""Attention statistics out of torch's matrix products, a few queries at a time.

Queries are taken place by place, all frames of a place together, so that attention summed over the frames of
keys and queries is enough for the histogram of distances. The scores of one chunk, [queries, N] of one head,
stay in the cache of a CPU: a product, an exponential, four sums and a product with the bins of the pooled
map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
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


@dataclass(frozen=True, eq=False)
class _Plan:
    """Say where queries and bins are, and what the scores still need.

    ``place`` [queries] is sorted. ``run`` is ones over the tokens of a pooled bin where all bins are equally
    long; else ``pool`` [N, map] says which bin a key is in.
    """

    grid: tuple[int, int, int]
    place: Tensor
    map_size: int
    run: Tensor | None
    pool: Tensor
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
    normalized = log_sum_exp is not None
    key_rows = query.new_ones(batch, heads, head_dim + int(normalized), tokens)
    key_rows[:, :, :head_dim] = key.permute(0, 2, 3, 1)
    key_rows = key_rows.flatten(0, 1)
    if log_sum_exp is not None:
        offset = -log_sum_exp[:, :, chosen].to(query.dtype).flatten(0, 1).unsqueeze(-1)
        query_rows = torch.cat([query_rows, offset], dim=2)

    pool = pool_bins(tokens, map_size, query.device)
    plan = _Plan(
        grid=grid,
        place=place,
        map_size=map_size,
        run=query.new_ones(tokens // map_size) if tokens % map_size == 0 else None,
        pool=torch.nn.functional.one_hot(pool, map_size).to(query.dtype),
        normalized=normalized,
        shifted=not normalized and _largest_possible_score(query, key) > SAFE_SCORE,
    )
    rows, by_distance = _measure(query_rows, key_rows, plan)
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


def _largest_possible_score(query: Tensor, key: Tensor) -> float:
    """Bound |q.k| / sqrt(D) of [B, N, H, D] by the norms."""
    norms = query.norm(dim=-1).amax(dim=1) * key.norm(dim=-1).amax(dim=1)
    return float(norms.amax()) / math.sqrt(query.shape[-1])


def _measure(query_rows: Tensor, key_rows: Tensor, plan: _Plan) -> tuple[_Rows, Tensor]:
    """Return the sums of every query and the histogram of distances [B*H, bins], summed over queries.

    One head at a time, so that its keys stay in the cache. A group of places shares one buffer [places of the
    group, H*W], binned by distance when the group is done.
    """
    frames, height, width = plan.grid
    places = height * width
    heads, count, _ = query_rows.shape
    new = query_rows.new_empty
    rows = _Rows(
        by_frame=new(heads, count, frames),
        at_place=new(heads, count, frames),
        pooled=new(heads, count, plan.map_size),
        score=new(heads, count),
        total=new(heads, count),
    )
    by_distance = query_rows.new_zeros(heads, len(DISTANCE_EDGES))
    seen, position, repeats = torch.unique(plan.place, return_inverse=True, return_counts=True)
    together = int(repeats[0]) if bool((repeats == repeats[0]).all()) else 0
    group = max(1, GROUP_ELEMENTS // places)
    ends = torch.searchsorted(position, torch.arange(group, len(seen) + group, group, device=seen.device))
    for index, (first, end) in enumerate(pairwise([0, *ends.tolist()])):
        start = index * group
        here_seen = seen[start : start + group]
        bins = _bins_of_places(here_seen, height=height, width=width)
        for head in range(heads):
            by_place = query_rows.new_zeros(len(here_seen), places)
            of_head = _Rows(*(getattr(rows, field.name)[head] for field in fields(_Rows)))
            chunks = _chunks(
                query_rows[head], key_rows[head], of_head, plan, range(first, end), together or 1
            )
            for here, near in chunks:
                if together:
                    by_place[here.start // together - start : here.stop // together - start] = near
                else:
                    by_place.index_add_(0, position[here] - start, near)
            by_distance[head].index_add_(0, bins, by_place.view(-1))
    return rows, by_distance


def _chunks(
    query_rows: Tensor, key_rows: Tensor, rows: _Rows, plan: _Plan, queries: range, together: int
) -> Iterator[tuple[slice, Tensor]]:
    """Fill the rows of one head, and yield for every chunk of queries its attention by place of the keys.

    ``together`` neighbouring queries share a place and are summed.
    """
    frames, tokens = plan.grid[0], key_rows.shape[1]
    step = CHUNK_SCORES.get(query_rows.device.type, 1 << 17) // tokens
    step = max(1, step // together) * together
    scores_buffer, attention_buffer = query_rows.new_empty(2, min(step, len(queries)), tokens)
    for begin in range(queries.start, queries.stop, step):
        here = slice(begin, min(begin + step, queries.stop))
        size = here.stop - begin
        scores, attention = scores_buffer[:size], attention_buffer[:size]
        torch.mm(query_rows[here], key_rows, out=scores)
        if plan.shifted:
            scores -= scores.amax(dim=1, keepdim=True)
        torch.exp(scores, out=attention)
        _sum_rows(rows, scores, attention, here=here, plan=plan)
        by_frame = attention.view(-1, together, frames, tokens // frames)
        if plan.normalized:
            yield here, by_frame.sum(dim=(1, 2))
        else:
            by_query = by_frame.sum(dim=2) / rows.total[here].view(-1, together, 1)
            yield here, by_query.sum(dim=1)


def _sum_rows(rows: _Rows, scores: Tensor, attention: Tensor, *, here: slice, plan: _Plan) -> None:
    """Fill the rows of one chunk [queries, N] of one head; may overwrite ``scores``."""
    size = attention.shape[0]
    by_place = attention.view(size, plan.grid[0], -1)
    by_frame = torch.sum(by_place, dim=2, out=rows.by_frame[here])
    if plan.normalized:
        rows.score[here] = torch.dot(scores.view(-1), attention.view(-1)) / size
    else:
        torch.sum(by_frame, dim=1, out=rows.total[here])
        torch.sum(scores.mul_(attention), dim=1, out=rows.score[here])
    if plan.run is not None:
        torch.mv(attention.view(-1, len(plan.run)), plan.run, out=rows.pooled[here].view(-1))
    else:
        torch.mm(attention, plan.pool, out=rows.pooled[here])
    index = plan.place[here].view(size, 1, 1).expand(size, plan.grid[0], 1)
    torch.gather(by_place, 2, index, out=rows.at_place[here].unsqueeze(2))


def _bins_of_places(seen: Tensor, *, height: int, width: int) -> Tensor:
    """Return the distance bin from every seen place to every place, flat [seen * H*W]."""
    table = distance_bins(height, width, seen.device)
    here, there = seen.unsqueeze(1), torch.arange(height * width, device=seen.device)
    return table[(here // width - there // width).abs(), (here % width - there % width).abs()].flatten()
