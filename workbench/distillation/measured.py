"""The bank that measuring makes: what every process found of its cells, written into one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from workbench.distillation.held_out import mean
from workbench.planning.bank import BankWriter, Cell
from workbench.types import Reporter
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.distillation.measure import Distillation

LOSS_POINTS = 200


class CellResult(NamedTuple):
    """One cell as it was measured, and the weights of its operator."""

    cell: Cell
    weights: dict[str, Tensor]


def write_bank(
    run: Distillation, found: Sequence[CellResult], workspace: Workspace, reporter: Reporter
) -> Path:
    """Write the cells of all processes, and those of the bank that is extended, into a new bank."""
    config, plan, facts = run.config, run.plan, run.model.facts
    with workspace.new_folder("banks", name=config.name or facts.name) as folder:
        writer = BankWriter.create(folder.path, facts, size=plan.sampling.size, provenance=_provenance(run))
        for cell, weights in found:
            writer.save_cell(cell, weights)
        if plan.extended is not None:
            taken = writer.merge(plan.extended)
            reporter.note(f"{len(taken)} cells were taken over from bank {plan.extended.folder.name}.")
    return folder.final


def thinned(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Keep at most `LOSS_POINTS` points, each the mean of those it stands for."""
    size = -(-len(points) // LOSS_POINTS) or 1
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return tuple((group[-1][0], round(mean([loss for _, loss in group]), 6)) for group in groups)


def _provenance(run: Distillation) -> dict[str, Any]:
    config, plan = run.config, run.plan
    return {
        "prompts": list(plan.prompts.training),
        "held_out_prompts": list(plan.prompts.held_out),
        "steps": plan.sampling.steps,
        "guidance": plan.sampling.guidance,
        "seed": config.seed,
        "updates": config.updates,
        "updates_per_state": config.updates_per_state,
        "queries": config.queries,
        "loss": config.loss,
        "lr": config.lr,
        "optimizer": config.optimizer,
        "seconds_per_cell": round(run.whole_seconds / len(run.cells), 3),
        "device": run.model.device.type,
        "dtype": str(run.model.pipeline.transformer.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "extended": "" if plan.extended is None else plan.extended.folder.name,
    }
