"""Compile the Triton kernels for every generation of GPU without one: shared memory, registers, spills.

Shape: 12 heads of 128, 256 hidden units, 256 features, 21 frames of 30 x 52 tokens, bf16. What fits is
labelled compiled, not timed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.attention_stats import triton_tiles as stats_tiles
from kernels.attention_stats.triton_kernel import stats_kernel
from kernels.attention_stats.triton_tiles import StatsTiles
from kernels.benchmarks.measuring import ResultFile
from kernels.elementwise import triton_kernels as elementwise
from kernels.hybrid_attention import triton_backward, triton_forward, triton_one_pass
from kernels.hybrid_attention.triton_tiles import Tiles, tiles_for

SHARED_LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
MAP = {
    **{"H": 12, "D": 128, "W": 256, "F": 256, "EDGE_1": 128, "EDGE_2": 256, "DEGREE": 2, "EXACT": False},
    **{"ACTIVATION": "gelu", "POSITIVITY": "relu", "HAS_MAP": True},
}
FP32 = {"log_scale", "weight", "denominator", "row_factor", "column_factor", "grad_scale_out", "grad_b1_out"}
FP32 |= {"grad_b2_out", "mass", "grad_mass", "vector", "vector_out", "out", "log_sum_exp", "shift_out"}
FP32 |= {"own_out", "moment_out", "segments_out", "discs_out", "gate", "scale_row", "shift", "cosine", "sine"}
FLOATS = {"inverse_count", "mass_floor", "factor", "eps"}
STRIDE = re.compile(r"^\w+_[bnh]$")
NOT_POINTERS = re.compile(
    r"^(count|tokens|linear_tokens|tiles_per_split|group|skip|skip_a|skip_b|frames|places|width|stride|map_size"
    r"|group_frames|first_row|\w+_[bnh])$"
)


@dataclass(frozen=True)
class Launch:
    """Name one kernel with its compile-time constants; ``types`` are what the rules below would get wrong."""

    name: str
    kernel: Any
    constants: dict[str, Any]
    warps: int
    stages: int
    types: dict[str, str]


def signature(launch: Launch) -> dict[str, str]:
    """Return the type of every argument as a bf16 launch has it."""

    def kind(argument: str) -> str:
        if argument in launch.constants:
            return "constexpr"
        if argument in launch.types:
            return launch.types[argument]
        if argument in FLOATS:
            return "fp32"
        if NOT_POINTERS.match(argument):
            return "i32"
        return "*fp32" if argument in FP32 else "*bf16"

    return {argument: kind(argument) for argument in launch.kernel.arg_names}


def map_launch(name: str, kernel: Any, tiles: Tiles, **more: Any) -> Launch:
    """Return the launch of a kernel that evaluates a feature map."""
    blocks = {"BLOCK_N": tiles.tokens, "BLOCK_W": tiles.hidden, "BLOCK_F": tiles.features}
    known = {**MAP, **blocks, "STAGES": tiles.stages, "UNROLL": tiles.resident, **more}
    constants = {name: known[name] for name in kernel.arg_names if name in known}
    types = {"state": "*fp32"} if name == "state" else {}
    if name == "apply":
        types["count"] = "fp32"
    return Launch(name, kernel, constants, tiles.warps, tiles.stages, types)


def stats_launch(name: str, tiles: StatsTiles, *, has_lse: bool) -> Launch:
    """Return the launch of the statistics kernel on 21 frames and a map of 32."""
    constants = {"H": 12, "D": 128, "SEGMENTS": 64, "DISCS": 8, "EDGES": 7, "PARTS": 2, "RAGGED": True}
    constants |= {"BLOCK_M": tiles.queries, "BLOCK_K": tiles.keys, "STAGES": tiles.stages, "HAS_LSE": has_lse}
    return Launch(name, stats_kernel, constants, tiles.warps, tiles.stages, {"scale": "fp32"})


def launches(capability: int) -> Iterator[Launch]:
    """Yield every kernel with the tiles of a generation."""
    tiles = tiles_for(capability)
    flags = {"HAS_SOFTMAX": True, "HAS_WEIGHT": False, "KEEP_DENOMINATOR": True}
    yield map_launch("state", triton_forward.state_kernel, tiles.state)
    yield map_launch("apply", triton_forward.apply_kernel, tiles.apply, **flags)
    yield map_launch("backward", triton_backward.map_backward_kernel, tiles.backward, HAS_ROW=True)
    one_pass = triton_one_pass.map_backward_one_pass_kernel
    yield map_launch("backward, one pass", one_pass, tiles.one_pass, HAS_ROW=True, STORE_PHI=True)
    products = {
        "H": 12,
        "A": 256,
        "B": 256,
        "BLOCK_A": tiles.products.hidden,
        "STAGES": tiles.products.stages,
    }
    products |= {"BLOCK_B": tiles.products.features, "BLOCK_N": tiles.products.tokens, "HAS_VECTOR": False}
    kernel = triton_one_pass.token_products_kernel
    yield Launch("products over tokens", kernel, products, tiles.products.warps, tiles.products.stages, {})
    prepare = {"H": 12, "D": 128, "BLOCK_N": 64}
    yield Launch("backward, output", triton_backward.prepare_kernel, prepare, 4, 3, {})
    of_stats = stats_tiles.TILES_BY_CAPABILITY[capability]
    yield stats_launch("statistics", of_stats, has_lse=False)
    yield stats_launch("statistics, log-sum-exp given", of_stats, has_lse=True)
    norm = {"C": 1536, "BLOCK": 2048, "HAS_UPDATE": True, "HAS_GATE": True, "HAS_NORM": True}
    norm |= {"HAS_SCALE": True, "HAS_SHIFT": True, "ONE_PLUS": True}
    yield Launch("sum and norm", elementwise.residual_norm_kernel, norm, 4, 3, {"scale": "*fp32"})
    rotate = {"C": 1536, "D": 128, "PAIRS": 1024, "ROTATE": True}
    yield Launch("norm and rotation", elementwise.rms_norm_rotate_kernel, rotate, 4, 3, {"weight": "*bf16"})


def compile_launch(launch: Launch, capability: int) -> dict[str, Any]:
    """Compile one kernel and return what it takes."""
    types = signature(launch)
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, (name, kind) in enumerate(types.items())
        if kind.startswith("*") or (STRIDE.match(name) and not name.startswith(("scale_", "lse_")))
    }
    source = ASTSource(launch.kernel, types, constexprs=launch.constants, attrs=aligned)
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(disassembler), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.findall(r"REG:(\d+) STACK:(\d+)", usage)[-1]
    return {
        "shared_kib": round(compiled.metadata.shared / 1024, 1),
        "registers": int(registers),
        "stack_bytes": int(stack),
    }


def main() -> None:
    """Compile every kernel for every target and write what each takes; exit 1 if one does not fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", default=",".join(map(str, SHARED_LIMITS)))
    arguments = parser.parse_args()
    out = ResultFile(arguments.out, torch.device("cpu"), "kernels.benchmarks.targets")
    for capability in map(int, arguments.targets.split(",")):
        limit = SHARED_LIMITS[capability]
        for launch in launches(capability):
            taken = compile_launch(launch, capability)
            row = {"kernel": launch.name, "capability": f"sm_{capability}", "warps": launch.warps, **taken}
            out.add({**row, "limit_kib": limit, "fits": taken["shared_kib"] <= limit})
    if not all(row["fits"] for row in out.result["rows"]):
        raise SystemExit("a kernel takes more shared memory than its target has")


if __name__ == "__main__":
    main()
