"""Time tile candidates of the Triton kernels on this device.

The result names the fastest of each kernel; it goes into ``triton_tiles.py`` by hand, or into one run of
the benchmark with ``--tiles PATH``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
import triton

from kernels.benchmarks.hybrid_attention import MAIN_SHAPE, draw_maps, with_tensors
from kernels.benchmarks.measuring import ResultFile, draw_heads, median_ms
from kernels.hybrid_attention import triton_host
from kernels.hybrid_attention.triton_gradients import FeatureGradient, map_gradients
from kernels.hybrid_attention.triton_tiles import Tiles, TileSet, tiles_for

CANDIDATES = {
    "apply": [
        Tiles(64, 64, 256, 8, 2),
        Tiles(64, 32, 256, 8, 2),
        Tiles(128, 32, 256, 16, 3),
        Tiles(128, 64, 256, 8, 2),
        Tiles(64, 32, 256, 8, 3),
    ],
    "state": [
        Tiles(128, 64, 128, 8, 2),
        Tiles(64, 64, 128, 8, 2),
        Tiles(64, 32, 64, 8, 2),
        Tiles(64, 64, 128, 8, 2, resident=True),
        Tiles(128, 128, 64, 8, 2),
        Tiles(128, 64, 64, 8, 2),
    ],
    "backward": [
        Tiles(64, 64, 64, 4, 2),
        Tiles(128, 64, 64, 8, 2),
        Tiles(64, 128, 128, 8, 2),
        Tiles(64, 64, 128, 8, 2),
    ],
}


def with_tiles(tile_set: TileSet, name: str, tiles: Tiles) -> TileSet:
    """Return the set with the tiles of one kernel replaced."""
    return TileSet.from_json({**asdict(tile_set), name: asdict(tiles)})


def main() -> None:
    """Time every candidate of every kernel, linear rate, on the main shape in bf16."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    device = torch.device("cuda")
    query, key, value = draw_heads(*MAIN_SHAPE, dtype=torch.bfloat16, device=device, sets=1)[0]
    maps = draw_maps(MAIN_SHAPE[2], MAIN_SHAPE[3], device, torch.bfloat16)
    capability = 10 * torch.cuda.get_device_capability()[0] + torch.cuda.get_device_capability()[1]
    current = tiles_for(capability)
    _, processors = triton_host.hardware(query)
    state = triton_host.linear_state(
        key, value, None, maps[1], rate=None, tiles=current.state, processors=processors
    )
    row = torch.randn(MAIN_SHAPE[2], MAIN_SHAPE[1], device=device)
    gradient = FeatureGradient(value, state[0], row, state[1], float(state[2]))
    built = with_tensors(maps[0], list(maps[0].tensors))

    def run_state(tiles: Tiles) -> Callable[[int], object]:
        return lambda _: triton_host.linear_state(
            key, value, None, maps[1], rate=None, tiles=tiles, processors=processors
        )

    def run_apply(tiles: Tiles) -> Callable[[int], object]:
        return lambda _: triton_host.apply_state(
            query, None, maps[0], state, (value, None), tiles=tiles, keep_denominator=False
        )

    def run_backward(tiles: Tiles) -> Callable[[int], object]:
        arguments_of_map = triton_host.map_arguments(built, query)
        return lambda _: map_gradients(
            query,
            built,
            gradient,
            arguments_of_map,
            rate=0,
            tile_set=replace(current, backward=tiles),
            needs_input=False,
        )

    runs = {"apply": run_apply, "state": run_state, "backward": run_backward}
    out = ResultFile(arguments.out, device, "kernels.benchmarks.tiles")
    best = current
    for name, candidates in CANDIDATES.items():
        fastest = float("inf")
        for tiles in candidates:
            if time.monotonic() > deadline:
                break
            try:
                ms = median_ms(runs[name](tiles), device=device, repeats=7)
            except triton.runtime.errors.OutOfResources as error:
                print(name, tiles, error, flush=True)
                continue
            out.add({"kernel": name, **asdict(tiles), "ms": round(ms, 4)})
            if ms < fastest:
                fastest, best = ms, with_tiles(best, name, tiles)
    out.result["capability"] = capability
    out.result["best"] = asdict(best)
    out.write()


if __name__ == "__main__":
    main()
