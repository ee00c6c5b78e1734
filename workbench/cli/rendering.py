"""`workbench render`, `times`: the clip of a painted plan, and milliseconds of operators on this device."""

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
    PromptOption,
    SeedOption,
    StepsOption,
    WidthOption,
    WorkspaceOption,
    bank_name,
    model_name,
    queue_step,
    stated,
)

RATES = "R2,R4,R8,R16,linear,T3o1"


def render(
    prompt: PromptOption,
    model: ModelOption = "embedded",
    operators: Annotated[
        str, typer.Option("--operators", help="One operator a block, softmax,R4,…; empty is the teacher.")
    ] = "",
    bank: Annotated[Path | None, typer.Option("--bank", help="Folder of the measured cells.")] = None,
    dense_first: Annotated[int, typer.Option("--dense-first", help="First steps that stay softmax.")] = 0,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sample the clip of a plan over measured cells beside the teacher's; kept by what made it."""
    settings = stated(
        model=model_name(model),
        prompt=prompt,
        operators=[word.strip() for word in operators.split(",") if word.strip()],
        bank=None if bank is None else bank_name(bank),
        dense_first=dense_first,
        seed=seed,
        steps=steps,
        guidance=guidance,
    )
    queue_step("render", settings, title=prompt, workspace=workspace, as_json=as_json, detach=detach)


def times(
    model: ModelOption = "embedded",
    rates: Annotated[str, typer.Option("--rates", help="Operators to time; softmax always is.")] = RATES,
    repeats: Annotated[int | None, typer.Option("--repeats", help="Runs of each; the median counts.")] = None,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the milliseconds of every operator on this device; budgets in ms use them."""
    words = [word.strip() for word in rates.split(",") if word.strip()]
    size = {"frames": frames, "height": height, "width": width}
    settings = stated(model=model_name(model), rates=words, repeats=repeats, **size)
    title = f"operators of {Path(settings['model']).name}"
    queue_step("times", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)
