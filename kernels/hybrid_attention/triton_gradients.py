"""Gradients of the linear branch on a GPU: a Triton kernel for each map, then sums over tokens.

Deterministic: no atomics, sums over tokens are matrix products. Temporary memory: four tensors [B*H, N,
width] in the dtype of the inputs (three where phi is not asked for), for one map at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from kernels.hybrid_attention import triton_backward, triton_one_pass
from kernels.hybrid_attention.feature_map import MapParameters
from kernels.hybrid_attention.sdpa import linear_tokens, rows_by_head
from kernels.hybrid_attention.triton_tiles import Tiles, TileSet, linear_indexing

FP16_PEAK = 16.0


class MapGradients(NamedTuple):
    """Hold the gradients of one map's tensors, of its input rows [B*H, n, D], and phi rows [B*H, n, F]."""

    parameters: list[Tensor]
    input_rows: Tensor | None
    phi_rows: Tensor | None


@dataclass(frozen=True, eq=False)
class FeatureGradient:
    """Hold the gradient of the features as factor * (left @ right^T + row * column).

    left [B, N, H, D] is read at the tokens of the map's input; right [B*H, F, D]; row [B*H, n] or None for 1;
    column [B*H, F] in fp32.
    """

    left: Tensor
    right: Tensor
    row: Tensor | None
    column: Tensor
    factor: float


@dataclass(frozen=True, eq=False)
class OutputGradients:
    """Hold the gradients of the linear numerator [B, N, H, D] and mass [B*H, N] (fp32).

    ``magnified`` (fp32, no dimension) is what both were multiplied with, None for 1.
    """

    sums: Tensor
    mass: Tensor
    magnified: Tensor | None

    def factor(self, count: int) -> float:
        """Return what a gradient of means over ``count`` keys is multiplied with inside a kernel."""
        return float(count) if self.magnified is None else 1.0

    def restore(self, found: Tensor, count: int) -> Tensor:
        """Undo the magnification of a gradient that used ``factor``."""
        ratio = None if self.magnified is None else count / self.magnified
        return found if ratio is None else (found.float() * ratio).to(found.dtype)


def magnification(grad: Tensor, denominator: Tensor) -> Tensor | None:
    """Return what makes the largest gradient of a numerator ``FP16_PEAK``; None where the range is wide.

    Numerators are sums over all keys: their gradients are about 1 / N and would underflow in fp16.
    """
    if grad.dtype != torch.float16:
        return None
    peaks = grad.abs().amax(dim=-1).transpose(1, 2).float() / denominator.abs()
    return FP16_PEAK / peaks.amax().clamp_min(torch.finfo(torch.float32).tiny)


def output_gradients(grad: Tensor, output: Tensor, denominator: Tensor) -> OutputGradients:
    """Differentiate the merge with respect to the linear numerator and mass."""
    batch, tokens, heads, head_dim = output.shape
    magnified = magnification(grad, denominator)
    if magnified is not None:
        denominator = denominator / magnified
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    grad_sum = torch.empty_like(output)
    grad_mass = output.new_empty(batch * heads, tokens, dtype=torch.float32)
    triton_backward.prepare_kernel[(triton.cdiv(tokens, 64), batch * heads)](
        grad,
        output,
        denominator,
        grad_sum,
        grad_mass,
        *grad.stride()[:3],
        tokens,
        H=heads,
        D=head_dim,
        BLOCK_N=64,
        num_warps=4,
    )
    return OutputGradients(grad_sum, grad_mass, magnified)


class Written(NamedTuple):
    """Hold what a map's kernel wrote: [B*H, n, width] each, and sums of every tile [B*H, tiles, width]."""

    phi: Tensor | None
    hidden: Tensor
    grad_psi: Tensor
    grad_pre: Tensor
    grad_scale: Tensor
    grad_bias_1: Tensor
    grad_bias_2: Tensor


def run_map_kernel(
    x: Tensor,
    num_features: int,
    gradient: FeatureGradient,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    rate: int,
    tile_set: TileSet,
    needs_phi: bool,
) -> Written:
    """Run the kernel that the plan of ``tile_set`` names, for all tokens (rate 0) or the linear ones."""
    batch, tokens, heads, head_dim = x.shape
    count = tokens - (tokens + rate - 1) // rate if rate > 1 else tokens
    tensors, choices = arguments
    choices = {name: value for name, value in choices.items() if name != "HAS_MAP"}
    one_pass, width, rows = tile_set.gradients.one_pass, choices["W"], batch * heads
    tiles = (tile_set.one_pass if one_pass else tile_set.backward).fit(hidden=width, features=num_features)
    needs_phi = needs_phi or not one_pass
    num_tiles = triton.cdiv(count, tiles.tokens)
    written = Written(
        x.new_empty(rows, count, num_features) if needs_phi else None,
        x.new_empty(rows, count, width),
        x.new_empty(rows, count, num_features),
        x.new_empty(rows, count, width),
        *(x.new_empty(rows, num_tiles, size, dtype=torch.float32) for size in (1, width, num_features)),
    )
    if one_pass:
        kernel = triton_one_pass.map_backward_one_pass_kernel
        blocks = {"STORE_PHI": needs_phi, "STAGES": tiles.stages}
    else:
        kernel = triton_backward.map_backward_kernel
        blocks = {"BLOCK_W": tiles.hidden}
    kernel[(num_tiles, rows)](
        x,
        *tensors[:5],
        gradient.left,
        gradient.right,
        gradient.column if gradient.row is None else gradient.row,
        gradient.column,
        written.hidden if written.phi is None else written.phi,
        *written[1:],
        *x.stride()[:3],
        *gradient.left.stride()[:3],
        tensors[5],
        count,
        *linear_indexing(rate),
        gradient.factor,
        H=heads,
        D=head_dim,
        F=num_features,
        BLOCK_N=tiles.tokens,
        BLOCK_F=tiles.features,
        HAS_ROW=gradient.row is not None,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **blocks,
        **choices,
    )
    return written


def map_gradients(
    x: Tensor,
    parameters: MapParameters,
    gradient: FeatureGradient,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    rate: int,
    tile_set: TileSet,
    needs_input: bool,
    needs_phi: bool = True,
) -> MapGradients:
    """Differentiate one map at all tokens of ``x`` [B, N, H, D] (rate 0) or at the linear ones (rate > 1)."""
    batch, heads = x.shape[0], x.shape[2]
    written = run_map_kernel(
        x, parameters.num_features, gradient, arguments, rate=rate, tile_set=tile_set, needs_phi=needs_phi
    )
    if tile_set.gradients.split_products:
        hidden, grad_psi, grad_pre = (rows_as_heads(part, batch) for part in written[1:4])
        grad_weight_1, _ = token_products(x, grad_pre, rate=rate, tiles=tile_set.products)
        grad_weight_2, _ = token_products(hidden, grad_psi, tiles=tile_set.products)
    else:
        x_rows = rows_by_head(linear_tokens(x, rate) if rate > 1 else x)
        grad_weight_1 = mean_products(x_rows, written.grad_pre).float() * x_rows.shape[1]
        grad_weight_2 = mean_products(written.hidden, written.grad_psi).float() * x_rows.shape[1]
    per_row = (
        grad_weight_1,
        written.grad_bias_1.sum(dim=1),
        grad_weight_2,
        written.grad_bias_2.sum(dim=1),
        written.grad_scale.sum(dim=(1, 2)),
    )
    found = [part.unflatten(0, (batch, heads)).float().sum(dim=0) for part in per_row]
    if parameters.log_scale.dim() == 0:
        found[4] = found[4].sum()
    input_rows = None
    if needs_input:
        weight_1 = arguments[0][0].repeat(batch, 1, 1) if batch > 1 else arguments[0][0]
        input_rows = torch.bmm(written.grad_pre, weight_1.transpose(1, 2))
    dtypes = (tensor.dtype for tensor in parameters.tensors)
    converted = [g.to(dtype) for g, dtype in zip(found, dtypes, strict=True)]
    return MapGradients(converted, input_rows, written.phi)


def mean_products(a: Tensor, b: Tensor, divisor: int | None = None) -> Tensor:
    """Return a^T b / divisor [B*H, A, B] of rows [B*H, n, A] and [B*H, n, B]; divided before rounding."""
    left = a.transpose(1, 2)
    return torch.baddbmm(a.new_zeros(1), left, b, beta=0, alpha=1 / (divisor or a.shape[1]))


def rows_as_heads(rows: Tensor, batch: int) -> Tensor:
    """View [B*H, n, width] as [B, n, H, width]."""
    return rows.unflatten(0, (batch, -1)).transpose(1, 2)


def token_products(
    a: Tensor, b: Tensor, vector: Tensor | None = None, *, rate: int = 0, tiles: Tiles
) -> tuple[Tensor, Tensor | None]:
    """Return a^T b [B*H, A, B] and, with a vector [B*H, n], a^T vector [B*H, A], in fp32, summed over tokens.

    a [B, n, H, A] and b [B, n, H, B]; where ``rate`` > 1, a is read at the linear tokens of [B, N, H, A].
    """
    batch, count, heads, width_b = b.shape
    width_a, rows = a.shape[3], batch * heads
    tiles = tiles.fit(hidden=width_a, features=width_b)
    blocks = (width_a // tiles.hidden) * (width_b // tiles.features)
    num_tiles = triton.cdiv(count, tiles.tokens)
    processors = multiprocessors(a.device)
    splits = max(1, min(num_tiles, 2 * processors // (blocks * rows)))
    tiles_per_split = triton.cdiv(num_tiles, splits)
    splits = triton.cdiv(num_tiles, tiles_per_split)
    out = a.new_empty(splits, rows, width_a, width_b, dtype=torch.float32)
    vector_out = out if vector is None else a.new_empty(splits, rows, width_a, dtype=torch.float32)
    group, skip = linear_indexing(rate)
    triton_one_pass.token_products_kernel[(blocks, splits, rows)](
        a,
        b,
        out if vector is None else vector,
        out,
        vector_out,
        *a.stride()[:3],
        *b.stride()[:3],
        count,
        group,
        skip,
        0,
        tiles_per_split,
        H=heads,
        A=width_a,
        B=width_b,
        BLOCK_A=tiles.hidden,
        BLOCK_B=tiles.features,
        BLOCK_N=tiles.tokens,
        STAGES=tiles.stages,
        HAS_VECTOR=vector is not None,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out.sum(dim=0), None if vector is None else vector_out.sum(dim=0)


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU; 2 where there is none (the interpreter)."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def linear_branch_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    maps: tuple[MapParameters, MapParameters],
    arguments: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...],
    state: tuple[Tensor, Tensor, int],
    grads: OutputGradients,
    *,
    rate: int,
    tile_set: TileSet,
    needs: list[bool],
) -> list[Tensor | None]:
    """Return the gradients of query, key, value (None where not needed) and of the ten tensors of both maps.

    ``state`` and its mass are means over ``count`` keys, as the forward made them; ``rate`` 0 is linear.
    """
    query, key, value = inputs
    state_mean, mass_mean, count = state
    batch = query.shape[0]
    from_query = map_gradients(
        query,
        maps[0],
        FeatureGradient(grads.sums, state_mean, grads.mass, mass_mean, grads.factor(count)),
        arguments[0],
        rate=0,
        tile_set=tile_set,
        needs_input=needs[0],
    )
    assert from_query.phi_rows is not None
    grad_state, grad_column = state_gradients(from_query.phi_rows, grads, count=count, tile_set=tile_set)
    query_grad, query_parameters = from_query.input_rows, from_query.parameters
    del from_query
    from_key = map_gradients(
        key,
        maps[1],
        FeatureGradient(value, grad_state, None, grad_column, grads.factor(count)),
        arguments[1],
        rate=rate,
        tile_set=tile_set,
        needs_input=needs[1],
        needs_phi=needs[2],
    )
    found: list[Tensor | None] = [None, None, None]
    if query_grad is not None:
        found[0] = rows_as_heads(query_grad, batch)
    if from_key.input_rows is not None:
        found[1] = among_kept(rows_as_heads(from_key.input_rows, batch), key, rate)
    if needs[2]:
        assert from_key.phi_rows is not None
        value_rows = torch.bmm(from_key.phi_rows, grad_state * grads.factor(count))
        found[2] = among_kept(rows_as_heads(value_rows, batch), key, rate)
    found += [*query_parameters, *from_key.parameters]
    return [None if x is None else grads.restore(x, count) for x in found]


def state_gradients(
    phi_rows: Tensor, grads: OutputGradients, *, count: int, tile_set: TileSet
) -> tuple[Tensor, Tensor]:
    """Return the gradients of state [B*H, F, D] and mass [B*H, F] (fp32), both divided by ``count``."""
    batch, dtype = grads.sums.shape[0], grads.sums.dtype
    if tile_set.gradients.split_products:
        phi = rows_as_heads(phi_rows, batch)
        grad_state, grad_column = token_products(phi, grads.sums, grads.mass, tiles=tile_set.products)
        assert grad_column is not None
        return (grad_state / count).to(dtype), grad_column / count
    grad_state = mean_products(phi_rows, rows_by_head(grads.sums), count)
    grad_column = mean_products(phi_rows, grads.mass.to(dtype).unsqueeze(2), count).squeeze(2)
    return grad_state, grad_column.float()


def feature_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    state: tuple[Tensor, Tensor, int],
    grads: OutputGradients,
    *,
    rate: int,
    tile_set: TileSet,
    needs: list[bool],
) -> list[Tensor | None]:
    """Return the gradients of value, query features and key features, None where not needed.

    ``inputs`` are these three; ``state`` and its mass are means over ``count`` keys; ``rate`` 0 is linear.
    """
    value, query_features, key_features = inputs
    state_mean, mass_mean, count = state
    batch, dtype, factor = value.shape[0], value.dtype, grads.factor(count)
    found: list[Tensor | None] = [None] * 3
    if needs[1]:
        rows = torch.bmm(rows_by_head(grads.sums), state_mean.transpose(1, 2)).float()
        rows = (rows + grads.mass.unsqueeze(2) * mass_mean.unsqueeze(1)) * factor
        found[1] = rows_as_heads(rows.to(dtype), batch)
    if needs[0] or needs[2]:
        query_rows = rows_by_head(query_features)
        grad_state, grad_column = state_gradients(query_rows, grads, count=count, tile_set=tile_set)
        if needs[0]:
            key_rows = rows_by_head(linear_tokens(key_features, rate) if rate else key_features)
            rows = torch.bmm(key_rows, grad_state * factor)
            found[0] = among_kept(rows_as_heads(rows, batch), value, rate)
        if needs[2]:
            value_rows = rows_by_head(linear_tokens(value, rate) if rate else value)
            rows = torch.bmm(value_rows, grad_state.transpose(1, 2)).float() + grad_column.unsqueeze(1)
            found[2] = among_kept(rows_as_heads((rows * factor).to(dtype), batch), key_features, rate)
    return [None if x is None else grads.restore(x, count) for x in found]


def among_kept(linear: Tensor, like: Tensor, rate: int) -> Tensor:
    """Place rows of linear tokens [B, n, H, D] among the kept ones, which get zeros; rate 0 keeps none."""
    if not rate:
        return linear
    full = torch.empty_like(like)
    full[:, ::rate] = 0
    whole = like.shape[1] // rate
    head, tail = full[:, : whole * rate], full[:, whole * rate + 1 :]
    head.unflatten(1, (whole, rate))[:, :, 1:] = linear[:, : whole * (rate - 1)].unflatten(
        1, (whole, rate - 1)
    )
    tail.copy_(linear[:, whole * (rate - 1) :])
    return full
