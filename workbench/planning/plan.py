"""Plans: which operator computes the self-attention of each block. The artefact and its ways to be written.

A plan is JSON that lists every block. It names the model it was made for; it knows no weights and no bank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from workbench.errors import InputError
from workbench.models.facts import Count, ModelFacts
from workbench.operators import SOFTMAX, OperatorField, OperatorSpec, Schedule, SoftmaxSpec, label
from workbench.types import ClipSize, StrictModel, TokenGrid
from workbench.workspace import parse_json, read_json, write_json

SCHEMA_VERSION = 1
MAX_NAME = 200


class ModelIdentity(StrictModel):
    """Which model an artefact belongs to; the fingerprint is empty where no weights were seen."""

    name: str
    fingerprint: str = ""
    num_blocks: Count
    num_heads: Count
    head_dim: Count

    @classmethod
    def of(cls, facts: ModelFacts) -> ModelIdentity:
        return cls(
            name=facts.name,
            fingerprint=facts.fingerprint,
            num_blocks=facts.num_blocks,
            num_heads=facts.num_heads,
            head_dim=facts.head_dim,
        )

    def check(self, facts: ModelFacts, *, what: str) -> None:
        """Refuse a model other than this one.

        Args:
            facts: of the model at hand.
            what: how to call the artefact, for example "plan demo.json".

        Raises:
            InputError: another architecture, or the same with other weights; names both.
        """
        mine = (self.num_blocks, self.num_heads, self.head_dim)
        other = (facts.num_blocks, facts.num_heads, facts.head_dim)
        if mine != other:
            raise InputError(
                f"{what} is for {self.name} ({_shape(mine)}), and the model is {facts.name} "
                f"({_shape(other)}); choose one made for this model."
            )
        if self.fingerprint and facts.fingerprint and self.fingerprint != facts.fingerprint:
            raise InputError(
                f"{what} is for other weights ({self.name}, fingerprint {self.fingerprint}) than those of "
                f"{facts.name} ({facts.fingerprint}); choose one made for this model."
            )


class PlannedBlock(StrictModel):
    """One block and its operator."""

    block: Annotated[int, Field(ge=0)]
    operator: OperatorField


class Plan(StrictModel):
    """Block to operator, always listing every block.

    Attributes:
        size: clip size in pixels that the plan was made for, where one was chosen.
        schedule: steps on which converted blocks stay dense.
        provenance: where the plan came from, free JSON scalars.
    """

    schema_version: int = SCHEMA_VERSION
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    model: ModelIdentity
    size: tuple[Count, Count, Count] | None = None
    blocks: tuple[PlannedBlock, ...]
    schedule: Schedule = Schedule()
    provenance: dict[str, str | int | float | bool | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _every_block_once(self) -> Plan:
        listed = [planned.block for planned in self.blocks]
        if listed != list(range(self.model.num_blocks)):
            wanted = f"0 to {self.model.num_blocks - 1}"
            raise ValueError(
                f"a plan lists every block {wanted} once, in order; this one lists {listed[:50]}"
            )
        return self

    @property
    def operators(self) -> tuple[OperatorSpec, ...]:
        """The operator of every block, in order."""
        return tuple(planned.operator for planned in self.blocks)

    @property
    def converted(self) -> dict[int, OperatorSpec]:
        """The blocks that do not keep softmax, with their operators."""
        return {
            planned.block: planned.operator
            for planned in self.blocks
            if not isinstance(planned.operator, SoftmaxSpec)
        }

    @property
    def short_name(self) -> str:
        """A name for people: `5xR4`, `softmax`, or mixed as `3xR4+2xlinear`."""
        counts: dict[str, int] = {}
        for spec in self.converted.values():
            counts[label(spec)] = counts.get(label(spec), 0) + 1
        return "+".join(f"{count}x{name}" for name, count in counts.items()) or "softmax"


def make_plan(
    operators: Mapping[int, OperatorSpec],
    facts: ModelFacts,
    *,
    name: str = "",
    size: ClipSize | None = None,
    schedule: Schedule | None = None,
    provenance: Mapping[str, str | int | float | bool | None] | None = None,
) -> Plan:
    """Make a plan from the converted blocks; all others keep softmax.

    Raises:
        InputError: a block that the model does not have, or a rate above the tokens of a frame.
    """
    for block in operators:
        check_block(block, facts)
    plan = Plan(
        name=name[:MAX_NAME],
        model=ModelIdentity.of(facts),
        size=None if size is None else (size.frames, size.height, size.width),
        blocks=tuple(
            PlannedBlock(block=block, operator=operators.get(block, SOFTMAX))
            for block in range(facts.num_blocks)
        ),
        schedule=schedule or Schedule(),
        provenance=dict(provenance or {}),
    )
    check_rates(plan, facts.token_grid(size or facts.default_size))
    return plan


def check_block(block: int, facts: ModelFacts) -> None:
    """Refuse a block that the model does not have.

    Raises:
        InputError: names the block and the range.
    """
    if not 0 <= block < facts.num_blocks:
        raise InputError(
            f"Block {block} does not exist; {facts.name} has blocks 0 to {facts.num_blocks - 1}."
        )


def check_rates(plan: Plan, grid: TokenGrid) -> tuple[str, ...]:
    """Check the rates of a plan against a token grid.

    Returns:
        Notes: a rate that does not divide the tokens of a frame is accepted, but its kept positions shift.

    Raises:
        InputError: a rate above the tokens of a frame, or chunks longer than the clip is meant to be.
    """
    per_frame = grid.height * grid.width
    notes: list[str] = []
    for rate in sorted({getattr(spec, "rate", 1) for spec in plan.operators}):
        if rate > per_frame:
            raise InputError(
                f"Rate R{rate} is above the {per_frame:,} tokens of a frame at this clip size, so that "
                f"some frames would keep none; choose at most R{per_frame}, or linear."
            )
        if per_frame % rate:
            notes.append(
                f"R{rate} does not divide the {per_frame:,} tokens of a frame: "
                "the kept positions shift from frame to frame."
            )
    return tuple(notes)


def load_file(path: Path, facts: ModelFacts | None = None) -> Plan:
    """Read a plan file strictly.

    Args:
        path: a JSON file.
        facts: of the model it is wanted for; None skips that check.

    Raises:
        InputError: missing, damaged, of a newer version, or for another model.
    """
    what = f"plan {path.name}"
    return _checked(read_json(path, what=what), what=what, facts=facts)


def from_text(text: str, facts: ModelFacts | None = None, *, what: str = "plan") -> Plan:
    """Read a plan from JSON text, under the rules of `load_file`."""
    return _checked(parse_json(text, what=what), what=what, facts=facts)


def save(plan: Plan, path: Path) -> None:
    """Write a plan file: the old content or the new, never a mix.

    Raises:
        InputError: the place cannot be written.
    """
    write_json(path, to_json(plan))


def to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON data."""
    data: dict[str, Any] = json.loads(plan.model_dump_json())
    return data


def _checked(data: dict[str, Any], *, what: str, facts: ModelFacts | None) -> Plan:
    check_schema_version(data, SCHEMA_VERSION, what=what)
    plan = Plan.parse(data, what=what)
    if facts is not None:
        plan.model.check(facts, what=what)
    return plan


def check_schema_version(data: Mapping[str, Any], current: int, *, what: str) -> None:
    """Refuse a document that a newer version wrote.

    Raises:
        InputError: names both versions.
    """
    version = data.get("schema_version", current)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError(f"{what}: 'schema_version' must be a whole number, got {str(version)[:40]!r}.")
    if version > current:
        raise InputError(
            f"{what} was made by a newer version (schema {version}; this is {current}); update the workbench."
        )


def _shape(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} blocks, {shape[1]} heads of {shape[2]}"
