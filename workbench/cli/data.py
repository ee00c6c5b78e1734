"""`workbench data synthesize`: captioned clips that a teacher makes, for training by flow matching."""

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
    SeedOption,
    StepsOption,
    WidthOption,
    WorkspaceOption,
    model_name,
    queue_step,
    stated,
)

app = typer.Typer(name="data", help="Make data for training.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Make data for training."""


@app.command()
def synthesize(
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Text file, one prompt a line (default: own prompts).")
    ] = None,
    num: Annotated[int, typer.Option("--num", help="Clips to make.")] = 64,
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
    """Make captioned clips with a model: a folder for `finetune --objective flow --clips`."""
    from workbench.data import read_prompts

    settings = stated(
        model=model_name(model),
        prompts=None if prompts is None else list(read_prompts(prompts.expanduser())),
        num=num,
        seed=seed,
        steps=steps,
        guidance=guidance,
        frames=frames,
        height=height,
        width=width,
    )
    title = f"{num} clips of {Path(model).name}"
    queue_step("synthesize", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)
