"""What is kept of a comparison: `comparison.json`, and how a player shows it. Knows no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from workbench.errors import InputError
from workbench.sampling import GenerateConfig
from workbench.types import StrictModel
from workbench.workspace import read_json

SCHEMA_VERSION = 1
FILE = "comparison.json"
PAGE = "index.html"

NotNegative = Annotated[float, Field(ge=0)]


class ComparedClip(StrictModel):
    """One of the two clips.

    Attributes:
        path: file name inside the folder of the comparison.
        plan: operator of every block, in order.
        seconds: wall-clock time from prompt to frames, measured; `decode_seconds` is the end of it.
        tflop: operations of the transformer for the whole clip, counted, 1e12.
    """

    role: Literal["teacher", "student"]
    name: str
    path: Annotated[str, Field(pattern=r"^[a-z0-9-]+\.mp4$")]
    plan: tuple[str, ...]
    seconds: NotNegative
    decode_seconds: NotNegative
    tflop: NotNegative


class Fidelity(StrictModel):
    """The student's frames against the teacher's.

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


class Comparison(StrictModel):
    """The content of `comparison.json`.

    Attributes:
        settings: of both clips, defaults written out; `model` is the teacher's.
        model: name and fingerprint of the teacher.
        plan: short name; the clips list the operator of every block.
        cost: ratios of the plan, see `planning.Cost`.
        made: device, dtype, versions and date of the measurement.
    """

    schema_version: int = SCHEMA_VERSION
    settings: GenerateConfig
    model: dict[str, str]
    student: str = ""
    plan: str
    size: tuple[int, int, int]
    tokens: int
    fps: int
    clips: Annotated[tuple[ComparedClip, ...], Field(min_length=2, max_length=2)]
    metrics: Fidelity
    cost: dict[str, float]
    made: dict[str, str]
    notes: tuple[str, ...] = ()


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
    return Comparison.parse(data, what=what)


def load(folder: Path) -> dict[str, Any]:
    """Return a comparison as plain JSON data, with whole paths of the clips.

    Raises:
        InputError: as `read`.
    """
    document = read(folder).model_dump(mode="json")
    for clip in document["clips"]:
        clip["path"] = str(folder / clip["path"])
    return document


def player_data(comparison: Comparison, address: Callable[[str], str] = str) -> dict[str, Any]:
    """Return what the player shows.

    Args:
        comparison: as read.
        address: from the file name of a clip to where the browser finds it.
    """
    return {
        "prompt": comparison.settings.prompt,
        "seed": comparison.settings.seed,
        "fps": comparison.fps,
        "frames": comparison.size[0],
        "clips": [
            {
                "role": clip.role,
                "name": clip.name,
                "plan": list(clip.plan),
                "url": address(clip.path),
                "facts": [
                    ["transformer", *operations(clip.tflop)],
                    ["measured", f"{clip.seconds:.1f}", "s"],
                ],
            }
            for clip in comparison.clips
        ],
        "readouts": _readouts(comparison),
        "curves": {"psnr": list(comparison.metrics.psnr), "ssim": list(comparison.metrics.ssim)},
    }


def operations(tflop: float) -> tuple[str, str]:
    """Return a number of operations with its unit, three digits."""
    for scale, unit in ((1e-3, "PFLOP"), (1.0, "TFLOP"), (1e3, "GFLOP")):
        if tflop * scale >= 1:
            return f"{tflop * scale:.3g}", unit
    return f"{tflop * 1e6:.3g}", "MFLOP"


def _readouts(comparison: Comparison) -> list[dict[str, str]]:
    """Return the figures beside the clips: how near the student is, and what it costs."""
    metrics, cost = comparison.metrics, comparison.cost
    teacher, student = comparison.clips
    equal = f"{metrics.equal_frames} of {len(metrics.psnr)} frames are equal" if metrics.equal_frames else ""
    return [
        {
            "label": "PSNR",
            "value": "equal" if metrics.mean_psnr is None else f"{metrics.mean_psnr:.1f}",
            "unit": "" if metrics.mean_psnr is None else "dB",
            "note": equal or "mean of all frames",
        },
        {
            "label": "SSIM",
            "value": f"{metrics.mean_ssim:.3f}".replace("0.", ".", 1),
            "note": "mean of all frames",
        },
        {
            "label": "attention",
            "value": f"{100 * cost['attention_ratio']:.0f}",
            "unit": "%",
            "note": "of softmax FLOPs, counted",
        },
        {
            "label": "transformer",
            "value": f"{100 * cost['dit_ratio']:.0f}",
            "unit": "%",
            "note": "of all its FLOPs, counted",
        },
        {
            "label": "time",
            "value": f"{student.seconds / teacher.seconds:.2f}" if teacher.seconds else "–",
            "unit": "×",
            "note": f"{student.seconds:.1f} s for {teacher.seconds:.1f} s, one run each",
        },
    ]
