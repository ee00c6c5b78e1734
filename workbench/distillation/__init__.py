"""Distillation: cells learn the teacher's attention and become a bank; students are finetuned."""

from workbench.distillation.config import MeasureConfig
from workbench.distillation.finetune import FinetuneConfig, finetune
from workbench.distillation.implied import implied_row
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
    "FinetuneConfig",
    "MeasureConfig",
    "Sensitivity",
    "SensitivityConfig",
    "cell_name",
    "finetune",
    "implied_row",
    "load_sensitivity",
    "measure",
    "measure_sensitivity",
]
