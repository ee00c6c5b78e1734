"""The command line: parses words, builds one config, runs one step. Knows the steps by `workbench.workflow`.

Exit codes: 0 done, 2 bad input (one sentence on stderr), 1 failure. With `--json` stdout holds one document.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench import cli_jobs
from workbench.errors import Cancelled, InputError, Paused, WorkbenchError
from workbench.workspace import Workspace, new_id

if TYPE_CHECKING:
    from workbench.types import ClipSize

app = typer.Typer(
    name="workbench",
    help="See, choose, distil and compare linearized attention in video diffusion transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_jobs.app, name="jobs")

WorkspaceOption = cli_jobs.WorkspaceOption
JsonOption = cli_jobs.JsonOption
ModelOption = Annotated[
    str, typer.Option("--model", help="Registry name, diffusers folder, student folder or hub id.")
]
PromptOption = Annotated[str, typer.Option("--prompt", help="What the clip shows.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the initial noise.")]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Sampling steps (default: the model's).")]
GuidanceOption = Annotated[float | None, typer.Option("--guidance", help="Classifier-free guidance scale.")]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Frames, 4k+1 (default: the model's).")]
HeightOption = Annotated[int | None, typer.Option("--height", help="Pixels, a multiple of 16.")]
WidthOption = Annotated[int | None, typer.Option("--width", help="Pixels, a multiple of 16.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Queue, print the job's id and return.")]
BlocksOption = Annotated[
    str | None, typer.Option("--blocks", help="For example 0,2,5-7 or 8- (default: all).")
]
PlanOption = Annotated[str, typer.Option("--plan", help="A plan file, or a short name such as 5xR4.")]


@app.command()
def generate(
    prompt: PromptOption,
    model: ModelOption = "embedded",
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate one clip."""
    size = {"frames": frames, "height": height, "width": width}
    settings = _stated(model=_name(model), prompt=prompt, seed=seed, steps=steps, guidance=guidance, **size)
    _queue("generate", settings, title=prompt, workspace=workspace, as_json=as_json, detach=detach)


@app.command()
def capture(
    prompt: PromptOption,
    model: ModelOption = "embedded",
    seed: SeedOption = 0,
    steps: StepsOption = None,
    at_steps: Annotated[
        str | None,
        typer.Option("--at-steps", help="Which steps to record, for example 0,4,9 (default: all)."),
    ] = None,
    query_stride: Annotated[int, typer.Option("--query-stride", help="Use every so many-th query.")] = 1,
    rows: Annotated[
        str | None, typer.Option("--rows", help="Query tokens whose exact rows are kept, for example 0,640.")
    ] = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what the attention of every block and head does in one sampling run."""
    settings = _stated(
        model=_name(model),
        prompt=prompt,
        seed=seed,
        steps=steps,
        at_steps=_numbers(at_steps, what="--at-steps"),
        query_stride=query_stride,
        row_queries=_numbers(rows, what="--rows"),
    )
    _queue("capture", settings, title=prompt, workspace=workspace, as_json=as_json, detach=detach)


@app.command()
def measure(
    model: ModelOption = "embedded",
    blocks: BlocksOption = None,
    rates: Annotated[str, typer.Option("--rates", help="For example R4,8,linear.")] = "R2,R4,R8,R16,linear",
    updates: Annotated[int | None, typer.Option("--updates", help="Optimiser steps of each cell.")] = None,
    prompts: Annotated[int | None, typer.Option("--prompts", help="Prompts to train on.")] = None,
    steps: StepsOption = None,
    extend: Annotated[
        Path | None, typer.Option("--extend", help="A bank whose cells are taken over.")
    ] = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Distil the feature maps of cells and measure their errors, into a bank."""
    from workbench import planning, surgery

    chosen = None
    if blocks is not None:
        chosen = list(planning.parse_blocks(blocks, surgery.open_facts(_name(model))[0]))
    settings = _stated(
        model=_name(model),
        blocks=chosen,
        rates=[word.strip() for word in rates.split(",")],
        updates=updates,
        num_prompts=prompts,
        steps=steps,
        extend=None if extend is None else str(extend.absolute()),
    )
    title = f"blocks {blocks or 'all'} at {rates}"
    _queue("measure", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)


@app.command()
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

    facts = surgery.open_facts(_name(model))[0]
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
    _show(document, as_json=as_json, prose=f"{made.short_name}: {path}\n{_cost_prose(document['cost'])}")


@app.command()
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
    facts = surgery.open_facts(_name(model))[0]
    usual = facts.default_size
    size = ClipSize(frames or usual.frames, height or usual.height, width or usual.width)
    if target_speedup is not None:
        payoff = planning.will_it_pay(facts, size, target_speedup=target_speedup)
        _show(payoff.model_dump(mode="json"), as_json=as_json, prose=payoff.sentence)
        return
    document = _cost_document(planning.load(plan, facts), facts, size)
    _show(document, as_json=as_json, prose=_cost_prose(document))


@app.command()
def surgery(
    plan: PlanOption,
    bank: Annotated[Path, typer.Option("--bank", help="Folder of the measured cells.")],
    name: Annotated[str, typer.Option("--name", help="What to call the student.")] = "",
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join a plan with measured cells into a student folder."""
    from workbench import workflow

    config = workflow.check("surgery", {"plan": plan, "bank": str(bank), "name": name})
    made = workflow.STEPS["surgery"].run(config, Workspace.open(workspace), workflow.SilentReporter())
    _show(made.to_json(), as_json=as_json, prose=str(made.path))


@app.command()
def compare(
    prompt: PromptOption,
    model: Annotated[str | None, typer.Option("--model", help="A student folder.")] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="A plan file or short name; with --bank.")
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Folder of the measured cells.")] = None,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate with teacher and student, same prompt and seed, and set the clips side by side."""
    settings = _stated(
        model=None if model is None else _name(model),
        plan=None if plan is None else _plan_name(plan),
        bank=None if bank is None else str(bank.absolute()),
        prompt=prompt,
        seed=seed,
        steps=steps,
        guidance=guidance,
    )
    _queue("compare", settings, title=prompt, workspace=workspace, as_json=as_json, detach=detach)


@app.command()
def study(
    preset: Annotated[
        str, typer.Option("--preset", help="quickstart (minutes) or smoke (seconds).")
    ] = "quickstart",
    prompt: Annotated[str | None, typer.Option("--prompt", help="What the compared clip shows.")] = None,
    model: ModelOption = "embedded",
    plan: Annotated[str | None, typer.Option("--plan", help="Default: the preset's own choice.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of clips and training.")] = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do all of it: capture, measure, choose a plan, build the student, compare."""
    from workbench import workflow

    if preset not in workflow.PRESETS:
        raise InputError(f"There is no preset {preset[:40]!r}; known: {', '.join(workflow.PRESETS)}.")
    stated = _stated(
        prompt=prompt, plan=None if plan is None else _plan_name(plan), seed=seed, model=_name(model)
    )
    settings = {**workflow.PRESETS[preset].model_dump(mode="json"), **stated}
    _queue("study", settings, title=f"{preset} study", workspace=workspace, as_json=as_json, detach=detach)


@app.command()
def evaluate(
    model: ModelOption = "embedded",
    suite: Annotated[
        str, typer.Option("--suite", help="held-out: combinations never trained on.")
    ] = "held-out",
    num: Annotated[int, typer.Option("--num", help="Clips to generate and judge.")] = 50,
    steps: StepsOption = None,
    *,
    swap_prompts: Annotated[
        bool,
        typer.Option("--swap-prompts", help="Judge each clip by another's prompt; scores must collapse."),
    ] = False,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge from pixels how well a model's clips obey their prompts."""
    settings = _stated(model=_name(model), suite=suite, num=num, steps=steps, swap_prompts=swap_prompts)
    title = f"{num} {suite} prompts"
    _queue("evaluate", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)


def _queue(
    kind: str, settings: dict[str, Any], *, title: str, workspace: Path | None, as_json: bool, detach: bool
) -> None:
    """Check the settings, queue the step as a job, and follow it unless detached."""
    from workbench.jobs import Queue
    from workbench.workflow import check

    opened = Workspace.open(workspace)
    config = check(kind, settings)
    queue = Queue(opened)
    command = shlex.join(["workbench", *sys.argv[1:]])
    job = queue.submit(kind, config.model_dump(mode="json"), title=title, command=command)
    queue.dispatch()
    if detach:
        _show({"job": job.id}, as_json=as_json, prose=job.id)
        return
    result = cli_jobs.follow(queue, job).result or {}
    _show(
        result, as_json=as_json, prose="\n".join(f"{name}: {_short(value)}" for name, value in result.items())
    )


def _stated(**values: Any) -> dict[str, Any]:
    """Keep what the user stated, so that a config's own defaults apply to the rest."""
    return {name: value for name, value in values.items() if value is not None}


def _name(model: str) -> str:
    """Make a folder's path absolute, because a job runs elsewhere; leave other names as they are."""
    return str(Path(model).expanduser().absolute()) if Path(model).expanduser().is_dir() else model


def _plan_name(plan: str) -> str:
    return str(Path(plan).expanduser().absolute()) if Path(plan).expanduser().is_file() else plan


def _numbers(text: str | None, *, what: str) -> list[int] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*", text):
        raise InputError(f"{what} is a list of whole numbers such as 0,4,9; got {text[:40]!r}.")
    return [int(word) for word in text.split(",")]


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


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _show(document: dict[str, Any], *, as_json: bool, prose: str) -> None:
    typer.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else prose)


def main() -> None:
    """Run the command line; every refusal is one sentence on stderr."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app(standalone_mode=False)
    except InputError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)
    except typer.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        sys.stderr.write(" ".join(message.split()) + "\n")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort, Cancelled, Paused) as error:
        sys.stderr.write(f"{str(error) or 'Cancelled.'}\n")
        sys.exit(1)
    except WorkbenchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
