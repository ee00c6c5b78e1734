"""A second way to the gradient of a feature map: one loop over the features, and split sums over tokens.

``triton_backward`` keeps the hidden layer and d psi of a tile in memory between its three loops. Here both
stay on the chip: the hidden layer is one operand for all features, and its gradient grows in registers while
the features go by, so that every weight is read once a tile. ``token_products_kernel`` multiplies what the
kernels wrote over tokens, with the tokens split among programs: a head's weight gradient alone has too few
tiles to fill a GPU. Which of the ways runs is said by ``triton_tiles.GradientPlan``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs

import triton
import triton.language as tl

from kernels.hybrid_attention.triton_backward import activation_slope, positivity_slope, power_slope
from kernels.hybrid_attention.triton_forward import activate, make_positive, raise_parts


@triton.jit(do_not_specialize=["count", "group", "skip"])
def map_backward_one_pass_kernel(
    tokens_in,
    w1,
    b1,
    w2,
    b2,
    log_scale,
    left,
    right,
    row_factor,
    column_factor,
    phi_out,
    hidden_out,
    grad_psi_out,
    grad_pre_out,
    grad_scale_out,
    grad_b1_out,
    grad_b2_out,
    in_b,
    in_n,
    in_h,
    left_b,
    left_n,
    left_h,
    scale_h,
    count,
    group,
    skip,
    factor,
    H: tl.constexpr,
    D: tl.constexpr,
    W: tl.constexpr,
    F: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_ROW: tl.constexpr,
    STORE_PHI: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POSITIVITY: tl.constexpr,
    DEGREE: tl.constexpr,
    EDGE_1: tl.constexpr,
    EDGE_2: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write what ``map_backward_kernel`` writes, phi only with STORE_PHI; same arguments and results."""
    tile = tl.program_id(0)
    row = tl.program_id(1)
    batch = (row // H).to(tl.int64)
    head = row % H
    index = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = index < count
    token = (index + skip * (index // group + 1)).to(tl.int64)
    d = tl.arange(0, D)
    w = tl.arange(0, W)
    inputs = tokens_in + batch * in_b + head * in_h + token[:, None] * in_n + d[None, :]
    x = tl.load(inputs, mask=valid[:, None], other=0.0)
    g = tl.load(
        left + batch * left_b + head * left_h + token[:, None] * left_n + d[None, :],
        mask=valid[:, None],
        other=0.0,
    )
    scale = tl.exp(tl.load(log_scale + head * scale_h).to(tl.float32))
    w1 += head * D * W
    b1 += head * W
    w2 += head * W * F
    b2 += head * F
    right += row.to(tl.int64) * F * D
    column_factor += row * F
    place = row.to(tl.int64) * count + index
    part = (row * tl.num_programs(0) + tile).to(tl.int64)

    pre = tl.dot(x, tl.load(w1 + d[:, None] * W + w[None, :]), input_precision="ieee")
    pre += tl.load(b1 + w).to(tl.float32)[None, :]
    hidden = activate(pre, ACTIVATION, EXACT).to(x.dtype)
    tl.store(hidden_out + place[:, None] * W + w[None, :], hidden, mask=valid[:, None])

    grad_hidden = tl.zeros((BLOCK_N, W), dtype=tl.float32)
    grad_scale = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for first in tl.range(0, F, BLOCK_F, num_stages=STAGES):
        columns = first + tl.arange(0, BLOCK_F)
        weight = tl.load(w2 + w[:, None] * F + columns[None, :])
        psi = tl.dot(hidden, weight, input_precision="ieee") + tl.load(b2 + columns).to(tl.float32)[None, :]
        positive = make_positive(psi, POSITIVITY)
        phi = raise_parts(positive, columns, EDGE_1, EDGE_2, DEGREE) * scale
        phi = tl.where(valid[:, None], phi, 0.0)
        grad = tl.dot(g, tl.trans(tl.load(right + columns[:, None] * D + d[None, :])), input_precision="ieee")
        column = tl.load(column_factor + columns)[None, :]
        if HAS_ROW:
            grad += tl.load(row_factor + place, mask=valid, other=0.0)[:, None] * column
        else:
            grad += column
        grad *= factor
        grad_scale += tl.sum(grad * phi, axis=1)
        rise = power_slope(positive, columns, EDGE_1, EDGE_2, DEGREE) * positivity_slope(psi, POSITIVITY)
        grad_psi = tl.where(valid[:, None], grad * rise * scale, 0.0)
        tl.store(grad_b2_out + part * F + columns, tl.sum(grad_psi, axis=0))
        if STORE_PHI:
            tl.store(phi_out + place[:, None] * F + columns[None, :], phi.to(x.dtype), mask=valid[:, None])
        narrow = grad_psi.to(x.dtype)
        tl.store(grad_psi_out + place[:, None] * F + columns[None, :], narrow, mask=valid[:, None])
        grad_hidden = tl.dot(narrow, tl.trans(weight), grad_hidden, input_precision="ieee")
    tl.store(grad_scale_out + part, tl.sum(grad_scale, axis=0))
    x = tl.load(inputs, mask=valid[:, None], other=0.0)
    pre = tl.dot(x, tl.load(w1 + d[:, None] * W + w[None, :]), input_precision="ieee")
    pre += tl.load(b1 + w).to(tl.float32)[None, :]
    grad_pre = tl.where(valid[:, None], grad_hidden * activation_slope(pre, ACTIVATION, EXACT), 0.0)
    tl.store(grad_b1_out + part * W + w, tl.sum(grad_pre, axis=0))
    tl.store(grad_pre_out + place[:, None] * W + w[None, :], grad_pre.to(x.dtype), mask=valid[:, None])


@triton.jit(do_not_specialize=["count", "group", "skip_a", "skip_b", "tiles_per_split"])
def token_products_kernel(
    a,
    b,
    vector,
    out,
    vector_out,
    a_b,
    a_n,
    a_h,
    b_b,
    b_n,
    b_h,
    count,
    group,
    skip_a,
    skip_b,
    tiles_per_split,
    H: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_VECTOR: tl.constexpr,
):
    """Sum a_n^T b_n over one split of the tokens: out [splits, rows, A, B] in fp32.

    HAS_VECTOR also sums a_n * vector_n, with vector [rows, count] in fp32: vector_out [splits, rows, A].
    Token indices as in ``state_kernel``; skip_a and skip_b say which of the two is read at the linear tokens
    only.
    """
    block = tl.program_id(0)
    split = tl.program_id(1)
    row = tl.program_id(2)
    batch = (row // H).to(tl.int64)
    head = row % H
    columns_a = block // (B // BLOCK_B) * BLOCK_A + tl.arange(0, BLOCK_A)
    columns_b = block % (B // BLOCK_B) * BLOCK_B + tl.arange(0, BLOCK_B)
    a += batch * a_b + head * a_h
    b += batch * b_b + head * b_h
    begin = split * tiles_per_split * BLOCK_N
    end = tl.minimum(begin + tiles_per_split * BLOCK_N, count)
    sums = tl.zeros((BLOCK_A, BLOCK_B), dtype=tl.float32)
    vector_sums = tl.zeros((BLOCK_A,), dtype=tl.float32)
    for first in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        index = first + tl.arange(0, BLOCK_N)
        valid = index < end
        skipped = index // group + 1
        token_a = (index + skip_a * skipped).to(tl.int64)
        token_b = (index + skip_b * skipped).to(tl.int64)
        tile_a = tl.load(a + token_a[:, None] * a_n + columns_a[None, :], mask=valid[:, None], other=0.0)
        tile_b = tl.load(b + token_b[:, None] * b_n + columns_b[None, :], mask=valid[:, None], other=0.0)
        sums = tl.dot(tl.trans(tile_a), tile_b, sums, input_precision="ieee")
        if HAS_VECTOR:
            factor = tl.load(vector + row.to(tl.int64) * count + index, mask=valid, other=0.0)
            vector_sums += tl.sum(tile_a.to(tl.float32) * factor[:, None], axis=0)
    part = (split * tl.num_programs(2) + row).to(tl.int64)
    tl.store(out + (part * A + columns_a[:, None]) * B + columns_b[None, :], sums)
    if HAS_VECTOR and block % (B // BLOCK_B) == 0:
        tl.store(vector_out + part * A + columns_a, vector_sums)
