"""Comparisons as commands: make one, set a clip of one's own beside it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.options import (
    DetachOption,
    GuidanceOption,
    JsonOption,
    SeedOption,
    StepsOption,
    WorkspaceOption,
    bank_name,
    model_name,
    plan_name,
    queue_step,
    show,
    stated,
)
from workbench.errors import InputError
from workbench.workspace import Workspace

ComparisonArgument = Annotated[Path, typer.Argument(help="Folder of a comparison.")]


def compare(
    prompt: Annotated[list[str], typer.Option("--prompt", help="What the clips show; again for more rows.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A student folder; again for more columns.")
    ] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option("--plan", help="A plan file or short name, with --bank; again for more columns."),
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Folder of the measured cells.")] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="The model of the plans (default: the students').")
    ] = None,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    *,
    branch_off: Annotated[
        bool, typer.Option("--branch-off", help="Sample every column again with its linear branch off.")
    ] = False,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate with teacher and students, same prompts and seed, and set the clips side by side."""
    from workbench.surgery import is_student

    named = [model_name(one) for one in model or ()]
    students = [one for one in named if not plan or is_student(one)]
    teachers = [model_name(teacher)] if teacher else [one for one in named if one not in students]
    sides: list[dict[str, Any]] = [{"model": one} for one in students]
    sides += [{"plan": plan_name(one), "bank": bank_name(bank) if bank else ""} for one in plan or ()]
    if bank is not None and not plan:
        raise InputError(
            "A bank alone makes no student; give the plan too, or a student folder as the model."
        )
    if not sides:
        raise InputError("Nothing stands beside the teacher; give --model, or --plan with --bank.")
    if branch_off:
        sides += [{**side, "linear_branch": False} for side in sides]
    settings = stated(
        model=next(iter([*teachers, *students]), None),
        prompt=prompt[0],
        more_prompts=prompt[1:],
        sides=sides,
        seed=seed,
        steps=steps,
        guidance=guidance,
    )
    queue_step("compare", settings, title=prompt[0], workspace=workspace, as_json=as_json, detach=detach)


def import_clip(
    comparison: ComparisonArgument,
    clip: Annotated[Path, typer.Argument(help="An MP4 of your own.")],
    row: Annotated[int, typer.Option("--row", help="Which prompt it belongs to, from 1.")] = 1,
    name: Annotated[str, typer.Option("--name", help="What to call it (default: the file's name).")] = "",
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a clip of your own beside those of a comparison, in a copy of it."""
    from workbench.comparison import import_clip as bring_in

    if not clip.is_file():
        raise InputError(f"Clip {clip.name!r} does not exist; check the path.")
    made = bring_in(clip, Workspace.open(workspace), comparison=comparison, row=row - 1, name=name)
    show({"report": str(made / "index.html")}, as_json=as_json, prose=str(made / "index.html"))


def export_comparison(
    comparison: ComparisonArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder (html, vote) or file to write.")],
    form: Annotated[str, typer.Option("--form", help="html, vote, mp4, gif or json.")] = "html",
    *,
    as_json: JsonOption = False,
) -> None:
    """Write a comparison for other people: an offline page, a blind vote, a film side by side, or JSON."""
    from workbench.comparison import export

    made = export(comparison, out.absolute(), form=form)  # type: ignore[arg-type]
    show({"export": str(made)}, as_json=as_json, prose=str(made))
