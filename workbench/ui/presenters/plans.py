"""Banks and plans as plain data: the table of cells, what a plan costs, presets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.ui.context import Context
from workbench.ui.presenters import OPERATORS
from workbench.workspace import Workspace, new_id

if TYPE_CHECKING:
    from workbench.models import ModelFacts
    from workbench.planning.bank import Bank
    from workbench.planning.plan import Plan

UPDATES = 200
"""Updates a cell in the form: enough for a first plan, seconds a cell on a CPU core."""
PRESETS = (
    "as painted",
    "all softmax",
    "lowest error at 80 % of attention",
    "lowest error at 60 % of attention",
    "lowest error at 40 % of attention",
    "all measured R4",
    "all measured linear",
)
BUDGET = re.compile(r"lowest error at (\d+) % of attention")


def cell_table(bank: Bank | None, facts: ModelFacts) -> dict[str, Any]:
    """Return the painter's table: the errors of every block and operator, None where unmeasured."""
    cells: list[list[dict[str, Any] | None]] = []
    for block in range(facts.num_blocks):
        row: list[dict[str, Any] | None] = [None]
        for label in OPERATORS[1:]:
            cell = bank.cells.get((block, label)) if bank else None
            row.append(
                None
                if cell is None
                else {
                    "error": cell.error,
                    "low": cell.error_low,
                    "high": cell.error_high,
                    "off": cell.error_off,
                    "first": cell.error_undistilled,
                }
            )
        cells.append(row)
    return {"columns": list(OPERATORS), "cells": cells, "start": start_plan(bank, facts)}


def start_plan(bank: Bank | None, facts: ModelFacts) -> list[str]:
    """Return the plan of a fresh painter: softmax everywhere, so that nothing is chosen for the user."""
    return ["softmax"] * facts.num_blocks


def preset_plan(preset: str, choice: Sequence[str], bank: Bank | None, facts: ModelFacts) -> list[str]:
    """Return the plan of a preset; blocks whose cell is not measured keep softmax.

    Raises:
        InputError: not a preset, or nothing is measured yet.
    """
    if preset == PRESETS[0]:
        return list(choice)
    if preset == PRESETS[1]:
        return ["softmax"] * facts.num_blocks
    if bank is None or not bank.cells:
        raise InputError("There is no measured cell yet; measure cells first, then choose a preset.")
    budget = BUDGET.fullmatch(preset)
    if budget:
        return best_plan(bank, facts, attention_ratio=int(budget[1]) / 100)
    if preset in PRESETS:
        label = preset.rpartition(" ")[2]
        return [label if (block, label) in bank.cells else "softmax" for block in range(facts.num_blocks)]
    raise InputError(f"{preset[:80]!r} is not a preset; known: {', '.join(PRESETS)}.")


def best_plan(bank: Bank, facts: ModelFacts, *, attention_ratio: float) -> list[str]:
    """Return the plan of lowest summed error whose attention costs at most this share of softmax; exact.

    Raises:
        InputError: the measured cells cannot come that low.
    """
    from workbench import planning
    from workbench.operators import label

    size = facts.default_size
    dense = planning.block_flops(facts, facts.token_grid(size)).core * facts.num_blocks
    offered = planning.choices(bank, facts, size)
    found = planning.allocate(offered, budget=attention_ratio * dense, method="optimal")
    if found is None:
        raise InputError(
            f"The measured cells cannot bring attention down to {attention_ratio:.0%}; "
            "measure more blocks or cheaper rates, or allow more."
        )
    return [label(spec) for spec in planning.as_plan(found, bank, facts, size).operators]


def plan_error(plan: Plan, bank: Bank | None) -> float | None:
    """Return the mean measured error over all blocks, softmax 0; None over unmeasured cells."""
    if not plan.converted:
        return 0.0
    if bank is None or bank.missing(plan):
        return None
    errors = [bank.cell(block, spec).error for block, spec in plan.converted.items()]
    return sum(errors) / len(plan.blocks)


def plan_summary(plan: Plan, bank: Bank | None, facts: ModelFacts) -> dict[str, Any]:
    """Return the readouts of a plan: FLOPs as counted, error as measured."""
    from workbench.planning import cost

    costs = cost(plan, facts, facts.default_size)
    error = plan_error(plan, bank)
    size = facts.default_size
    readouts = [
        {
            "label": "attention",
            "value": f"{100 * costs.attention_ratio:.0f}",
            "unit": "%",
            "note": "of softmax FLOPs",
        },
        {
            "label": "transformer",
            "value": f"{100 * costs.dit_ratio:.0f}",
            "unit": "%",
            "note": "of all its FLOPs",
        },
        {
            "label": "measured error",
            "value": "–" if error is None else fraction(error),
            "note": "mean of all blocks" if error is not None else "unmeasured cells",
        },
        {
            "label": "converted",
            "value": str(len(plan.converted)),
            "unit": f"of {facts.num_blocks}",
            "note": "blocks",
        },
    ]
    return {
        "readouts": readouts,
        "hint": f"{size.frames} × {size.height} × {size.width}, {costs.tokens:,} tokens",
        "notes": list(costs.notes),
    }


def fraction(value: float, digits: int = 3) -> str:
    """Return an error or a probability without its leading zero."""
    return "0" if value == 0 else f"{value:.{digits}f}".replace("0.", ".", 1)


def save_plan(workspace: Workspace, plan: Plan, name: str) -> Path:
    """Save a plan under a generated file name; its display name is free text.

    Returns:
        the file.
    """
    from workbench.planning.plan import save

    shown = name.strip() or plan.short_name
    path = workspace.folder("plans") / f"{new_id(shown)}.json"
    save(plan.model_copy(update={"name": shown[:200]}), path)
    return path


def measure_settings(
    context: Context, blocks: str, rates: Sequence[str], updates: int, *, bank: Bank | None
) -> dict[str, Any]:
    """Return the settings of a measurement from the words of the form.

    Raises:
        InputError: a block or a rate that is none.
    """
    from workbench.planning import parse_blocks

    if not isinstance(blocks, str) or not isinstance(rates, list):
        raise InputError("Blocks are text such as 0,2,5-7 or all, rates a list such as R4 and linear.")
    if not rates:
        raise InputError("No rate is chosen; choose at least one, for example R4.")
    chosen = None if blocks.strip().lower() in ("", "all") else list(parse_blocks(blocks, context.facts))
    return {
        "model": context.model,
        "blocks": chosen,
        "rates": [str(rate) for rate in rates],
        "updates": updates,
        "extend": str(bank.folder) if bank is not None else None,
    }


def measure_verb(context: Context, blocks: str, rates: Sequence[str], updates: float) -> str:
    """Return the word on the button: how many cells, and what they should take."""
    from workbench.planning import parse_blocks

    everything = blocks.strip().lower() in ("", "all")
    try:
        chosen = (
            list(range(context.facts.num_blocks)) if everything else list(parse_blocks(blocks, context.facts))
        )
    except InputError:
        return "Measure"
    count = len(chosen) * len(rates)
    settings = {"blocks": chosen, "rates": rates, "updates": updates}
    return context.price(f"Measure {count} cell{'' if count == 1 else 's'}", "measure", settings)
