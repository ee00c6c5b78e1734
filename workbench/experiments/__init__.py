"""Experiments: the evidence behind the method, one command each, from frozen settings to a file of rows."""

from workbench.experiments.catalogue import EXPERIMENTS
from workbench.experiments.experiment import Experiment
from workbench.experiments.run import Order, run
from workbench.experiments.settings import SHARED, Shared

__all__ = ["EXPERIMENTS", "SHARED", "Experiment", "Order", "Shared", "run"]
