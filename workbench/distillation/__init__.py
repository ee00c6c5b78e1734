"""Distillation: cells learn the teacher's attention and become a bank; students are finetuned."""

from workbench.distillation.config import MeasureConfig, check_measure
from workbench.distillation.finetune import finetune
from workbench.distillation.finetune_config import PRESETS, FinetuneConfig, check_finetune, preset
from workbench.distillation.finetuned import finetune_figures
from workbench.distillation.implied import implied_row
from workbench.distillation.measure import cell_name, measure
from workbench.distillation.sensitivity import (
    CellSensitivity,
    Sensitivity,
    SensitivityConfig,
    TeacherState,
    check_sensitivity,
    load_sensitivity,
    measure_sensitivity,
    read_sensitivity,
    teacher_states,
    velocity_error,
)

__all__ = [
    "PRESETS",
    "CellSensitivity",
    "FinetuneConfig",
    "MeasureConfig",
    "Sensitivity",
    "SensitivityConfig",
    "TeacherState",
    "cell_name",
    "check_finetune",
    "check_measure",
    "check_sensitivity",
    "finetune",
    "finetune_figures",
    "implied_row",
    "load_sensitivity",
    "measure",
    "measure_sensitivity",
    "preset",
    "read_sensitivity",
    "teacher_states",
    "velocity_error",
]
