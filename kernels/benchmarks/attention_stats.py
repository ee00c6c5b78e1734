"""Time attention statistics against dense attention.

Correctness first: the chunked form is compared with the whole matrix. The log-sum-exp is given, as a
capture has it from its own attention.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from kernels.attention_stats import attention_stats, softmax_with_lse
from kernels.benchmarks.hybrid_attention import dense, dense_backend
from kernels.benchmarks.measuring import ResultFile, draw_heads, median_ms, short_dtype

GRIDS = {"cuda": (21, 30, 52), "cpu": (5, 16, 16)}
HEADS = {"cuda": (12, 128, torch.bfloat16), "cpu": (6, 32, torch.float32)}


def verify(device: torch.device) -> None:
    """Compare with the whole matrix in fp64; exit on a difference."""
    query, key, value = draw_heads(1, 120, 2, 32, dtype=torch.float32, device=device, sets=1)[0]
    options = {"grid": (3, 5, 8), "query_stride": 3, "map_size": 7}
    lse = softmax_with_lse(query, key, value)[1]
    result = attention_stats(query, key, log_sum_exp=lse, **options)  # type: ignore[arg-type]
    expected = attention_stats(query.double(), key.double(), impl="reference", **options)  # type: ignore[arg-type]
    for name, got, want in zip(expected._fields, result, expected, strict=True):
        if got.numel() and not (got.double() - want).norm() <= 1e-4 * want.norm():
            raise SystemExit(f"{name} differs from the whole matrix")


def time_stats(
    query: Tensor, key: Tensor, grid: tuple[int, int, int], stride: int, lse: Tensor | None
) -> float:
    """Return the median time in ms."""

    def run(_: int) -> object:
        return attention_stats(query, key, grid=grid, query_stride=stride, log_sum_exp=lse)

    return median_ms(run, device=query.device, repeats=9 if query.is_cuda else 15)


def main() -> None:
    """Verify, time strides 1 and 4, with the log-sum-exp given and not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    verify(device)
    grid = GRIDS[device.type]
    heads, head_dim, dtype = HEADS[device.type]
    tokens = grid[0] * grid[1] * grid[2]
    query, key, value = draw_heads(1, tokens, heads, head_dim, dtype=dtype, device=device, sets=1)[0]
    lse = softmax_with_lse(query, key, value)[1]
    with torch.no_grad(), dense_backend(device):
        dense_ms = median_ms(lambda _: dense(query, key, value), device=device, repeats=15)
    out = ResultFile(arguments.out, device, "kernels.benchmarks.attention_stats")
    for stride in (1, 4):
        for given in (True, False):
            ms = time_stats(query, key, grid, stride, lse if given else None)
            shape = {"n": tokens, "heads": heads, "head_dim": head_dim, "dtype": short_dtype(dtype)}
            times = {
                "ms": round(ms, 3),
                "dense_ms": round(dense_ms, 3),
                "times_dense": round(ms / dense_ms, 3),
            }
            out.add({**shape, "query_stride": stride, "log_sum_exp_given": given, "impl": "chunked", **times})


if __name__ == "__main__":
    main()
