"""Comparison: the same prompts and seed through teacher and students, in a folder that needs no server."""

from workbench.comparison.compare import check_rows, compare
from workbench.comparison.config import CompareConfig, Side, check
from workbench.comparison.export import export
from workbench.comparison.imports import import_clip
from workbench.comparison.record import Comparison, load, read
from workbench.comparison.scores import Score, scores
from workbench.comparison.shown import player_data

__all__ = [
    "CompareConfig",
    "Comparison",
    "Score",
    "Side",
    "check",
    "check_rows",
    "compare",
    "export",
    "import_clip",
    "load",
    "player_data",
    "read",
    "scores",
]
