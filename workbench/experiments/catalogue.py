"""The seven experiments by name, in the order in which they are told."""

from __future__ import annotations

from workbench.experiments import (
    allocation,
    extremes,
    feature_maps,
    linear_branch,
    losses,
    rates,
    rehyat,
)
from workbench.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (rates, allocation, losses, linear_branch, feature_maps, extremes, rehyat)
}
