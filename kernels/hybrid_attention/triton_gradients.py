"""Gradients of the linear branch on a GPU: two Triton kernels around torch's matrix products.

Deterministic: no atomics, sums over tokens are matrix products. Temporary memory: four tensors [B*H, N,
width] in the dtype of the inputs, for one map at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from kernels.hybrid_attention import triton_backward
from kernels.hybrid_attention.feature_map import MapParameters
from kernels.hybrid_attention.sdpa import linear_tokens, rows_by_head
from kernels.hybrid_attention.triton_tiles import Tiles, linear_indexing


class MapGradients(NamedTuple):
    """Hold the gradients of one map's tensors, of its input rows [B*H, n, D], and phi rows [B*H, n, F]."""

    parameters: list[Tensor]
    input_rows: Tensor | None
    phi_rows: Tensor


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


def output_gradients(
    grad: Tensor, output: Tensor, denominator: Tensor, *, tiles: Tiles
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the linear numerator [B, N, H, D] and mass [B*H, N] (fp32)."""
    batch, tokens, heads, head_dim = output.shape
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
    return grad_sum, grad_mass


def map_gradients(
    x: Tensor,
    parameters: MapParameters,
    gradient: FeatureGradient,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    rate: int,
    tiles: Tiles,
    needs_input: bool,
) -> MapGradients:
    """Differentiate one map at all tokens of ``x`` [B, N, H, D] (rate 0) or at the linear ones (rate > 1)."""
    batch, tokens, heads, head_dim = x.shape
    count = tokens - (tokens + rate - 1) // rate if rate > 1 else tokens
    tensors, choices = arguments
    choices = {name: value for name, value in choices.items() if name != "HAS_MAP"}
    width, num_features = choices["W"], parameters.num_features
    tiles = tiles.fit(hidden=width, features=num_features)
    rows = batch * heads
    phi, grad_psi = (x.new_empty(rows, count, num_features) for _ in range(2))
    hidden, grad_pre = (x.new_empty(rows, count, width) for _ in range(2))
    num_tiles = triton.cdiv(count, tiles.tokens)
    grad_scale, grad_bias_1, grad_bias_2 = (
        x.new_empty(rows, num_tiles, size, dtype=torch.float32) for size in (1, width, num_features)
    )
    triton_backward.map_backward_kernel[(num_tiles, rows)](
        x,
        *tensors[:5],
        gradient.left,
        gradient.right,
        gradient.column if gradient.row is None else gradient.row,
        gradient.column,
        phi,
        hidden,
        grad_psi,
        grad_pre,
        grad_scale,
        grad_bias_1,
        grad_bias_2,
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
        BLOCK_W=tiles.hidden,
        BLOCK_F=tiles.features,
        HAS_ROW=gradient.row is not None,
        EXACT=x.dtype == torch.float32,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **choices,
    )
    x_rows = rows_by_head(linear_tokens(x, rate) if rate > 1 else x)
    per_row = (
        torch.bmm(x_rows.transpose(1, 2), grad_pre),
        grad_bias_1.sum(dim=1),
        torch.bmm(hidden.transpose(1, 2), grad_psi),
        grad_bias_2.sum(dim=1),
        grad_scale.sum(dim=(1, 2)),
    )
    found = [part.unflatten(0, (batch, heads)).float().sum(dim=0) for part in per_row]
    if parameters.log_scale.dim() == 0:
        found[4] = found[4].sum()
    input_rows = None
    if needs_input:
        weight_1 = tensors[0].repeat(batch, 1, 1) if batch > 1 else tensors[0]
        input_rows = torch.bmm(grad_pre, weight_1.transpose(1, 2))
    dtypes = (tensor.dtype for tensor in parameters.tensors)
    return MapGradients([g.to(dtype) for g, dtype in zip(found, dtypes, strict=True)], input_rows, phi)


def linear_branch_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    maps: tuple[MapParameters, MapParameters],
    arguments: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...],
    state: tuple[Tensor, Tensor, int],
    grads: tuple[Tensor, Tensor],
    *,
    rate: int,
    tiles: Tiles,
    needs: list[bool],
) -> list[Tensor | None]:
    """Return the gradients of query, key, value (None where not needed) and of the ten tensors of both maps.

    ``state`` and its mass are means over ``count`` keys, as the forward made them; ``rate`` 0 is linear.
    """
    query, key, value = inputs
    grad_sum, grad_mass = grads
    state_mean, mass_mean, count = state
    batch, _, heads, _ = query.shape
    from_query = map_gradients(
        query,
        maps[0],
        FeatureGradient(grad_sum, state_mean, grad_mass, mass_mean, float(count)),
        arguments[0],
        rate=0,
        tiles=tiles,
        needs_input=needs[0],
    )
    phi_columns = from_query.phi_rows.transpose(1, 2)
    grad_state = torch.bmm(phi_columns, rows_by_head(grad_sum / count))
    grad_column = torch.bmm(phi_columns, (grad_mass / count).to(phi_columns.dtype).unsqueeze(2)).squeeze(2)
    query_grad, query_parameters = from_query.input_rows, from_query.parameters
    del from_query, phi_columns
    from_key = map_gradients(
        key,
        maps[1],
        FeatureGradient(value, grad_state, None, grad_column.float(), float(count)),
        arguments[1],
        rate=rate,
        tiles=tiles,
        needs_input=needs[1],
    )

    def tokens_first(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (batch, heads)).transpose(1, 2)

    def in_place(rows: Tensor) -> Tensor:
        full = torch.zeros_like(key)
        linear = torch.ones(key.shape[1], dtype=torch.bool, device=key.device)
        if rate:
            linear[::rate] = False
        full[:, linear] = tokens_first(rows)
        return full

    found: list[Tensor | None] = [None, None, None]
    if query_grad is not None:
        found[0] = tokens_first(query_grad)
    if from_key.input_rows is not None:
        found[1] = in_place(from_key.input_rows)
    if needs[2]:
        found[2] = in_place(torch.bmm(from_key.phi_rows, grad_state) * count)
    return [*found, *query_parameters, *from_key.parameters]
