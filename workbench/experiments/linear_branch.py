"""The linear branch switched off: does it carry weight, before and after finetuning?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from workbench.experiments.conditions import Condition, StudentCondition
from workbench.experiments.experiment import Experiment, short_plan
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.rates import TARGET_RATIO
from workbench.experiments.settings import Setup
from workbench.types import StrictModel


class LinearBranchConfig(StrictModel):
    """All blocks at these rates, and the optimised plan under a budget."""

    rates: tuple[str, ...]
    budgets: tuple[float, ...]
    clips: Annotated[int, Field(ge=0)]


def conditions(config: LinearBranchConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return every plan distilled and finetuned, with the branch on and off."""
    bank = lab.shared.bank
    plans = [Setup(plan=short_plan(1.0, rate, lab), weights="distilled", bank=bank) for rate in config.rates]
    plans += [
        Setup(allocated="optimal", budget=budget, weights="distilled", bank=bank) for budget in config.budgets
    ]
    return [
        StudentCondition(plan.model_copy(update={"weights": weights, "linear_branch": is_on}), config.clips)
        for plan in plans
        for weights in ("distilled", "finetuned")
        for is_on in (True, False)
    ]


EXPERIMENT = Experiment(
    name="linear-branch",
    title="The linear branch switched off",
    question="Does the linear branch carry weight, or does finetuning learn to do without it?",
    configs={
        "quick": LinearBranchConfig(rates=("R4",), budgets=(TARGET_RATIO,), clips=0),
        "full": LinearBranchConfig(rates=("R4", "R8"), budgets=(TARGET_RATIO,), clips=50),
    },
    conditions=conditions,
)
