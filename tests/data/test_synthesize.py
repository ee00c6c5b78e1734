"""Captioned clips from a teacher: made once, gone on with after an interruption, usable for flow matching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.data import SynthesizeConfig, check_synthesis, read_prompts, synthesize
from workbench.distillation.clips import captioned_files
from workbench.errors import Cancelled, InputError
from workbench.models import LoadedModel
from workbench.sampling import sample
from workbench.types import SilentReporter
from workbench.video import read_mp4
from workbench.workflow import STEPS, check
from workbench.workspace import Workspace

PROMPTS = ("a red ball", "a blue cube moves left")


class StopAfter(SilentReporter):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, step: int, **_: Any) -> None:
        if step >= self.steps:
            raise Cancelled("enough")


def test_clips_are_made_once_and_gone_on_with(
    micro_model: LoadedModel, micro_model_folder: Path, workspace: Workspace
) -> None:
    config = SynthesizeConfig(model=str(micro_model_folder), prompts=PROMPTS, num=3, seed=5)
    with pytest.raises(Cancelled):
        synthesize(micro_model, config, workspace, reporter=StopAfter(2))
    folder = next(workspace.folder("datasets").iterdir())
    first = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.mp4")}
    assert sorted(first) == ["00000.mp4", "00001.mp4"] and not (folder / "dataset.json").exists()
    assert synthesize(micro_model, config, workspace, reporter=SilentReporter()) == folder
    assert {name: (folder / name).stat().st_mtime_ns for name in first} == first
    files = captioned_files(folder)
    assert [file.caption for file in files] == [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    again = sample(micro_model, config.clip(PROMPTS[0], 2)).frames
    assert np.abs(read_mp4(folder / "00002.mp4").astype(int) - again).mean() < 12
    record = json.loads((folder / "dataset.json").read_text())
    assert record["num_clips"] == 3 and SynthesizeConfig.parse(record["config"], what="config") == config


def test_it_is_a_kind_of_job(micro_model_folder: Path, workspace: Workspace) -> None:
    config = check("synthesize", {"model": str(micro_model_folder), "num": 1, "steps": 1})
    made = STEPS["synthesize"].run(config, workspace, SilentReporter()).to_json()
    assert made["num_clips"] == 1 and len(list(Path(made["dataset"]).glob("*.mp4"))) == 1


def test_a_file_of_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# heading\n\n  a red ball \nein blauer Würfel\n", encoding="utf-8-sig")
    assert read_prompts(file) == ("a red ball", "ein blauer Würfel")
    for content, words in (
        (b"\n# nothing\n", "prompts.txt holds no prompt; write one a line"),
        (b"\xff\xfe\x00", "prompts.txt is not UTF-8 text"),
        (b"a\n" * 10_001, "holds 10,001 prompts; at most 10,000"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_prompts(file)
    with pytest.raises(InputError, match=r"'missing.txt' cannot be read"):
        read_prompts(tmp_path / "missing.txt")


def test_bad_settings_are_refused_before_the_job(micro_model_folder: Path) -> None:
    name = str(micro_model_folder)
    with pytest.raises(InputError, match="Frames must be 4k"):
        check_synthesis(SynthesizeConfig(model=name, frames=10))
    with pytest.raises(InputError, match="does not know the word 'quantum'"):
        check_synthesis(SynthesizeConfig(prompts=("a quantum ball",)))
