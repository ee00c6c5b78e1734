"""The linear branch on a GPU in two Triton kernels: phi_k and state, then phi_q, product and merge.

Features are made in registers, used, and dropped; they never travel through memory. Legend of shapes: N
tokens of a tile, D head dimension, W hidden width, F features. Products take operands in the dtype of the
inputs and accumulate in fp32; everything between them runs in fp32. State and mass are means over the
linear keys (not sums), which keeps fp16 in range, and are summed over splits in a fixed order: the forward
is deterministic.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs

import triton
import triton.language as tl


@triton.jit
def tanh_(x, EXACT: tl.constexpr):
    if EXACT:
        return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0
    else:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def normal_cdf(x, EXACT: tl.constexpr):
    """The normal distribution function; by tanh, off by at most 2.5e-5 / |x|, far below bf16 rounding."""
    if EXACT:
        return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        square = tl.minimum(x * x, 40.0)
        slope = 0.797505275 + square * (0.03700802 - 0.000351902394 * square)
        return 0.5 + 0.5 * tanh_(x * slope, EXACT)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    if ACTIVATION == "gelu":
        return x * normal_cdf(x, EXACT)
    elif ACTIVATION == "silu":
        return x * (0.5 + 0.5 * tanh_(0.5 * x, EXACT))
    else:
        return tl.maximum(x, 0.0)


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def make_positive(x, POSITIVITY: tl.constexpr):
    if POSITIVITY == "relu":
        return tl.maximum(x, 0.0)
    elif POSITIVITY == "softplus":
        return softplus(x)
    elif POSITIVITY == "square":
        return x * x
    else:
        return x


@triton.jit
def raise_parts(x, columns, EDGE_1: tl.constexpr, EDGE_2: tl.constexpr, DEGREE: tl.constexpr):
    """Raise columns from EDGE_1 on to the power 2 and from EDGE_2 on to the power 3."""
    powers = x
    if DEGREE >= 2:
        powers = tl.where(columns[None, :] >= EDGE_1, powers * x, powers)
    if DEGREE >= 3:
        powers = tl.where(columns[None, :] >= EDGE_2, powers * x, powers)
    return powers


@triton.jit
def hidden_chunk(x, w1, b1, d, columns, W: tl.constexpr, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    """Evaluate the hidden layer [N, columns] of one head in the dtype of x."""
    weight = tl.load(w1 + d[:, None] * W + columns[None, :])
    before = tl.dot(x, weight, input_precision="ieee") + tl.load(b1 + columns).to(tl.float32)[None, :]
    return activate(before, ACTIVATION, EXACT).to(x.dtype)


@triton.jit
def psi_tile(
    x,
    w1,
    b1,
    w2,
    b2,
    d,
    columns,
    W: tl.constexpr,
    F: tl.constexpr,
    BLOCK_W: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UNROLL: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Evaluate the output layer before positivity, [N, columns] in fp32, by chunks of the hidden layer.

    UNROLL lets the compiler lift the loads of the weights out of the caller's loop, into shared memory for
    good.
    """
    psi = tl.zeros((x.shape[0], columns.shape[0]), dtype=tl.float32)
    if UNROLL:
        for first in tl.static_range(0, W, BLOCK_W):
            inner = first + tl.arange(0, BLOCK_W)
            hidden = hidden_chunk(x, w1, b1, d, inner, W, ACTIVATION, EXACT)
            weight = tl.load(w2 + inner[:, None] * F + columns[None, :])
            psi = tl.dot(hidden, weight, psi, input_precision="ieee")
    else:
        for first in tl.range(0, W, BLOCK_W):
            inner = first + tl.arange(0, BLOCK_W)
            hidden = hidden_chunk(x, w1, b1, d, inner, W, ACTIVATION, EXACT)
            weight = tl.load(w2 + inner[:, None] * F + columns[None, :])
            psi = tl.dot(hidden, weight, psi, input_precision="ieee")
    return psi + tl.load(b2 + columns).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=["linear_tokens", "tiles_per_split", "group", "skip"])
def state_kernel(
    key,
    value,
    features,
    w1,
    b1,
    w2,
    b2,
    log_scale,
    state,
    mass,
    key_b,
    key_n,
    key_h,
    value_b,
    value_n,
    value_h,
    features_b,
    features_n,
    features_h,
    scale_h,
    linear_tokens,
    group,
    skip,
    tiles_per_split,
    inverse_count,
    H: tl.constexpr,
    D: tl.constexpr,
    W: tl.constexpr,
    F: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_F: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_MAP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POSITIVITY: tl.constexpr,
    DEGREE: tl.constexpr,
    EDGE_1: tl.constexpr,
    EDGE_2: tl.constexpr,
    UNROLL: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Sum phi_k(k_j) v_j and phi_k(k_j) over one split of the linear keys, for one block of features.

    state [splits, B*H, F, D] and mass [splits, B*H, F] in fp32. Linear key i is token i + skip * (i //
    group + 1): group is rate - 1 and skip 1 where every rate-th token is kept, skip 0 where none is.
    """
    feature_block = tl.program_id(0)
    split = tl.program_id(1)
    row = tl.program_id(2)
    batch = (row // H).to(tl.int64)
    head = row % H
    columns = feature_block * BLOCK_F + tl.arange(0, BLOCK_F)
    d = tl.arange(0, D)
    key += batch * key_b + head * key_h
    value += batch * value_b + head * value_h
    features += batch * features_b + head * features_h
    scale = inverse_count
    if HAS_MAP:
        scale = inverse_count * tl.exp(tl.load(log_scale + head * scale_h).to(tl.float32))
    w1 += head * D * W
    b1 += head * W
    w2 += head * W * F
    b2 += head * F

    state_tile = tl.zeros((BLOCK_F, D), dtype=tl.float32)
    mass_tile = tl.zeros((BLOCK_F,), dtype=tl.float32)
    begin = split * tiles_per_split * BLOCK_N
    end = tl.minimum(begin + tiles_per_split * BLOCK_N, linear_tokens)
    for first in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        index = first + tl.arange(0, BLOCK_N)
        valid = index < end
        token = (index + skip * (index // group + 1)).to(tl.int64)
        v = tl.load(value + token[:, None] * value_n + d[None, :], mask=valid[:, None], other=0.0)
        if HAS_MAP:
            x = tl.load(key + token[:, None] * key_n + d[None, :], mask=valid[:, None], other=0.0)
            psi = psi_tile(x, w1, b1, w2, b2, d, columns, W, F, BLOCK_W, ACTIVATION, UNROLL, EXACT)
            phi = raise_parts(make_positive(psi, POSITIVITY), columns, EDGE_1, EDGE_2, DEGREE) * scale
            phi = tl.where(valid[:, None], phi, 0.0)
        else:
            loaded = tl.load(
                features + token[:, None] * features_n + columns[None, :], mask=valid[:, None], other=0.0
            )
            phi = loaded.to(tl.float32) * scale
        mass_tile += tl.sum(phi, axis=0)
        state_tile = tl.dot(tl.trans(phi.to(v.dtype)), v, state_tile, input_precision="ieee")
    part = (split * tl.num_programs(2) + row).to(tl.int64)
    tl.store(state + (part * F + columns[:, None]) * D + d[None, :], state_tile)
    tl.store(mass + part * F + columns, mass_tile)


@triton.jit(do_not_specialize=["tokens"])
def apply_kernel(
    query,
    features,
    w1,
    b1,
    w2,
    b2,
    log_scale,
    state,
    mass,
    softmax_out,
    weight,
    output,
    denominator,
    query_b,
    query_n,
    query_h,
    features_b,
    features_n,
    features_h,
    scale_h,
    softmax_b,
    softmax_n,
    softmax_h,
    tokens,
    count,
    mass_floor,
    H: tl.constexpr,
    D: tl.constexpr,
    W: tl.constexpr,
    F: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_F: tl.constexpr,
    HAS_MAP: tl.constexpr,
    HAS_SOFTMAX: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    KEEP_DENOMINATOR: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POSITIVITY: tl.constexpr,
    DEGREE: tl.constexpr,
    EDGE_1: tl.constexpr,
    EDGE_2: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Evaluate phi_q of one tile of queries, apply the state [B*H, F, D] and mass [B*H, F], and merge.

    ``weight`` [B, H, N] is the mass of the softmax branch where it is not 1. Output [B, N, H, D] is
    contiguous; the guarded denominator [B, H, N] is kept for a backward. ``count`` undoes the means of the
    state.
    """
    tile = tl.program_id(0)
    row = tl.program_id(1)
    batch = (row // H).to(tl.int64)
    head = row % H
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = n < tokens
    n64 = n.to(tl.int64)
    d = tl.arange(0, D)
    query += batch * query_b + head * query_h
    features += batch * features_b + head * features_h
    w1 += head * D * W
    b1 += head * W
    w2 += head * W * F
    b2 += head * F
    state += row.to(tl.int64) * F * D
    mass += row * F
    scale = count
    if HAS_MAP:
        scale = count * tl.exp(tl.load(log_scale + head * scale_h).to(tl.float32))
        x = tl.load(query + n64[:, None] * query_n + d[None, :], mask=valid[:, None], other=0.0)

    linear_sum = tl.zeros((BLOCK_N, D), dtype=tl.float32)
    linear_mass = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for first in tl.static_range(0, F, BLOCK_F):
        columns = first + tl.arange(0, BLOCK_F)
        state_tile = tl.load(state + columns[:, None] * D + d[None, :])
        if HAS_MAP:
            psi = psi_tile(x, w1, b1, w2, b2, d, columns, W, F, BLOCK_W, ACTIVATION, False, EXACT)
            phi = raise_parts(make_positive(psi, POSITIVITY), columns, EDGE_1, EDGE_2, DEGREE)
        else:
            phi = tl.load(
                features + n64[:, None] * features_n + columns[None, :], mask=valid[:, None], other=0.0
            ).to(tl.float32)
        linear_mass += tl.sum(phi * tl.load(mass + columns)[None, :], axis=1)
        linear_sum = tl.dot(phi.to(state_tile.dtype), state_tile, linear_sum, input_precision="ieee")
    linear_sum *= scale
    linear_mass *= scale

    if HAS_SOFTMAX:
        branch = tl.load(
            softmax_out + batch * softmax_b + head * softmax_h + n64[:, None] * softmax_n + d[None, :],
            mask=valid[:, None],
            other=0.0,
        ).to(tl.float32)
        total = tl.maximum(linear_mass, 0.0)
        if HAS_WEIGHT:
            branch_mass = tl.load(weight + row.to(tl.int64) * tokens + n, mask=valid, other=1.0)
            branch *= branch_mass[:, None]
            total += branch_mass
        else:
            total += 1.0
        merged = (branch + linear_sum) / total[:, None]
    else:
        safe = linear_mass > mass_floor
        total = tl.where(safe, linear_mass, 1.0)
        merged = tl.where(safe[:, None], linear_sum / total[:, None], 0.0)
        total = tl.where(safe, linear_mass, float("inf"))
    tl.store(
        output + ((batch * tokens + n64[:, None]) * H + head) * D + d[None, :], merged, mask=valid[:, None]
    )
    if KEEP_DENOMINATOR:
        sign = tl.where(linear_mass < 0, -1.0, 1.0)
        tl.store(denominator + row.to(tl.int64) * tokens + n, total * sign, mask=valid)
