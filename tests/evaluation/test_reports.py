"""The commands that make the figures of the docs, fed with rendered truth in place of sampled clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.evaluation import held_out_report, long_clips, train_teacher
from workbench.evaluation.clip_cache import CachedClip, ClipCache
from workbench.evaluation.sheets import save_sheet, strip
from workbench.evaluation.suite import held_out_suite
from workbench.models import LoadedModel, load_model
from workbench.models.embedded.world import render
from workbench.sampling import GenerateConfig
from workbench.types import SilentReporter
from workbench.workspace import Workspace


@pytest.fixture(scope="module")
def embedded() -> LoadedModel:
    return load_model("embedded", device="cpu")


def _keep_truth(
    workspace: Workspace, model: LoadedModel, *, num: int, frames: int | None = None
) -> list[np.ndarray]:
    """Put rendered truth where the command looks for sampled clips."""
    cache = ClipCache(workspace, points=1, max_bytes=held_out_report.CACHE_BYTES)
    prompts = held_out_suite(num)
    clips = render([asked.scene for asked in prompts], num_frames=frames or 17).numpy()
    for asked, clip in zip(prompts, clips, strict=True):
        config = GenerateConfig(model="embedded", prompt=asked.prompt, seed=asked.seed, frames=frames)
        points = torch.zeros(1, 16, 5, 16, 16)
        cache._save(cache.path(model, config), CachedClip(clip, points, 1.5, fresh=True))
    return list(clips)


def test_one_command_makes_figures_and_sheet(
    embedded: LoadedModel, workspace: Workspace, tmp_path: Path
) -> None:
    _keep_truth(workspace, embedded, num=6)
    out, sheet = tmp_path / "results" / "adherence.json", tmp_path / "images" / "sheet.png"
    arguments = ["--num", "6", "--sheet-num", "4", "--out", str(out), "--sheet", str(sheet)]
    held_out_report.main([*arguments, "--workspace", str(workspace.root)])
    document = json.loads(out.read_text())
    assert document["adherence"]["colour"] == document["adherence"]["shape"] == 1
    assert document["fully_right"]["share"] == 1
    assert (
        document["one object"]["fully_right"]["clips"] + document["two objects"]["fully_right"]["clips"] == 6
    )
    assert document["another's caption"]["adherence"]["colour"] < 0.7
    assert document["seconds_per_clip"] == 1.5
    assert Image.open(sheet).width > 900


def test_long_clips_of_truth_do_not_break(
    embedded: LoadedModel, workspace: Workspace, tmp_path: Path
) -> None:
    _keep_truth(workspace, embedded, num=1, frames=33)
    out = tmp_path / "long.json"
    arguments = ["--num", "1", "--out", str(out), "--sheet", str(tmp_path / "long.png")]
    long_clips.main([*arguments, "--workspace", str(workspace.root)])
    document = json.loads(out.read_text())
    assert document["frames"] == 33 and document["breaks"] is None
    assert list(document["windows"]) == ["0-16", "16-32"]
    assert document["windows"]["16-32"] == {"shape": 1, "colour": 1, "background": 1, "count": 1}
    assert min(document["by_frame"]["codec_psnr"]) > 28
    assert document["by_frame"]["crispness"] == [1.0] * 33


def test_the_first_broken_frame_is_named() -> None:
    fading = np.concatenate([np.full(20, 0.9), np.linspace(0.9, 0.5, 13)])
    assert long_clips.first_break(fading) == 24
    assert long_clips.first_break(np.full(33, 0.9)) is None
    steps = np.concatenate([[9.0], np.full(19, 1.0), np.full(12, 2.5)])
    assert long_clips.first_jump(steps) == 21
    assert long_clips.first_jump(steps[:20]) is None


def test_a_clip_is_read_from_the_cache_bit_by_bit(embedded: LoadedModel, workspace: Workspace) -> None:
    (clip,) = _keep_truth(workspace, embedded, num=1)
    cache = ClipCache(workspace, points=1, max_bytes=held_out_report.CACHE_BYTES)
    asked = held_out_suite(1)[0]
    config = GenerateConfig(prompt=asked.prompt, seed=asked.seed)
    found = cache.get(embedded, config, reporter=SilentReporter())
    assert not found.fresh and np.array_equal(found.frames, clip)
    assert cache.path(embedded, config) != cache.path(embedded, config.model_copy(update={"steps": 5}))


def test_sheets_hold_every_strip(tmp_path: Path) -> None:
    clip = np.zeros((17, 64, 96, 3), np.uint8)
    assert strip(clip).shape == (64, 480, 3)
    assert strip(clip, most_width=240).shape == (32, 240, 3)
    titles = ["a prompt that is far too long for a line " * 6, "short", "third"]
    save_sheet(tmp_path / "sheet.png", [[strip(clip)]] * 3, titles=titles, columns=2)
    assert Image.open(tmp_path / "sheet.png").size[0] == 2 * (480 + 20)


def test_training_hears_the_judge(tmp_path: Path) -> None:
    scenes = [asked.scene for asked in held_out_suite(3)]
    found = train_teacher.judge_clips(render(scenes), scenes)
    assert found["adherence"]["colour"] == found["adherence"]["motion"] == 1
    assert found["asked"]["shape"] == 3
    with pytest.raises(SystemExit):
        train_teacher.main(["--stage", "sample"])
