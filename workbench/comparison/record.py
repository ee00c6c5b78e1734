"""What is kept of a comparison: `comparison.json`. Knows no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from workbench.errors import InputError
from workbench.sampling import GenerateConfig
from workbench.types import StrictModel
from workbench.workspace import read_json

SCHEMA_VERSION = 2
FILE = "comparison.json"
PAGE = "index.html"

NotNegative = Annotated[float, Field(ge=0)]


class Fidelity(StrictModel):
    """A clip's frames against the teacher's of the same prompt.

    Attributes:
        psnr: decibel by frame; None where a frame is equal.
        ssim: by frame.
        mean_psnr: over the frames that differ, None where none does.
    """

    psnr: tuple[float | None, ...]
    ssim: tuple[float, ...]
    mean_psnr: float | None
    mean_ssim: float
    equal_frames: int


class ComparedClip(StrictModel):
    """One clip.

    Attributes:
        row, column: which prompt, and which of the columns; column 0 is the reference.
        path: file name inside the folder of the comparison.
        plan: operator of every block, in order; empty for an imported clip.
        seconds: wall-clock time from prompt to frames, measured; `decode_seconds` is the end of it. None for
            an imported clip, like all that only a model can tell.
        tflop: operations of the transformer for the whole clip, counted, 1e12.
        peak_bytes: most memory in use while the clip was made, measured: on a GPU what torch allocated, on a
            CPU what the whole process held.
        metrics: against the teacher; None for the teacher, and where size or length differ.
        verdicts: by attribute that the prompt states; empty outside the embedded world.
        motion_ratio: how much moves, over how much moves in the teacher's clip.
    """

    row: Annotated[int, Field(ge=0)] = 0
    column: Annotated[int, Field(ge=0)] = 0
    role: Literal["teacher", "student", "imported"]
    name: str
    path: Annotated[str, Field(pattern=r"^[a-z0-9-]+\.mp4$")]
    plan: tuple[str, ...] = ()
    linear_branch: bool = True
    seconds: NotNegative | None = None
    decode_seconds: NotNegative | None = None
    tflop: NotNegative | None = None
    peak_bytes: Annotated[int, Field(ge=0)] | None = None
    metrics: Fidelity | None = None
    verdicts: dict[str, Literal["right", "wrong", "undecided"]] = Field(default_factory=dict)
    motion_ratio: NotNegative | None = None


class Column(StrictModel):
    """What one column is.

    Attributes:
        student: id of the student folder, "" for the teacher and for a plan over a bank.
        bank: id of the bank folder of such a plan.
        plan: short name, "" for an imported clip.
        cost: ratios of the plan, see `planning.Cost`.
    """

    role: Literal["teacher", "student", "imported"]
    name: str
    student: str = ""
    bank: str = ""
    plan: str = ""
    linear_branch: bool = True
    cost: dict[str, float] = Field(default_factory=dict)


class Comparison(StrictModel):
    """The content of `comparison.json`.

    Attributes:
        settings: of all clips, defaults written out; `model` is the teacher's, `prompt` the first row's.
        prompts: the rows. Empty in comparisons of schema 1, as are `columns`; `read` fills them in.
        model: name and fingerprint of the teacher.
        student, plan, metrics, cost: of the first column beside the teacher on the first prompt.
        made: device, dtype, versions and date of the measurement.
        restore: the configuration that made it.
    """

    schema_version: int = SCHEMA_VERSION
    settings: GenerateConfig
    prompts: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    model: dict[str, str]
    student: str = ""
    plan: str
    size: tuple[int, int, int]
    tokens: int
    fps: int
    clips: Annotated[tuple[ComparedClip, ...], Field(min_length=2)]
    metrics: Fidelity | None
    cost: dict[str, float]
    made: dict[str, str]
    notes: tuple[str, ...] = ()
    restore: dict[str, Any] = Field(default_factory=dict)

    def at(self, row: int, column: int) -> ComparedClip | None:
        """Return the clip of a row and a column, None where there is none."""
        return next((clip for clip in self.clips if (clip.row, clip.column) == (row, column)), None)


def read(folder: Path) -> Comparison:
    """Read a comparison folder strictly.

    Raises:
        InputError: no comparison, damaged, or of a newer version.
    """
    what = f"comparison {folder.name}"
    if not (folder / FILE).is_file():
        raise InputError(
            f"{folder.name!r} is not a comparison ({FILE} is missing); compare first or check the path."
        )
    data = read_json(folder / FILE, what=what)
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{what} was made by a newer version (schema {version}; this is {SCHEMA_VERSION}); "
            "update the workbench."
        )
    return _filled(Comparison.parse(data, what=what))


def _filled(comparison: Comparison) -> Comparison:
    """Return a comparison of schema 1 as one of today: one prompt, teacher and student."""
    if comparison.columns:
        return comparison
    teacher, student = comparison.clips[:2]
    columns = (
        Column(role="teacher", name=teacher.name),
        Column(
            role="student",
            name=student.name,
            student=comparison.student,
            plan=comparison.plan,
            cost=comparison.cost,
        ),
    )
    clips = (teacher, student.model_copy(update={"column": 1, "metrics": comparison.metrics}))
    return comparison.model_copy(
        update={"prompts": (comparison.settings.prompt,), "columns": columns, "clips": clips}
    )


def load(folder: Path) -> dict[str, Any]:
    """Return a comparison as plain JSON data, with whole paths of the clips.

    Raises:
        InputError: as `read`.
    """
    document = read(folder).model_dump(mode="json")
    for clip in document["clips"]:
        clip["path"] = str(folder / clip["path"])
    return document
