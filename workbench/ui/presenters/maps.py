"""A capture as plain data: pooled maps and one query's row as bytes, numbers of every head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.visualization.encoded import encode_difference, encode_mass

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.planning import Bank

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


def attention_page(
    capture: Capture, *, addresses: Sequence[str | None], bank: Bank | None = None
) -> list[dict[str, Any]]:
    """Return what the maps, the overlay and the table of heads show of a capture.

    Args:
        capture: as read.
        addresses: where the browser finds the picture of each latent frame, None where there is none.
        bank: whose cells can be overlaid beside the model's own attention.
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
    cells: dict[str, list[str]] = {}
    for (block, label), cell in sorted(bank.cells.items() if bank else ()):
        if cell.spec.kind in ("hybrid", "linear"):
            cells.setdefault(str(block), []).append(label)
    overlay = {
        **common,
        "cells": cells,
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
    return {"bytes": encode_mass(maps, top)}


VIEWS = ("softmax", "cell", "kept", "linear", "difference")
"""What an overlay shows: the model's own row; a measured cell's, whole or by branch; cell minus softmax."""


def attention_row(
    capture: Capture, question: Mapping[str, Any], *, bank: Bank | None = None
) -> dict[str, Any]:
    """Return where one patch looks: its row as bytes, and how its mass splits over the frames.

    Args:
        capture: as read.
        question: `block`, `head`, `patch`, and optionally `mean` (of all heads), `step` as in `sprite`,
            `view` (one of `VIEWS`) and `cell`, the label of a measured cell of the block.
        bank: the measured cells, for every view but "softmax".

    Raises:
        InputError: out of range, or a cell that is not measured.
    """
    grid = capture.grid
    block, head, token = place_of(capture, question)
    patch = _patch(question.get("patch"), capture)
    view = question.get("view", "softmax")
    if not isinstance(view, str) or view not in VIEWS:
        raise InputError(f"There is no view {str(view)[:40]!r}; known: {', '.join(VIEWS)}.")
    heads = list(range(capture.num_heads)) if question.get("mean") is True else [head]
    step = _row_step(capture, question, token) if view == "softmax" else capture.default_step
    row = np.mean([capture.row(block, one, token, step=step) for one in heads], axis=0)
    note = f"frame {patch[0]}, patch ({patch[2]}, {patch[1]}), token {token}, "
    note += f"step {step + 1} of {capture.manifest.num_steps}"
    if view != "softmax":
        row, told = _of_cell(capture, bank, question, block=block, token=token, heads=heads, softmax=row)
        note += f", {told}"
    return {
        "bytes": encode_difference(row, _top(np.abs(row)))
        if view == "difference"
        else encode_mass(row, _top(row)),
        "view": view,
        "patch": patch,
        "frames": [round(100 * float(share)) for share in row.reshape(grid.frames, -1).sum(axis=1)],
        "readouts": _readouts(row, patch),
        "note": note,
    }


def _of_cell(
    capture: Capture,
    bank: Bank | None,
    question: Mapping[str, Any],
    *,
    block: int,
    token: int,
    heads: list[int],
    softmax: np.ndarray,
) -> tuple[np.ndarray, str]:
    """Return the row of a measured cell, whole or one branch of it, and what to say of it."""
    from workbench.distillation.implied import implied_heads
    from workbench.operators import HybridSpec

    label, view = str(question.get("cell", "")), question["view"]
    if bank is None or (block, label) not in bank.cells:
        named = label[:20] or "that rate"
        raise InputError(f"Block {block} at {named} is not measured; measure it on Plan first.")
    spec = bank.cells[block, label].spec
    row = implied_heads(capture, bank, spec, block=block, token=token)[heads].mean(axis=0)
    kept = np.zeros(row.size, dtype=bool)
    if isinstance(spec, HybridSpec):
        kept[:: spec.rate] = True
    kept = kept.reshape(row.shape)
    off = float(np.abs(row - softmax).sum()) / 2
    told = f"{label}: {round(100 * off)} % of the mass lies elsewhere than in softmax"
    parts = {"cell": row, "kept": row * kept, "linear": row * ~kept, "difference": row - softmax}
    return parts[view], told


def _row_step(capture: Capture, question: Mapping[str, Any], token: int) -> int:
    place = _number(question, "step", len(capture.manifest.steps) + 1)
    step = capture.manifest.steps[place - 1] if place else capture.default_step
    return step if capture.has_row(token, step=step) else capture.default_step


def _readouts(row: np.ndarray, patch: list[int]) -> list[list[Any]]:
    by_frame = row.reshape(row.shape[0], -1).sum(axis=1)
    shares = {
        "own frame": by_frame[patch[0]],
        "other frames": by_frame.sum() - by_frame[patch[0]],
        "same place": row[:, patch[1], patch[2]].sum() - row[tuple(patch)],
        "first frame": by_frame[0],
    }
    return [[name, round(100 * float(share))] for name, share in shares.items()]


def _top(row: np.ndarray) -> float:
    return max(float(np.quantile(row, 0.999)), 1e-12)


def place_of(capture: Capture, question: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return block, head and token that a script asks about.

    Raises:
        InputError: out of range, named.
    """
    grid, patch = capture.grid, _patch(question.get("patch"), capture)
    token = (patch[0] * grid.height + patch[1]) * grid.width + patch[2]
    return (
        _number(question, "block", capture.num_blocks),
        _number(question, "head", capture.num_heads),
        token,
    )


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
