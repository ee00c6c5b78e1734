"""Clips in sync: what the app's Compare page plays."""

from __future__ import annotations

from pathlib import Path

from workbench.comparison import player_data, read
from workbench.widgets.part import PartWidget, data_address


def clip_player(folder: Path) -> PartWidget:
    """Return the synced player of a comparison: side by side, wipe, difference, frame by frame.

    Args:
        folder: a comparison, as `workbench.workflow.compare` makes it; its clips travel inside the notebook.

    Raises:
        InputError: no comparison, or a damaged one.
    """
    data = player_data(read(folder), lambda name: data_address(folder / name))
    return PartWidget("player", props={"player": {"value": data}})
