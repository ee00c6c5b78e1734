"""Time Wan at full size with random weights: `python -m workbench.benchmarks.wan_forward --help`.

Every ratio is of one run: dense attention by cuDNN against the student, both eager, or both with fused
element-wise work, or both compiled. Weights are random, so nothing here says how good a student is. `--tiny`
runs every part on two narrow blocks, on a CPU too: it tests the benchmark, and its rows are named tiny.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kernels.benchmarks.measuring import ResultFile, chosen
from workbench.benchmarks import wan_parts, wan_work
from workbench.benchmarks.wan_model import RandomWan, Setting, random_wan
from workbench.benchmarks.wan_parts import Run
from workbench.types import ClipSize

SMALL = "wan2.1-t2v-1.3b"
LARGE = "wan2.2-ti2v-5b"
SIZES = {SMALL: ClipSize(81, 480, 832), LARGE: ClipSize(81, 704, 1280)}
TINY_SIZES = {SMALL: ClipSize(9, 64, 96), LARGE: ClipSize(9, 128, 128)}
PUBLISHED = {
    "source": "arXiv 2601.04342, Wan2.2-5B, 18,480 tokens, one H100, ms eager / compiled",
    "original": [870, 667],
    "attention_surgery": [1006, 537],
    "rehyat": [1757, 544],
}
PARTS: dict[str, tuple[str, Callable[[Run, RandomWan], None]]] = {
    "numerics": (SMALL, wan_work.numerics),
    "split": (SMALL, wan_parts.split),
    "speed": (SMALL, lambda run, model: wan_parts.speed(run, model, ("eager", "fused"))),
    "generation": (SMALL, wan_parts.generation),
    "capture": (SMALL, wan_work.capture),
    "bank": (SMALL, wan_work.bank_update),
    "lengths": (SMALL, wan_parts.lengths),
    "large": (
        LARGE,
        lambda run, model: wan_parts.speed(run, model, ("eager", "fused"), ("15xR2", "30xR8", "30xT3o1")),
    ),
    "compiled": (SMALL, lambda run, model: wan_parts.speed(run, model, ("compiled",))),
}
TINY_LENGTHS = (9, 13)


def main(words: list[str] | None = None) -> None:
    """Run the chosen parts in order, writing every row at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=1200.0, help="start nothing new after this long")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--append", action="store_true", help="keep the rows that the file has")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args(words)
    device = torch.device(arguments.device)
    out = ResultFile(arguments.out, device, "workbench.benchmarks.wan_forward")
    if arguments.append and arguments.out.exists():
        resume(out)
    out.result["published"] = PUBLISHED
    run = Run(out, time.monotonic() + arguments.seconds, arguments.repeats)
    sizes = TINY_SIZES if arguments.tiny else SIZES
    model: RandomWan | None = None
    for part in chosen(arguments.parts, tuple(PARTS)):
        if run.is_late:
            break
        name, measure = PARTS[part]
        if model is None or model.setting.name != name:
            model = None
            setting = Setting(name, sizes[name], arguments.tiny)
            model = random_wan(setting, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        if part == "lengths" and arguments.tiny:
            wan_parts.lengths(run, model, TINY_LENGTHS)
        else:
            measure(run, model)
    out.write()


def resume(out: ResultFile) -> None:
    """Take over the rows of the file; refuse those of other hardware or versions."""
    before = json.loads(out.path.read_text())
    for name in ("hardware", "versions"):
        if before[name] != out.result[name]:
            raise SystemExit(f"{out.path} holds rows of other {name}; write to another file")
    out.result = {**before, "date": out.result["date"], "command": before["command"]}


if __name__ == "__main__":
    main()
