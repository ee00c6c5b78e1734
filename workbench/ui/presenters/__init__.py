"""From artefacts and jobs to the plain data that the parts show: no gradio, no markup, one file per page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.models import ModelFacts

OPERATORS = ("softmax", "R2", "R4", "R8", "R16", "linear")
"""Columns of the painter that every model has, cool to warm."""
USUAL_CHUNK = 3


def operators(facts: ModelFacts) -> tuple[str, ...]:
    """Return the painter's columns for a model: the usual ones, and ReHyAt where clips have the frames."""
    frames = facts.token_grid(facts.default_size).frames
    chunk = min(USUAL_CHUNK, frames - 1)
    return OPERATORS if chunk < 1 else (*OPERATORS, f"T{chunk}o{min(1, chunk - 1)}")


def fraction(value: float, digits: int = 3) -> str:
    """Return an error or a probability without its leading zero."""
    return "0" if value == 0 else f"{value:.{digits}f}".replace("0.", ".", 1)
