"""The whole flow on real (tiny) models, in this process and as a job of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench import capture, planning, workflow
from workbench.sampling import GenerateConfig
from workbench.types import CheckpointState, SilentReporter
from workbench.video import read_mp4
from workbench.workspace import Workspace


class Killed(Exception):
    """Stands for the end of a worker's process."""


class KeepingReporter(SilentReporter):
    """Keeps every state that is offered; dies when the named stage begins."""

    def __init__(self, *, dies_at: str = "", kept: CheckpointState | None = None) -> None:
        self.dies_at = dies_at
        self.kept = kept
        self.stages: list[str] = []

    def stage(self, name: str, steps: int) -> None:
        self.stages.append(name)
        if self.dies_at and name.startswith(self.dies_at):
            raise Killed

    def step(self, step: int, *, state=None, **metrics: float) -> None:  # type: ignore[no-untyped-def]
        if state is not None:
            self.kept = state()

    def restore(self) -> CheckpointState | None:
        return self.kept


@pytest.fixture
def smoke(micro_model_folder: Path) -> workflow.StudyConfig:
    settings = {**workflow.PRESETS["smoke"].model_dump(mode="json"), "model": str(micro_model_folder)}
    return workflow.StudyConfig.parse({**settings, "blocks": [1]}, what="smoke")


def test_a_study_makes_every_artefact_and_says_where(
    smoke: workflow.StudyConfig, workspace: Workspace
) -> None:
    made = workflow.study(smoke, workspace).to_json()
    assert capture.load(Path(made["profile"])).num_blocks == 3
    bank = planning.load_bank(Path(made["bank"]))
    assert list(bank.cells) == [(1, "R4")]
    assert planning.load_file(Path(made["plan"])).short_name == "1xR4"
    assert [clip["role"] for clip in made["clips"]] == ["teacher", "student"]
    assert all(read_mp4(Path(clip["path"])).shape == (9, 48, 32, 3) for clip in made["clips"])
    assert made["distillation"]["last_loss"] <= made["distillation"]["first_loss"]
    assert Path(made["report"]).is_file() and Path(made["study"]).is_file()
    assert json.loads(Path(made["study"]).read_text())["config"]["plan"] == "1xR4"


def test_a_student_gives_the_compared_clip_again_frame_for_frame(
    smoke: workflow.StudyConfig, workspace: Workspace
) -> None:
    made = workflow.study(smoke, workspace).to_json()
    config = GenerateConfig(model=made["student"], prompt=smoke.prompt, seed=smoke.seed, steps=smoke.steps)
    again = workflow.generate(config, workspace).to_json()
    compared = next(clip for clip in made["clips"] if clip["role"] == "student")
    assert np.array_equal(read_mp4(Path(again["video"])), read_mp4(Path(compared["path"])))


def test_an_interrupted_study_goes_on_after_its_last_finished_step(
    smoke: workflow.StudyConfig, workspace: Workspace
) -> None:
    first = KeepingReporter(dies_at="compare")
    with pytest.raises(Killed):
        workflow.study(smoke, workspace, first)
    banks = list(workspace.folder("banks").iterdir())
    second = KeepingReporter(kept=first.kept)
    made = workflow.study(smoke, workspace, second).to_json()
    assert list(workspace.folder("banks").iterdir()) == banks == [Path(made["bank"])]
    assert all(stage.startswith("compare") for stage in second.stages)


def test_the_smoke_study_runs_as_a_job_from_the_command_line(
    micro_model_folder: Path, tmp_path: Path
) -> None:
    words = ["study", "--preset", "smoke", "--model", str(micro_model_folder), "--plan", "1xR4", "--json"]
    run = subprocess.run(
        [Path(sys.executable).parent / "workbench", *words, "--workspace", tmp_path / "a workspace"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 2, "block 5 of the preset does not exist in a model of 3 blocks"
    assert "Block 5" in run.stderr


def test_generate_runs_as_a_job_of_its_own(micro_model_folder: Path, tmp_path: Path) -> None:
    words = ["generate", "--prompt", "a red ball", "--model", str(micro_model_folder), "--json"]
    run = subprocess.run(
        [Path(sys.executable).parent / "workbench", *words, "--workspace", tmp_path / "a workspace"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    assert read_mp4(Path(made["video"])).shape == (9, 48, 32, 3)
    manifest = json.loads((Path(made["clip"]) / "manifest.json").read_text())
    assert manifest["settings"]["prompt"] == "a red ball"
