"""How a user writes plans and block lists: `15xR2`, `0-3:softmax,4-:R4`, `0,2,5-7`. Text in, plans out."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.errors import InputError
from workbench.models.facts import ModelFacts
from workbench.operators import OperatorSpec, Schedule, SoftmaxSpec, parse_rate
from workbench.planning.plan import Plan, check_block, load_file, make_plan
from workbench.types import ClipSize

SHORT = re.compile(r"(\d{1,4})\s*[x×]\s*(\S+)")
MAX_TEXT = 10_000


def parse_blocks(text: str, facts: ModelFacts) -> tuple[int, ...]:
    """Read a list of blocks: `0,2,5-7` (ends included), `8-` to the last, `all`.

    Returns:
        The blocks in order, each once.

    Raises:
        InputError: not such a list, or a block that the model does not have.
    """
    blocks: set[int] = set()
    for part in text[:MAX_TEXT].split(","):
        word = part.strip().lower()
        if word == "all":
            blocks.update(range(facts.num_blocks))
            continue
        single = re.fullmatch(r"\d{1,9}", word)
        spanned = re.fullmatch(r"(\d{1,9})\s*-\s*(\d{0,9})", word)
        if single:
            first = last = int(word)
        elif spanned:
            first = int(spanned[1])
            last = int(spanned[2]) if spanned[2] else facts.num_blocks - 1
        else:
            raise InputError(
                f"{part.strip()[:40]!r} is no block or range of blocks; write for example 0,2,5-7, 8- or all."
            )
        check_block(first, facts)
        check_block(last, facts)
        if first > last:
            raise InputError(f"The range {word} runs backwards; write {last}-{first}.")
        blocks.update(range(first, last + 1))
    return tuple(sorted(blocks))


def spread(count: int, num_blocks: int) -> tuple[int, ...]:
    """Return `count` of `num_blocks` blocks spread evenly: floor((i + 1/2) * num_blocks / count)."""
    return tuple((2 * index + 1) * num_blocks // (2 * count) for index in range(count))


def is_short(text: str) -> bool:
    """Return whether a text is a short plan name rather than a path."""
    return text.strip().lower() == "softmax" or SHORT.fullmatch(text.strip()) is not None


def parse_short(
    text: str, facts: ModelFacts, *, size: ClipSize | None = None, schedule: Schedule | None = None
) -> Plan:
    """Read a short plan name, `<count>x<rate>` with the blocks spread evenly; `softmax` converts none.

    Args:
        text: for example `15xR2`, `4x8`, `10xlinear`.
        facts: of the model.
        size: clip size that the plan is for.
        schedule: steps on which the converted blocks stay dense.

    Raises:
        InputError: not a short name, more blocks than the model has, or a rate that cannot be.
    """
    provenance: dict[str, str | int | float | bool | None] = {"made_by": "short", "text": text[:200]}
    if text.strip().lower() == "softmax":
        return make_plan({}, facts, name="softmax", size=size, provenance=provenance)
    match = SHORT.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text[:60]!r} is no short plan name; write <count>x<rate>, for example 5xR4 or 3xlinear."
        )
    count = int(match[1])
    if not 0 <= count <= facts.num_blocks:
        raise InputError(f"{text[:60]!r} converts {count} blocks; {facts.name} has {facts.num_blocks}.")
    spec = parse_rate(match[2])
    operators = dict.fromkeys(spread(count, facts.num_blocks), spec) if count else {}
    return make_plan(operators, facts, name=text.strip(), size=size, schedule=schedule, provenance=provenance)


def parse_assign(
    text: str, facts: ModelFacts, *, size: ClipSize | None = None, schedule: Schedule | None = None
) -> Plan:
    """Read an assignment of operators to blocks, `0-3:softmax,4-7:R4,8-:linear`; others keep softmax.

    Raises:
        InputError: not such an assignment, a block twice, or one that the model does not have.
    """
    operators: dict[int, OperatorSpec] = {}
    blocks_text: list[str] = []
    for part in text[:MAX_TEXT].split(","):
        head, colon, rate = part.partition(":")
        blocks_text.append(head)
        if not colon:
            continue
        spec = parse_rate(rate)
        for block in parse_blocks(",".join(blocks_text), facts):
            if block in operators:
                raise InputError(f"Block {block} is assigned twice in {text[:60]!r}; keep one.")
            operators[block] = spec
        blocks_text = []
    if blocks_text:
        raise InputError(
            f"{','.join(blocks_text)[:60]!r} has no operator; write <blocks>:<rate>, for example 4-7:R4."
        )
    return _from_operators(operators, facts, made_by="assign", text=text, size=size, schedule=schedule)


def plan_blocks(blocks: str, rate: str | int, facts: ModelFacts, *, size: ClipSize | None = None) -> Plan:
    """Make a plan with one operator on a list of blocks.

    Raises:
        InputError: as `parse_blocks` and `parse_rate`.
    """
    spec = parse_rate(rate)
    operators = dict.fromkeys(parse_blocks(blocks, facts), spec)
    return _from_operators(
        operators, facts, made_by="blocks", text=f"{blocks}:{rate}", size=size, schedule=None
    )


def load(source: str | Path, facts: ModelFacts) -> Plan:
    """Return the plan of a file or of a short name.

    Raises:
        InputError: neither, or as `load_file` and `parse_short`.
    """
    text = str(source)
    if "\0" in text or len(text) > 4096 or not text.strip():
        raise InputError("The plan is no file name; give a plan file or a short name such as 5xR4.")
    if is_short(text):
        return parse_short(text, facts)
    path = Path(text).expanduser()
    if path.suffix != ".json" and not path.exists():
        raise InputError(
            f"{path.name[:60]!r} is neither a plan file nor a short name; "
            "short names look like 5xR4 or 3xlinear."
        )
    return load_file(path, facts)


def _from_operators(
    operators: dict[int, OperatorSpec],
    facts: ModelFacts,
    *,
    made_by: str,
    text: str,
    size: ClipSize | None,
    schedule: Schedule | None,
) -> Plan:
    converted = {block: spec for block, spec in operators.items() if not isinstance(spec, SoftmaxSpec)}
    plan = make_plan(
        converted, facts, size=size, schedule=schedule, provenance={"made_by": made_by, "text": text[:200]}
    )
    return plan.model_copy(update={"name": plan.short_name})
