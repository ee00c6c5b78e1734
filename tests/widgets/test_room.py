"""What a notebook says before it starts: an estimate, or why this model is not for this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.widgets import room


def test_a_small_model_fits_and_the_sentence_is_an_estimate(micro_model_folder: Path) -> None:
    said = room(str(micro_model_folder), clips=1)
    assert "estimated" in said and "1 x 2 sampling steps" in said


def test_too_long_is_refused_with_what_to_do(micro_model_folder: Path) -> None:
    with pytest.raises(InputError, match=r"would take about .* fewer steps, or the embedded model"):
        room(str(micro_model_folder), clips=1e12)
