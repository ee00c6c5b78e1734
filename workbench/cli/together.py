"""`--here`: a step in this process instead of a job, so that `accelerate launch` can start several of them.

accelerate launch --config_file accelerate.yaml -m workbench.cli finetune --student S --here
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.options import show
from workbench.types import SilentReporter
from workbench.workspace import Workspace

HereOption = Annotated[
    bool,
    typer.Option("--here", help="In this process, not as a job: what `accelerate launch` needs."),
]


class LineReporter(SilentReporter):
    """Writes stages and notes to stderr, one line each, and the loss of a stage now and then."""

    def __init__(self) -> None:
        self._name = ""
        self._steps = 0

    def stage(self, name: str, steps: int) -> None:
        self._name, self._steps = name, steps
        sys.stderr.write(f"{name} ({steps:,})\n")

    def step(self, step: int, **rest: Any) -> None:
        every = max(1, self._steps // 20)
        if "loss" in rest and (step % every == 0 or step == self._steps):
            sys.stderr.write(f"{self._name} {step:,}/{self._steps:,}: loss {rest['loss']:.5g}\n")

    def note(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


def run_here(kind: str, settings: dict[str, Any], *, workspace: Path | None, as_json: bool) -> None:
    """Check the settings and run a step in this process; of several processes the first one talks."""
    import torch

    from workbench.workflow import STEPS, check

    is_first = int(os.environ.get("RANK", "0")) == 0
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    config = check(kind, settings)
    reporter = LineReporter() if is_first else SilentReporter()
    made = STEPS[kind].run(config, Workspace.open(workspace), reporter)
    if is_first:
        show(made.to_json(), as_json=as_json, prose=str(made.path))
