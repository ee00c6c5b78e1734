"""Attention statistics on a GPU: one Triton pass over the scores, then sums over queries in torch.

The kernel leaves a few numbers for every query (mass by segment of keys, mass by distance, a moment for the
entropy), all relative to a shift of its own, so that groups of frames may run in separate programs; here they
are brought to one shift, normalised and summed. ``TRITON_INTERPRET=1`` runs the same code on a CPU in fp32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
from torch import Tensor

from kernels.attention_stats.measures import DISTANCE_EDGES, AttentionStats, exact_rows, finish, pool_bins
from kernels.attention_stats.triton_kernel import stats_kernel
from kernels.attention_stats.triton_tiles import StatsTiles, stats_tiles
from kernels.hybrid_attention.fused_softmax import unit_stride

DISCS = 8
EDGES = DISTANCE_EDGES[:-1]
WORK_BYTES = 512 * 2**20
MAX_COLUMNS = 64


@dataclass(frozen=True)
class Segments:
    """Say how keys are cut: frames a group, groups, columns of a group, most bins that one tile can touch."""

    group_frames: int
    groups: int
    columns: int
    parts: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Hold what the kernel found for every query of some heads, [rows, queries, ...] in fp32, normalised."""

    own: Tensor
    entropy: Tensor
    segments: Tensor
    distances: Tensor


@lru_cache
def cut_segments(grid: tuple[int, int, int], map_size: int, tiles: StatsTiles) -> Segments:
    """Choose the fewest groups of frames that leave a group few columns, and the bins that meet in a tile."""
    frames, tokens = grid[0], grid[0] * grid[1] * grid[2]
    group_frames = min(frames, tiles.group_frames)
    while group_frames > 1 and columns_of(grid, map_size, group_frames) > MAX_COLUMNS:
        group_frames -= 1
    groups = triton.cdiv(frames, group_frames)
    group_frames = triton.cdiv(frames, groups)
    columns = columns_of(grid, map_size, group_frames)
    parts = 2
    if tokens // map_size < tiles.keys:
        parts = min(tiles.keys, triton.cdiv(tiles.keys * map_size, tokens) + 1)
    return Segments(
        group_frames, triton.cdiv(frames, group_frames), max(16, triton.next_power_of_2(columns)), parts
    )


def columns_of(grid: tuple[int, int, int], map_size: int, group_frames: int) -> int:
    """Return the most segments that a group of so many frames is cut into."""
    frames, places, tokens = grid[0], grid[1] * grid[2], grid[0] * grid[1] * grid[2]
    most = 0
    for begin in range(0, frames, group_frames):
        end = min(frames, begin + group_frames)
        bins = (end * places - 1) * map_size // tokens - begin * places * map_size // tokens
        most = max(most, end - begin + bins)
    return most


def segment_owners(
    grid: tuple[int, int, int], map_size: int, cut: Segments, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return one-hot matrices of the frame [columns, T] and bin [columns, map] that own a column."""
    frames, places, tokens = grid[0], grid[1] * grid[2], grid[0] * grid[1] * grid[2]
    token = torch.arange(tokens, device=device)
    frame, bin = token // places, pool_bins(tokens, map_size, device)
    group = frame // cut.group_frames
    first_bin = group * cut.group_frames * places * map_size // tokens
    column = group * cut.columns + frame - group * cut.group_frames + bin - first_bin
    of_frame = torch.zeros(cut.groups * cut.columns, frames, device=device)
    of_bin = torch.zeros(cut.groups * cut.columns, map_size, device=device)
    of_frame[column, frame] = 1
    of_bin[column, bin] = 1
    return of_frame, of_bin


def measure_rows(
    query: Tensor,
    key: Tensor,
    log_sum_exp: Tensor | None,
    *,
    grid: tuple[int, int, int],
    query_stride: int,
    map_size: int,
    rows: range,
    tiles: StatsTiles,
) -> Rows:
    """Run the kernel for some rows (batch * H + head) of query and key [B, N, H, D]."""
    frames, height, width = grid
    _, tokens, heads, head_dim = query.shape
    cut = cut_segments(grid, map_size, tiles)
    count = triton.cdiv(tokens, query_stride)
    shape = (cut.groups, len(rows), count)
    new = query.new_empty
    own, shift, moment = (new(size, dtype=torch.float32) for size in (shape[1:], shape, shape))
    segments = new(*shape, cut.columns, dtype=torch.float32)
    discs = new(*shape, DISCS, dtype=torch.float32)
    lse = shift if log_sum_exp is None else log_sum_exp
    stats_kernel[(triton.cdiv(count, tiles.queries), len(rows), cut.groups)](
        query,
        key,
        lse,
        own,
        shift,
        moment,
        segments,
        discs,
        *query.stride()[:3],
        *key.stride()[:3],
        *lse.stride()[:3],
        tokens,
        frames,
        height * width,
        width,
        count,
        query_stride,
        map_size,
        cut.group_frames,
        rows.start,
        math.log2(math.e) / math.sqrt(head_dim),
        H=heads,
        D=head_dim,
        SEGMENTS=cut.columns,
        DISCS=DISCS,
        EDGES=edges_of(grid),
        BLOCK_M=tiles.queries,
        BLOCK_K=tiles.keys,
        PARTS=cut.parts,
        HAS_LSE=log_sum_exp is not None,
        RAGGED=height * width % tiles.keys != 0,
        STAGES=tiles.stages,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    for part in (own, shift, moment):
        part *= math.log(2)
    return _normalize(own, shift, moment, segments, discs[..., : edges_of(grid)])


def edges_of(grid: tuple[int, int, int]) -> int:
    """Return how many edges of distance are shorter than the diagonal of a frame."""
    diagonal = math.hypot(grid[1] - 1, grid[2] - 1)
    return sum(edge < diagonal for edge in EDGES)


def _normalize(own: Tensor, shift: Tensor, moment: Tensor, segments: Tensor, discs: Tensor) -> Rows:
    """Bring all groups to one log-sum-exp; natural logarithms in and out."""
    mass = segments.sum(dim=-1)
    log_sum_exp = torch.logsumexp(shift + mass.log(), dim=0)
    weight = torch.exp(shift - log_sum_exp)
    entropy = -(weight * (moment + (shift - log_sum_exp) * mass)).sum(dim=0)
    segments *= weight.unsqueeze(-1)
    within = (discs * weight.unsqueeze(-1)).sum(dim=0)
    within = torch.nn.functional.pad(within, (1, 0))
    within = torch.nn.functional.pad(within, (0, 1), value=1.0)
    distances = torch.diff(within, dim=-1).clamp_min(0)
    columns = segments.permute(1, 2, 0, 3).flatten(2)
    return Rows(torch.exp(own - log_sum_exp), entropy, columns, distances)


def attention_stats_triton(
    query: Tensor,
    key: Tensor,
    *,
    grid: tuple[int, int, int],
    log_sum_exp: Tensor | None,
    query_stride: int,
    row_queries: tuple[int, ...],
    map_size: int,
    tiles: StatsTiles | None = None,
) -> AttentionStats:
    """Measure in one pass over the scores (arguments as ``attention_stats``; 16 bits, or fp32 for tests)."""
    query, key = unit_stride(query), unit_stride(key)
    tiles = tiles or stats_tiles(query)
    batch, tokens, heads, _ = query.shape
    cut = cut_segments(grid, map_size, tiles)
    of_frame, of_bin = segment_owners(grid, map_size, cut, query.device)
    chosen = torch.arange(0, tokens, query_stride, device=query.device)
    frame, bin = chosen // (grid[1] * grid[2]), pool_bins(tokens, map_size, query.device)[chosen]
    sources = torch.zeros(len(chosen), grid[0] + map_size, device=query.device)
    sources.scatter_(1, torch.stack([frame, bin + grid[0]], dim=1), 1)

    per_row = 4 * len(chosen) * cut.groups * (2 * cut.columns + DISCS)
    step = max(1, WORK_BYTES // per_row)
    entropies, sums, distances, own = [], [], [], []
    for first in range(0, batch * heads, step):
        rows = range(first, min(first + step, batch * heads))
        found = measure_rows(
            query,
            key,
            log_sum_exp,
            grid=grid,
            query_stride=query_stride,
            map_size=map_size,
            rows=rows,
            tiles=tiles,
        )
        entropies.append(found.entropy.mean(dim=1))
        sums.append(torch.matmul(sources.T, found.segments))
        distances.append(found.distances.mean(dim=1))
        own.append(found.own.mean(dim=1))

    def by_head(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).unflatten(0, (batch, heads))

    summed, found_distances = by_head(sums), by_head(distances)
    unseen = len(DISTANCE_EDGES) - found_distances.shape[-1]
    by_distance = torch.nn.functional.pad(found_distances, (0, unseen))
    bin_counts = sources[:, grid[0] :].sum(dim=0).clamp_min(1)
    return finish(
        entropy=by_head(entropies),
        frame_pairs=torch.matmul(summed[..., : grid[0], :], of_frame) / len(chosen),
        same_place=(by_distance[..., 0] - by_head(own)).clamp_min(0) * (grid[0] > 1),
        by_distance=by_distance,
        pooled=torch.matmul(summed[..., grid[0] :, :], of_bin) / bin_counts.unsqueeze(-1),
        rows=_rows(query, key, row_queries),
        tokens=tokens,
    )


def _rows(query: Tensor, key: Tensor, row_queries: tuple[int, ...]) -> Tensor:
    """Return exact rows in fp32, without widening all keys where none is asked for."""
    if not row_queries:
        return query.new_zeros(query.shape[0], query.shape[2], 0, query.shape[1], dtype=torch.float32)
    return exact_rows(query.float(), key.float(), row_queries)
