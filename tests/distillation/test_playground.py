"""One head refitted: nearer to softmax than without the linear branch, and what it shows adds up."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from tests.banks import write_bank
from workbench.capture import Capture, CaptureConfig, load, run
from workbench.distillation.playground import fit_head, playground_spec
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts
from workbench.types import SilentReporter
from workbench.ui.presenters import maps, playground
from workbench.workspace import Workspace


@pytest.fixture
def capture(micro_model: LoadedModel, workspace: Workspace) -> Capture:
    config = CaptureConfig(model="micro", prompt="a red ball", steps=2)
    folder: Path = run(micro_model, config, workspace, reporter=SilentReporter())
    return load(folder)


@pytest.mark.parametrize("rate", [4, None])
def test_a_fit_comes_nearer_to_softmax(capture: Capture, rate: int | None) -> None:
    fit = fit_head(capture, playground_spec(rate), block=1, head=0, updates=60, seconds=60)
    assert len(fit.losses) == 60 and fit.losses[-1] < fit.losses[0]
    assert 0 <= fit.error < fit.error_off <= 1
    assert fit.denominators.shape == (capture.grid.num_tokens,)
    assert (fit.denominators >= (0 if rate is None else 1)).all()
    own, implied = fit.softmax_row(5), fit.implied_row(5)
    assert own.shape == implied.shape == tuple(capture.grid)
    assert own.sum() == pytest.approx(1, abs=1e-5) and implied.sum() == pytest.approx(1, abs=1e-4)
    assert own == pytest.approx(capture.row(1, 0, 5), abs=1e-5)


def test_the_answer_is_plain_data_and_refuses_what_sliders_do_not_have(capture: Capture) -> None:
    asked = {"block": 1, "head": 0, "patch": [0, 1, 1], "rate": "linear", "degree": 1, "width": 1}
    shown = playground.answer(capture, asked)
    line = np.frombuffer(base64.b64decode(shown["line"]), "<f4").reshape(2, -1)
    assert line.sum(axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert (np.diff(line[0]) <= 1e-6).all(), "sorted by the softmax row"
    assert sum(shown["denominator"]["counts"]) == capture.grid.num_tokens
    for change in ({"rate": "R3"}, {"degree": 9}, {"width": True}, {"block": 9}, {"patch": [0]}):
        with pytest.raises(InputError):
            playground.answer(capture, asked | change)


def test_a_cell_that_is_not_measured_cannot_be_overlaid(capture: Capture) -> None:
    asked = {"block": 1, "head": 0, "patch": [0, 1, 1], "view": "difference", "cell": "R4"}
    with pytest.raises(InputError, match="is not measured"):
        maps.attention_row(capture, asked)
    with pytest.raises(InputError, match="no view"):
        maps.attention_row(capture, asked | {"view": "x"})


def test_the_branches_of_a_measured_cell_add_up_to_its_row(
    capture: Capture, micro_facts: ModelFacts, tmp_path: Path
) -> None:
    bank = write_bank(tmp_path / "bank", micro_facts)
    asked = {"block": 1, "head": 0, "patch": [0, 1, 1], "cell": "R4"}
    shares = {
        view: maps.attention_row(capture, asked | {"view": view}, bank=bank)["frames"]
        for view in ("cell", "kept", "linear", "difference")
    }
    assert sum(shares["cell"]) == pytest.approx(100, abs=3)
    both = np.add(shares["kept"], shares["linear"])
    assert both == pytest.approx(np.array(shares["cell"]), abs=2)
    assert sum(shares["difference"]) == pytest.approx(0, abs=3)
