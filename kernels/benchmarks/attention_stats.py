"""Time attention statistics against dense attention.

Correctness first: every implementation is compared with the whole matrix. Each stride is timed with the
log-sum-exp given, as a capture may have it from its own attention, and without. On CUDA the tiles of the
kernel are tried first and the fastest are used; they go into ``triton_tiles.py`` by hand.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from kernels.attention_stats import attention_stats, resolve_stats_impl, softmax_with_lse
from kernels.attention_stats.triton_tiles import StatsTiles, use_tiles
from kernels.benchmarks.hybrid_attention import dense, dense_backend
from kernels.benchmarks.measuring import ResultFile, draw_heads, median_ms, short_dtype

GRIDS = {"cuda": (21, 30, 52), "cpu": (5, 16, 16)}
HEADS = {"cuda": (12, 128, torch.bfloat16), "cpu": (6, 32, torch.float32)}
STRIDES = {"cuda": (1, 4, 16), "cpu": (1, 4)}
CANDIDATES = (
    StatsTiles(queries=128, keys=64, warps=8, stages=3),
    StatsTiles(queries=128, keys=64, warps=8, stages=2),
    StatsTiles(queries=64, keys=64, warps=4, stages=3),
    StatsTiles(queries=128, keys=128, warps=8, stages=2),
    StatsTiles(queries=64, keys=128, warps=4, stages=2),
    StatsTiles(queries=128, keys=32, warps=8, stages=3),
    StatsTiles(queries=128, keys=64, warps=8, stages=3, group_frames=11),
)


def verify(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Compare with the whole matrix in fp64, the log-sum-exp given and not; exit on a difference."""
    query, key, value = draw_heads(1, 1_920, 2, head_dim, dtype=dtype, device=device, sets=1)[0]
    options = {"grid": (3, 16, 40), "query_stride": 3, "map_size": 7}
    expected = attention_stats(query.double(), key.double(), impl="reference", **options)  # type: ignore[arg-type]
    for lse in (None, softmax_with_lse(query, key, value)[1]):
        result = attention_stats(query, key, log_sum_exp=lse, **options)  # type: ignore[arg-type]
        for name, got, want in zip(expected._fields, result, expected, strict=True):
            if got.numel() and not (got.double() - want).norm() <= 1e-3 * want.norm():
                raise SystemExit(f"{name} differs from the whole matrix")


def time_stats(
    query: Tensor, key: Tensor, grid: tuple[int, int, int], stride: int, lse: Tensor | None, *, repeats: int
) -> float:
    """Return the median time in ms."""

    def run(_: int) -> object:
        return attention_stats(query, key, grid=grid, query_stride=stride, log_sum_exp=lse)

    return median_ms(run, device=query.device, repeats=repeats)


def tune(query: Tensor, key: Tensor, grid: tuple[int, int, int], out: ResultFile, deadline: float) -> None:
    """Time the candidates at stride 4 without log-sum-exp, and use the fastest from here on."""
    from triton.runtime.errors import OutOfResources

    times: dict[StatsTiles, float] = {}
    for tiles in CANDIDATES:
        if time.monotonic() > deadline:
            break
        use_tiles(query, tiles)
        try:
            times[tiles] = time_stats(query, key, grid, 4, None, repeats=5)
        except OutOfResources as error:
            out.add({**asdict(tiles), "failed": str(error)[:100]}, part="tiles")
            continue
        out.add({**asdict(tiles), "ms": round(times[tiles], 3)}, part="tiles")
    best = min(times, key=lambda tiles: times[tiles])
    use_tiles(query, replace(best))
    out.result["best_tiles"] = asdict(best)


def main() -> None:
    """Verify, tune on CUDA, time every stride with the log-sum-exp given and not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop trying tiles after this long")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    grid = GRIDS[device.type]
    heads, head_dim, dtype = HEADS[device.type]
    verify(device, dtype, head_dim)
    tokens = grid[0] * grid[1] * grid[2]
    query, key, value = draw_heads(1, tokens, heads, head_dim, dtype=dtype, device=device, sets=1)[0]
    lse = softmax_with_lse(query, key, value)[1]
    with torch.no_grad(), dense_backend(device):
        dense_ms = median_ms(lambda _: dense(query, key, value), device=device, repeats=15)
    out = ResultFile(arguments.out, device, "kernels.benchmarks.attention_stats")
    if device.type == "cuda":
        tune(query, key, grid, out, deadline)
    for stride in STRIDES[device.type]:
        for given in (True, False):
            ms = time_stats(query, key, grid, stride, lse if given else None, repeats=11)
            shape = {"n": tokens, "heads": heads, "head_dim": head_dim, "dtype": short_dtype(dtype)}
            times = {
                "ms": round(ms, 3),
                "dense_ms": round(dense_ms, 3),
                "times_dense": round(ms / dense_ms, 3),
            }
            used = resolve_stats_impl(query)
            out.add({**shape, "query_stride": stride, "log_sum_exp_given": given, "impl": used, **times})


if __name__ == "__main__":
    main()
