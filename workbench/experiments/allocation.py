"""One rate for all blocks against rates chosen block by block, at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, get_args

from pydantic import Field

from workbench.evaluation.statistics import paired_bootstrap
from workbench.experiments.conditions import Condition, StudentCondition
from workbench.experiments.experiment import Experiment, short_plan
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.results import Row
from workbench.experiments.settings import Allocated, Setup
from workbench.planning import cost, parse_short
from workbench.types import StrictModel


class AllocationConfig(StrictModel):
    """Which uniform plans set the budgets.

    Attributes:
        rates: all blocks at each of these; its attention ratio is a budget.
        methods: that choose plans within the budget.
    """

    rates: tuple[str, ...] = ("R2", "R4", "R8")
    methods: tuple[Allocated, ...] = ("best_k", "greedy", "optimal")
    clips: Annotated[int, Field(ge=0)]


def conditions(config: AllocationConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return for every budget the plan with one rate on all blocks, and the chosen ones."""
    bank = lab.shared.bank
    found: list[Condition] = []
    for rate in config.rates:
        name = short_plan(1.0, rate, lab)
        budget = cost(parse_short(name, lab.facts), lab.facts).attention_ratio
        found.append(StudentCondition(Setup(plan=name, weights="distilled", bank=bank), config.clips))
        for method in config.methods:
            setup = Setup(allocated=method, budget=budget, weights="distilled", bank=bank)
            found.append(StudentCondition(setup, config.clips))
    return found


def conclude(rows: Sequence[Row]) -> Row:
    """Return for every budget how much lower the velocity error of the optimal plan is, paired by prompt."""
    changes = []
    uniform: Row | None = None
    for row in rows:
        if row["setup"].split(" ")[0] not in get_args(Allocated):
            uniform = row
        elif uniform is not None and row["setup"].startswith("optimal"):
            own, other = row["velocity_error"]["by_prompt"], uniform["velocity_error"]["by_prompt"]
            change = paired_bootstrap(own, other)
            changes.append(
                {
                    "budget": uniform["attention_ratio"],
                    "uniform": uniform["plan"],
                    "optimal": row["plan"],
                    "change": {"mean": change.mean, "low": change.low, "high": change.high},
                }
            )
    return {"optimal_minus_uniform": changes}


EXPERIMENT = Experiment(
    name="allocation",
    title="One rate for all, or optimised rates",
    question="At equal cost, do rates chosen block by block do less damage than one rate for all blocks?",
    configs={
        "quick": AllocationConfig(methods=("best_k", "optimal"), clips=0),
        "full": AllocationConfig(clips=50),
    },
    conditions=conditions,
    conclude=conclude,
)
