"""Check the 24 GB recipe at full size: `python -m workbench.benchmarks.recipe_24gb --workspace W --out F`.

Measures a bank of all blocks at one rate, then finetunes the student with the preset "24gb", both under a
bound of 22 GB, on Wan2.1 1.3B with random weights of the exact architecture (the text encoder cut to one
layer). The file records peak memory, seconds a stage, and the time left as estimated after 20 updates beside
the true one. Nothing here says how good a student is. `--model FOLDER` takes another folder, on a CPU too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from workbench import distillation, planning, surgery
from workbench.distillation import room
from workbench.models import PlacementConfig
from workbench.models.placement import RESERVE
from workbench.types import SilentReporter
from workbench.workspace import Workspace, write_json

BOUND_GB = 22.0
ESTIMATED_AFTER = 20
KEPT_EVERY = 4
RATE = "R8"


class Clock(SilentReporter):
    """Keeps when every step of every stage was done, prints it, and calls `keep` every few steps."""

    def __init__(self, keep: Callable[[Clock], None] | None = None) -> None:
        self.stages: dict[str, list[float]] = {}
        self._keep = keep
        self._name = ""
        self._started = time.monotonic()

    def stage(self, name: str, steps: int) -> None:
        self._name = name
        self.stages[name] = [time.monotonic()]
        self._say(f"{name}, {steps} steps")

    def step(self, step: int, **_: Any) -> None:
        times = self.stages[self._name]
        times += [time.monotonic()] * (step + 1 - len(times))
        self._say(f"{self._name} {step}")
        if self._keep is not None and step % KEPT_EVERY == 0:
            self._keep(self)

    def _say(self, what: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self._started:.1f} s: {what}\n")
        sys.stdout.flush()

    def seconds(self) -> dict[str, float]:
        """Return how long each stage took."""
        return {name: round(times[-1] - times[0], 2) for name, times in self.stages.items()}

    def estimate(self, name: str, *, after: int) -> dict[str, float] | None:
        """Return the time left as the pace of the first steps foretells it, and the true one."""
        times = self.stages.get(name, [])
        if len(times) <= after + 1:
            return None
        left = len(times) - 1 - after
        foretold = (times[after] - times[0]) / after * left
        true = times[-1] - times[after]
        return {
            "after_updates": after,
            "foretold_seconds": round(foretold, 2),
            "true_seconds": round(true, 2),
            "relative_error": round(foretold / true - 1, 4),
        }


def random_folder(folder: Path) -> Path:
    """Write Wan2.1 1.3B with random weights in bfloat16 as a diffusers folder, unless it is there."""
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    from workbench.models.embedded.tokenizer import build_tokenizer

    if (folder / "model_index.json").is_file():
        return folder
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    transformer = WanTransformer3DModel(
        num_layers=30, num_attention_heads=12, attention_head_dim=128, ffn_dim=8960
    )
    words = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=4096,
        d_kv=64,
        d_ff=1024,
        num_layers=1,
        num_heads=64,
        pad_token_id=0,
    )
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(words).to(torch.bfloat16).eval(),
        vae=AutoencoderKLWan().eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer.to(torch.bfloat16).eval(),
    ).save_pretrained(folder)
    return folder


def main(words: list[str] | None = None) -> None:
    """Run both halves and write the record."""
    options = _options(words)
    workspace = Workspace.open(options.workspace)
    folder = options.model or random_folder(workspace.root / "wan-random")
    placement = PlacementConfig(memory_gb=BOUND_GB)
    record: dict[str, Any] = {
        "schema_version": 1,
        "command": f"python -m workbench.benchmarks.recipe_24gb --updates {options.updates}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": {name: version(name) for name in ("torch", "diffusers", "peft")},
        "weights": "random, exact architecture",
        "bound_gb": BOUND_GB,
    }
    bank = _measure(folder, workspace, placement, record)
    write_json(options.out, record)
    plan = planning.plan_blocks("all", RATE, planning.load_bank(bank).facts)
    student = surgery.save_student(plan, planning.load_bank(bank), workspace)
    _finetune(student, workspace, options, record)
    sys.stdout.write(f"{options.out}\n")


def _measure(folder: Path, workspace: Workspace, placement: PlacementConfig, record: dict[str, Any]) -> Path:
    config = distillation.MeasureConfig(
        model=str(folder),
        rates=(RATE,),
        updates=8,
        queries=128,
        num_prompts=1,
        num_held_out=1,
        steps=4,
        cache_megabytes=4096,
    )
    clock = Clock()
    _reset_peak()
    model = surgery.open_model(config.model, placement=placement)
    bank = distillation.measure(model, config, workspace, reporter=clock)
    record["measure"] = {
        "rate": RATE,
        "blocks": model.facts.num_blocks,
        "size": list(model.facts.default_size),
        "tokens": model.facts.token_grid(model.facts.default_size).num_tokens,
        "offload": model.placement.offload,
        "seconds": clock.seconds(),
        **_peak(),
    }
    return bank


def _finetune(
    student: Path, workspace: Workspace, options: argparse.Namespace, record: dict[str, Any]
) -> None:
    settings = {
        **distillation.preset("24gb"),
        "updates": options.updates,
        "num_prompts": 2,
        "num_held_out": 1,
    }
    config = distillation.FinetuneConfig(model=str(student), **settings)
    _reset_peak()
    model = surgery.open_model(config.model, placement=PlacementConfig(memory_gb=config.memory_gb))
    plan = surgery.read_student(student).plan
    estimate = room.estimate(model, config, plan) + RESERVE

    def keep(clock: Clock) -> None:
        record["finetune"] = {
            "plan": plan.short_name,
            "settings": settings,
            "estimated_peak_gb": round(estimate / 1e9, 2),
            "updates_done": len(clock.stages.get("finetuning", [None])) - 1,
            "seconds": clock.seconds(),
            "time_left": clock.estimate("finetuning", after=ESTIMATED_AFTER),
            **_peak(),
        }
        write_json(options.out, record)

    clock = Clock(keep)
    distillation.finetune(model, config, workspace, reporter=clock)
    keep(clock)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> dict[str, float | None]:
    """Return the peaks of this process on the GPU in 1e9 bytes; None on a CPU."""
    if not torch.cuda.is_available():
        return {"peak_allocated_gb": None, "peak_reserved_gb": None}
    return {
        "peak_allocated_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
    }


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="workbench.benchmarks.recipe_24gb", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/wan_24gb.json"))
    parser.add_argument("--updates", type=int, default=60, help="of the finetuning; more than 20")
    parser.add_argument("--model", type=Path, help="a diffusers folder instead of random weights")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
