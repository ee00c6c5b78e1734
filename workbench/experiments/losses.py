"""Which loss distils better: the attention's values, or its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from workbench.distillation.losses import LossName
from workbench.experiments.conditions import Condition, StudentCondition
from workbench.experiments.experiment import Experiment, short_plan
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.settings import BankRecipe, Setup
from workbench.planning import parse_short
from workbench.types import StrictModel


class LossesConfig(StrictModel):
    """Losses beside the usual one, on a share of the blocks.

    Attributes:
        clips: of the rates in `pictured`.
    """

    losses: tuple[LossName, ...]
    share: float = 0.5
    rates: tuple[str, ...] = ("R4", "linear")
    clips: Annotated[int, Field(ge=0)]
    pictured: tuple[str, ...]


def conditions(config: LossesConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return the same plans with cells distilled by every loss, with as many updates."""
    usual = lab.shared.bank
    found: list[Condition] = []
    for rate in config.rates:
        name = short_plan(config.share, rate, lab)
        blocks = tuple(parse_short(name, lab.facts).converted)
        others = [
            BankRecipe(
                rates=config.rates, blocks=blocks, updates=usual.updates, loss=loss, pieces=usual.pieces
            )
            for loss in config.losses
        ]
        for recipe in (usual, *others):
            setup = Setup(plan=name, weights="distilled", bank=recipe)
            found.append(StudentCondition(setup, config.clips if rate in config.pictured else 0))
    return found


EXPERIMENT = Experiment(
    name="losses",
    title="Value or score loss",
    question="Does it matter whether feature maps learn the attention's output or its scores?",
    configs={
        "quick": LossesConfig(losses=("score",), clips=5, pictured=("R4",)),
        "full": LossesConfig(
            losses=("score", "mse", "value-normalised"), clips=50, pictured=("R4", "linear")
        ),
    },
    conditions=conditions,
)
