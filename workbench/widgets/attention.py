"""A capture in three zooms, linked with where one patch looks: what the app's Attention page shows."""

from __future__ import annotations

from workbench.capture import Capture
from workbench.ui.presenters import maps
from workbench.widgets.part import PartWidget, data_address


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
        answers={
            "sprite": lambda question: maps.sprite(capture, question),
            "row": lambda question: maps.attention_row(capture, question),
        },
    )
