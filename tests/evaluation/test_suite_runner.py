"""Suites: every model beside the first, resumed where it stopped, with floors, clips and a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import save_micro_model
from workbench.errors import InputError, Paused
from workbench.evaluation import SuiteConfig, check_suite, evaluate_suite, export_suite, load_suite
from workbench.evaluation.clip_cache import points_of
from workbench.evaluation.suite_config import asked_prompts, planned_runs
from workbench.evaluation.suite_table import table
from workbench.types import CheckpointState, SilentReporter
from workbench.workspace import Workspace

TEXTS = ["a red ball", "a blue cube rises"]


class Stopping(SilentReporter):
    """A reporter that pauses after a number of clips and keeps the state it was offered."""

    def __init__(self, after: int, state: CheckpointState | None = None) -> None:
        self.after, self.kept, self.steps = after, state, 0

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        if state is None:
            return
        self.steps += 1
        self.kept = state()
        if self.steps >= self.after:
            raise Paused("paused")

    def restore(self) -> CheckpointState | None:
        return self.kept


def _config(folders: list[Path], **changes: Any) -> SuiteConfig:
    settings = {"prompts": "given", "texts": TEXTS, "seeds": [0, 1], "floor_clips": 1, "points": 2}
    return SuiteConfig(models=[str(folder) for folder in folders], **{**settings, **changes})


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_micro_model(tmp_path_factory.mktemp("models") / "other", seed=5)


def test_a_paused_suite_goes_on_and_says_the_same(
    micro_model_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    config = _config([micro_model_folder, other_folder])
    workspace = Workspace.open(tmp_path / "stopped")
    stopping = Stopping(after=4)
    with pytest.raises(Paused):
        evaluate_suite(config, workspace, reporter=stopping)
    assert stopping.kept is not None
    rest = Stopping(after=100, state=CheckpointState({}, json.loads(json.dumps(stopping.kept.meta))))
    resumed = load_suite(evaluate_suite(config, workspace, reporter=rest))
    assert rest.steps == 10 - 4
    straight = load_suite(evaluate_suite(config, Workspace.open(tmp_path / "straight")))

    def figures(document: dict[str, Any]) -> Any:
        return [{k: v for k, v in clip.items() if k != "seconds"} for clip in document["clips"]]

    assert figures(resumed) == figures(straight)


def test_a_suite_sets_models_beside_the_first(
    micro_model_folder: Path, other_folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    folder = evaluate_suite(_config([micro_model_folder, other_folder]), workspace)
    document = load_suite(folder)
    first, second = document["models"]
    assert "pair" not in first
    assert set(second["pair"]) >= {"psnr", "ssim", "motion_ratio", "flicker_ratio", "divergence"}
    assert second["pair"]["psnr"]["low"] <= second["pair"]["psnr"]["mean"] <= second["pair"]["psnr"]["high"]
    assert len(second["divergence"]) == 2 and second["divergence"][0] > 0
    assert second["against_reference"]["flicker"]["num_pairs"] == len(TEXTS)
    assert second["motion"]["sentence"].startswith("other moves ")
    floors = document["noise_floor"]
    assert floors["another seed"]["clips"] == 1
    assert floors["another precision"]["label"] == "bfloat16 against float32"
    assert floors["another precision"]["divergence"][-1] < 0.1 < floors["another seed"]["divergence"][-1]
    assert len(list((folder / "clips").glob("*.mp4"))) == 8
    assert (folder / "sheet.png").stat().st_size > 0
    assert "| PSNR (dB) |" in (folder / "table.md").read_text()
    students = [first, {**second, "plan": "3xR4"}, {**second, "name": "third", "plan": "linear"}]
    assert f"| measure | {first['name']} | 3xR4 | linear |" in table({**document, "models": students})
    twins = [first, {**second, "plan": "3xR4"}, {**second, "name": "third", "plan": "3xR4"}]
    assert "| other 3xR4 | third 3xR4 |" in table({**document, "models": twins})
    protocol = json.loads(export_suite(folder, tmp_path / "vbench", model="other").read_text())
    assert sorted(path.name for path in (tmp_path / "vbench").glob("*.mp4"))[0] == "a blue cube rises-0.mp4"
    assert protocol["settings"]["fps"] == 8
    assert not protocol["complete"]
    with pytest.raises(InputError, match="no model 'third'"):
        export_suite(folder, tmp_path / "again", model="third")


def test_clips_are_sampled_once(micro_model_folder: Path, workspace: Workspace) -> None:
    config = _config([micro_model_folder], floor_clips=0)
    evaluate_suite(config, workspace)
    files = {path: path.stat().st_ino for path in workspace.folder("cache").glob("sample-*")}
    assert len(files) == 4
    evaluate_suite(config, workspace)
    assert {path: path.stat().st_ino for path in workspace.folder("cache").glob("sample-*")} == files
    next(iter(files)).write_bytes(b"damaged")
    evaluate_suite(config, workspace)
    assert min(path.stat().st_size for path in files) > 1000


def test_suites_that_cannot_run_are_refused(micro_model_folder: Path, workspace: Workspace) -> None:
    name = [micro_model_folder]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"prompts": "held-out", "texts": []}, "embedded world"),
        ({"prompts": "own-held-out"}, "texts"),
        ({"prompts": "own-held-out", "texts": [], "num": 65}, "64 prompts"),
        ({"texts": ["a", "a"]}, "given twice"),
        ({"seeds": [1, 1]}, "seed is named twice"),
        ({"frames": 8}, "Frames must be 4k"),
    ]
    for changes, message in refused:
        with pytest.raises(InputError, match=message):
            check_suite(_config(name, **changes))
    with pytest.raises(InputError, match="cache may hold 1 MB"):
        evaluate_suite(_config(name, height=480, width=480, cache_megabytes=1), workspace)
    with pytest.raises(InputError, match="does not know the word 'dog'"):
        check_suite(SuiteConfig(models=["embedded"], prompts="given", texts=["a dog"]))


def test_what_a_suite_runs() -> None:
    config = SuiteConfig(models=["a", "b"], prompts="own-held-out", num=6, seeds=[0, 7], floor_clips=3)
    asked = asked_prompts(config)
    assert len({one.prompt for one in asked}) == 6
    runs = list(planned_runs(config, len(asked)))
    assert len(runs) == 2 * 12 + 2 * 3
    assert len({run.key for run in runs}) == len(runs)
    assert points_of(20, 8)[-1] == 19
    assert points_of(3, 8) == [0, 1, 2]
