"""Which inputs the statistics kernel takes, and its tiles on each generation of GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StatsTiles:
    """Hold the block of queries, the block of places of keys, warps, stages, and frames a group at most."""

    queries: int
    keys: int
    warps: int
    stages: int
    group_frames: int = 24


HOPPER = StatsTiles(queries=64, keys=64, warps=4, stages=3)
AMPERE_DATACENTER = StatsTiles(queries=128, keys=64, warps=8, stages=2)
CONSUMER = StatsTiles(queries=64, keys=64, warps=4, stages=2)
FULL_PRECISION = StatsTiles(queries=16, keys=16, warps=4, stages=1, group_frames=2)
TILES_BY_CAPABILITY = {
    80: AMPERE_DATACENTER,
    86: CONSUMER,
    89: CONSUMER,
    90: HOPPER,
    120: CONSUMER,
}
HEAD_DIMS = (16, 32, 64, 128)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def stats_tiles(query: Tensor) -> StatsTiles:
    """Return the tiles for a tensor's device and dtype; fp32 is for tests and gets small ones."""
    if not query.is_cuda or query.dtype == torch.float32:
        return FULL_PRECISION
    return TILES_BY_CAPABILITY.get(_capability(query), CONSUMER)


def use_tiles(query: Tensor, tiles: StatsTiles) -> None:
    """Take other tiles on the device of ``query`` in this process, for tuning."""
    TILES_BY_CAPABILITY[_capability(query)] = tiles


def _capability(query: Tensor) -> int:
    major, minor = torch.cuda.get_device_capability(query.device)
    return 10 * major + minor


def why_not(query: Tensor, map_size: int, *, interpreted: bool) -> str | None:
    """Return why the kernel cannot run for queries [B, N, H, D], or None."""
    if not query.is_cuda and not interpreted:
        return f"it needs a CUDA device, got {query.device}"
    if query.dtype not in DTYPES:
        return f"it needs float32, bfloat16 or float16, got {query.dtype}"
    if query.shape[-1] not in HEAD_DIMS:
        return f"head_dim must be one of {', '.join(map(str, HEAD_DIMS))}, got {query.shape[-1]}"
    if query.shape[1] * (map_size + 1) >= 2**31:
        return f"tokens times map_size must stay below 2^31, got {query.shape[1]} * {map_size}"
    return None
