"""Distillation: the feature maps of cells learn the teacher's attention, and become a bank."""

from workbench.distillation.config import MeasureConfig
from workbench.distillation.measure import cell_name, measure

__all__ = ["MeasureConfig", "cell_name", "measure"]
