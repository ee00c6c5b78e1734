"""ReHyAt against the strided hybrid at equal cost, at the usual length of a clip and at twice that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from workbench.experiments.conditions import Condition, StudentCondition
from workbench.experiments.experiment import Experiment, short_plan
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.settings import TEACHER, BankRecipe, Setup
from workbench.operators import HybridSpec, OperatorSpec, label, parse_rate
from workbench.planning import parse_short
from workbench.types import StrictModel


class RehyatConfig(StrictModel):
    """Chunkings, each beside the strided rate that costs most nearly as much.

    Attributes:
        chunked: ReHyAt operators, "T1o0".
        share: of the blocks that are converted.
        pictured: which of `chunked` get clips, with their partners; `long_clips` are of twice the length.
    """

    chunked: tuple[str, ...]
    share: float = 0.5
    updates: Annotated[int, Field(ge=1)]
    clips: Annotated[int, Field(ge=0)]
    long_clips: Annotated[int, Field(ge=0)]
    pictured: tuple[str, ...]


def conditions(config: RehyatConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return pairs of plans of nearly the same cost, then the pictured ones on longer clips."""
    pairs = {name: nearest_rate(name, lab) for name in config.chunked}
    rates = tuple(dict.fromkeys([*pairs, *pairs.values()]))
    blocks = tuple(parse_short(short_plan(config.share, rates[0], lab), lab.facts).converted)
    bank = BankRecipe(rates=rates, blocks=blocks, updates=config.updates, pieces=lab.shared.bank.pieces)
    setups = {
        rate: Setup(plan=short_plan(config.share, rate, lab), weights="distilled", bank=bank)
        for rate in rates
    }
    shown = dict.fromkeys(rate for name in config.pictured for rate in (name, pairs[name]))
    found: list[Condition] = [
        StudentCondition(setup, config.clips if rate in shown else 0) for rate, setup in setups.items()
    ]
    longer = 2 * (lab.facts.default_size.frames - 1) + 1
    found.append(StudentCondition(TEACHER, config.long_clips, longer))
    found += [StudentCondition(setups[rate], config.long_clips, longer) for rate in shown]
    return found


def nearest_rate(name: str, lab: Laboratory) -> str:
    """Return the strided rate whose attention costs most nearly as much as an operator's."""
    grid = lab.facts.token_grid(lab.facts.default_size)

    def spent(spec: OperatorSpec) -> float:
        return spec.flops(grid, lab.facts).total

    wanted = spent(parse_rate(name))
    rates = [HybridSpec(rate=rate) for rate in range(2, min(64, grid.height * grid.width) + 1)]
    return label(min(rates, key=lambda spec: abs(spent(spec) - wanted)))


EXPERIMENT = Experiment(
    name="rehyat",
    title="ReHyAt or strided hybrid",
    question="At equal cost, is softmax better spent on near frames or on every R-th token?",
    configs={
        "quick": RehyatConfig(
            chunked=("T1o0", "T2o0"), updates=120, clips=5, long_clips=2, pictured=("T1o0",)
        ),
        "full": RehyatConfig(
            chunked=("T1o0", "T1o1", "T2o0", "T2o1"),
            updates=1500,
            clips=50,
            long_clips=20,
            pictured=("T1o0", "T2o1"),
        ),
    },
    conditions=conditions,
)
