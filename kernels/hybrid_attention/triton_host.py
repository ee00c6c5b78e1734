"""Hybrid attention on a GPU: torch's fused softmax on strided keys, the linear branch in Triton.

Forward: softmax branch; phi_k and state; phi_q, product and merge. Besides the output it allocates the
softmax branch's output and a state per split. Backward: one Triton kernel per map for a distillation step
(``triton_backward``), torch's fused backward for q, k, v. ``TRITON_INTERPRET=1`` runs the same code on the
CPU in fp32.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.hybrid_attention import triton_forward
from kernels.hybrid_attention.feature_map import MapParameters, degree_edges
from kernels.hybrid_attention.fused_softmax import fused_softmax_backward, unit_stride
from kernels.hybrid_attention.reference import MASS_FLOOR
from kernels.hybrid_attention.sdpa import (
    add_peak_gradient,
    dense_attention,
    softmax_and_weight,
)
from kernels.hybrid_attention.triton_gradients import (
    OutputGradients,
    feature_gradients,
    linear_branch_gradients,
    output_gradients,
)
from kernels.hybrid_attention.triton_tiles import FULL_PRECISION, Tiles, TileSet, linear_indexing, tiles_for

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WAVES = 2


@dataclass(frozen=True)
class Options:
    """Hold what is not a tensor: rate (None is linear), stabilizer, tiles (None: by capability)."""

    rate: int | None
    stabilizer: str
    tiles: TileSet | None = None


def hardware(x: Tensor) -> tuple[TileSet, int]:
    """Return the tiles for a tensor's device and dtype, and the number of multiprocessors."""
    return _hardware(x.device, is_exact(x))


@lru_cache
def _hardware(device: torch.device, exact: bool) -> tuple[TileSet, int]:
    if device.type != "cuda":
        return tiles_for(0), 2
    major, minor = torch.cuda.get_device_capability(device)
    tile_set = FULL_PRECISION if exact else tiles_for(10 * major + minor)
    return tile_set, torch.cuda.get_device_properties(device).multi_processor_count


def forget_tiles() -> None:
    """Look tiles up again, after ``TILES_BY_CAPABILITY`` was changed."""
    _hardware.cache_clear()


def is_exact(x: Tensor) -> bool:
    """Say whether nonlinearities are evaluated to fp32 rounding: for fp32, and where assembly cannot run."""
    return x.dtype == torch.float32 or INTERPRETED


def map_arguments(parameters: MapParameters | None, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the tensors of a map in the dtype of ``x`` (log scale in fp32) and its compile-time choices."""
    if parameters is None:
        nothing = {"HAS_MAP": False, "ACTIVATION": "relu", "POSITIVITY": "none", "DEGREE": 1}
        return (x, x, x, x, x, 0), {**nothing, "EDGE_1": 1, "EDGE_2": 1, "W": 16, "EXACT": is_exact(x)}
    edges = [*degree_edges(parameters.num_features, parameters.degree), parameters.num_features]
    tensors = [tensor.detach().to(x.dtype).contiguous() for tensor in parameters.tensors[:4]]
    scale = parameters.log_scale.detach().to(torch.float32)
    choices = {
        "HAS_MAP": True,
        "ACTIVATION": parameters.activation,
        "POSITIVITY": parameters.positivity,
        "DEGREE": parameters.degree,
        "EDGE_1": edges[0],
        "EDGE_2": edges[1],
        "W": parameters.weight_1.shape[2],
        "EXACT": is_exact(x),
    }
    return (*tensors, scale, scale.stride(0) if scale.dim() else 0), choices


def linear_state(
    key: Tensor,
    value: Tensor,
    key_features: Tensor | None,
    key_map: MapParameters | None,
    *,
    rate: int | None,
    tiles: Tiles,
    processors: int,
) -> tuple[Tensor, Tensor, int]:
    """Return state [B*H, F, D] (dtype of ``value``) and mass [B*H, F] (fp32), both means, and their count."""
    batch, tokens, heads, head_dim = key.shape
    count = tokens if rate is None else tokens - (tokens + rate - 1) // rate
    arguments, choices = map_arguments(key_map, key)
    loaded = key if key_features is None else key_features
    num_features = key_map.num_features if key_map is not None else loaded.shape[3]
    tiles = tiles.fit(hidden=choices["W"], features=num_features)
    blocks = num_features // tiles.features
    num_tiles = triton.cdiv(count, tiles.tokens)
    splits = max(1, min(num_tiles, WAVES * processors // (blocks * batch * heads)))
    tiles_per_split = triton.cdiv(num_tiles, splits)
    splits = triton.cdiv(num_tiles, tiles_per_split)
    rows = batch * heads
    state = torch.empty(splits, rows, num_features, head_dim, device=key.device, dtype=torch.float32)
    mass = torch.empty(splits, rows, num_features, device=key.device, dtype=torch.float32)
    triton_forward.state_kernel[(blocks, splits, rows)](
        key,
        value,
        loaded,
        *arguments[:5],
        state,
        mass,
        *key.stride()[:3],
        *value.stride()[:3],
        *loaded.stride()[:3],
        arguments[5],
        count,
        *linear_indexing(rate or 0),
        tiles_per_split,
        1.0 / count,
        H=heads,
        D=head_dim,
        F=num_features,
        BLOCK_N=tiles.tokens,
        BLOCK_W=tiles.hidden,
        BLOCK_F=tiles.features,
        STAGES=tiles.stages,
        UNROLL=tiles.resident,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **choices,
    )
    return state.sum(dim=0).to(value.dtype), mass.sum(dim=0), count


def apply_state(
    query: Tensor,
    query_features: Tensor | None,
    query_map: MapParameters | None,
    state: tuple[Tensor, Tensor, int],
    softmax: tuple[Tensor | None, Tensor | None],
    *,
    tiles: Tiles,
    keep_denominator: bool,
    in_place: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the merged output [B, N, H, D] and, if kept, the denominator [B, H, N] in fp32.

    A negative denominator marks a query whose linear mass was below zero and counted as zero; an infinite
    one marks a query without mass. ``in_place`` may overwrite the softmax output. ``softmax`` is output [B,
    N, H, D] and mass [B, N, H] (None where it is 1).
    """
    batch, tokens, heads, head_dim = query.shape
    arguments, choices = map_arguments(query_map, query)
    loaded = query if query_features is None else query_features
    num_features = query_map.num_features if query_map is not None else loaded.shape[3]
    tiles = tiles.fit(hidden=choices["W"], features=num_features)
    state_tensor, mass, count = state
    branch, weight = softmax
    if branch is not None and in_place and branch.is_contiguous():
        output = branch
    else:
        output = torch.empty(batch, tokens, heads, head_dim, device=query.device, dtype=query.dtype)
    kept = query.new_empty(batch, heads, tokens, dtype=torch.float32) if keep_denominator else None
    weight_BHN = None if weight is None else weight.to(torch.float32).transpose(1, 2).contiguous()
    read = query if branch is None else branch
    triton_forward.apply_kernel[(triton.cdiv(tokens, tiles.tokens), batch * heads)](
        query,
        loaded,
        *arguments[:5],
        state_tensor,
        mass,
        read,
        mass if weight_BHN is None else weight_BHN,
        output,
        mass if kept is None else kept,
        *query.stride()[:3],
        *loaded.stride()[:3],
        arguments[5],
        *read.stride()[:3],
        tokens,
        float(count),
        MASS_FLOOR,
        H=heads,
        D=head_dim,
        F=num_features,
        BLOCK_N=tiles.tokens,
        BLOCK_W=tiles.hidden,
        BLOCK_F=tiles.features,
        HAS_SOFTMAX=branch is not None,
        HAS_WEIGHT=weight is not None,
        KEEP_DENOMINATOR=keep_denominator,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **choices,
    )
    return output, kept


class TritonHybrid(torch.autograd.Function):
    """The whole operator; ``maps`` is None where features are given, else ``parameters`` are its tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_features: Tensor | None,
        key_features: Tensor | None,
        maps: tuple[MapParameters, MapParameters] | None,
        options: Options,
        *parameters: Tensor,
    ) -> Tensor:
        query, key, value = (unit_stride(x) for x in (query, key, value))
        query_features = None if query_features is None else unit_stride(query_features)
        key_features = None if key_features is None else unit_stride(key_features)
        tile_set, processors = hardware(query)
        tile_set = options.tiles or tile_set
        trains = any(ctx.needs_input_grad)
        trains_softmax = any(ctx.needs_input_grad[:3])
        query_map, key_map = maps or (None, None)
        state = linear_state(
            key, value, key_features, key_map, rate=options.rate, tiles=tile_set.state, processors=processors
        )
        branch = weight = peak = None
        if options.rate is not None:
            kept = key[:, :: options.rate], value[:, :: options.rate]
            branch, weight, peak = softmax_and_weight(
                query, *kept, stabilizer=options.stabilizer, need_lse=trains_softmax
            )
        softmax = (None, None) if branch is None else (branch.output, weight)
        output, denominator = apply_state(
            query,
            query_features,
            query_map,
            state,
            softmax,
            tiles=tile_set.apply,
            keep_denominator=trains,
            in_place=not trains_softmax,
        )
        if trains:
            ctx.maps, ctx.options = maps, options
            ctx.branch = None if branch is None or not trains_softmax else branch.state
            own = branch.output if branch is not None and trains_softmax else None
            ctx.save_for_backward(
                query,
                key,
                value,
                query_features,
                key_features,
                output,
                denominator,
                own,
                weight,
                peak,
                *state[:2],
            )
            ctx.count = state[2]
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, query_features, key_features, output, denominator, own, weight, peak, *state = (
            ctx.saved_tensors
        )
        tile_set, _ = hardware(query)
        tile_set = ctx.options.tiles or tile_set
        rate = ctx.options.rate
        grads = output_gradients(grad, output, denominator)
        found: list[Tensor | None]
        if ctx.maps is None:
            found = [None, None]
            found += feature_gradients(
                (value, query_features, key_features),
                (*state, ctx.count),
                grads,
                rate=rate or 0,
                tile_set=tile_set,
                needs=list(ctx.needs_input_grad[2:5]),
            )
        elif any(ctx.needs_input_grad[:3]) or any(ctx.needs_input_grad[7:]):
            linear = linear_branch_gradients(
                (query, key, value),
                ctx.maps,
                (map_arguments(ctx.maps[0], query), map_arguments(ctx.maps[1], key)),
                (*state, ctx.count),
                grads,
                rate=rate or 0,
                tile_set=tile_set,
                needs=list(ctx.needs_input_grad[:3]),
            )
            found = [*linear[:3], None, None, *linear[3:]]
        if ctx.branch is not None:
            softmax_grads = _softmax_gradients(ctx, grads, query, key, value, (own, output, weight, peak))
            found[:3] = _join(found[:3], softmax_grads, key, rate)
        return (*found[:5], None, None, *found[5:])


def _softmax_gradients(
    ctx: Any,
    grads: OutputGradients,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
) -> list[Tensor]:
    """Return gradients of query, kept keys and kept values through the softmax branch."""
    own, merged, weight, peak = saved
    rate = ctx.options.rate
    kept_key, kept_value = key[:, ::rate], value[:, ::rate]
    softmax_grad = grads.sums if weight is None else grads.sums * weight.unsqueeze(-1).to(grads.sums.dtype)
    out = own if weight is None else merged
    grad_query, grad_key, grad_value = fused_softmax_backward(
        softmax_grad, query, kept_key, kept_value, out, ctx.branch
    )
    if peak is not None:
        grad_peak = (softmax_grad.float() * (merged.float() - own)).sum(dim=-1) / math.sqrt(query.shape[-1])
        grad_query, grad_key = add_peak_gradient(grad_query, grad_key, query, kept_key, grad_peak, peak)
    return [grads.restore(x, 1) for x in (grad_query, grad_key, grad_value)]


def _join(linear: list[Tensor | None], softmax: list[Tensor], key: Tensor, rate: int) -> list[Tensor | None]:
    """Add the gradients of both branches; those of the softmax branch are of the kept keys alone."""
    joined: list[Tensor | None] = [softmax[0] if linear[0] is None else softmax[0] + linear[0]]
    for of_all, of_kept in zip(linear[1:], softmax[1:], strict=True):
        full = torch.zeros_like(key) if of_all is None else of_all
        full[:, ::rate] += of_kept
        joined.append(full)
    return joined


def hybrid_attention_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    rate: int | None,
    stabilizer: str,
) -> Tensor:
    """Evaluate hybrid attention on given features (arguments as ``hybrid_attention``)."""
    if rate == 1 or (rate is not None and key.shape[1] == 1):
        return dense_attention(query, key, value)
    return TritonHybrid.apply(
        query, key, value, query_features, key_features, None, Options(rate, stabilizer)
    )


def hybrid_attention_from_maps_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: MapParameters,
    key_map: MapParameters,
    *,
    rate: int | None,
    stabilizer: str,
    tiles: TileSet | None = None,
) -> Tensor:
    """Evaluate hybrid attention with phi inside (arguments as ``hybrid_attention_from_maps``)."""
    if rate == 1 or (rate is not None and key.shape[1] == 1):
        return dense_attention(query, key, value)
    options = Options(rate, stabilizer, tiles)
    parameters = (*query_map.tensors, *key_map.tensors)
    return TritonHybrid.apply(query, key, value, None, None, (query_map, key_map), options, *parameters)
