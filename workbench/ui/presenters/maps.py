"""A capture as plain data: pooled maps and one query's row as bytes, numbers of every head."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.capture import Capture

NO_CAPTURE = (
    "A capture watches one real sampling run and shows what every head of every block looks at. "
    "Choose a prompt above and press Capture."
)
KINDS = {
    "local": "near the token, in its own frame",
    "temporal": "near its place, in other frames",
    "global": "anywhere",
    "first frame": "half or more on frame 0",
}
"""What the words of `analysis.classify` mean."""
GAMMA = 0.5
TOP_QUANTILE = 0.995
COLUMNS = (
    {"key": "entropy", "label": "entropy, nats", "digits": 2, "tip": "How widely the head looks"},
    {"key": "same_frame", "label": "own frame", "bar": True, "tip": "Mass on the token's own frame"},
    {
        "key": "same_place",
        "label": "same place",
        "bar": True,
        "tip": "Mass on the same place in other frames",
    },
    {"key": "near", "label": "near", "bar": True, "tip": "Mass within two tokens in the picture, any frame"},
    {"key": "first_frame", "label": "first frame", "bar": True, "tip": "Mass on frame 0"},
)


def no_capture(fault: str = "") -> list[dict[str, Any]]:
    """Return what the same parts show without a capture, or with one that cannot be read."""
    if fault:
        return [{"fault": fault}, {}, {}]
    return [{"title": "No capture yet", "why": NO_CAPTURE}, {}, {}]


def attention_page(capture: Capture, *, addresses: Sequence[str | None]) -> list[dict[str, Any]]:
    """Return what the maps, the overlay and the table of heads show of a capture.

    Args:
        capture: as read.
        addresses: where the browser finds the picture of each latent frame, None where there is none.
    """
    manifest = capture.manifest
    common = {"capture": capture.folder.name, "grid": list(manifest.grid), "heads": capture.num_heads}
    rows = head_rows(capture)
    steps = [
        {"label": f"{step + 1} of {manifest.num_steps}", "rows": step == manifest.kept_step}
        for step in manifest.steps
    ]
    sprite_value = {
        **common,
        "blocks": capture.num_blocks,
        "side": manifest.map_size,
        "steps": [{"label": "all steps"}, *steps],
        "metrics": rows,
        "kinds": [{"kind": kind, "why": KINDS[kind]} for kind in KINDS],
    }
    settings = manifest.config
    overlay = {
        **common,
        "frames": list(addresses),
        "prompt": settings.prompt,
        "step": capture.default_step + 1,
    }
    return [sprite_value, overlay, {"columns": list(COLUMNS), "rows": rows}]


def head_rows(capture: Capture) -> list[dict[str, Any]]:
    """Return the numbers of every head, means over steps and branches."""
    from workbench.analysis import profile

    names = [column["key"] for column in COLUMNS]
    return [
        {
            "block": head.block,
            "head": head.head,
            "kind": head.kind,
            **{str(name): round(float(getattr(head, str(name))), 4) for name in names},
        }
        for head in profile(capture).heads
    ]


def sprite(capture: Capture, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pooled maps as bytes, [blocks, heads, side, side], each scaled to its own brightest part.

    Args:
        capture: as read.
        question: `step` is 0 for the mean over all steps, else the place of a captured step from 1.
    """
    place = _number(question, "step", len(capture.manifest.steps) + 1)
    step = None if place == 0 else capture.manifest.steps[place - 1]
    maps = capture.metric("pooled", step=step)
    top = np.quantile(maps, TOP_QUANTILE, axis=(-2, -1), keepdims=True)
    return {"bytes": _encode(maps / np.maximum(top, 1e-12))}


def attention_row(capture: Capture, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return where one patch looks: its row as bytes, and how its mass splits over the frames."""
    grid = capture.grid
    block = _number(question, "block", capture.num_blocks)
    head = _number(question, "head", capture.num_heads)
    patch = _patch(question.get("patch"), capture)
    token = (patch[0] * grid.height + patch[1]) * grid.width + patch[2]
    heads = range(capture.num_heads) if question.get("mean") is True else (head,)
    row = np.mean([capture.row(block, one, token) for one in heads], axis=0)
    by_frame = row.reshape(grid.frames, -1).sum(axis=1)
    place = row[:, patch[1], patch[2]].sum() - row[tuple(patch)]
    readouts = [
        ["own frame", by_frame[patch[0]]],
        ["other frames", 1 - by_frame[patch[0]]],
        ["same place", place],
        ["first frame", by_frame[0]],
    ]
    return {
        "bytes": _encode(row / max(float(np.quantile(row, 0.999)), 1e-12)),
        "patch": patch,
        "frames": [round(100 * float(share)) for share in by_frame],
        "readouts": [[name, round(100 * float(share))] for name, share in readouts],
        "note": f"frame {patch[0]}, patch ({patch[2]}, {patch[1]}), token {token}, "
        f"step {capture.default_step + 1} of {capture.manifest.num_steps}",
    }


def _encode(values: np.ndarray) -> str:
    lifted = np.clip(values, 0, 1) ** GAMMA
    return base64.b64encode(np.rint(lifted * 255).astype(np.uint8).tobytes()).decode("ascii")


def _number(question: Mapping[str, Any], name: str, count: int) -> int:
    value = question.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise InputError(f"{name.capitalize()} must be a whole number from 0 to {count - 1}, got {value!r}.")
    return value


def _patch(value: Any, capture: Capture) -> list[int]:
    axes = ("Frame", "Row", "Column")
    if not isinstance(value, list) or len(value) != len(axes):
        raise InputError("A patch is three numbers: frame, row, column.")
    return [
        _number({axis: one}, axis, count) for axis, one, count in zip(axes, value, capture.grid, strict=True)
    ]
