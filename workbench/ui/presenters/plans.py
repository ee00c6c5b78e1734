"""Banks and plans as plain data: the table of cells, what operators cost, the exact optimum, saved plans."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.ui.context import Context, whole_number
from workbench.ui.presenters import measurable, operators
from workbench.workspace import Workspace, new_id

if TYPE_CHECKING:
    from workbench.comparison import Comparison
    from workbench.models import ModelFacts
    from workbench.operators import OperatorSpec
    from workbench.planning import Allocation, Bank, Plan, Timings

UPDATES = 200
"""Updates a cell in the form: enough for a first plan, seconds a cell on a CPU core."""
SHOWN_POINTS = 120
"""Points of the Pareto front that a page draws; the exact optimum is looked up among all of them."""
MAX_SAVED = 30
TERA = 1e12
NO_COLUMNS: Mapping[str, OperatorSpec] = MappingProxyType({})


def cell_table(bank: Bank | None, facts: ModelFacts, columns: Iterable[str]) -> dict[str, Any]:
    """Return the painter's table: the errors of every block and operator, None where unmeasured.

    Args:
        bank: the measured cells.
        facts: of the model.
        columns: labels of the operators, softmax first.
    """
    columns = list(columns)
    cells: list[list[dict[str, Any] | None]] = []
    for block in range(facts.num_blocks):
        row: list[dict[str, Any] | None] = [None]
        for label in columns[1:]:
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
    each = None if bank is None else bank.measuring_seconds(1)
    start = ["softmax"] * facts.num_blocks
    return {"columns": columns, "usual": len(operators(facts)), "cells": cells, "start": start, "each": each}


def costs(facts: ModelFacts, columns: Mapping[str, OperatorSpec]) -> dict[str, Any]:
    """Return the operations of one block: attention by operator, dense core, and all the rest, in TFLOP."""
    from workbench.planning import block_flops
    from workbench.planning.cost import attention_flops

    size = facts.default_size
    grid = facts.token_grid(size)
    dense = block_flops(facts, grid)
    return {
        "attention": {label: attention_flops(spec, facts, grid) / TERA for label, spec in columns.items()},
        "core": dense.core / TERA,
        "rest": dense.rest / TERA,
        "steps": facts.default_steps,
        "tokens": grid.num_tokens,
        "size": list(size),
    }


def clip_seconds(comparison: Comparison | None, facts: ModelFacts) -> dict[str, Any] | None:
    """Return how long the teacher's clip took where a comparison measured it at the default size."""
    if comparison is None or tuple(comparison.size) != tuple(facts.default_size):
        return None
    teacher, student = comparison.clips[:2]
    if teacher.seconds is None or teacher.decode_seconds is None:
        return None
    return {
        "seconds": teacher.seconds,
        "decode": teacher.decode_seconds,
        "device": comparison.made.get("device", ""),
        "plan": list(student.plan),
        "student": student.seconds,
    }


def timing_data(timings: Timings | None) -> dict[str, Any] | None:
    """Return measured milliseconds as plain data."""
    if timings is None:
        return None
    return {
        "attention": dict(timings.attention),
        "rest": timings.rest,
        "device": timings.device,
        "estimate": timings.is_estimate,
    }


def front_of(bank: Bank, timings: Timings | None) -> tuple[Allocation, ...]:
    """Return the Pareto front of all plans over measured cells, at the model's default size, cached."""
    document = bank.folder / "bank.json"
    frozen = None if timings is None else tuple(sorted(timings.attention.items()))
    rest = 0.0 if timings is None else timings.rest
    return _front(bank.folder, document.stat().st_mtime_ns, frozen, rest)


@functools.lru_cache(maxsize=8)
def _front(
    folder: Path, _: int, attention: tuple[tuple[str, float], ...] | None, rest: float
) -> tuple[Allocation, ...]:
    from workbench.planning import Timings, front, load_bank

    bank = load_bank(folder)
    timings = None if attention is None else Timings(attention=dict(attention), rest=rest, device="")
    return front(bank, bank.facts, bank.facts.default_size, timings=timings)


def front_points(bank: Bank | None, timings: Timings | None = None) -> list[dict[str, Any]]:
    """Return some points of the front, ends included, for a chart."""
    if bank is None or not bank.cells:
        return []
    points = front_of(bank, timings)
    step = max(1, -(-len(points) // SHOWN_POINTS))
    kept = [*points[::step][:-1], points[-1]] if len(points) > 1 else list(points)
    return [{"plan": list(point.labels), "error": point.error} for point in kept]


def best_within(bank: Bank | None, budget: float, timings: Timings | None = None) -> Allocation:
    """Return the plan of lowest summed error whose attention costs at most `budget`; exact.

    Args:
        bank: the measured cells.
        budget: of all attentions of one pass: operations, or milliseconds with `timings`.

    Raises:
        InputError: nothing is measured, or no plan comes that low.
    """
    if bank is None or not bank.cells:
        raise InputError("No cell is measured yet; measure cells first, then choose a budget.")
    points = front_of(bank, timings)
    place = bisect_right(points, budget * (1 + 1e-9), key=lambda point: point.cost)
    if place == 0:
        raise InputError(
            "The measured cells cannot come that low; measure more blocks or cheaper operators, "
            "or allow more."
        )
    return points[place - 1]


def make_painted(
    context: Context, question: Mapping[str, Any], columns: Mapping[str, OperatorSpec] = NO_COLUMNS
) -> Plan:
    """Return a painted choice as a plan: `plan` one operator a block, `dense` first steps kept softmax.

    Args:
        context: of the model.
        question: as a script sends it.
        columns: operators of the page by label; others are read as a user writes them.

    Raises:
        InputError: not one operator for every block, or no such number of steps.
    """
    from workbench.operators import Schedule, parse_rate
    from workbench.planning import make_plan

    facts, choice = context.facts, question.get("plan")
    if not isinstance(choice, list) or len(choice) != facts.num_blocks:
        raise InputError(
            f"A plan names one operator for each of the {facts.num_blocks} blocks of {facts.name}."
        )
    dense = whole_number(question.get("dense", 0), what="Dense first steps")
    if not 0 <= dense <= 1000:
        raise InputError(f"Dense first steps must be between 0 and 1000, got {dense}.")
    words = [str(word) for word in choice]
    chosen = {block: columns.get(word) or parse_rate(word) for block, word in enumerate(words)}
    return make_plan(chosen, facts, schedule=Schedule(dense_first=dense))


def plan_data(plan: Plan, *, file: str = "") -> dict[str, Any]:
    """Return a plan as the page paints it."""
    from workbench.operators import label

    return {
        "file": file,
        "name": plan.name or plan.short_name,
        "short": plan.short_name,
        "plan": [label(spec) for spec in plan.operators],
        "dense": plan.schedule.dense_first,
    }


def saved_data(plans: Sequence[tuple[str, Plan]]) -> list[dict[str, Any]]:
    """Return the newest saved plans."""
    return [plan_data(plan, file=file) for file, plan in plans[:MAX_SAVED]]


def prices(plans: Iterable[Plan], facts: ModelFacts) -> dict[str, float]:
    """Return what the operators of plans cost, in TFLOP a block: the page may lack columns for them."""
    found: dict[str, float] = costs(facts, operators(facts, shown=plans))["attention"]
    return found


def read_text(text: Any, context: Context) -> Plan:
    """Read a plan that a user typed or dropped: JSON, a short name, or an assignment.

    Raises:
        InputError: none of these, or not for this model.
    """
    from workbench.planning import from_text, is_short, parse_assign, parse_short

    if not isinstance(text, str) or not text.strip():
        raise InputError("The plan is empty; write a short name such as 5xR4, or 0-3:softmax,4-:R4.")
    if text.lstrip().startswith("{"):
        return from_text(text, context.facts, what="The imported plan")
    if "+" in text:
        raise InputError("A mixed short name does not say which blocks; write 0-3:softmax,4-:R4 instead.")
    return parse_short(text, context.facts) if is_short(text) else parse_assign(text, context.facts)


def check_writable(plan: Plan, columns: Iterable[str]) -> None:
    """Refuse a plan whose operators neither a column nor a short label names.

    Raises:
        InputError: which operator it is.
    """
    from workbench.operators import label

    names = {label(spec) for spec in plan.operators} - {"softmax", *columns}
    foreign = sorted(names - set(measurable(names)))
    if foreign:
        raise InputError(
            f"The plan uses {foreign[0]}, a feature map of its own that no cell here has; "
            "measure it with the command line or a notebook first."
        )


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


def missing_cells(bank: Bank | None, facts: ModelFacts, columns: Iterable[str]) -> list[tuple[int, str]]:
    """Return every cell of the painter that is not measured."""
    measured = bank.cells if bank else {}
    return [
        (block, label)
        for label in columns
        for block in range(facts.num_blocks)
        if label != "softmax" and (block, label) not in measured
    ]


def measuring_price(here: Context, settings: Mapping[str, Any], *, bank: Bank | None) -> dict[str, Any]:
    """Return how many cells a measurement has, what it should take, and by what that is judged.

    Judged by the last measurement here, else by this bank's own cells, else by the example study.
    """
    from workbench.example import load

    blocks = here.facts.num_blocks if settings["blocks"] is None else len(settings["blocks"])
    count = blocks * len(settings["rates"])
    seconds, basis = here.estimate("measure", settings), "by the last measurement here"
    if seconds is None and bank is not None:
        seconds, basis = bank.measuring_seconds(count), "by the cells of this bank"
    example = load()
    if seconds is None and example is not None and example.model == here.facts.name:
        updates = len(example.cells) * example.updates
        seconds = example.measure_seconds * count * float(settings["updates"]) / updates
        basis = f"by the example study, made on {example.device}"
    return {"cells": count, "seconds": seconds, "basis": "" if seconds is None else basis}


def measure_settings(
    context: Context, blocks: object, rates: object, updates: int, *, bank: Bank | None
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
