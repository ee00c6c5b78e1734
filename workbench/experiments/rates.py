"""How many blocks, at which rate, untrained, distilled or finetuned: cost, velocity, adherence, fidelity,
motion. The target is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from workbench.experiments.conditions import Condition, StudentCondition
from workbench.experiments.experiment import Experiment, short_plan
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.results import Row
from workbench.experiments.settings import TEACHER, Setup, Weights
from workbench.types import StrictModel

TARGET_RATIO = 0.60
TARGET_POINTS = 2.0
LEAST_CLIPS = 50
"""Below so many clips nothing is decided: a bootstrap over a handful is far too narrow."""


class RatesConfig(StrictModel):
    """The grid, and the plans that are finetuned.

    Attributes:
        shares: of the blocks that are converted.
        clips: of every pictured condition.
        pictured: (share, rate, weights) of the conditions with clips; None for all.
        finetuned: (share, rate) of plans; `finetuned_budgets` are attention ratios of optimised plans.
        finetuned_clips: of every finetuned plan, and of the teacher.
    """

    shares: tuple[float, ...]
    rates: tuple[str, ...]
    clips: Annotated[int, Field(ge=1)]
    pictured: tuple[tuple[float, str, Weights], ...] | None
    finetuned: tuple[tuple[float, str], ...]
    finetuned_budgets: tuple[float, ...]
    finetuned_clips: Annotated[int, Field(ge=1)]


QUICK = RatesConfig(
    shares=(0.5, 1.0),
    rates=("R2", "R4", "R8", "linear"),
    clips=5,
    pictured=(
        (0.5, "R4", "distilled"),
        (1.0, "R4", "undistilled"),
        (1.0, "R4", "distilled"),
        (1.0, "linear", "distilled"),
    ),
    finetuned=((1.0, "R4"), (1.0, "linear")),
    finetuned_budgets=(TARGET_RATIO,),
    finetuned_clips=5,
)
FULL = RatesConfig(
    shares=(0.3, 0.5, 0.8, 1.0),
    rates=("R2", "R4", "R8", "linear"),
    clips=50,
    pictured=None,
    finetuned=((0.5, "R4"), (1.0, "R4"), (1.0, "R8"), (0.5, "linear"), (1.0, "linear")),
    finetuned_budgets=(TARGET_RATIO,),
    finetuned_clips=200,
)


def conditions(config: RatesConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return the teacher, the grid, and the finetuned plans beside their distilled selves."""
    bank = lab.shared.bank
    found: list[Condition] = [StudentCondition(TEACHER, config.finetuned_clips)]
    for share in config.shares:
        for rate in config.rates:
            for weights in ("undistilled", "distilled"):
                setup = Setup(
                    plan=short_plan(share, rate, lab),
                    weights=weights,
                    bank=bank if weights == "distilled" else None,
                )
                shown = config.pictured is None or (share, rate, weights) in config.pictured
                found.append(StudentCondition(setup, config.clips if shown else 0))
    for share, rate in config.finetuned:
        setup = Setup(plan=short_plan(share, rate, lab), weights="finetuned", bank=bank)
        found.append(StudentCondition(setup, config.finetuned_clips))
    for budget in config.finetuned_budgets:
        for weights in ("distilled", "finetuned"):
            setup = Setup(allocated="optimal", budget=budget, weights=weights, bank=bank)
            found.append(StudentCondition(setup, config.finetuned_clips))
    return found


def conclude(rows: Sequence[Row]) -> Row:
    """Decide the target for every finetuned plan within the cost.

    Met: the interval of the paired difference lies above; not shown: only the mean does; missed: not even
    that; or too few clips to decide.
    """
    plans = [
        {
            "setup": row["setup"],
            "plan": row["plan"],
            "attention_ratio": row["attention_ratio"],
            "clips": row["clips"],
            "adherence_change": row["adherence_change"],
            "verdict": _verdict(row["adherence_change"], row["clips"]),
        }
        for row in rows
        if row.get("weights") == "finetuned" and row["attention_ratio"] <= TARGET_RATIO
    ]
    return {
        "target": {
            "attention_ratio_at_most": TARGET_RATIO,
            "points_below_teacher_at_most": TARGET_POINTS,
            "met": any(plan["verdict"] == "met" for plan in plans),
            "plans": plans,
        }
    }


def _verdict(change: Row, clips: int) -> str:
    if clips < LEAST_CLIPS:
        return "too few clips"
    if change["low"] >= -TARGET_POINTS:
        return "met"
    return "not shown" if change["mean"] >= -TARGET_POINTS else "missed"


EXPERIMENT = Experiment(
    name="rates",
    title="Blocks converted, rate, training",
    question="What do more blocks and higher rates cost, and what do distilling and finetuning give back?",
    configs={"quick": QUICK, "full": FULL},
    conditions=conditions,
    conclude=conclude,
)
