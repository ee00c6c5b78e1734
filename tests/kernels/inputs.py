"""Random inputs, tolerances and memory poisoning shared by the tests of kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kernels.hybrid_attention import MapParameters, init_map_parameters

TOLERANCE_IN_EPS = 16


def draw_qkv(
    tokens: int,
    *,
    batch: int = 2,
    heads: int = 3,
    head_dim: int = 8,
    dtype=torch.float64,
    device="cpu",
    seed=0,
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, tokens, heads, head_dim)
    return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]


def draw_features(query: Tensor, features: int = 6, *, seed=1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (*query.shape[:3], features)
    return [torch.rand(shape, generator=generator).to(query.device, query.dtype) for _ in range(2)]


def draw_maps(query: Tensor, *, scale: float = 0.3, dtype=None, seed=2, **choices) -> list[MapParameters]:
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for _ in range(2):
        made = init_map_parameters(
            query.shape[2], query.shape[3], scale=scale, degree=choices.get("degree", 2), generator=generator
        )
        bias = {
            name: torch.randn(getattr(made, name).shape, generator=generator) / 4
            for name in ("bias_1", "bias_2")
        }
        made = replace(made, **bias, **{k: v for k, v in choices.items() if k != "degree"})
        maps.append(move_map(made, query.device, dtype or query.dtype))
    return maps


def move_map(parameters: MapParameters, device, dtype) -> MapParameters:
    names = ("weight_1", "bias_1", "weight_2", "bias_2", "log_scale")
    return replace(parameters, **{name: getattr(parameters, name).to(device, dtype) for name in names})


def error_in_eps(result: Tensor, expected: Tensor) -> float:
    """Relative error in the norm, in units of the result's precision; NaN counts as infinite."""
    result, expected = result.detach(), expected.detach()
    difference = (result.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-300)
    error = float(difference) / torch.finfo(result.dtype).eps
    return error if error == error else float("inf")


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill uninitialised tensors with NaN while the body runs."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
