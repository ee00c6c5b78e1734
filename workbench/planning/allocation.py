"""Choose an operator for every block under a budget: exactly, and by the baselines to compare with.

    minimise  sum_b error(b, c_b)   subject to   sum_b cost(b, c_b) <= budget       (c_b one choice of
    block b)

a multiple-choice knapsack (Attention Surgery, section on block rates). Costs are any additive numbers:
operations or measured milliseconds. Knows no models: choices in, choices out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError

RESOLUTION = 2**48
"""Costs that are not whole numbers are counted in this fraction of the largest total; whole ones exactly."""
MAX_STATES = 4_000_000


class Choice(NamedTuple):
    """One operator of a block: its label, its error and its cost."""

    label: str
    error: float
    cost: float


class Allocation(NamedTuple):
    """One choice a block, with the sums of their errors and costs; `method` says how it was found."""

    labels: tuple[str, ...]
    error: float
    cost: float
    method: str


Choices = Sequence[Sequence[Choice]]


def optimal(choices: Choices, *, budget: float) -> Allocation:
    """Solve the knapsack exactly.

    Block after block the set of (cost, error) sums is extended by every choice and dominated sums are
    dropped; no dropped sum can be part of a better solution, since what follows adds the same to both. The
    last set therefore holds the optimum.

    Raises:
        InputError: the budget is below the cheapest plan; says the minimum.
    """
    front = _front(choices, budget=budget)
    if not front:
        raise InputError(
            f"The budget {budget:.6g} is below the cheapest plan over the measured cells, "
            f"{cheapest(choices):.6g}; raise it or measure cheaper cells."
        )
    return front[-1]._replace(method="optimal")


def pareto(choices: Choices) -> tuple[Allocation, ...]:
    """Return every allocation that no other beats in both cost and error, cheapest first."""
    return tuple(_front(choices, budget=math.inf))


def cheapest(choices: Choices) -> float:
    """Return the cost of the cheapest allocation."""
    return sum(min(choice.cost for choice in block) for block in choices)


def uniform(choices: Choices, *, budget: float) -> Allocation | None:
    """Return the best allocation with one and the same operator on all blocks, None where none fits."""
    shared = set.intersection(*({choice.label for choice in block} for block in choices))
    fitting = [
        allocation
        for name in sorted(shared)
        if (allocation := _collect(choices, [name] * len(choices), "uniform")).cost <= budget
    ]
    return min(fitting, key=lambda allocation: (allocation.error, allocation.cost), default=None)


def greedy(choices: Choices, *, budget: float) -> Allocation | None:
    """Return what repeated cheapest-error-per-saving steps find, None where the budget cannot be met.

    Starts from the lowest error everywhere and takes, until the budget is met, the change that adds the least
    error for each unit of cost it saves.
    """
    picked = [min(block, key=lambda choice: (choice.error, choice.cost)) for block in choices]
    while sum(choice.cost for choice in picked) > budget:
        steps = [
            ((option.error - picked[index].error) / (picked[index].cost - option.cost), index, option)
            for index, block in enumerate(choices)
            for option in block
            if option.cost < picked[index].cost
        ]
        if not steps:
            return None
        _, index, option = min(steps, key=lambda step: (step[0], step[1], step[2].label))
        picked[index] = option
    return _collect(choices, [choice.label for choice in picked], "greedy")


def best_k(choices: Choices, *, budget: float, dense: str = "softmax") -> Allocation | None:
    """Return the paper's baseline: the k blocks of lowest error at one operator, the others dense.

    For every operator the smallest k that meets the budget is taken; of these the lowest error wins. None
    where none meets it.
    """
    names = sorted({choice.label for block in choices for choice in block} - {dense})
    found: list[Allocation] = []
    for name in names:
        errors = {
            index: choice.error
            for index, block in enumerate(choices)
            for choice in block
            if choice.label == name
        }
        order = sorted(errors, key=lambda index: (errors[index], index))
        for count in range(len(order) + 1):
            labels = [name if index in order[:count] else dense for index in range(len(choices))]
            allocation = _collect(choices, labels, "best_k")
            if allocation.cost <= budget:
                found.append(allocation)
                break
    return min(found, key=lambda allocation: (allocation.error, allocation.cost), default=None)


def _collect(choices: Choices, labels: Sequence[str], method: str) -> Allocation:
    picked = [
        next(choice for choice in block if choice.label == name)
        for block, name in zip(choices, labels, strict=True)
    ]
    return Allocation(
        tuple(labels), sum(each.error for each in picked), sum(each.cost for each in picked), method
    )


class _Layer(NamedTuple):
    """Undominated sums after some blocks: costs rising, errors falling, and how each was reached."""

    costs: NDArray[np.int64]
    errors: NDArray[np.float64]
    parents: NDArray[np.int64]
    picks: NDArray[np.int64]


def _front(choices: Choices, *, budget: float) -> list[Allocation]:
    if not choices or any(not block for block in choices):
        raise ValueError("every block needs at least one choice")
    if any(
        not (math.isfinite(c.error) and math.isfinite(c.cost) and c.cost >= 0) for b in choices for c in b
    ):
        raise ValueError("errors and costs must be finite and costs not negative")
    scale = _scale(choices)
    rounding = 0 if scale == 1.0 else len(choices)
    limit = None if math.isinf(budget) else math.floor(budget * scale) + rounding
    integers = [[round(choice.cost * scale) for choice in block] for block in choices]
    rest = [sum(min(block) for block in integers[index + 1 :]) for index in range(len(integers))]
    zero = np.zeros(1, dtype=np.int64)
    layers = [_Layer(zero, np.zeros(1), zero, zero)]
    for block, costs, later in zip(choices, integers, rest, strict=True):
        errors = [choice.error for choice in block]
        layers.append(_extend(layers[-1], costs, errors, None if limit is None else limit - later))
        if len(layers[-1].costs) == 0:
            return []
    return [_trace(layers, choices, state) for state in range(len(layers[-1].costs))]


def _scale(choices: Choices) -> float:
    total = sum(max(choice.cost for choice in block) for block in choices)
    whole = all(float(choice.cost).is_integer() for block in choices for choice in block)
    if total == 0 or (whole and total < 2**53):
        return 1.0
    return RESOLUTION / total


def _extend(layer: _Layer, costs: Sequence[int], errors: Sequence[float], limit: int | None) -> _Layer:
    num_states, num_choices = len(layer.costs), len(costs)
    all_costs = (layer.costs[:, None] + np.asarray(costs, dtype=np.int64)).ravel()
    all_errors = (layer.errors[:, None] + np.asarray(errors, dtype=np.float64)).ravel()
    parents = np.repeat(np.arange(num_states), num_choices)
    picks = np.tile(np.arange(num_choices), num_states)
    if limit is not None:
        fits = all_costs <= limit
        all_costs, all_errors = all_costs[fits], all_errors[fits]
        parents, picks = parents[fits], picks[fits]
    order = np.lexsort((all_errors, all_costs))
    sorted_errors = all_errors[order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(sorted_errors)[:-1]))
    kept = order[sorted_errors < best_before]
    if len(kept) > MAX_STATES:
        raise InputError(
            f"The plan has more than {MAX_STATES:,} undominated combinations; "
            "offer fewer rates per block, or round the costs."
        )
    return _Layer(all_costs[kept], all_errors[kept], parents[kept], picks[kept])


def _trace(layers: Sequence[_Layer], choices: Choices, state: int) -> Allocation:
    labels: list[str] = []
    for layer, block in zip(reversed(layers[1:]), reversed(choices), strict=True):
        labels.append(block[layer.picks[state]].label)
        state = int(layer.parents[state])
    return _collect(choices, labels[::-1], "pareto")
