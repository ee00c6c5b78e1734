"""Judge clips: whether they show what was asked, how near they are to others, and how steady they are."""

from workbench.evaluation.run import EvaluateConfig, evaluate, load

__all__ = ["EvaluateConfig", "evaluate", "load"]
