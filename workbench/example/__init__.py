"""The finished example study that ships with the workbench: what it measured, and its comparison.

`python -m workbench.example.make` makes it anew. Knows no page.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.types import StrictModel
from workbench.workspace import Workspace, read_json

FOLDER = Path(__file__).parent / "study"
FILE = "example.json"
COMPARISON = "comparison"
MAPS = "maps.png"

Seconds = Annotated[float, Field(ge=0)]


class ExampleCell(StrictModel):
    """One measured cell of the example."""

    block: Annotated[int, Field(ge=0)]
    label: str
    error: float
    error_low: float
    error_high: float
    error_off: float


class Example(StrictModel):
    """The content of `example.json`: figures to compare one's own with.

    Attributes:
        plan: operator of every block.
        mean_error: of the plan's cells over all blocks.
        attention_ratio: operations of all attentions over those of softmax, counted; `dit_ratio` of the
            whole transformer.
        velocity_error_before: of the student before finetuning on held-out prompts, and after it.
        device: what it was made on, with `torch` and `created`.
    """

    schema_version: int = 1
    model: str
    fingerprint: str
    prompt: str
    seed: int
    plan: tuple[str, ...]
    short_name: str
    updates: int
    cells: tuple[ExampleCell, ...]
    mean_error: float
    attention_ratio: float
    dit_ratio: float
    mean_psnr: float | None
    mean_ssim: float
    finetune_updates: int
    velocity_error_before: float
    velocity_error_after: float
    tuned_mean_psnr: float | None
    capture_seconds: Seconds
    measure_seconds: Seconds
    finetune_seconds: Seconds
    teacher_seconds: Seconds
    student_seconds: Seconds
    device: str
    torch: str
    created: str


def load() -> Example | None:
    """Return the shipped example, None where none was made yet or it is of another version."""
    if not (FOLDER / FILE).is_file():
        return None
    try:
        return Example.parse(read_json(FOLDER / FILE, what="example study"), what="example study")
    except InputError:
        return None


def install(workspace: Workspace) -> str:
    """Copy the comparison of the example into a workspace, once; return its id there.

    Raises:
        InputError: there is no example, or the workspace cannot be written.
    """
    source = FOLDER / COMPARISON
    if not source.is_dir():
        raise InputError("This installation has no example study; make one with a study of your own.")
    kept = sorted(workspace.folder("comparisons").glob("*-example-study-*"), reverse=True)
    if kept:
        return kept[0].name
    with workspace.new_folder("comparisons", name="example study") as folder:
        for file in source.iterdir():
            shutil.copyfile(file, folder.path / file.name)
    return folder.final.name
