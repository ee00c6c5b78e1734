"""Make the example study that ships with the workbench: `python -m workbench.example.make`, minutes on a CPU.

It runs the quickstart study with every operator on the embedded model, finetunes the student for a minute,
compares again, and keeps the figures, the clips and a picture of the attention maps.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from workbench import capture, comparison, distillation, planning
from workbench.comparison import record
from workbench.doctor import device_words
from workbench.example import COMPARISON, FILE, FOLDER, MAPS, Example, ExampleCell
from workbench.types import ClipSize, SilentReporter
from workbench.workflow import PRESETS, compare, finetune, study
from workbench.workspace import Workspace, read_json, write_json

RATES = ("R2", "R4", "R8", "R16", "linear", "T3o1")
PRESET = "1min"
MAX_BYTES = 5_000_000
GAMMA = 0.5


class _Said(SilentReporter):
    """Says on the terminal which stage runs."""

    def stage(self, name: str, steps: int) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {name}\n")
        sys.stdout.flush()


def main() -> int:
    """Make the example in a workspace of its own and put it into the package."""
    with tempfile.TemporaryDirectory() as place:
        example = make(Workspace.open(Path(place) / "workspace"))
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    if size > MAX_BYTES:
        sys.stdout.write(f"The example has {size:,} bytes; at most {MAX_BYTES:,} may ship.\n")
        return 1
    sys.stdout.write(f"{example.short_name}: {size:,} bytes in {FOLDER}\n")
    return 0


def make(workspace: Workspace) -> Example:
    """Run the study in a workspace and write the example beside this file."""
    config = PRESETS["quickstart"].model_copy(update={"rates": RATES})
    made = study(config, workspace, _Said()).figures
    begun = time.monotonic()
    settings = {"model": made["student"], **distillation.preset(PRESET)}
    tuned = finetune(distillation.FinetuneConfig(**settings), workspace, _Said())
    tuned_seconds = time.monotonic() - begun
    again = comparison.CompareConfig(model=str(tuned.path), prompt=config.prompt, seed=config.seed)
    compared = compare(again, workspace, _Said()).path.parent
    example = _figures(config, made, tuned, compared, seconds=tuned_seconds)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    write_json(FOLDER / FILE, example.model_dump(mode="json"))
    shutil.copytree(compared, FOLDER / COMPARISON)
    _forget_places(FOLDER / COMPARISON / record.FILE)
    _draw_maps(Path(made["profile"]), FOLDER / MAPS)
    return example


def _figures(config: Any, made: Any, tuned: Any, compared: Path, *, seconds: float) -> Example:
    bank = planning.load_bank(Path(made["bank"]))
    plan = planning.load(made["plan"], bank.facts)
    counted = planning.cost(plan, bank.facts, ClipSize(*bank.manifest.size))
    first = comparison.read(Path(made["report"]).parent)
    last = comparison.read(compared)
    captured = capture.load(Path(made["profile"]))
    velocity = distillation.finetune_figures(tuned.path)["velocity_error"]
    errors = [bank.cell(block, spec).error for block, spec in plan.converted.items()]
    teacher, student = last.clips[:2]
    assert first.metrics is not None and last.metrics is not None
    return Example(
        model=bank.facts.name,
        fingerprint=bank.facts.fingerprint,
        prompt=config.prompt,
        seed=config.seed,
        plan=tuple(student.plan),
        short_name=plan.short_name,
        updates=config.updates,
        cells=tuple(
            ExampleCell(
                block=cell.block,
                label=cell.label,
                error=cell.error,
                error_low=cell.error_low,
                error_high=cell.error_high,
                error_off=cell.error_off,
            )
            for cell in bank.cells.values()
        ),
        mean_error=sum(errors) / bank.facts.num_blocks,
        attention_ratio=counted.attention_ratio,
        dit_ratio=counted.dit_ratio,
        mean_psnr=first.metrics.mean_psnr,
        mean_ssim=first.metrics.mean_ssim,
        finetune_updates=int(distillation.preset(PRESET)["updates"]),
        velocity_error_before=velocity["before"]["error"],
        velocity_error_after=velocity["after"]["error"],
        tuned_mean_psnr=last.metrics.mean_psnr,
        capture_seconds=captured.manifest.seconds,
        measure_seconds=sum(cell.seconds for cell in bank.cells.values()),
        finetune_seconds=seconds,
        teacher_seconds=teacher.seconds or 0.0,
        student_seconds=student.seconds or 0.0,
        device=device_words(),
        torch=version("torch"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _forget_places(document: Path) -> None:
    """Take the folders of this run out of the comparison; elsewhere they are nothing."""
    data = read_json(document, what="comparison")
    write_json(document, {**data, "restore": {}})


def _draw_maps(folder: Path, path: Path) -> None:
    """Draw the pooled maps of all blocks (rows) and heads (columns) as one grey picture."""
    from PIL import Image

    maps = capture.load(folder).metric("pooled")
    top = np.quantile(maps, 0.995, axis=(-2, -1), keepdims=True)
    grey = np.rint(255 * np.clip(maps / np.maximum(top, 1e-12), 0, 1) ** GAMMA).astype(np.uint8)
    blocks, heads, rows, columns = grey.shape
    sheet = grey.transpose(0, 2, 1, 3).reshape(blocks * rows, heads * columns)
    Image.fromarray(sheet).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
