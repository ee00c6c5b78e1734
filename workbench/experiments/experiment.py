"""What an experiment is: a question, a frozen configuration by scale, and the conditions that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.experiments.conditions import Condition
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.results import Row
from workbench.experiments.settings import Scale
from workbench.types import StrictModel


def _nothing(_: Sequence[Row]) -> Row:
    return {}


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: of its command and its result file.
        title: for a heading.
        question: what it answers.
        configs: its settings by scale.
        conditions: what is measured under a configuration; looks at no weights.
        conclude: what follows from the rows, as JSON data.
    """

    name: str
    title: str
    question: str
    configs: Mapping[Scale, StrictModel]
    conditions: Callable[[Any, Laboratory], Sequence[Condition]]
    conclude: Callable[[Sequence[Row]], Row] = _nothing


def short_plan(share: float, rate: str, lab: Laboratory) -> str:
    """Return the short name of a plan that converts a share of the blocks, at least one."""
    return f"{max(1, round(share * lab.facts.num_blocks))}x{rate}"
