"""Make the bank that ships with the workbench: measured, kept in half precision, measured again as it ships.

    python -m workbench.distillation.ship

Writes `workbench/planning/banks/embedded`, which `--bank embedded` names. The errors in it are those of the
weights as they are reloaded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from workbench.distillation.cell_pool import CellPool
from workbench.distillation.config import MeasureConfig, check
from workbench.distillation.measure import Distillation, measure
from workbench.distillation.sensitivity import SensitivityConfig, measure_sensitivity
from workbench.distillation.team import Team
from workbench.distillation.trajectories import TrajectoryCache
from workbench.models import LoadedModel
from workbench.planning.bank import SHIPPED, Bank, BankWriter, Cell, load_bank
from workbench.surgery import open_model
from workbench.types import Reporter, SilentReporter
from workbench.workspace import Workspace

NAME = "embedded"
SHIPPED_WITH: Mapping[str, Any] = {
    "rates": ("R2", "R4", "R8", "R16", "linear", "T1o0"),
    "updates": 1200,
    "queries": 128,
    "num_prompts": 32,
}
"""Longer and on more prompts than a user measures, and with the ReHyAt that is best here."""


def halve(
    bank: Bank, folder: Path, model: LoadedModel, config: MeasureConfig, workspace: Workspace,
    *, reporter: Reporter,
) -> Bank:  # fmt: skip
    """Write a bank's cells in half precision, each with the held-out errors of its halved weights.

    Args:
        bank: measured with `config`.
        folder: of the new bank.
        model: the teacher.
        workspace: whose cache holds the trajectories of `config`.

    Raises:
        InputError: a bank is there already.
        Diverged: a weight does not fit half precision; the bank is then not complete.
    """
    plan = check(config, model)
    size = config.cache_megabytes * 1_000_000
    cache = TrajectoryCache(model, workspace, settings=plan.sampling, max_bytes=size)
    held_out = cache.prepare(plan.prompts.held_out, seed=config.seed, reporter=reporter)
    with CellPool(model.device) as pool:
        run = Distillation(model, config, plan, pool=pool, team=Team(model.device))
        for block, trainer in run.cells:
            trainer.load(_half(bank, bank.cell(block, run.specs[trainer.name])))
        run.evaluate(held_out, reporter)
    more: dict[str, Any] = {"halved_from_error": _mean_error(bank)}
    writer = BankWriter.create(
        folder, bank.facts, size=bank.manifest.size, provenance={**bank.manifest.provenance, **more}
    )
    for block, trainer in run.cells:
        measured = bank.cell(block, run.specs[trainer.name])
        own = run.result(block, trainer).cell
        errors = {
            name: getattr(own, name)
            for name in ("error", "error_low", "error_high", "last_loss", "by_timestep")
        }
        writer.save_cell(measured.model_copy(update=errors), _half(bank, measured))
    return load_bank(folder)


def _half(bank: Bank, cell: Cell) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in bank.weights(cell.block, cell.spec).items()}


def _mean_error(bank: Bank) -> float:
    return sum(cell.error for cell in bank.manifest.cells) / len(bank.manifest.cells)


class _Lines(SilentReporter):
    def stage(self, name: str, steps: int) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name} ({steps:,})\n")

    def note(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


def main(arguments: list[str] | None = None) -> int:
    """Measure, halve and measure again; prints the folder, its size and its mean errors."""
    parser = argparse.ArgumentParser(prog="workbench.distillation.ship", description=__doc__)
    parser.add_argument("--workspace", type=Path, default=None, help="Where the work is kept.")
    parser.add_argument("--bank", type=Path, default=None, help="Halve this bank; default: measure one.")
    parser.add_argument("--updates", type=int, default=None, help="Of every cell; default: 1,200.")
    parser.add_argument("--out", type=Path, default=SHIPPED / NAME)
    options = parser.parse_args(arguments)
    workspace, reporter = Workspace.open(options.workspace), _Lines()
    changes = {} if options.updates is None else {"updates": options.updates}
    config = MeasureConfig(model=NAME, name=NAME, **{**SHIPPED_WITH, **changes})
    model = open_model(NAME)
    begun = time.monotonic()
    source = options.bank or measure(model, config, workspace, reporter=reporter)
    seconds = time.monotonic() - begun
    measured = load_bank(source, model.facts)
    temporary = options.out.with_name(f".{options.out.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    shipped = halve(measured, temporary, model, config, workspace, reporter=reporter)
    shutil.rmtree(options.out, ignore_errors=True)
    temporary.rename(options.out)
    if options.out == SHIPPED / NAME:
        wanted = SensitivityConfig(bank=NAME)
        measure_sensitivity(model, wanted, workspace, reporter=reporter, ships=True)
    megabytes = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file()) / 1e6
    sys.stdout.write(
        f"{options.out}: {len(shipped.cells)} cells, {megabytes:.1f} MB, measured in {seconds:.0f} s; mean "
        f"error {_mean_error(measured):.4f}, halved {_mean_error(shipped):.4f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
