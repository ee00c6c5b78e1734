"""Profiles: means of what was captured, and a word for every head."""

from __future__ import annotations

import numpy as np
import pytest

from workbench import capture as capturing
from workbench.analysis import KINDS, classify, profile
from workbench.capture import CaptureConfig
from workbench.models import LoadedModel
from workbench.types import SilentReporter
from workbench.workspace import Workspace


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ({"first_frame": 0.45, "near": 0.9, "same_frame": 0.8}, "first frame"),
        ({"first_frame": 0.3, "near": 0.45, "same_frame": 0.8}, "local"),
        ({"first_frame": 0.2, "near": 0.9, "same_frame": 0.3}, "temporal"),
        ({"first_frame": 0.2, "near": 0.1, "same_frame": 0.9}, "global"),
    ],
)
def test_kinds(numbers: dict[str, float], kind: str) -> None:
    assert classify(numbers) == kind


def test_profile_holds_every_head(micro_model: LoadedModel, workspace: Workspace) -> None:
    config = CaptureConfig(prompt="a red ball")
    found = capturing.load(capturing.run(micro_model, config, workspace, reporter=SilentReporter()))
    result = profile(found)
    assert len(result.heads) == 3 * 2
    assert sum(result.counts().values()) == 6 and set(result.counts()) == set(KINDS)
    one = result.head(2, 1)
    assert (one.block, one.head) == (2, 1)
    np.testing.assert_allclose(one.entropy, np.mean(one.entropy_by_step), rtol=1e-5)
    np.testing.assert_allclose(sum(one.by_frame_distance), 1, rtol=1e-3)
    np.testing.assert_allclose(result.by_branch["entropy"].mean(axis=0), result.metrics["entropy"], rtol=1e-5)
    assert result.uniform["same_frame"] == pytest.approx(1 / 3)
