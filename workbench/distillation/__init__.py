"""Distillation: the feature maps of cells learn the teacher's attention, and become a bank."""

from workbench.distillation.config import MeasureConfig
from workbench.distillation.measure import cell_name, measure
from workbench.distillation.sensitivity import (
    CellSensitivity,
    Sensitivity,
    SensitivityConfig,
    load_sensitivity,
    measure_sensitivity,
)

__all__ = [
    "CellSensitivity",
    "MeasureConfig",
    "Sensitivity",
    "SensitivityConfig",
    "cell_name",
    "load_sensitivity",
    "measure",
    "measure_sensitivity",
]
