"""One pass over the scores of a tile of queries: what `attention_stats` needs of every row, in Triton.

Loop: tiles of places (h, w) outside, frames inside. A tile of keys therefore lies in one frame, so that mass
by frame is the sum of a tile; and attention summed over the frames of a place, which is all that distances in
the image plane need, is a sum of tiles in registers, binned once per place and not once per key. Nothing is
shared between programs: no atomics, a fixed order of sums.

Legend: M queries, K places of a tile, D head dimension. Exponents are base 2. A shift per row keeps them in
range: the log-sum-exp where the caller has it, else the running maximum.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs

import triton
import triton.language as tl

MASKED_SCORE = tl.constexpr(-1.0e30)


@triton.jit
def add_column(sums, column, index, part):
    """Add ``part`` [M] to one column of ``sums`` [M, columns]."""
    return sums + tl.where(column[None, :] == index, part[:, None], 0.0)


@triton.jit
def add_within(discs, near, apart, INDEX: tl.constexpr, EDGE: tl.constexpr, EDGES: tl.constexpr):
    """Add to column INDEX the mass at distances of at most EDGE, if that edge is wanted."""
    if INDEX < EDGES:
        inside = apart <= EDGE * EDGE + 0.5
        part = tl.sum(tl.where(inside, near, 0.0), axis=1)
        discs = add_column(discs, tl.arange(0, discs.shape[1]), INDEX, part)
    return discs


@triton.jit
def disc_masses(near, apart, EDGES: tl.constexpr, COLUMNS: tl.constexpr):
    """Sum ``near`` [M, K] within each of the first EDGES distances, given squared ones: [M, COLUMNS]."""
    discs = tl.zeros((near.shape[0], COLUMNS), dtype=tl.float32)
    discs = add_within(discs, near, apart, 0, 0.0, EDGES)
    discs = add_within(discs, near, apart, 1, 1.0, EDGES)
    discs = add_within(discs, near, apart, 2, 2.0, EDGES)
    discs = add_within(discs, near, apart, 3, 4.0, EDGES)
    discs = add_within(discs, near, apart, 4, 8.0, EDGES)
    discs = add_within(discs, near, apart, 5, 16.0, EDGES)
    discs = add_within(discs, near, apart, 6, 32.0, EDGES)
    return add_within(discs, near, apart, 7, 64.0, EDGES)


@triton.jit
def frames_of_places(
    q,
    keys,
    key_n,
    first_place,
    shift,
    moment,
    mass,
    segments,
    frame_begin,
    frame_end,
    places,
    tokens,
    map_size,
    scale,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_LSE: tl.constexpr,
    RAGGED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Add one tile of places, all frames: returns shift, moment, mass, segments, and near [M, K].

    mass is sum p, moment sum p t with p = 2^t, segments sum p between the starts of frames and pooled bins;
    near is sum p over frames, all under the returned shift.
    """
    offset = tl.arange(0, BLOCK_K)
    column = tl.arange(0, segments.shape[1])
    d = tl.arange(0, q.shape[1])
    valid = first_place + offset < places
    near = tl.zeros((q.shape[0], BLOCK_K), dtype=tl.float32)
    first_bin = frame_begin * places * map_size // tokens
    for frame in tl.range(frame_begin, frame_end, num_stages=STAGES):
        start = frame * places + first_place
        pointers = keys + start.to(tl.int64) * key_n + offset[None, :] * key_n + d[:, None]
        k = tl.load(pointers, mask=valid[None, :], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee")
        if RAGGED and first_place + BLOCK_K > places:
            scores = tl.where(valid[None, :], scores, MASKED_SCORE)
        if not HAS_LSE:
            higher = tl.maximum(shift, tl.max(scores, axis=1) * scale)
            change = tl.maximum(shift - higher, MASKED_SCORE)
            fade = tl.exp2(change)
            moment = fade * (moment + change * mass)
            mass *= fade
            segments *= fade[:, None]
            near *= fade[:, None]
            shift = higher
        t = scores * scale - shift[:, None]
        p = tl.exp2(t)
        near += p
        moment += tl.sum(p * t, axis=1)
        total = tl.sum(p, axis=1)
        mass += total
        bin = start * map_size // tokens
        segment = frame - frame_begin + bin - first_bin
        if PARTS == 2:
            cut = ((bin + 1) * tokens + map_size - 1) // map_size - start
            if cut < BLOCK_K:
                after = tl.sum(tl.where((offset >= cut)[None, :], p, 0.0), axis=1)
                total = tl.sum(tl.where((offset < cut)[None, :], p, 0.0), axis=1)
                segments = add_column(segments, column, segment + 1, after)
            segments = add_column(segments, column, segment, total)
        else:
            bins = (start + offset) * map_size // tokens - bin
            for part in tl.static_range(PARTS):
                inside = tl.sum(tl.where((bins == part)[None, :], p, 0.0), axis=1)
                segments = add_column(segments, column, segment + part, inside)
    return shift, moment, mass, segments, near


@triton.jit(
    do_not_specialize=[
        "tokens",
        "frames",
        "places",
        "width",
        "count",
        "stride",
        "map_size",
        "group_frames",
        "first_row",
    ]
)
def stats_kernel(
    query,
    key,
    log_sum_exp,
    own_out,
    shift_out,
    moment_out,
    segments_out,
    discs_out,
    query_b,
    query_n,
    query_h,
    key_b,
    key_n,
    key_h,
    lse_b,
    lse_h,
    lse_n,
    tokens,
    frames,
    places,
    width,
    count,
    stride,
    map_size,
    group_frames,
    first_row,
    scale,
    H: tl.constexpr,
    D: tl.constexpr,
    SEGMENTS: tl.constexpr,
    DISCS: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_LSE: tl.constexpr,
    RAGGED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write, for one tile of queries and one group of frames, sums under ``shift``, not normalised.

    In fp32: own [rows, count], the score of a query and its own key; shift and moment [groups, rows, count];
    segments [groups, rows, count, SEGMENTS]; discs [groups, rows, count, DISCS], mass within each distance.
    Query i is token i * stride; row is batch * H + head, less ``first_row`` in the outputs. Segment s of a
    group holds the keys with (frame - first frame) + (pooled bin - first bin) = s.
    """
    row = tl.program_id(1) + first_row
    group = tl.program_id(2)
    batch = (row // H).to(tl.int64)
    head = row % H
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    valid = index < count
    token = tl.minimum(index, count - 1).to(tl.int64) * stride
    d = tl.arange(0, D)
    q = tl.load(query + batch * query_b + head * query_h + token[:, None] * query_n + d[None, :])
    keys = key + batch * key_b + head * key_h
    if group == 0:
        same = tl.load(keys + token[:, None] * key_n + d[None, :]).to(tl.float32)
        own = tl.sum(q.to(tl.float32) * same, axis=1) * scale
        tl.store(own_out + tl.program_id(1).to(tl.int64) * count + index, own, mask=valid)
    if HAS_LSE:
        shift = tl.load(log_sum_exp + batch * lse_b + head * lse_h + token * lse_n).to(tl.float32)
        shift *= 1.4426950408889634
    else:
        shift = tl.full((BLOCK_M,), MASKED_SCORE, dtype=tl.float32)
    place = (token % places).to(tl.int32)
    place_h, place_w = (place // width).to(tl.float32), (place % width).to(tl.float32)
    inverse_width = 1.0 / width

    moment = tl.zeros((BLOCK_M,), dtype=tl.float32)
    mass = tl.zeros((BLOCK_M,), dtype=tl.float32)
    segments = tl.zeros((BLOCK_M, SEGMENTS), dtype=tl.float32)
    discs = tl.zeros((BLOCK_M, DISCS), dtype=tl.float32)
    frame_begin = group * group_frames
    frame_end = tl.minimum(frame_begin + group_frames, frames)
    for first_place in tl.range(0, places, BLOCK_K):
        before = shift
        shift, moment, mass, segments, near = frames_of_places(
            q, keys, key_n, first_place, shift, moment, mass, segments, frame_begin, frame_end,
            places, tokens, map_size, scale, BLOCK_K, PARTS, HAS_LSE, RAGGED, STAGES,
        )  # fmt: skip
        there = (first_place + tl.arange(0, BLOCK_K)).to(tl.float32)
        there_h = tl.floor((there + 0.5) * inverse_width)
        there_w = there - there_h * width
        apart_h, apart_w = place_h[:, None] - there_h[None, :], place_w[:, None] - there_w[None, :]
        if not HAS_LSE:
            discs *= tl.exp2(before - shift)[:, None]
        discs += disc_masses(near, apart_h * apart_h + apart_w * apart_w, EDGES, DISCS)

    rows = tl.num_programs(1)
    out = ((group * rows + tl.program_id(1)).to(tl.int64) * count) + index
    tl.store(shift_out + out, shift, mask=valid)
    tl.store(moment_out + out, moment, mask=valid)
    column = tl.arange(0, SEGMENTS)
    tl.store(segments_out + out[:, None] * SEGMENTS + column[None, :], segments, mask=valid[:, None])
    column = tl.arange(0, DISCS)
    tl.store(discs_out + out[:, None] * DISCS + column[None, :], discs, mask=valid[:, None])
