"""`workbench plan` and `workbench cost`: which block gets what, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import InputError
from workbench.workspace import Workspace, new_id

if TYPE_CHECKING:
    from workbench.types import ClipSize
from workbench.cli.options import (
    BlocksOption,
    FramesOption,
    HeightOption,
    JsonOption,
    ModelOption,
    PlanOption,
    WidthOption,
    WorkspaceOption,
    model_name,
    show,
)


def plan(
    model: ModelOption = "embedded",
    blocks: BlocksOption = None,
    rate: Annotated[str | None, typer.Option("--rate", help="R4, 4 or linear; with --blocks.")] = None,
    assign: Annotated[str | None, typer.Option("--assign", help='"0-3:softmax,4-7:R4,8-:linear".')] = None,
    short: Annotated[str | None, typer.Option("--short", help="A short name, 5xR4.")] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="With --speedup: the measured cells.")] = None,
    speedup: Annotated[
        float | None, typer.Option("--speedup", help="The best plan this many times as fast in FLOPs.")
    ] = None,
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a plan: which operator each block gets."""
    from workbench import planning, surgery

    facts = surgery.open_facts(model_name(model))[0]
    ways = sum(way is not None for way in (rate, assign, short, speedup))
    if ways != 1:
        raise InputError(
            "Say how to plan in one way: --blocks with --rate, --assign, --short, or --speedup with --bank."
        )
    if assign is not None:
        made = planning.parse_assign(assign, facts)
    elif short is not None:
        made = planning.parse_short(short, facts)
    elif rate is not None:
        made = planning.plan_blocks(blocks or "all", rate, facts)
    elif bank is None:
        raise InputError("--speedup chooses among measured cells; name their bank with --bank.")
    else:
        made = planning.select(planning.load_bank(bank), facts, facts.default_size, speedup=speedup or 1.0)
    path = Workspace.open(workspace).folder("plans") / f"{new_id(made.short_name)}.json"
    planning.save(made, path)
    document = {"plan": str(path), **planning.to_json(made), "cost": _cost_document(made, facts, None)}
    show(document, as_json=as_json, prose=f"{made.short_name}: {path}\n{_cost_prose(document['cost'])}")


def cost(
    plan: PlanOption = "softmax",
    model: ModelOption = "embedded",
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    target_speedup: Annotated[
        float | None, typer.Option("--target-speedup", help="Ask whether a speed-up can be reached.")
    ] = None,
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the FLOPs of a plan, without weights."""
    from workbench import planning, surgery
    from workbench.types import ClipSize

    del workspace
    facts = surgery.open_facts(model_name(model))[0]
    usual = facts.default_size
    size = ClipSize(frames or usual.frames, height or usual.height, width or usual.width)
    if target_speedup is not None:
        payoff = planning.will_it_pay(facts, size, target_speedup=target_speedup)
        show(payoff.model_dump(mode="json"), as_json=as_json, prose=payoff.sentence)
        return
    document = _cost_document(planning.load(plan, facts), facts, size)
    show(document, as_json=as_json, prose=_cost_prose(document))


def _cost_document(plan: Any, facts: Any, size: ClipSize | None) -> dict[str, Any]:
    from workbench import planning

    document: dict[str, Any] = planning.cost(plan, facts, size).model_dump(mode="json")
    return document


def _cost_prose(document: dict[str, Any]) -> str:
    lines = [
        f"{document['tokens']:,} tokens; a dense block is {document['block_tflop']:.4g} TFLOP.",
        f"{document['plan']}: attention {document['attention_ratio']:.1%} and whole DiT "
        f"{document['dit_ratio']:.1%} of the operations of softmax.",
        *document["notes"],
    ]
    return "\n".join(lines)
