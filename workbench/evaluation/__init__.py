"""Judge clips: whether they show what was asked, how near they are to others, and how steady they are."""

from workbench.evaluation.run import EvaluateConfig, check_evaluation, evaluate, load
from workbench.evaluation.suite_config import SuiteConfig, check_suite
from workbench.evaluation.suite_report import load_suite
from workbench.evaluation.suite_runner import evaluate_suite
from workbench.evaluation.vbench import export_suite

__all__ = [
    "EvaluateConfig",
    "SuiteConfig",
    "check_evaluation",
    "check_suite",
    "evaluate",
    "evaluate_suite",
    "export_suite",
    "load",
    "load_suite",
]
