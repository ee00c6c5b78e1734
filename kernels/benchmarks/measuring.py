"""Timing, memory, and the frame of a result file. Knows nothing about any operator."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def median_ms(run: Callable[[int], object], *, device: torch.device, repeats: int, warm_up: int = 2) -> float:
    """Return the median time of ``run(i)``, i counting calls so that a caller can rotate its inputs.

    On CUDA by events around every call, the queue kept full; on a CPU by processor time where torch has one
    thread (other programs then disturb less), else by the clock.
    """
    for index in range(warm_up):
        run(index)
    if device.type != "cuda":
        return statistics.median(_seconds(run, index) for index in range(repeats)) * 1e3
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize(device)
    for index, (start, end) in enumerate(events):
        start.record()
        run(index)
        end.record()
    torch.cuda.synchronize(device)
    return statistics.median(start.elapsed_time(end) for start, end in events)


def _seconds(run: Callable[[int], object], index: int) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run(index)
    return clock() - start


def repeats_for(first_ms: float, *, budget_ms: float = 400.0) -> int:
    """Return how many repeats fit a budget of device time, between 5 and 30."""
    return int(min(30, max(5, budget_ms / max(first_ms, 1e-3))))


def peak_extra_mib(run: Callable[[], object], device: torch.device) -> float | None:
    """Return the peak memory that ``run`` adds, its result included, in MiB (CUDA only)."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = run()
    torch.cuda.synchronize(device)
    del result
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def draw_heads(
    batch: int, tokens: int, heads: int, head_dim: int, *, dtype: torch.dtype, device: torch.device, sets: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw ``sets`` of query, key and value [B, N, H, D] from a normal distribution, seeded."""
    generator = torch.Generator(device=device).manual_seed(0)
    shape = (batch, tokens, heads, head_dim)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(dtype)

    return [(draw(), draw(), draw()) for _ in range(sets)]


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe the device that was measured."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "device": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return {"device": _processor(), "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Return versions of python, torch, cuDNN and triton where present."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    try:
        import triton
    except ImportError:
        return found
    return {**found, "triton": triton.__version__}


class ResultFile:
    """A result that is rewritten after every row, so that a run cut short leaves what it measured."""

    def __init__(self, path: Path, device: torch.device, module: str) -> None:
        self.path = path
        self.result: dict[str, Any] = {
            "hardware": hardware(device),
            "versions": versions(),
            "command": f"python -m {module} {' '.join(sys.argv[1:])}",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "rows": [],
        }

    def add(self, row: dict[str, Any], *, part: str = "rows") -> None:
        """Append a row and write the file."""
        self.result.setdefault(part, []).append(row)
        self.write()
        print(part, json.dumps(row), flush=True)

    def write(self) -> None:
        """Write the file, one row a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        head = {name: value for name, value in self.result.items() if not isinstance(value, list)}
        parts = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        for name, rows in self.result.items():
            if isinstance(rows, list):
                lines = ",\n    ".join(json.dumps(row) for row in rows)
                parts.append(
                    f"  {json.dumps(name)}: [\n    {lines}\n  ]" if rows else f"  {json.dumps(name)}: []"
                )
        self.path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def short_dtype(dtype: torch.dtype) -> str:
    """Return ``bf16``, ``fp16``, ``fp32`` or ``fp64``."""
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64"}
    return names[dtype]


def chosen(names: str, known: Sequence[str]) -> list[str]:
    """Split a comma-separated choice, refusing unknown names."""
    picked = names.split(",")
    unknown = [name for name in picked if name not in known]
    if unknown:
        raise SystemExit(f"unknown {', '.join(unknown)}, expected some of {', '.join(known)}")
    return picked
