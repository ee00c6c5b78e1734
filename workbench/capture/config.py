"""What a user chooses when capturing, and the check of all of it before any work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.models import ModelFacts
from workbench.sampling import GenerateConfig
from workbench.types import TokenGrid

USUAL_MEGABYTES = 20
DEFAULT_NUM_STEPS = 8
"""So many steps, evenly spread, are captured where none are named."""


class CaptureConfig(GenerateConfig):
    """A sampling run to watch, and what to keep of it.

    Attributes:
        at_steps: which steps (0-based) are captured; empty takes up to 8, evenly spread.
        query_stride: look at every so many-th query (all keys always); 1 is exact.
        row_queries: tokens whose attention rows are kept exactly, at every captured step.
        map_size: side of the pooled map of a head.
        any_query: keep queries and keys of the middle captured step in half precision, so that the row of any
            token can be had later; left out, with a note, where they do not fit into `max_megabytes`.
        max_megabytes: bound on the statistics file; None takes 20, or what the maps of a large model need.
    """

    at_steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    query_stride: Annotated[int, Field(ge=1)] = 1
    row_queries: tuple[Annotated[int, Field(ge=0)], ...] = ()
    map_size: Annotated[int, Field(ge=1, le=256)] = 32
    any_query: bool = True
    max_megabytes: Annotated[int, Field(ge=1, le=4096)] | None = None
    name: Annotated[str, Field(max_length=200)] = ""


@dataclass(frozen=True)
class CapturePlan:
    """A checked `CaptureConfig`.

    Attributes:
        branches: "cond", and "uncond" where guidance is on.
        kept_step: step whose queries and keys are kept; None keeps none.
    """

    grid: TokenGrid
    num_steps: int
    steps: tuple[int, ...]
    branches: tuple[str, ...]
    row_queries: tuple[int, ...]
    map_size: int
    query_stride: int
    kept_step: int | None
    notes: tuple[str, ...]


def check(config: CaptureConfig, facts: ModelFacts) -> CapturePlan:
    """Check a configuration against a model.

    Raises:
        InputError: one sentence: a size that the model refuses, a step or token that is not there,
            more rows than fit into the file, or a model with two transformers.
    """
    if facts.num_transformers > 1:
        raise InputError(
            f"{facts.name} has two transformers, one for early and one for late steps; "
            "capturing watches models with one."
        )
    grid = facts.token_grid(config.size(facts))
    tokens = grid.num_tokens
    num_steps = config.steps or facts.default_steps
    guidance = facts.default_guidance if config.guidance is None else config.guidance
    steps = tuple(sorted(set(config.at_steps))) or _spread(num_steps)
    if steps[-1] >= num_steps:
        raise InputError(
            f"Step {steps[-1]} is not among the {num_steps} steps of the run; "
            f"choose from 0 to {num_steps - 1}."
        )
    rows = tuple(sorted(set(config.row_queries)))
    if rows and rows[-1] >= tokens:
        raise InputError(
            f"Query token {rows[-1]} does not exist; a clip of this size has tokens 0 to {tokens - 1}."
        )
    if config.query_stride > tokens:
        raise InputError(
            f"Query stride {config.query_stride} is above the {tokens:,} tokens of the clip; "
            "choose a smaller one."
        )
    map_size = min(config.map_size, tokens)
    branches = ("cond", "uncond") if guidance > 1 else ("cond",)
    heads = len(steps) * len(branches) * facts.num_blocks * facts.num_heads
    maps_bytes, row_bytes = heads * map_size * map_size * 2, heads * tokens * 2
    bound = config.max_megabytes or max(USUAL_MEGABYTES, math.ceil(1.25 * maps_bytes / 1e6))
    room = bound * 1_000_000 - maps_bytes
    if room < row_bytes * len(rows):
        raise InputError(
            f"Maps and {len(rows)} rows of {len(steps)} steps need "
            f"{(maps_bytes + row_bytes * len(rows)) / 1e6:,.0f} MB and the capture may hold "
            f"{bound} MB; choose fewer rows or steps, or raise max_megabytes."
        )
    kept_bytes = 2 * 2 * facts.num_blocks * tokens * facts.dim
    keeps = config.any_query and kept_bytes <= room - row_bytes * len(rows)
    notes = []
    if config.any_query and not keeps:
        notes.append(
            f"Only the rows of the chosen queries are kept: queries and keys of one step would need "
            f"{kept_bytes / 1e6:,.0f} MB."
        )
    return CapturePlan(
        grid=grid,
        num_steps=num_steps,
        steps=steps,
        branches=branches,
        row_queries=rows,
        map_size=map_size,
        query_stride=config.query_stride,
        kept_step=steps[len(steps) // 2] if keeps else None,
        notes=tuple(notes),
    )


def _spread(num_steps: int) -> tuple[int, ...]:
    count = min(num_steps, DEFAULT_NUM_STEPS)
    return tuple(dict.fromkeys(int((index + 0.5) * num_steps / count) for index in range(count)))
