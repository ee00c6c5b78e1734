"""`workbench export` and `workbench import`: students that leave and come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.options import JsonOption, WorkspaceOption, model_name, show
from workbench.workspace import Workspace


def export(
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="A student folder.")],
    out: Annotated[Path, typer.Option("--out", help="Where the bundle is to stand: missing or empty.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Where the teacher is now, if it was moved; with --merge.")
    ] = None,
    *,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Write a whole diffusers folder with what was finetuned merged in."),
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a student as a bundle that loads onto a stock diffusers pipeline."""
    from workbench.export import export_student

    teacher = None if model is None else model_name(model)
    made = export_student(student, out, workspace=Workspace.open(workspace), merge=merge, teacher=teacher)
    show({"path": str(made)}, as_json=as_json, prose=str(made))


def import_(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Its teacher as it is found here (default: as the bundle says)."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What to call the student.")] = "",
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle and bring it in as a student."""
    from workbench.export import import_bundle

    teacher = None if model is None else model_name(model)
    made = import_bundle(bundle, Workspace.open(workspace), model=teacher, name=name)
    show({"path": str(made)}, as_json=as_json, prose=str(made))
