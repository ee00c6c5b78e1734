"""`workbench models` and `workbench facts`: answers about models whose weights are not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.models.published import TRANSFORMERS
from workbench.cli.app import app
from workbench.errors import InputError


def answer(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.output)
    return document


def test_all_known_models_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in answer("models")["models"]}
    assert set(rows) == {"embedded", *TRANSFORMERS}
    assert rows["embedded"]["here"] and not rows["wan2.1-t2v-14b"]["here"]
    assert rows["wan2.2-t2v-a14b"]["transformers"] == 2
    assert rows["wan2.1-t2v-1.3b"]["parameters"] == 1_418_996_800
    prose = CliRunner().invoke(app, ["models"]).output
    assert "wan2.1-t2v-14b" in prose and "14.3 B" in prose and "not here" in prose


def test_facts_say_what_memory_a_clip_is_estimated_to_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    facts = answer("facts", "wan2.1-t2v-14b", "--memory-gb", "24")
    assert facts["tokens"] == 32_760 and facts["parameters"]["transformer"] == 14_288_491_584
    fits = {(way["offload"], way["vae_tiling"]): way["fits"] for way in facts["estimates"]["ways"]}
    assert fits == {
        ("none", False): False,
        ("none", True): False,
        ("model", False): False,
        ("model", True): False,
        ("group", False): True,
        ("group", True): True,
    }
    smaller = answer("facts", "wan2.1-t2v-14b", "--frames", "33", "--height", "320", "--width", "480")
    assert smaller["tokens"] == 5_400
    assert smaller["estimates"]["ways"][0]["gpu_gb"] < facts["estimates"]["ways"][0]["gpu_gb"]
    prose = CliRunner().invoke(app, ["facts", "wan2.1-t2v-1.3b"]).output
    assert "30 blocks × 12 heads × 128, 1.4 B parameters" in prose and "32,760 tokens (21, 30, 52)" in prose


def test_facts_of_a_folder_and_of_nothing(micro_model_folder: Path) -> None:
    facts = answer("facts", str(micro_model_folder))
    assert facts["name"] == "micro" and facts["fingerprint"] and facts["architecture"] is None
    done = CliRunner().invoke(app, ["facts", "embeded"])
    assert isinstance(done.exception, InputError) and "did you mean 'embedded'" in str(done.exception)
