"""What the commands share: common options, how a step is queued and followed, how an answer is printed."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.errors import InputError
from workbench.workspace import Workspace

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Folder for everything made (default: the user's data folder)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
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


def queue_step(
    kind: str, settings: dict[str, Any], *, title: str, workspace: Path | None, as_json: bool, detach: bool
) -> None:
    """Check the settings, queue the step as a job, and follow it unless detached."""
    from workbench.cli.jobs import follow
    from workbench.jobs import Queue
    from workbench.workflow import check

    opened = Workspace.open(workspace)
    config = check(kind, settings)
    queue = Queue(opened)
    command = shlex.join(["workbench", *sys.argv[1:]])
    job = queue.submit(kind, config.model_dump(mode="json"), title=title, command=command)
    queue.dispatch()
    if detach:
        show({"job": job.id}, as_json=as_json, prose=job.id)
        return
    result = follow(queue, job).result or {}
    show(
        result, as_json=as_json, prose="\n".join(f"{name}: {_short(value)}" for name, value in result.items())
    )


def stated(**values: Any) -> dict[str, Any]:
    """Keep what the user stated, so that a config's own defaults apply to the rest."""
    return {name: value for name, value in values.items() if value is not None}


def model_name(model: str) -> str:
    """Make the path of a folder or file absolute, because a job runs elsewhere; leave other names alone."""
    return str(Path(model).expanduser().absolute()) if Path(model).expanduser().exists() else model


def plan_name(plan: str) -> str:
    """Make a plan file's path absolute; leave short names as they are."""
    return str(Path(plan).expanduser().absolute()) if Path(plan).expanduser().is_file() else plan


def bank_name(bank: str | Path) -> str:
    """Make a bank folder's path absolute; leave the name of a bank that ships with the workbench."""
    path = Path(bank).expanduser()
    return str(path.absolute()) if path.exists() or len(path.parts) > 1 else str(bank)


def numbers(text: str | None, *, what: str) -> list[int] | None:
    """Read a list of whole numbers such as 0,4,9."""
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*", text):
        raise InputError(f"{what} is a list of whole numbers such as 0,4,9; got {text[:40]!r}.")
    return [int(word) for word in text.split(",")]


def show(document: dict[str, Any], *, as_json: bool, prose: str) -> None:
    """Print an answer: one JSON document, or prose."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else prose)


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
