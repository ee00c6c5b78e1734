"""Comparison: one prompt and seed through teacher and student, in a folder that needs no server."""

from workbench.comparison.compare import CompareConfig, check, compare
from workbench.comparison.record import Comparison, load, player_data, read

__all__ = ["CompareConfig", "Comparison", "check", "compare", "load", "player_data", "read"]
