"""From artefacts and jobs to the plain data that the parts show: no gradio, no markup, one file per page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.models import ModelFacts
    from workbench.operators import OperatorSpec
    from workbench.planning import Bank, Plan

OPERATORS = ("softmax", "R2", "R4", "R8", "R16", "linear")
"""Columns of the painter that every model has, cool to warm."""
USUAL_CHUNK = 3


def operators(
    facts: ModelFacts, bank: Bank | None = None, shown: Iterable[Plan] = ()
) -> dict[str, OperatorSpec]:
    """Return the painter's columns for a model, label to spec.

    First the usual ones, with a ReHyAt where clips have the frames; then, by their numbers, whatever else
    the cells and plans hold, so that everything on a page has a column and a price.

    Args:
        facts: of the model.
        bank: the measured cells.
        shown: plans that stand beside them.
    """
    from workbench.operators import label, parse_rate

    columns = {name: parse_rate(name) for name in _usual(facts)}
    met = {} if bank is None else {cell.label: cell.spec for cell in bank.cells.values()}
    met |= {label(spec): spec for plan in shown for spec in plan.operators}
    return columns | {name: met[name] for name in sorted(met.keys() - columns.keys(), key=_by_numbers)}


def measurable(columns: Iterable[str]) -> list[str]:
    """Return the labels that a form can ask to measure: not softmax, and the usual feature map."""
    return [name for name in columns if name != "softmax" and "-" not in name]


def fraction(value: float, digits: int = 3) -> str:
    """Return an error or a probability without its leading zero."""
    return "0" if value == 0 else f"{value:.{digits}f}".replace("0.", ".", 1)


def _usual(facts: ModelFacts) -> tuple[str, ...]:
    frames = facts.token_grid(facts.default_size).frames
    chunk = min(USUAL_CHUNK, frames - 1)
    return OPERATORS if chunk < 1 else (*OPERATORS, f"T{chunk}o{min(1, chunk - 1)}")


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key by which T2o1 comes before T10o1."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
