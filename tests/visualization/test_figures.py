"""Figures: valid in both themes, with the design tokens' colours, and true to the numbers they show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from workbench import visualization as vis

TOKENS = Path(vis.__file__).parents[1] / "ui" / "tokens.css"


def css_tokens(theme: str) -> dict[str, str]:
    text = TOKENS.read_text(encoding="utf-8")
    light, dark = text.rsplit('[data-theme="dark"]', 1)
    found = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]{6})", light))
    return found if theme == "light" else found | dict(re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]{6})", dark))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_the_design_tokens(theme: str) -> None:
    css, tokens = css_tokens(theme), vis.THEMES[theme]
    for name in ("ground", "surface", "sunken", "line", "text", "ink", "accent", "warn", "danger"):
        assert getattr(tokens, name) == css[name], name
    for label, (patch, on) in tokens.operators.items():
        assert (patch, on) == (css[f"op-{label.lower()}"], css[f"on-{label.lower()}"]), label
    assert [css[f"mass-{index}"] for index in range(7)] == list(vis.MASS)
    assert tokens.difference == tuple(css[f"diff-{name}"] for name in ("minus", "zero", "plus"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_is_plain_json(theme: vis.ThemeName) -> None:
    rng = np.random.default_rng(0)
    row = rng.random((5, 4, 4))
    frames = [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(5)]
    cells = [
        vis.CellError(block, label, 0.1 * (block + 1), (0.05, 0.2 * (block + 1)), off)
        for block in (0, 3)
        for label, off in (("R4", 0.4), ("linear", None))
    ]
    points = [vis.Tradeoff(0.5, 0.1, "5xR4", "R4"), vis.Tradeoff(0.7, 0.05, "best", "optimal")]
    figures = [
        vis.metric_map(rng.random((10, 6)), title="entropy", unit="nats", theme=theme),
        vis.metric_map(rng.normal(size=(30, 12)), title="change", diverging=True, theme=theme),
        vis.map_sheet(rng.random((3, 2, 8, 8)), theme=theme),
        vis.row_over_frames(row / row.sum(), query=(2, 1, 3), frames=frames, theme=theme),
        vis.row_over_frames(row / row.sum(), query=(2, 1, 3), theme=theme),
        vis.loss_curves({"block-03-R4": [(4, 0.2), (8, 0.1)], "block-04-linear": [(4, 0.3)]}, theme=theme),
        vis.bank_heat(cells, num_blocks=4, theme=theme),
        vis.bank_bars(cells, theme=theme),
        vis.pareto(points, front=points, theme=theme),
    ]
    for figure in figures:
        data = json.loads(figure.to_json())
        assert (
            data["data"]
            and data["layout"]["template"]["layout"]["paper_bgcolor"] == vis.THEMES[theme].surface
        )


def test_a_cell_that_was_not_measured_stays_empty() -> None:
    figure = vis.bank_heat([vis.CellError(1, "R4", 0.2, (0.1, 0.3))], num_blocks=2)
    assert [list(row) for row in figure.data[0].z] == [[None], [0.2]]
    assert figure.data[0].customdata[0][0] == "not measured"


def test_the_query_is_framed_and_frames_state_their_share() -> None:
    row = np.zeros((2, 4, 4))
    row[1] = 1 / 16
    figure = vis.row_over_frames(row, query=(1, 2, 3))
    assert [note.text for note in figure.layout.annotations] == ["frame 0  0 %", "frame 1  100 %"]
    box = figure.layout.shapes[0]
    assert (box.x0, box.y0, box.x1, box.y1) == (3 * 8 - 0.5, 2 * 8 - 0.5, 4 * 8 - 0.5, 3 * 8 - 0.5)
    assert box.xref == "x2"


def test_pictures_keep_order_and_ends_of_the_mass_ramp() -> None:
    ends = vis.colours_of(np.array([0.0, 1.0]))
    assert ["#" + "".join(f"{c:02x}" for c in colour) for colour in ends] == [vis.MASS[0], vis.MASS[-1]]
    sheet = vis.tile_sheet(np.stack([np.eye(4), 1 - np.eye(4)])[None])
    assert sheet.shape == (4, 9, 3)
    assert sheet[0, 0].sum() > sheet[0, 1].sum() and sheet[0, 5].sum() < sheet[0, 6].sum()
    assert vis.normalised(np.zeros((2, 2))).max() == 0
    assert vis.data_uri(sheet).startswith("data:image/png;base64,")


def test_labels_run_from_softmax_to_linear() -> None:
    assert vis.ordered_labels({"linear", "R16", "R2", "softmax", "T3o1", "R3"}) == [
        "softmax", "R2", "R3", "R16", "linear", "T3o1",
    ]  # fmt: skip
    assert vis.operator_colour("R3") == vis.operator_colour("R2")
    assert vis.operator_colour("R64") == vis.operator_colour("R16")
    assert vis.number(0.0625, 3) == ".062" and vis.number(-0.5) == "-.50" and vis.number(10.05, 1) == "10.1"
