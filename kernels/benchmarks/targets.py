"""Compile the Triton kernels for every generation of GPU without one: shared memory, registers, spills.

Shape: 12 heads of 128, 256 hidden units, 256 features, bf16. What fits is labelled compiled, not timed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.benchmarks.measuring import ResultFile
from kernels.hybrid_attention import triton_backward, triton_forward
from kernels.hybrid_attention.triton_tiles import Tiles, tiles_for

SHARED_LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
FP32 = {"log_scale", "weight", "denominator", "row_factor", "column_factor", "grad_scale_out", "grad_b1_out"}
FP32_STATE = {"state_kernel": {"state", "mass"}, "apply_kernel": {"mass"}}
FLOATS = {"inverse_count", "count", "mass_floor", "factor"}
UNALIGNED = {"linear_tokens", "tiles_per_split", "group", "skip", "tokens", "scale_h"}
COMMON = {"H": 12, "D": 128, "W": 256, "F": 256, "EDGE_1": 128, "EDGE_2": 256, "DEGREE": 2, "EXACT": False}
MAP = {"ACTIVATION": "gelu", "POSITIVITY": "relu", "HAS_MAP": True}
FLAGS = {"HAS_SOFTMAX": True, "HAS_WEIGHT": False, "KEEP_DENOMINATOR": True, "HAS_ROW": True}
POINTERS = re.compile(
    r"^(key|value|query|features|w[12]|b[12]|state|mass|output|softmax_out|tokens_in|left|right|.*_out)$"
)


def signature(kernel: Any, constants: dict[str, Any]) -> dict[str, str]:
    """Return the type of every argument as a bf16 launch has it."""
    name = kernel.fn.__name__
    wide = FP32 | {"grad_b2_out"} | FP32_STATE.get(name, set())

    def kind(argument: str) -> str:
        if argument in constants:
            return "constexpr"
        if argument in wide:
            return "*fp32"
        if POINTERS.match(argument):
            return "*bf16"
        return (
            "fp32"
            if argument in FLOATS and not (name == "map_backward_kernel" and argument == "count")
            else "i32"
        )

    return {argument: kind(argument) for argument in kernel.arg_names}


def compile_kernel(kernel: Any, tiles: Tiles, capability: int) -> dict[str, Any]:
    """Compile one kernel and return what it takes."""
    blocks = {"BLOCK_N": tiles.tokens, "BLOCK_W": tiles.hidden, "BLOCK_F": tiles.features}
    known = {**COMMON, **MAP, **FLAGS, **blocks, "STAGES": tiles.stages, "UNROLL": tiles.resident}
    constants = {name: known[name] for name in kernel.arg_names if name in known}
    types = signature(kernel, constants)
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if name not in constants and name not in FLOATS | UNALIGNED
    }
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(disassembler), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.findall(r"REG:(\d+) STACK:(\d+)", usage)[-1]
    return {
        "shared_kib": compiled.metadata.shared / 1024,
        "registers": int(registers),
        "stack_bytes": int(stack),
    }


def main() -> None:
    """Compile every kernel for every target and write what each takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out = ResultFile(arguments.out, torch.device("cpu"), "kernels.benchmarks.targets")
    for capability, limit in SHARED_LIMITS.items():
        tile_set = tiles_for(capability)
        for name, kernel, tiles in (
            ("state", triton_forward.state_kernel, tile_set.state),
            ("apply", triton_forward.apply_kernel, tile_set.apply),
            ("backward", triton_backward.map_backward_kernel, tile_set.backward),
        ):
            taken = compile_kernel(kernel, tiles, capability)
            fits = taken["shared_kib"] <= limit
            out.add(
                {"kernel": name, "capability": f"sm_{capability}", **taken, "limit_kib": limit, "fits": fits}
            )


if __name__ == "__main__":
    main()
