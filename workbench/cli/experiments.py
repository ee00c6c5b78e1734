"""`workbench experiment`: measure the evidence behind the method, one experiment or all of them."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from workbench.cli.options import JsonOption, WorkspaceOption, show
from workbench.errors import InputError
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.models.loader import Device

OUT = Path("docs/results/experiments")
MOST_WORKERS = 4
"""That are started unasked: on a GPU each holds 1.5 to 3 GB of it."""


def experiment(
    names: Annotated[list[str], typer.Argument(help="rates, allocation, losses, ... or all.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the result files.")] = OUT,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes (default: one for each core, at most 4)."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes instead of hours.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Start over instead of going on.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the evidence behind the method; a run that was stopped goes on."""
    from workbench.experiments import EXPERIMENTS, Order, run
    from workbench.experiments.figures import write_figures
    from workbench.models.loader import Device

    if names == ["list"]:
        lines = [f"{one.name}: {one.question}" for one in EXPERIMENTS.values()]
        show(
            {one.name: one.question for one in EXPERIMENTS.values()}, as_json=as_json, prose="\n".join(lines)
        )
        return
    if device not in get_args(Device):
        raise InputError(f"Device {device[:40]!r} is not known; known: {', '.join(get_args(Device))}.")
    order = Order(
        names=names,
        scale="quick" if quick else "full",
        out=out,
        workers=workers or min(MOST_WORKERS, os.cpu_count() or 1),
        again=again,
        command=shlex.join(["workbench", *sys.argv[1:]]),
        device=cast("Device", device),
    )
    files = run(order, Workspace.open(workspace), tell=lambda line: typer.echo(line, err=True))
    figures = write_figures(out)
    made = [str(path) for path in (*files, *figures)]
    show({"files": made}, as_json=as_json, prose="\n".join(made))
