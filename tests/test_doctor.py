"""The doctor's report is whole, pasteable, and names no secret; the example is whole or simply not there."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from workbench.cli.app import app
from workbench.doctor import device_words, examine, usable_cores
from workbench.example import FOLDER, install, load
from workbench.workspace import Workspace


def test_the_report_names_versions_device_memory_and_disk(workspace: Workspace) -> None:
    report = examine(workspace)
    names = [fact.name for fact in report.facts]
    assert {"workbench", "packages", "device", "auto picks", "memory", "disk", "network"} <= set(names)
    assert len(report.text.splitlines()) == len(report.facts) + len(report.problems)
    assert report.device == device_words()
    assert usable_cores() >= 1


def test_the_report_holds_no_token_and_no_path_of_the_home(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a-secret-of-mine")
    text = examine(workspace).text
    assert "secret" not in text and os.path.expanduser("~/") not in text
    assert str(workspace.root) not in text


def test_the_command_prints_one_document(workspace: Workspace) -> None:
    result = CliRunner().invoke(app, ["doctor", "--workspace", str(workspace.root), "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["device"] and isinstance(document["problems"], list)


@pytest.mark.skipif(load() is None, reason="no example study ships with this checkout")
def test_the_example_is_small_and_opens_as_a_comparison(workspace: Workspace) -> None:
    from workbench.comparison import read

    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size <= 5_000_000
    name = install(workspace)
    assert install(workspace) == name, "a second click makes no second copy"
    shown = read(workspace.folder("comparisons") / name)
    example = load()
    assert example is not None and shown.settings.prompt == example.prompt
