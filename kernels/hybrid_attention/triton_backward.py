"""The gradient of one feature map, fused; the forward kept nothing, so phi is made again.

For a tile of tokens with features phi = scale * pow(pos(psi)), psi = act(x W1 + b1) W2 + b2, and a gradient
of phi of the form  left @ right^T + row * column  (queries: left = d numerator, right = state, row = d
mass, column = mass; keys: left = value, right = d state, row = 1, column = d mass summed), the kernel
writes what the weight gradients need as plain products over tokens: phi, act, d psi, d pre-activation, all
[B*H, N, width] in the dtype of the inputs. The products themselves are left to the matrix library.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs

import triton
import triton.language as tl

from kernels.hybrid_attention.triton_forward import (
    activate,
    make_positive,
    normal_cdf,
    raise_parts,
    tanh_,
)


@triton.jit
def activation_slope(x, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    if ACTIVATION == "gelu":
        return normal_cdf(x, EXACT) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif ACTIVATION == "silu":
        gate = 0.5 + 0.5 * tanh_(0.5 * x, EXACT)
        return gate * (1.0 + x * (1.0 - gate))
    else:
        return tl.where(x > 0.0, 1.0, 0.0)


@triton.jit
def positivity_slope(x, POSITIVITY: tl.constexpr):
    if POSITIVITY == "relu":
        return tl.where(x > 0.0, 1.0, 0.0)
    elif POSITIVITY == "softplus":
        return 1.0 / (1.0 + tl.exp(-x))
    elif POSITIVITY == "square":
        return 2.0 * x
    else:
        return tl.full(x.shape, 1.0, tl.float32)


@triton.jit
def power_slope(x, columns, EDGE_1: tl.constexpr, EDGE_2: tl.constexpr, DEGREE: tl.constexpr):
    slope = tl.full(x.shape, 1.0, tl.float32)
    if DEGREE >= 2:
        slope = tl.where(columns[None, :] >= EDGE_1, 2.0 * x, slope)
    if DEGREE >= 3:
        slope = tl.where(columns[None, :] >= EDGE_2, 3.0 * x * x, slope)
    return slope


@triton.jit(do_not_specialize=["count", "group", "skip"])
def map_backward_kernel(
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
    BLOCK_W: tl.constexpr,
    BLOCK_F: tl.constexpr,
    HAS_ROW: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POSITIVITY: tl.constexpr,
    DEGREE: tl.constexpr,
    EDGE_1: tl.constexpr,
    EDGE_2: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write phi, hidden [rows, count, W], grad_psi, grad_pre and, per tile, d log_scale, d b1 and d b2.

    ``left`` is read at the same tokens as the input; group and skip as in ``state_kernel``. right [rows, F,
    D], column_factor [rows, F] fp32, row_factor [rows, count] fp32. ``factor`` multiplies the gradient.
    """
    tile = tl.program_id(0)
    row = tl.program_id(1)
    batch = (row // H).to(tl.int64)
    head = row % H
    index = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = index < count
    token = (index + skip * (index // group + 1)).to(tl.int64)
    d = tl.arange(0, D)
    x = tl.load(
        tokens_in + batch * in_b + head * in_h + token[:, None] * in_n + d[None, :],
        mask=valid[:, None],
        other=0.0,
    )
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

    for first in tl.range(0, W, BLOCK_W):
        inner = first + tl.arange(0, BLOCK_W)
        weight = tl.load(w1 + d[:, None] * W + inner[None, :])
        pre = tl.dot(x, weight, input_precision="ieee") + tl.load(b1 + inner).to(tl.float32)[None, :]
        hidden = activate(pre, ACTIVATION, EXACT)
        tl.store(hidden_out + place[:, None] * W + inner[None, :], hidden.to(x.dtype), mask=valid[:, None])
    tl.debug_barrier()

    grad_scale = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for first_f in tl.range(0, F, BLOCK_F):
        columns = first_f + tl.arange(0, BLOCK_F)
        psi = tl.zeros((BLOCK_N, BLOCK_F), dtype=tl.float32)
        for first in tl.range(0, W, BLOCK_W):
            inner = first + tl.arange(0, BLOCK_W)
            hidden = tl.load(hidden_out + place[:, None] * W + inner[None, :], mask=valid[:, None], other=0.0)
            psi = tl.dot(
                hidden, tl.load(w2 + inner[:, None] * F + columns[None, :]), psi, input_precision="ieee"
            )
        psi += tl.load(b2 + columns).to(tl.float32)[None, :]
        positive = make_positive(psi, POSITIVITY)
        phi = raise_parts(positive, columns, EDGE_1, EDGE_2, DEGREE) * scale
        phi = tl.where(valid[:, None], phi, 0.0)
        right_tile = tl.load(right + columns[:, None] * D + d[None, :])
        grad = tl.dot(g, tl.trans(right_tile), input_precision="ieee")
        column = tl.load(column_factor + columns)[None, :]
        if HAS_ROW:
            grad += tl.load(row_factor + place, mask=valid, other=0.0)[:, None] * column
        else:
            grad += column
        grad *= factor
        grad_scale += tl.sum(grad * phi, axis=1)
        slope = power_slope(positive, columns, EDGE_1, EDGE_2, DEGREE) * positivity_slope(psi, POSITIVITY)
        grad_psi = tl.where(valid[:, None], grad * slope * scale, 0.0)
        tl.store(grad_b2_out + part * F + columns, tl.sum(grad_psi, axis=0))
        tl.store(phi_out + place[:, None] * F + columns[None, :], phi.to(x.dtype), mask=valid[:, None])
        tl.store(
            grad_psi_out + place[:, None] * F + columns[None, :], grad_psi.to(x.dtype), mask=valid[:, None]
        )
    tl.store(grad_scale_out + part, tl.sum(grad_scale, axis=0))
    tl.debug_barrier()

    for first in tl.range(0, W, BLOCK_W):
        inner = first + tl.arange(0, BLOCK_W)
        grad_hidden = tl.zeros((BLOCK_N, BLOCK_W), dtype=tl.float32)
        for first_f in tl.range(0, F, BLOCK_F):
            columns = first_f + tl.arange(0, BLOCK_F)
            grad_psi = tl.load(
                grad_psi_out + place[:, None] * F + columns[None, :], mask=valid[:, None], other=0.0
            )
            weight = tl.load(w2 + inner[:, None] * F + columns[None, :])
            grad_hidden = tl.dot(grad_psi, tl.trans(weight), grad_hidden, input_precision="ieee")
        weight = tl.load(w1 + d[:, None] * W + inner[None, :])
        pre = tl.dot(x, weight, input_precision="ieee") + tl.load(b1 + inner).to(tl.float32)[None, :]
        grad_pre = grad_hidden * activation_slope(pre, ACTIVATION, EXACT)
        grad_pre = tl.where(valid[:, None], grad_pre, 0.0)
        tl.store(grad_b1_out + part * W + inner, tl.sum(grad_pre, axis=0))
        tl.store(
            grad_pre_out + place[:, None] * W + inner[None, :], grad_pre.to(x.dtype), mask=valid[:, None]
        )


@triton.jit
def prepare_kernel(
    grad,
    output,
    denominator,
    grad_sum,
    grad_mass,
    grad_b,
    grad_n,
    grad_h,
    tokens,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Turn the gradient of the output into that of the numerator [B, N, H, D] and mass [B*H, N] (fp32).

    ``denominator`` [B, H, N] as the forward kept it: negative where the mass was clamped, infinite where
    there was none.
    """
    tile = tl.program_id(0)
    row = tl.program_id(1)
    batch = (row // H).to(tl.int64)
    head = row % H
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = n < tokens
    n64 = n.to(tl.int64)
    d = tl.arange(0, D)
    g = tl.load(
        grad + batch * grad_b + head * grad_h + n64[:, None] * grad_n + d[None, :],
        mask=valid[:, None],
        other=0.0,
    ).to(tl.float32)
    place = ((batch * tokens + n64[:, None]) * H + head) * D + d[None, :]
    y = tl.load(output + place, mask=valid[:, None], other=0.0).to(tl.float32)
    signed = tl.load(denominator + row.to(tl.int64) * tokens + n, mask=valid, other=1.0)
    g = g / tl.abs(signed)[:, None]
    mass = -tl.sum(g * y, axis=1)
    tl.store(grad_sum + place, g, mask=valid[:, None])
    tl.store(grad_mass + row.to(tl.int64) * tokens + n, tl.where(signed < 0.0, 0.0, mass), mask=valid)
