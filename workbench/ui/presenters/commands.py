"""What a form would be on the command line, and what it will take, judged by earlier jobs of its kind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from workbench.workspace import Workspace

OPTIONS = {"num_prompts": "prompts", "num_held_out": "held-out", "maps_lr": "maps-lr"}
"""Settings whose option on the command line has another name."""


def command_line(kind: str, settings: Mapping[str, Any], workspace: Workspace) -> str:
    """Return the command that queues the same job in the same workspace."""
    words = ["workbench", kind]
    if kind == "download":
        words.append(str(settings["model"]))
        settings = {name: value for name, value in settings.items() if name != "model"}
    for name, value in comparison_options(settings) if kind == "compare" else settings.items():
        if value is None or value == "":
            continue
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
            continue
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        words += [f"--{OPTIONS.get(name, name).replace('_', '-')}", text]
    return shlex.join([*words, "--workspace", str(workspace.root)])


def comparison_options(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the settings of a comparison as options: one for each prompt, student folder and plan."""
    sides = settings.get("sides", ())
    with_branch = [side for side in sides if side.get("linear_branch", True)]
    options = [("prompt", text) for text in (settings["prompt"], *settings.get("more_prompts", ()))]
    options += [("model", side["model"]) for side in with_branch if side.get("model")]
    options += [("plan", side["plan"]) for side in with_branch if side.get("plan")]
    options += [("bank", bank) for bank in dict.fromkeys(side.get("bank", "") for side in with_branch)]
    options += [("branch_off", True)] if len(with_branch) < len(sides) else []
    taken = ("prompt", "more_prompts", "sides")
    teacher = {"model": "teacher"} if sides else {}
    return options + [
        (teacher.get(name, name), value) for name, value in settings.items() if name not in taken
    ]


def notebook_cell(kind: str, settings: Mapping[str, Any], workspace: Workspace) -> str:
    """Return the cell of a notebook that does the same, and gives the same result."""
    stated = {name: value for name, value in settings.items() if value not in (None, "")}
    lines = ["from workbench import workflow", "from workbench.workspace import Workspace", ""]
    lines.append(f"settings = workflow.check({kind!r}, {{")
    lines += [f"    {name!r}: {value!r}," for name, value in stated.items()]
    lines.append("})")
    lines.append(f"workflow.STEPS[{kind!r}].run(settings, Workspace.open({str(workspace.root)!r}), ")
    lines[-1] = lines[-1].rstrip(", ") + ", SilentReporter())"
    lines.insert(1, "from workbench.types import SilentReporter")
    return "\n".join(lines)


def work_units(kind: str, config: Mapping[str, Any], *, num_blocks: int, default_steps: int) -> float:
    """Return how long the paced part of a job is, in units that take about the same time for one model."""
    if kind == "measure":
        blocks = config.get("blocks")
        cells = (num_blocks if blocks is None else len(blocks)) * len(config.get("rates", ()))
        return float(cells * int(config.get("updates") or 1))
    if kind == "compare":
        columns = 1 + max(1, len(config.get("sides") or ()))
        clips = columns * (1 + len(config.get("more_prompts") or ()))
        return float(clips * int(config.get("steps") or default_steps))
    if kind == "finetune":
        return float(int(config.get("updates") or 1) * int(config.get("accumulate") or 1))
    return float(config.get("steps") or default_steps)


def expected_seconds(rows: Sequence[Mapping[str, Any]], seconds: float, *, ratio: float) -> float:
    """Return what a job should take, judged by an earlier one.

    Args:
        rows: metrics of the earlier job; steps in a row tell the part that grows with the work.
        seconds: the earlier job took.
        ratio: units of work of the new job over those of the earlier one.
    """
    steps = [row for row in rows if "event" not in row and isinstance(row.get("seconds"), int | float)]
    paced = 0.0
    for before, after in pairwise(steps):
        if before.get("stage") == after.get("stage"):
            paced += max(0.0, float(after["seconds"]) - float(before["seconds"]))
    paced = min(paced, seconds)
    return seconds - paced + paced * ratio


def priced(verb: str, seconds: float | None) -> str:
    """Return the word on a button with its price, where one is known."""
    if seconds is None:
        return verb
    if seconds < 90:
        return f"{verb}, about {max(1, round(seconds))} s"
    return f"{verb}, about {round(seconds / 60)} min"
