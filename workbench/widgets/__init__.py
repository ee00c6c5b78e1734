"""The parts of the interface as notebook widgets: the same scripts, fed from Python objects."""

from workbench.widgets.attention import attention_view
from workbench.widgets.clips import clip_player
from workbench.widgets.part import PartWidget
from workbench.widgets.plans import plan_painter
from workbench.widgets.room import room

__all__ = ["PartWidget", "attention_view", "clip_player", "plan_painter", "room"]
