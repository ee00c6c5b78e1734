"""What a form would be on the command line, and what it will cost, judged by earlier jobs of the same kind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from workbench.jobs import Job
from workbench.workspace import Workspace


def command_line(kind: str, settings: Mapping[str, Any], workspace: Workspace) -> str:
    """Return the command that queues the same job in the same workspace."""
    words = ["workbench", kind]
    for name, value in settings.items():
        if value is None or value == "":
            continue
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return shlex.join([*words, "--workspace", str(workspace.root)])


def work_units(kind: str, config: Mapping[str, Any], *, num_blocks: int, default_steps: int) -> float:
    """Return how much work a job is, in units whose time is about the same for jobs of one kind and model."""
    if kind == "measure":
        blocks = config.get("blocks")
        cells = (num_blocks if blocks is None else len(blocks)) * len(config.get("rates", ()))
        return float(cells * int(config.get("updates") or 1))
    return float(config.get("steps") or default_steps)


def expected_seconds(jobs: list[Job], kind: str, units: float, *, sizes: Mapping[str, int]) -> float | None:
    """Return the seconds that work of a kind should take, from the newest finished job of it; None without one."""
    for job in reversed(jobs):
        if job.kind == kind and job.state == "done" and job.seconds:
            done = work_units(kind, job.config, **sizes)
            return job.seconds * max(0.25, units / done) if done else None
    return None


def priced(verb: str, seconds: float | None) -> str:
    """Return the word on a button with its price, where one is known."""
    if seconds is None:
        return verb
    if seconds < 90:
        return f"{verb}, about {max(1, round(seconds))} s"
    return f"{verb}, about {round(seconds / 60)} min"
