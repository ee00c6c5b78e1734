"""Choices that the papers leave open, one at a time: stabilizer, rotation, positivity, degree, scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from workbench.experiments.conditions import Condition
from workbench.experiments.experiment import Experiment
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.variants import CellsCondition, Variant
from workbench.operators.feature_maps import ElementwiseSpec, HedgehogSpec, PolynomialSpec
from workbench.planning import spread
from workbench.types import StrictModel

USUAL = Variant("usual", PolynomialSpec())
VARIANTS = (
    USUAL,
    Variant("stabilizer row maximum", PolynomialSpec(), "rowmax", hybrid_only=True),
    Variant("before the rotary embedding", PolynomialSpec(), unrotated=True),
    Variant("positivity softplus", PolynomialSpec(positivity="softplus")),
    Variant("positivity square", PolynomialSpec(positivity="square")),
    Variant("positivity elu + 1", PolynomialSpec(positivity="elu")),
    Variant("positivity exp", PolynomialSpec(positivity="exp")),
    Variant("positivity abs", PolynomialSpec(positivity="abs")),
    Variant("positivity none", PolynomialSpec(positivity="none")),
    Variant("degree 1", PolynomialSpec(degree=1)),
    Variant("degree 3", PolynomialSpec(degree=3)),
    Variant("1 layer", PolynomialSpec(layers=1)),
    Variant("3 layers", PolynomialSpec(layers=3)),
    Variant("width 1", PolynomialSpec(width=1)),
    Variant("start scale 1", PolynomialSpec(start_scale=1.0), hybrid_only=True),
    Variant("start scale 0.1", PolynomialSpec(start_scale=0.1), hybrid_only=True),
    Variant("start scale 0.001", PolynomialSpec(start_scale=0.001), hybrid_only=True),
    Variant("Hedgehog", HedgehogSpec()),
    Variant("elu + 1, no map", ElementwiseSpec(kind="elu")),
    Variant("ReLU, no map", ElementwiseSpec(kind="relu")),
    Variant("exp, no map", ElementwiseSpec(kind="exp")),
)
FEWER = (
    "usual", "stabilizer row maximum", "before the rotary embedding",
    "positivity softplus", "positivity exp", "positivity none", "degree 1",
    "degree 3", "start scale 1", "start scale 0.1", "Hedgehog", "elu + 1, no map",
)  # fmt: skip


class FeatureMapsConfig(StrictModel):
    """Which variants, on how many blocks (evenly spread).

    Attributes:
        variants: by name.
    """

    variants: tuple[str, ...]
    num_blocks: Annotated[int, Field(ge=1)] = 3
    rates: tuple[str, ...] = ("R4", "linear")
    updates: Annotated[int, Field(ge=1)]


def conditions(config: FeatureMapsConfig, lab: Laboratory) -> Sequence[Condition]:
    """Return one condition a block: all its variants learn from the same states."""
    chosen = tuple(variant for variant in VARIANTS if variant.name in config.variants)
    return [
        CellsCondition(block, chosen, config.rates, config.updates)
        for block in spread(config.num_blocks, lab.facts.num_blocks)
    ]


EXPERIMENT = Experiment(
    name="feature-maps",
    title="Choices of the feature map",
    question="Which of the choices that the papers leave open lower the error of a cell?",
    configs={
        "quick": FeatureMapsConfig(variants=FEWER, updates=160),
        "full": FeatureMapsConfig(variants=tuple(variant.name for variant in VARIANTS), updates=1500),
    },
    conditions=conditions,
)
