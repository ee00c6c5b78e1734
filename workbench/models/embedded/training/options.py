"""What to train and how long: the options of a training run, from Python or from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from workbench.models.embedded.architecture import default_folder
from workbench.models.embedded.training.loop import Budget

STAGES = (
    "text",
    "vae-images",
    "vae-clips",
    "vae-finish",
    "vae-sharpen",
    "vae-orbits",
    "transformer",
    "transformer-finish",
    "sample",
    "export",
)
UNTIMED = ("sample", "export")
SHARES = {
    "text": 0.04,
    "vae-images": 0.04,
    "vae-clips": 0.07,
    "vae-finish": 0.24,
    "vae-sharpen": 0.05,
    "vae-orbits": 0.05,
    "transformer": 0.31,
    "transformer-finish": 0.2,
}
"""How `--stage all` divides its minutes."""


@dataclass(frozen=True)
class Options:
    """What to train and how long.

    Attributes:
        out: Output folder: parts, `log.jsonl`, `result.json`, contact sheets.
        budgets: Budget of every stage to run, in order.
        device: "cuda" or "cpu".
        seed: Seed of weights, clips and noise.
        resume: Go on from the parts in `out` (a part without files starts fresh).
        deadline: Seconds after which everything stops cleanly, or None.
        clips: Clips in the codec's pool.
        latents: Clips in the transformer's pool.
        held_out: Held-out clips for measures.
        workers: Processes that draw scenes.
        compact: Keep 16 bits of every number in checkpoints.
        compiled: Compile the transformer.
        compile_cache: File that keeps the compiled kernels between runs.
        batch: Clips a step; None for the stage's own.
        target: Where `export` writes.
        log_every: Steps between log lines.
        shipped: A diffusers folder whose weights a fresh transformer and text encoder start from; its codec
            is used as it is.
        optimizer: Of the transformer's matrices; "muon" makes their momentum orthogonal.
        fit_steps: Updates that fit a shipped transformer's text projection to a new text encoder.
        orbit_share: Share of the training clips in which something must orbit.
    """

    out: Path
    budgets: dict[str, Budget]
    device: str = "cpu"
    seed: int = 0
    resume: bool = False
    deadline: float | None = None
    clips: int = 2000
    latents: int = 8000
    held_out: int = 48
    workers: int = 1
    compact: bool = False
    compiled: bool = False
    compile_cache: Path | None = None
    batch: int | None = None
    target: Path | None = None
    log_every: int = 20
    shipped: Path | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    fit_steps: int = 800
    orbit_share: float = 0.0


def parse_options(arguments: Sequence[str] | None, *, description: str | None) -> Options:
    """Turn command-line arguments into options."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.models.embedded.train", description=description
    )
    parser.add_argument("--stage", default="all", help=f"all, or some of: {', '.join(STAGES)}")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--minutes", help="minutes: in all for --stage all, else one number per stage")
    parser.add_argument("--steps", help="steps per stage instead of minutes (repeatable to the bit)")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the output folder")
    parser.add_argument("--deadline", type=float, help="seconds after which to stop cleanly")
    parser.add_argument(
        "--resume-from-shipped",
        dest="shipped",
        type=Path,
        nargs="?",
        const=default_folder(),
        help="start transformer and text encoder from shipped weights, with their codec left as it is",
    )
    parser.add_argument("--optimizer", choices=["adamw", "muon"], help="of the transformer's matrices")
    parser.add_argument("--orbit-share", type=float, help="share of training clips that must show an orbit")
    parser.add_argument("--target", type=Path, help="where export writes (default: the shipped weights)")
    parser.add_argument("--compact", action="store_true", help="16-bit checkpoints, for transport")
    parser.add_argument("--compile", action="store_true", dest="compiled", help="compile the transformer")
    parser.add_argument("--compile-cache", type=Path, help="file that keeps compiled kernels between runs")
    numbers = ("seed", "clips", "latents", "held-out", "workers", "batch", "log-every", "fit-steps")
    for name in numbers:
        parser.add_argument(f"--{name}", type=int)
    values = vars(parser.parse_args(arguments))
    stages = list(STAGES) if values["stage"] == "all" else values.pop("stage").split(",")
    values.pop("stage", None)
    budgets = _budgets(stages, values.pop("minutes"), values.pop("steps"), parser)
    return Options(budgets=budgets, **{key: value for key, value in values.items() if value is not None})


def _budgets(
    stages: list[str], minutes: str | None, steps: str | None, parser: argparse.ArgumentParser
) -> dict[str, Budget]:
    trained = [stage for stage in stages if stage not in UNTIMED]
    if steps is not None:
        counts = [int(value) for value in steps.split(",")]
        counts = counts * len(trained) if len(counts) == 1 else counts
        budgets = dict(zip(trained, (Budget(steps=count) for count in counts), strict=False))
    elif minutes is not None:
        spans = [float(value) for value in minutes.split(",")]
        if len(spans) == 1 and len(trained) > 1:
            spans = [spans[0] * SHARES.get(stage, 0) for stage in trained]
        budgets = dict(zip(trained, (Budget(minutes=span) for span in spans), strict=False))
    else:
        budgets = {}
    if len(budgets) != len(trained):
        parser.error("give --minutes or --steps: one number, or one for every stage")
    return budgets | {stage: Budget(steps=0) for stage in stages if stage in UNTIMED}
