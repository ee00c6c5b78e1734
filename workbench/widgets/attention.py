"""A capture in three zooms, linked with where one patch looks: what the app's Attention page shows."""

from __future__ import annotations

from typing import Any

from workbench.capture import Capture
from workbench.ui.presenters import maps
from workbench.widgets.part import PartWidget, data_address

MOST_ROW_BYTES = 400_000
"""Of the rows that travel in a page without Python."""


def attention_view(capture: Capture) -> PartWidget:
    """Return blocks × heads, one block's heads, one head, and the overlay of a clicked patch, as one widget.

    Args:
        capture: as `workbench.capture.load` reads it.
    """
    addresses = [data_address(path) if path.is_file() else None for path in capture.frames]
    sprite, overlay, heads = maps.attention_page(capture, addresses=addresses)
    return PartWidget(
        "sprite",
        "overlay",
        "heads",
        arrangement="attention",
        props={"sprite": {"value": sprite}, "overlay": {"value": overlay}, "heads": {"value": heads}},
        still=_still(capture),
        answers={
            "sprite": lambda question: maps.sprite(capture, question),
            "row": lambda question: maps.attention_row(capture, question),
        },
    )


def _still(capture: Capture) -> list[tuple[str, dict[str, Any]]]:
    """Return what a page without Python is asked: all maps, and the middle token's row of every head."""
    steps = range(len(capture.manifest.steps) + 1)
    asked: list[tuple[str, dict[str, Any]]] = [("sprite", {"step": step}) for step in steps]
    grid = capture.grid
    if capture.num_blocks * capture.num_heads * grid.num_tokens > MOST_ROW_BYTES:
        return asked
    middle = [grid.frames // 2, grid.height // 2, grid.width // 2]
    return asked + [
        ("row", {"block": block, "head": head, "mean": False, "patch": middle})
        for block in range(capture.num_blocks)
        for head in range(capture.num_heads)
    ]
