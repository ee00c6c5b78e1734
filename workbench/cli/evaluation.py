"""`workbench evaluate`: judge a model's clips."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.options import (
    DetachOption,
    JsonOption,
    ModelOption,
    StepsOption,
    WorkspaceOption,
    model_name,
    queue_step,
    stated,
)


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
    settings = stated(model=model_name(model), suite=suite, num=num, steps=steps, swap_prompts=swap_prompts)
    title = f"{num} {suite} prompts"
    queue_step("evaluate", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)
