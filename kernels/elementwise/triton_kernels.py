"""The same in Triton, one program a token: a row is read once, worked on in fp32 registers, written once."""

# mypy: allow-untyped-defs, allow-incomplete-defs, no-check-untyped-defs

import triton
import triton.language as tl


@triton.jit
def load_row(base, batch, token, stride_b, stride_n, columns, valid):
    """Load one row [C] as fp32; a stride of 0 repeats it."""
    row = base + batch.to(tl.int64) * stride_b + token.to(tl.int64) * stride_n
    return tl.load(row + columns, mask=valid, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["tokens"])
def residual_norm_kernel(
    hidden,
    update,
    gate,
    scale,
    shift,
    sum_out,
    norm_out,
    hidden_b,
    hidden_n,
    update_b,
    update_n,
    gate_b,
    gate_n,
    scale_b,
    scale_n,
    shift_b,
    shift_n,
    tokens,
    eps,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    ONE_PLUS: tl.constexpr,
):
    """Write hidden + update * gate, and its layer norm times (1 +) scale plus shift; outputs [B, N, C]."""
    row = tl.program_id(0)
    batch, token = row // tokens, row % tokens
    columns = tl.arange(0, BLOCK)
    valid = columns < C
    place = row.to(tl.int64) * C + columns
    x = load_row(hidden, batch, token, hidden_b, hidden_n, columns, valid)
    if HAS_UPDATE:
        y = load_row(update, batch, token, update_b, update_n, columns, valid)
        if HAS_GATE:
            y *= load_row(gate, batch, token, gate_b, gate_n, columns, valid)
        rounded = (x + y).to(sum_out.dtype.element_ty)
        tl.store(sum_out + place, rounded, mask=valid)
        x = rounded.to(tl.float32)
    if HAS_NORM:
        centred = tl.where(valid, x - tl.sum(x, axis=0) / C, 0.0)
        normed = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / C + eps)
        if HAS_SCALE:
            factor = load_row(scale, batch, token, scale_b, scale_n, columns, valid)
            if ONE_PLUS:
                factor += 1.0
            normed *= factor
        if HAS_SHIFT:
            normed += load_row(shift, batch, token, shift_b, shift_n, columns, valid)
        tl.store(norm_out + place, normed, mask=valid)


@triton.jit(do_not_specialize=["tokens"])
def rms_norm_rotate_kernel(
    states,
    weight,
    cosine,
    sine,
    out,
    states_b,
    states_n,
    cosine_n,
    sine_n,
    tokens,
    eps,
    C: tl.constexpr,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    ROTATE: tl.constexpr,
):
    """Write the RMS norm of one row [C] times weight, its neighbouring pairs rotated; out [B, N, C]."""
    row = tl.program_id(0)
    batch, token = row // tokens, row % tokens
    columns = tl.arange(0, 2 * PAIRS)
    valid = columns < C
    x = load_row(states, batch, token, states_b, states_n, columns, valid)
    x *= tl.rsqrt(tl.sum(x * x, axis=0) / C + eps)
    x *= tl.load(weight + columns, mask=valid, other=0.0).to(tl.float32)
    if ROTATE:
        first, second = tl.split(tl.reshape(x, (PAIRS, 2)))
        pair = tl.arange(0, PAIRS)
        even = 2 * (pair % (D // 2))
        inside = 2 * pair < C
        c = tl.load(cosine + token.to(tl.int64) * cosine_n + even, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(sine + token.to(tl.int64) * sine_n + even, mask=inside, other=0.0).to(tl.float32)
        x = tl.reshape(tl.join(first * c - second * s, first * s + second * c), (2 * PAIRS,))
    tl.store(out + row.to(tl.int64) * C + columns, x, mask=valid)
