"""`workbench experiment`: what it lists, and what it refuses before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli.app import app
from workbench.errors import InputError
from workbench.experiments import EXPERIMENTS

RUNNER = CliRunner()


def test_the_list_names_every_experiment() -> None:
    result = RUNNER.invoke(app, ["experiment", "list", "--json"])
    assert result.exit_code == 0
    assert list(json.loads(result.stdout)) == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["colour"], "no experiment 'colour'"),
        (["all", "rates"], "no experiment 'all'"),
        (["rates", "--device", "tpu"], "Device 'tpu'"),
    ],
)
def test_bad_words_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    places = ["--workspace", str(tmp_path / "w"), "--out", str(tmp_path / "out")]
    result = RUNNER.invoke(app, ["experiment", *words, "--quick", *places])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception) and not (tmp_path / "out").exists()
