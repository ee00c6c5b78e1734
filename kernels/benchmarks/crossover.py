"""Find the tokens from which hybrid attention beats dense attention on this device.

Doubles the tokens from a small start; a rate's crossover is the smallest size from which it is faster at
every larger size that was timed. Interpolating between sizes is left to the reader: both neighbours are in
the rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kernels.benchmarks.hybrid_attention import RATES, Heads, dense, dense_backend, draw_maps
from kernels.benchmarks.measuring import ResultFile, draw_heads, median_ms, repeats_for, short_dtype
from kernels.hybrid_attention import MapParameters, hybrid_attention_from_maps, resolve_impl


def crossovers(rows: list[dict[str, object]]) -> dict[str, int | None]:
    """Return for every rate the size from which it is faster than dense at all sizes, None if never."""
    found: dict[str, int | None] = {}
    for rate in RATES:
        name = "linear" if rate is None else f"R{rate}"
        ratios = {int(str(row["n"])): float(str(row["ratio"])) for row in rows if row["rate"] == rate}
        slow = [tokens for tokens, ratio in ratios.items() if ratio <= 1]
        fast = [tokens for tokens in ratios if not slow or tokens > max(slow)]
        found[name] = min(fast, default=None)
    return found


def from_maps(
    query: Tensor, key: Tensor, value: Tensor, *, maps: list[MapParameters], rate: int | None
) -> Tensor:
    """Run the operator as ``auto`` chooses."""
    return hybrid_attention_from_maps(query, key, value, maps[0], maps[1], rate=rate)


def time_rotating(
    sets: list[Heads], operator: Callable[..., Tensor], device: torch.device, repeats: int | None = None
) -> tuple[float, int]:
    """Return the median time over rotating inputs, and how many repeats it took."""

    def run(index: int) -> object:
        return operator(*sets[index % len(sets)])

    repeats = repeats or repeats_for(median_ms(run, device=device, repeats=3))
    return median_ms(run, device=device, repeats=repeats), repeats


def main() -> None:
    """Time every size and rate, forward, and print the crossovers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=None, help="default: 12 on CUDA, 6 on a CPU")
    parser.add_argument("--head-dim", type=int, default=None, help="default: 128 on CUDA, 32 on a CPU")
    parser.add_argument(
        "--largest", type=int, default=None, help="default: 32768 tokens on CUDA, 4096 on a CPU"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    on_cuda = device.type == "cuda"
    dtype = torch.bfloat16 if on_cuda else torch.float32
    heads = arguments.heads or (12 if on_cuda else 6)
    head_dim = arguments.head_dim or (128 if on_cuda else 32)
    largest = arguments.largest or (32_768 if on_cuda else 4_096)
    maps = draw_maps(heads, head_dim, device, dtype)
    out = ResultFile(arguments.out, device, "kernels.benchmarks.crossover")
    tokens = 256
    while tokens <= largest:
        sets = draw_heads(1, tokens, heads, head_dim, dtype=dtype, device=device, sets=3)
        with torch.no_grad(), dense_backend(device):
            dense_ms, repeats = time_rotating(sets, dense, device)
        for rate in RATES:
            operator = partial(from_maps, maps=maps, rate=rate)
            with torch.no_grad():
                ms, _ = time_rotating(sets, operator, device, repeats=repeats)
            row = {
                "n": tokens,
                "heads": heads,
                "head_dim": head_dim,
                "dtype": short_dtype(dtype),
                "rate": rate,
            }
            used = resolve_impl(sets[0][0], rate=rate)
            times = {"ms": round(ms, 4), "dense_ms": round(dense_ms, 4), "ratio": round(dense_ms / ms, 3)}
            out.add({**row, "impl": used, **times})
        tokens *= 2
    out.result["crossover_tokens"] = crossovers(out.result["rows"])
    out.write()
    print(json.dumps(out.result["crossover_tokens"]))


if __name__ == "__main__":
    main()
