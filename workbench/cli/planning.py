"""`workbench plan` and `cost`: which block gets what, and what that costs in operations and in time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.options import (
    BlocksOption,
    FramesOption,
    HeightOption,
    JsonOption,
    ModelOption,
    PlanOption,
    StepsOption,
    WidthOption,
    WorkspaceOption,
    bank_name,
    model_name,
    show,
)
from workbench.errors import InputError
from workbench.workspace import Workspace, new_id

if TYPE_CHECKING:
    from workbench.models import ModelFacts
    from workbench.planning import Allocation, Bank, Measure, Plan, Timings
    from workbench.types import ClipSize

ONE_WAY = (
    "Say how to plan in one way: --blocks with --rate, --assign, --short, or with --bank one of --speedup, "
    "--budget-flops, --budget-ms, --attention-ratio and --front."
)

BUDGETS = {"flops": "--budget-flops", "ms": "--budget-ms", "attention": "--attention-ratio"}


def plan(
    model: ModelOption = "embedded",
    blocks: BlocksOption = None,
    rate: Annotated[str | None, typer.Option("--rate", help="R4, 4 or linear; with --blocks.")] = None,
    assign: Annotated[str | None, typer.Option("--assign", help='"0-3:softmax,4-7:R4,8-:linear".')] = None,
    short: Annotated[str | None, typer.Option("--short", help="A short name, 5xR4.")] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="The measured cells to choose among.")] = None,
    speedup: Annotated[
        float | None, typer.Option("--speedup", help="So many times as fast over a whole clip.")
    ] = None,
    budget_flops: Annotated[
        float | None, typer.Option("--budget-flops", help="Operations of one pass of all blocks.")
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option("--budget-ms", help="Milliseconds of one pass on this device.")
    ] = None,
    attention_ratio: Annotated[
        float | None, typer.Option("--attention-ratio", help="Attention operations over softmax's.")
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="error (of the cells) or sensitivity (of the velocity).")
    ] = "error",
    method: Annotated[
        str, typer.Option("--method", help="optimal, or a baseline: greedy, uniform, best_k.")
    ] = "optimal",
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    steps: StepsOption = None,
    dense_first: Annotated[int, typer.Option("--dense-first", help="So many first steps stay dense.")] = 0,
    *,
    milliseconds: Annotated[
        bool, typer.Option("--milliseconds", help="Count --speedup and --front in time on this device.")
    ] = False,
    front: Annotated[
        bool, typer.Option("--front", help="List every plan that none beats in both error and cost.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a plan: which operator each block gets."""
    from workbench import planning, surgery
    from workbench.operators import Schedule

    facts = surgery.open_facts(model_name(model))[0]
    size = _size(facts, frames, height, width)
    budgets = {"speedup": speedup, "flops": budget_flops, "ms": budget_ms, "attention": attention_ratio}
    ways = [way for way in (rate, assign, short, *budgets.values(), front or None) if way is not None]
    if len(ways) != 1:
        raise InputError(ONE_WAY)
    opened = Workspace.open(workspace)
    schedule = Schedule(dense_first=dense_first)
    if assign is not None:
        made = planning.parse_assign(assign, facts, size=size, schedule=schedule)
    elif short is not None:
        made = planning.parse_short(short, facts, size=size, schedule=schedule)
    elif rate is not None:
        made = planning.plan_blocks(blocks or "all", rate, facts, size=size)
        made = made.model_copy(update={"schedule": schedule})
    elif bank is None:
        raise InputError("A budget chooses among measured cells; name their bank with --bank.")
    else:
        measured = planning.load_bank(Path(bank_name(bank)), facts)
        timings = _timings(opened, facts, size) if milliseconds or budget_ms is not None else None
        measure = planning.Measure(size, timings, schedule, steps)
        errors = _objective(measured, objective)
        if front:
            _show_front(
                planning.front(measured, facts, size, timings=timings, errors=errors), as_json=as_json
            )
            return
        made = _select(measured, facts, measure, budgets, method=method, errors=errors)
    path = opened.folder("plans") / f"{new_id(made.short_name)}.json"
    planning.save(made, path)
    document = {"plan": str(path), **planning.to_json(made), "cost": _cost_document(made, facts, size, steps)}
    show(document, as_json=as_json, prose=f"{made.short_name}: {path}\n{_cost_prose(document['cost'])}")


def _select(
    bank: Bank,
    facts: ModelFacts,
    measure: Measure,
    budgets: dict[str, float | None],
    *,
    method: str,
    errors: dict[tuple[int, str], float] | None,
) -> Plan:
    from workbench import planning

    for way, value in budgets.items():
        if value is not None and way != "speedup" and not (value > 0 and math.isfinite(value)):
            raise InputError(f"{BUDGETS[way]} must be a number above 0, got {value:g}.")
    budget = budgets["flops"] if budgets["flops"] is not None else budgets["ms"]
    if budgets["attention"] is not None:
        core, rest = measure.dense(facts)
        budget = facts.num_blocks * (budgets["attention"] * core + rest)
    known: Any = method
    return planning.select(
        bank, facts, measure, speedup=budgets["speedup"], budget=budget, method=known, errors=errors
    )


def _objective(bank: Bank, name: str) -> dict[tuple[int, str], float] | None:
    from workbench import distillation

    if name == "error":
        return None
    if name != "sensitivity":
        raise InputError(f"Objective {name[:40]!r} is not known; choose error or sensitivity.")
    found = distillation.load_sensitivity(bank)
    if found is None:
        raise InputError(
            f"The sensitivity of bank {bank.folder.name} is not measured; run `workbench sensitivity --bank "
            f"{bank.folder.name}` first."
        )
    return found.errors


def _show_front(points: tuple[Allocation, ...], as_json: bool) -> None:  # noqa: FBT001 - a format, passed on
    rows = [
        {"labels": list(each.labels), "error": each.error, "attention_cost": each.cost} for each in points
    ]
    lines = [f"{each.error:10.4f}  {each.cost:12.5g}  {' '.join(each.labels)}" for each in points]
    show({"front": rows}, as_json=as_json, prose="\n".join(["     error  attention     blocks", *lines]))


def cost(
    plan: PlanOption = "softmax",
    model: ModelOption = "embedded",
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    steps: StepsOption = None,
    target_speedup: Annotated[
        float | None, typer.Option("--target-speedup", help="Ask whether a speed-up can be reached.")
    ] = None,
    *,
    milliseconds: Annotated[
        bool, typer.Option("--milliseconds", help="Also in time, as measured on this device.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the FLOPs of a plan, without weights; or its milliseconds on this device."""
    from workbench import planning, surgery

    facts = surgery.open_facts(model_name(model))[0]
    size = _size(facts, frames, height, width)
    if target_speedup is not None:
        payoff = planning.will_it_pay(facts, size, target_speedup=target_speedup)
        show(payoff.model_dump(mode="json"), as_json=as_json, prose=payoff.sentence)
        return
    made = planning.load(plan, facts)
    document = _cost_document(made, facts, size, steps)
    prose = _cost_prose(document)
    if milliseconds:
        timings = _timings(Workspace.open(workspace), facts, size)
        document["milliseconds"] = _milliseconds(made, facts, planning.Measure(size, timings, steps=steps))
        prose += f"\n{document['milliseconds']['sentence']}"
    show(document, as_json=as_json, prose=prose)


def _size(facts: ModelFacts, frames: int | None, height: int | None, width: int | None) -> ClipSize:
    usual = facts.default_size
    stated_size = {"frames": frames, "height": height, "width": width}
    return usual._replace(**{name: value for name, value in stated_size.items() if value is not None})


def _timings(workspace: Workspace, facts: ModelFacts, size: ClipSize) -> Timings:
    """Return what was timed on this device, scaled to another clip size as an estimate.

    Raises:
        InputError: nothing was timed.
    """
    from workbench.evaluation.operator_times import find_times
    from workbench.types import ClipSize

    found = find_times(workspace, facts, size) or find_times(workspace, facts)
    if found is None:
        raise InputError(
            f"The operators of {facts.name} were not timed on this device; run `workbench times --model "
            f"{facts.name}` first, about a minute."
        )
    return found.timings.scaled(facts, measured=ClipSize(*found.size), wanted=size)


def _milliseconds(plan: Plan, facts: ModelFacts, measure: Measure) -> dict[str, Any]:
    from workbench import planning

    timings = measure.timings
    assert timings is not None
    dense = measure.pass_cost(planning.make_plan({}, facts, size=measure.size), facts)
    own = measure.pass_cost(plan, facts)
    how = "estimated from another clip size" if timings.is_estimate else "measured operator by operator"
    return {
        "pass": own,
        "dense_pass": dense,
        "speedup": dense / own,
        "device": timings.device,
        "is_estimate": timings.is_estimate,
        "sentence": f"One pass takes {own:.4g} ms, softmax {dense:.4g} ms ({dense / own:.2f}×), "
        f"{how} on {timings.device}.",
    }


def _cost_document(plan: Plan, facts: ModelFacts, size: ClipSize, steps: int | None) -> dict[str, Any]:
    from workbench import planning

    found = planning.cost(plan, facts, size, num_steps=steps)
    document: dict[str, Any] = found.model_dump(mode="json")
    return document


def _cost_prose(document: dict[str, Any]) -> str:
    lines = [
        f"{document['tokens']:,} tokens; a dense block is {document['block_tflop']:.4g} TFLOP.",
        f"{document['plan']}: attention {document['attention_ratio']:.1%} and whole DiT "
        f"{document['dit_ratio']:.1%} of the operations of softmax.",
        *document["notes"],
    ]
    return "\n".join(lines)
