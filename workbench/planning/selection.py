"""From a bank and a budget to a plan: cells become choices, an allocation becomes a plan.

The budget is counted in operations, in milliseconds that were measured on the user's device, or as a
speed-up of the whole transformer. The objective is the distillation error, or any other error a cell that
a caller measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from workbench.errors import InputError
from workbench.models.facts import ModelFacts
from workbench.operators import SOFTMAX, OperatorSpec, label
from workbench.planning.allocation import (
    Allocation,
    Choice,
    Choices,
    best_k,
    greedy,
    optimal,
    pareto,
    uniform,
)
from workbench.planning.bank import Bank
from workbench.planning.cost import TERA, attention_flops, block_flops
from workbench.planning.plan import Plan, make_plan
from workbench.types import ClipSize

Method = Literal["optimal", "uniform", "greedy", "best_k"]


@dataclass(frozen=True)
class Timings:
    """Measured milliseconds on a device: attention of one block by operator label, and the rest of a block.

    Attributes:
        attention: label to milliseconds; must hold "softmax".
        rest: milliseconds of everything else in a block.
        device: where it was measured.
        is_estimate: whether the numbers were scaled from another shape.
    """

    attention: Mapping[str, float]
    rest: float
    device: str
    is_estimate: bool = False


def choices(
    bank: Bank,
    facts: ModelFacts,
    size: ClipSize,
    *,
    timings: Timings | None = None,
    errors: Mapping[tuple[int, str], float] | None = None,
) -> Choices:
    """Return for every block its measured operators and softmax, with error and cost.

    Args:
        bank: of this model.
        facts: of the model.
        size: clip size in pixels at which costs are counted.
        timings: counts in milliseconds; None counts operations.
        errors: another objective by (block, label), for example a measured end-to-end sensitivity; cells it
            does not name are not offered.

    Raises:
        InputError: a bank of another model.
    """
    bank.check_model(facts)
    grid = facts.token_grid(size)

    def cost_of(spec: OperatorSpec) -> float | None:
        if timings is None:
            return attention_flops(spec, facts, grid)
        return timings.attention.get(label(spec))

    dense = cost_of(SOFTMAX)
    if dense is None:
        raise InputError("The timings lack softmax; measure it on this device first.")
    offered: list[list[Choice]] = [[Choice("softmax", 0.0, dense)] for _ in range(facts.num_blocks)]
    for (block, name), cell in bank.cells.items():
        spent = cost_of(cell.spec)
        error = cell.error if errors is None else errors.get((block, name))
        if spent is not None and error is not None:
            offered[block].append(Choice(name, error, spent))
    return offered


def attention_budget(
    facts: ModelFacts, size: ClipSize, *, speedup: float, timings: Timings | None = None
) -> float:
    """Return what all attentions together may cost so that the transformer runs `speedup` times as fast.

    Raises:
        InputError: a speed-up of less than 1, or above what even free attention gives.
    """
    if not 1 <= speedup <= 1000:
        raise InputError(f"Speed-up must be at least 1, got {speedup:g}; try 1.5.")
    dense = block_flops(facts, facts.token_grid(size))
    core, rest = (dense.core, dense.rest) if timings is None else (timings.attention["softmax"], timings.rest)
    budget = facts.num_blocks * ((core + rest) / speedup - rest)
    if budget <= 0:
        raise InputError(
            f"A speed-up of {speedup:g} cannot be reached at {size.frames}×{size.height}×{size.width}: even "
            f"free attention gives {(core + rest) / rest:.2f}×; larger clips gain more."
        )
    return budget


def select(
    bank: Bank,
    facts: ModelFacts,
    size: ClipSize,
    *,
    speedup: float,
    method: Method = "optimal",
    timings: Timings | None = None,
    errors: Mapping[tuple[int, str], float] | None = None,
) -> Plan:
    """Return the plan of lowest summed error that makes the transformer `speedup` times as fast.

    Args and errors as `choices` and `attention_budget`; `method` chooses the exact solution or a baseline.

    Raises:
        InputError: the measured cells cannot reach it; says what they can.
    """
    offered = choices(bank, facts, size, timings=timings, errors=errors)
    budget = attention_budget(facts, size, speedup=speedup, timings=timings)
    allocation = allocate(offered, budget=budget, method=method)
    if allocation is None:
        dense = block_flops(facts, facts.token_grid(size))
        core, rest = (
            (dense.core, dense.rest) if timings is None else (timings.attention["softmax"], timings.rest)
        )
        least = sum(min(choice.cost for choice in block) for block in offered)
        reached = facts.num_blocks * (core + rest) / (least + facts.num_blocks * rest)
        raise InputError(
            f"The measured cells of bank {bank.folder.name} reach a speed-up of at most {reached:.2f}, "
            f"and {speedup:g} was asked for; measure cheaper cells or ask for less."
        )
    return as_plan(allocation, bank, facts, size, unit="ms" if timings else "tflop")


def allocate(offered: Choices, *, budget: float, method: Method) -> Allocation | None:
    """Return the allocation that a method finds within a budget, None where it finds none.

    Raises:
        InputError: no such method.
    """
    if method == "optimal":
        least = sum(min(choice.cost for choice in block) for block in offered)
        return optimal(offered, budget=budget) if least <= budget else None
    baselines = {"uniform": uniform, "greedy": greedy, "best_k": best_k}
    if method not in baselines:
        raise InputError(f"Method {method!r} is not known; known: {', '.join(get_args(Method))}.")
    return baselines[method](offered, budget=budget)


def as_plan(
    allocation: Allocation, bank: Bank, facts: ModelFacts, size: ClipSize, *, unit: str = "tflop"
) -> Plan:
    """Return the plan of an allocation over the cells of a bank."""
    operators = {
        block: bank.cells[block, name].spec
        for block, name in enumerate(allocation.labels)
        if name != "softmax"
    }
    plan = make_plan(
        operators,
        facts,
        size=size,
        provenance={
            "made_by": allocation.method,
            "bank": bank.folder.name,
            "error": allocation.error,
            f"attention_{unit}": allocation.cost / (TERA if unit == "tflop" else 1),
        },
    )
    return plan.model_copy(update={"name": plan.short_name[:200]})


def front(
    bank: Bank, facts: ModelFacts, size: ClipSize, *, timings: Timings | None = None
) -> tuple[Allocation, ...]:
    """Return the Pareto front of summed error and attention cost over all plans of the measured cells."""
    return pareto(choices(bank, facts, size, timings=timings))
