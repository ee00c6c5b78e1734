"""The knapsack is exact: against brute force on small cases, and never beaten by a baseline."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.planning.allocation import (
    Allocation,
    Choice,
    Choices,
    best_k,
    cheapest,
    greedy,
    optimal,
    pareto,
    uniform,
)

numbers = st.floats(0, 100, allow_nan=False).map(lambda value: round(value, 3))
blocks = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4).map(
    lambda pairs: [Choice(f"c{index}", error, cost) for index, (error, cost) in enumerate(pairs)]
)
problems = st.lists(blocks, min_size=1, max_size=5)


def brute_force(choices: Choices, budget: float) -> float:
    sums = (
        (sum(choice.cost for choice in picked), sum(choice.error for choice in picked))
        for picked in itertools.product(*choices)
    )
    return min((error for cost, error in sums if cost <= budget + 1e-9), default=math.inf)


@settings(max_examples=100, deadline=None)
@given(problems, st.floats(0, 1))
def test_optimal_is_what_brute_force_finds(choices: Choices, tightness: float) -> None:
    dearest = sum(max(choice.cost for choice in block) for block in choices)
    budget = round(cheapest(choices) + tightness * (dearest - cheapest(choices)), 3)
    found = optimal(choices, budget=budget)
    assert found.error == pytest.approx(brute_force(choices, budget), abs=1e-9)
    assert found.cost <= budget + 1e-6 * max(budget, 1)
    picked = [
        {choice.label: choice for choice in block}[name]
        for block, name in zip(choices, found.labels, strict=True)
    ]
    assert sum(choice.error for choice in picked) == pytest.approx(found.error)
    assert sum(choice.cost for choice in picked) == pytest.approx(found.cost)


@settings(max_examples=60, deadline=None)
@given(problems)
def test_the_front_holds_every_budget(choices: Choices) -> None:
    front = pareto(choices)
    assert all(a.cost < b.cost and a.error > b.error for a, b in itertools.pairwise(front))
    for point in front:
        assert point.error == pytest.approx(brute_force(choices, point.cost), abs=1e-9)
    assert front[0].cost == pytest.approx(cheapest(choices))


def wan_like(num_blocks: int, seed: int) -> list[list[Choice]]:
    generator = np.random.default_rng(seed)
    costs = {
        "softmax": 6.594e12,
        "R2": 3.455e12,
        "R4": 1.83e12,
        "R8": 1.01e12,
        "R16": 0.61e12,
        "linear": 0.2e12,
    }
    return [
        [
            Choice(name, 0.0 if name == "softmax" else float(generator.gamma(2.0)) * rank, float(round(cost)))
            for rank, (name, cost) in enumerate(costs.items())
        ]
        for _ in range(num_blocks)
    ]


def test_baselines_never_win() -> None:
    for seed in range(5):
        choices = wan_like(30, seed)
        dense = 30 * 6.594e12
        for share in (0.3, 0.5, 0.8):
            best = optimal(choices, budget=share * dense)
            for baseline in (uniform, greedy, best_k):
                found: Allocation | None = baseline(choices, budget=share * dense)
                assert found is not None and found.cost <= share * dense
                assert best.error <= found.error + 1e-9, (seed, share, baseline.__name__)


def test_best_k_takes_the_fewest_blocks_of_lowest_error() -> None:
    choices = [[Choice("softmax", 0, 10), Choice("R2", error, 5)] for error in (3.0, 1.0, 2.0)]
    found = best_k(choices, budget=20)
    assert found is not None and found.labels == ("softmax", "R2", "R2") and found.error == 3.0
    assert best_k(choices, budget=14) is None and greedy(choices, budget=14) is None


def test_unmeasured_blocks_keep_softmax() -> None:
    choices = [[Choice("softmax", 0, 10)], [Choice("softmax", 0, 10), Choice("R2", 1, 5)]]
    assert optimal(choices, budget=16).labels == ("softmax", "R2")
    assert uniform(choices, budget=16) is None
    found = best_k(choices, budget=16)
    assert found is not None and found.labels == ("softmax", "R2")


def test_a_budget_below_the_cheapest_plan_says_the_minimum() -> None:
    with pytest.raises(InputError, match=r"budget 4 is below the cheapest plan over the measured cells, 5;"):
        optimal([[Choice("softmax", 0, 10), Choice("R2", 1, 5)]], budget=4)
