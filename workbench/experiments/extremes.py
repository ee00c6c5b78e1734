"""All blocks converted, at every rate down to all linear: where does a student break?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from workbench.experiments.conditions import Condition, StudentCondition
from workbench.experiments.experiment import Experiment, short_plan
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.settings import TEACHER, Setup
from workbench.types import StrictModel


class ExtremesConfig(StrictModel):
    """All blocks at these rates, distilled; some of them finetuned too.

    Attributes:
        pictured: rates with clips when distilled; finetuned ones always have them.
    """

    rates: tuple[str, ...]
    finetuned: tuple[str, ...]
    clips: Annotated[int, Field(ge=1)]
    pictured: tuple[str, ...]


def conditions(config: ExtremesConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return the teacher and its students with every block converted."""
    bank = lab.shared.bank
    found: list[Condition] = [StudentCondition(TEACHER, config.clips)]
    for rate in config.rates:
        setup = Setup(plan=short_plan(1.0, rate, lab), weights="distilled", bank=bank)
        found.append(StudentCondition(setup, config.clips if rate in config.pictured else 0))
        if rate in config.finetuned:
            finetuned = setup.model_copy(update={"weights": "finetuned"})
            found.append(StudentCondition(finetuned, config.clips))
    return found


EXPERIMENT = Experiment(
    name="extremes",
    title="All blocks converted, all linear",
    question="Can every block be converted, and can all of them be linear?",
    configs={
        "quick": ExtremesConfig(
            rates=("R2", "R4", "R8", "linear"),
            finetuned=("R4", "linear"),
            clips=5,
            pictured=("R4", "linear"),
        ),
        "full": ExtremesConfig(
            rates=("R2", "R4", "R8", "R16", "linear"),
            finetuned=("R4", "R8", "linear"),
            clips=50,
            pictured=("R2", "R4", "R8", "R16", "linear"),
        ),
    },
    conditions=conditions,
)
