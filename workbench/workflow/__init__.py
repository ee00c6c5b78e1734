"""The whole flow, from a prompt to two clips side by side: `flow.py` is the page to read first."""

from workbench.workflow.flow import (
    Made,
    build_student,
    capture,
    compare,
    distillation_figures,
    evaluate,
    evaluate_suite,
    finetune,
    generate,
    measure,
    measure_sensitivity,
    render,
    time_operators,
)
from workbench.workflow.steps import STEPS, Step, check
from workbench.workflow.study import PRESETS, StudyConfig, study

__all__ = [
    "PRESETS",
    "STEPS",
    "Made",
    "Step",
    "StudyConfig",
    "build_student",
    "capture",
    "check",
    "compare",
    "distillation_figures",
    "evaluate",
    "evaluate_suite",
    "finetune",
    "generate",
    "measure",
    "measure_sensitivity",
    "render",
    "study",
    "time_operators",
]
