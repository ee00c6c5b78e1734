"""A demo that needs no installation: one folder, opened by its index.html, without a server or a network.

It shows a finished study: attention in three zooms with where patches look, the painter over measured cells,
and the clips of every plan that was rendered. What was not rendered is said to be so.
"""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.comparison import Comparison, player_data, read
from workbench.comparison.page import inline_modules, made_line
from workbench.errors import InputError
from workbench.visualization.encoded import encode_mass

if TYPE_CHECKING:
    from workbench.capture import Capture

STYLES = ("tokens", "base", "controls", "shell")
PARTS = ("player", "sprite", "overlay", "heads", "painter", "plan", "demo")
PATCH_STRIDE = 2
"""Where one patch looks is kept for every so many-th row and column of the middle frame."""
TOP_QUANTILE = 0.995
ROW_QUANTILE = 0.999


@dataclass(frozen=True)
class Demo:
    """What a demo shows.

    Attributes:
        comparison: folder of the clips; its columns are the plans that were rendered.
        columns: the painter's operators, softmax first.
        cells: error of every (block, label) that was measured, with its interval and with the branch off.
        capture: for the attention part; None leaves it out.
        heads: numbers of every head as plain rows, and their columns; see `components/heads.js`.
    """

    comparison: Path
    columns: tuple[str, ...]
    cells: Mapping[tuple[int, str], Mapping[str, float]]
    capture: Capture | None = None
    heads: Mapping[str, Any] | None = None


def write_demo(demo: Demo, out: Path) -> Path:
    """Write the demo into a new folder and return its page.

    Raises:
        InputError: the folder exists and is not empty, or the comparison cannot be read.
    """
    record = read(demo.comparison)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out.name!r} exists and is not empty; choose another folder with --out.")
    (out / "clips").mkdir(parents=True, exist_ok=True)
    for clip in record.clips:
        shutil.copyfile(demo.comparison / clip.path, out / "clips" / clip.path)
    attention = None
    if demo.capture is not None:
        attention = attention_data(demo.capture, heads=demo.heads or {})
        _write_rows(demo.capture, out)
    value = {
        "table": table_data(demo, len(record.clips[0].plan)),
        "player": player_data(record, lambda name: f"clips/{name}"),
        "attention": attention,
        "made": made_line(record),
    }
    page = out / "index.html"
    page.write_text(_page(value, record), encoding="utf-8")
    return page


def table_data(demo: Demo, num_blocks: int) -> dict[str, Any]:
    """Return the painter's table; what was not measured is None."""
    cells = [
        [dict(demo.cells[block, label]) if (block, label) in demo.cells else None for label in demo.columns]
        for block in range(num_blocks)
    ]
    return {"columns": list(demo.columns), "cells": cells, "start": ["softmax"] * num_blocks}


def attention_data(capture: Capture, *, heads: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the maps, the overlay and the table of heads show of a capture; rows come in files."""
    manifest = capture.manifest
    common = {"capture": capture.folder.name, "grid": list(manifest.grid), "heads": capture.num_heads}
    steps: list[int | None] = [None, *manifest.steps]
    rows = list(heads.get("rows", ()))
    return {
        "sprite": {
            **common,
            "blocks": capture.num_blocks,
            "side": manifest.map_size,
            "steps": [
                {"label": "all steps" if step is None else f"{step + 1} of {manifest.num_steps}"}
                for step in steps
            ],
            "metrics": rows,
            "kinds": list(heads.get("kinds", ())),
        },
        "overlay": {**common, "frames": _frame_names(capture), "prompt": manifest.config.prompt},
        "heads": {"columns": list(heads.get("columns", ())), "rows": rows},
        "maps": [_maps(capture, step) for step in steps],
        "frame": capture.grid.frames // 2,
        "stride": PATCH_STRIDE,
        "step": f"step {capture.default_step + 1} of {manifest.num_steps}",
    }


def _maps(capture: Capture, step: int | None) -> str:
    maps = capture.metric("pooled", step=step)
    return encode_mass(maps, np.quantile(maps, TOP_QUANTILE, axis=(-2, -1), keepdims=True))


def _frame_names(capture: Capture) -> list[str | None]:
    return [f"frames/{path.name}" if path.is_file() else None for path in capture.frames]


def _write_rows(capture: Capture, out: Path) -> None:
    """Write the frames, and a script a block that holds its rows: nothing else loads from a folder."""
    (out / "frames").mkdir()
    for path in capture.frames:
        if path.is_file():
            shutil.copyfile(path, out / "frames" / path.name)
    (out / "rows").mkdir()
    grid = capture.grid
    frame = grid.frames // 2
    tokens = [
        (frame * grid.height + row) * grid.width + column
        for row in range(0, grid.height, PATCH_STRIDE)
        for column in range(0, grid.width, PATCH_STRIDE)
    ]
    for block in range(capture.num_blocks):
        found = np.stack(
            [
                [capture.row(block, head, token).ravel() for token in tokens]
                for head in range(capture.num_heads)
            ]
        )
        encoded = encode_mass(found, np.quantile(found, ROW_QUANTILE, axis=-1, keepdims=True))
        shares = found.reshape(*found.shape[:2], grid.frames, -1).sum(axis=-1)
        content = json.dumps({"bytes": encoded, "frames": np.rint(100 * shares).astype(int).tolist()})
        (out / "rows" / f"block-{block}.js").write_text(
            f"(window.demoRows ??= {{}})[{block}] = {content};\n", encoding="utf-8"
        )


def _page(value: Mapping[str, Any], record: Comparison) -> str:
    template = Template(files(__package__).joinpath("demo.html").read_text(encoding="utf-8"))
    data = json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return template.substitute(
        title=html.escape(f"Linearization workbench: {record.model['name']}"),
        prompt=html.escape(record.prompts[0]),
        styles="\n".join(_styles()),
        script=inline_modules(["components/demo.js"]),
        data=data,
        made=html.escape(str(value["made"])),
    )


def _styles() -> Sequence[str]:
    names = [f"{name}.css" for name in STYLES] + [f"components/{name}.css" for name in PARTS]
    found = [files("workbench").joinpath("ui", *name.split("/")) for name in names]
    return [path.read_text(encoding="utf-8") for path in found if path.is_file()]
