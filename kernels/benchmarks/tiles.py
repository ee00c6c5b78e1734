"""Time tile candidates of the Triton kernels on this device, and the ways to a map's gradient.

First every kernel alone; then a distillation step and a full backward for every ``GradientPlan`` with the
best tiles. The result names the fastest of each; it goes into ``triton_tiles.py`` by hand, or into one run of
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

from kernels.benchmarks.hybrid_attention import (
    MAIN_SHAPE,
    draw_maps,
    time_pass,
    use_tile_set,
    verify,
    with_tensors,
)
from kernels.benchmarks.measuring import ResultFile, chosen, draw_heads, median_ms
from kernels.hybrid_attention import triton_host
from kernels.hybrid_attention.triton_gradients import FeatureGradient, map_gradients, token_products
from kernels.hybrid_attention.triton_tiles import GradientPlan, Tiles, TileSet, tiles_for

CANDIDATES = {
    "apply": [
        Tiles(128, 64, 256, 8, 2),
        Tiles(64, 64, 256, 8, 2),
        Tiles(64, 32, 256, 8, 2),
        Tiles(128, 32, 256, 16, 3),
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
    "one_pass": [
        Tiles(64, 256, 32, 8, 2),
        Tiles(64, 256, 64, 8, 2),
        Tiles(64, 256, 64, 8, 1),
        Tiles(64, 256, 32, 8, 3),
    ],
    "products": [
        Tiles(64, 128, 128, 8, 3),
        Tiles(64, 128, 256, 8, 3),
        Tiles(64, 128, 128, 4, 3),
        Tiles(128, 128, 128, 8, 2),
    ],
}
PLANS = [GradientPlan(a, b) for a in (False, True) for b in (False, True)]


def runs_of(device: torch.device, current: TileSet) -> dict[str, Callable[[Tiles], Callable[[int], object]]]:
    """Return, for every kernel, what to time for given tiles: rate linear, main shape, bf16."""
    query, key, value = draw_heads(*MAIN_SHAPE, dtype=torch.bfloat16, device=device, sets=1)[0]
    maps = draw_maps(MAIN_SHAPE[2], MAIN_SHAPE[3], device, torch.bfloat16)
    _, processors = triton_host.hardware(query)
    state = triton_host.linear_state(
        key, value, None, maps[1], rate=None, tiles=current.state, processors=processors
    )
    row = torch.randn(MAIN_SHAPE[2], MAIN_SHAPE[1], device=device)
    gradient = FeatureGradient(value, state[0], row, state[1], float(state[2]))
    built = with_tensors(maps[0], list(maps[0].tensors))
    arguments = triton_host.map_arguments(built, query)
    wide = torch.cat([query, key], dim=3)

    def run_state(tiles: Tiles) -> Callable[[int], object]:
        return lambda _: triton_host.linear_state(
            key, value, None, maps[1], rate=None, tiles=tiles, processors=processors
        )

    def run_apply(tiles: Tiles) -> Callable[[int], object]:
        return lambda _: triton_host.apply_state(
            query, None, maps[0], state, (value, None), tiles=tiles, keep_denominator=False
        )

    def gradient_of_map(tile_set: TileSet) -> Callable[[int], object]:
        return lambda _: map_gradients(
            query, built, gradient, arguments, rate=0, tile_set=tile_set, needs_input=False
        )

    return {
        "apply": run_apply,
        "state": run_state,
        "backward": lambda tiles: gradient_of_map(with_tiles(current, "backward", tiles)),
        "one_pass": lambda tiles: gradient_of_map(
            replace(with_tiles(current, "one_pass", tiles), gradients=GradientPlan(one_pass=True))
        ),
        "products": lambda tiles: lambda _: token_products(wide, wide, tiles=tiles),
    }


def with_tiles(tile_set: TileSet, name: str, tiles: Tiles) -> TileSet:
    """Return the set with the tiles of one kernel replaced."""
    return TileSet.from_json({**asdict(tile_set), name: asdict(tiles)})


def try_plans(device: torch.device, best: TileSet, capability: int, out: ResultFile) -> TileSet:
    """Verify and time every plan; return the set with the plan of the fastest distillation step."""
    sets = draw_heads(*MAIN_SHAPE, dtype=torch.bfloat16, device=device, sets=2)
    maps = draw_maps(MAIN_SHAPE[2], MAIN_SHAPE[3], device, torch.bfloat16)
    fastest = float("inf")
    for plan in PLANS:
        tried = replace(best, gradients=plan)
        use_tile_set(capability, tried)
        verify(device, torch.bfloat16, ("triton",), MAIN_SHAPE[3], out)
        steps = {rate: time_pass("distillation", sets, maps, device, rate, "triton") for rate in (4, 8, None)}
        backward = time_pass("backward", sets, maps, device, 8, "triton")
        times = {f"distillation_{'linear' if rate is None else f'R{rate}'}": ms for rate, ms in steps.items()}
        times["backward_R8"] = backward
        out.add({**asdict(plan), **{name: round(ms, 3) for name, ms in times.items()}}, part="gradients")
        if steps[None] < fastest:
            fastest, best = steps[None], tried
    return best


def main() -> None:
    """Time every candidate of the chosen kernels, then the plans."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kernels", default=",".join(CANDIDATES), help="kernels whose tiles are tried")
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    device = torch.device("cuda")
    major, minor = torch.cuda.get_device_capability()
    capability = 10 * major + minor
    current = best = tiles_for(capability)
    out = ResultFile(arguments.out, device, "kernels.benchmarks.tiles")
    out.result["capability"] = capability
    runs = runs_of(device, current)
    for name in chosen(arguments.kernels, tuple(CANDIDATES)):
        fastest = float("inf")
        for tiles in CANDIDATES[name]:
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
    del runs
    best = try_plans(device, best, capability, out)
    out.result["best"] = asdict(best)
    out.write()
    print("fastest:", best.gradients)


if __name__ == "__main__":
    main()
