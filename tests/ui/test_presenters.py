"""What the pages show is what was captured and measured, to the byte; hostile questions get a sentence."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from workbench.analysis import KINDS
from workbench.capture import Capture, CaptureConfig, load, run
from workbench.errors import InputError
from workbench.models import LoadedModel
from workbench.types import SilentReporter
from workbench.ui.presenters import maps
from workbench.workspace import Workspace


@pytest.fixture
def capture(micro_model: LoadedModel, workspace: Workspace) -> Capture:
    config = CaptureConfig(prompt="a ball", steps=2)
    return load(run(micro_model, config, workspace, reporter=SilentReporter()))


def test_maps_come_as_one_byte_a_place(capture: Capture) -> None:
    side = capture.manifest.map_size
    values = np.frombuffer(base64.b64decode(maps.sprite(capture, {"step": 0})["bytes"]), dtype=np.uint8)
    assert values.size == capture.num_blocks * capture.num_heads * side * side
    tiles = values.reshape(capture.num_blocks, capture.num_heads, -1)
    assert (tiles.max(axis=-1) == 255).all(), "every map is scaled to its own brightest part"
    assert maps.sprite(capture, {"step": 1}) != maps.sprite(capture, {"step": 2})


def test_a_row_is_the_captured_one_and_its_shares_add_up(capture: Capture) -> None:
    grid = capture.grid
    answer = maps.attention_row(capture, {"block": 2, "head": 1, "patch": [1, 2, 3]})
    values = np.frombuffer(base64.b64decode(answer["bytes"]), dtype=np.uint8).reshape(*grid)
    row = capture.row(2, 1, (1 * grid.height + 2) * grid.width + 3)
    assert values.argmax() == row.argmax()
    assert sum(answer["frames"]) == pytest.approx(100, abs=2)
    shares = dict(answer["readouts"])
    assert shares["own frame"] + shares["other frames"] == pytest.approx(100, abs=1)
    mean = maps.attention_row(capture, {"block": 2, "head": 1, "patch": [1, 2, 3], "mean": True})
    assert mean["bytes"] != answer["bytes"]


def test_every_kind_of_head_is_explained(capture: Capture) -> None:
    assert set(maps.KINDS) == set(KINDS)
    kinds = {row["kind"] for row in maps.head_rows(capture)}
    assert kinds <= set(KINDS)


@pytest.mark.parametrize(
    "question",
    [
        {"block": 3, "head": 0, "patch": [0, 0, 0]},
        {"block": 0, "head": -1, "patch": [0, 0, 0]},
        {"block": "0", "head": 0, "patch": [0, 0, 0]},
        {"block": True, "head": 0, "patch": [0, 0, 0]},
        {"block": 0, "head": 0, "patch": [0, 0]},
        {"block": 0, "head": 0, "patch": [0, 99, 0]},
        {"block": 0, "head": 0, "patch": "0.0.0"},
    ],
)
def test_questions_outside_the_capture_are_refused(capture: Capture, question: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        maps.attention_row(capture, question)
    with pytest.raises(InputError, match="Step"):
        maps.sprite(capture, {"step": 99})
