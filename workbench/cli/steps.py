"""The steps of the flow as commands: each builds one config and queues it as a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.options import (
    DetachOption,
    FramesOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    ModelOption,
    PlanOption,
    PromptOption,
    SeedOption,
    StepsOption,
    WidthOption,
    WorkspaceOption,
    bank_name,
    model_name,
    numbers,
    plan_name,
    queue_step,
    show,
    stated,
)
from workbench.errors import InputError
from workbench.types import SilentReporter
from workbench.workspace import Workspace


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
    settings = stated(
        model=model_name(model), prompt=prompt, seed=seed, steps=steps, guidance=guidance, **size
    )
    queue_step("generate", settings, title=prompt, workspace=workspace, as_json=as_json, detach=detach)


def capture(
    prompt: PromptOption,
    model: ModelOption = "embedded",
    seed: SeedOption = 0,
    steps: StepsOption = None,
    at_steps: Annotated[
        str | None,
        typer.Option("--at-steps", help="Which steps to record, for example 0,4,9 (default: up to eight)."),
    ] = None,
    query_stride: Annotated[int, typer.Option("--query-stride", help="Use every so many-th query.")] = 1,
    rows: Annotated[
        str | None, typer.Option("--rows", help="Query tokens whose exact rows are kept, for example 0,640.")
    ] = None,
    guidance: GuidanceOption = None,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    max_megabytes: Annotated[
        int | None, typer.Option("--max-megabytes", help="Bound on the file (default: 20, or the maps').")
    ] = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what the attention of every block and head does in one sampling run."""
    settings = stated(
        model=model_name(model),
        prompt=prompt,
        seed=seed,
        steps=steps,
        at_steps=numbers(at_steps, what="--at-steps"),
        query_stride=query_stride,
        row_queries=numbers(rows, what="--rows"),
        guidance=guidance,
        frames=frames,
        height=height,
        width=width,
        max_megabytes=max_megabytes,
    )
    queue_step("capture", settings, title=prompt, workspace=workspace, as_json=as_json, detach=detach)


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

    config = workflow.check("surgery", {"plan": plan, "bank": bank_name(bank), "name": name})
    made = workflow.STEPS["surgery"].run(config, Workspace.open(workspace), SilentReporter())
    show(made.to_json(), as_json=as_json, prose=str(made.path))


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
    chosen = stated(
        prompt=prompt, plan=None if plan is None else plan_name(plan), seed=seed, model=model_name(model)
    )
    settings = {**workflow.PRESETS[preset].model_dump(mode="json"), **chosen}
    queue_step(
        "study", settings, title=f"{preset} study", workspace=workspace, as_json=as_json, detach=detach
    )
