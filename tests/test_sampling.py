"""Clips: repeatable, interruptible, and kept with all that is needed to make them again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from workbench.errors import Cancelled, InputError
from workbench.jobs.tensors import load_tensors
from workbench.models import LoadedModel
from workbench.models.memory import Free
from workbench.sampling import GenerateConfig, sample, save_clip
from workbench.types import SilentReporter
from workbench.video import read_mp4
from workbench.workspace import Workspace

CONFIG = GenerateConfig(prompt="a red ball", seed=5, steps=3)


def test_the_same_seed_gives_the_same_bits(micro_model: LoadedModel) -> None:
    first, second = sample(micro_model, CONFIG), sample(micro_model, CONFIG)
    other = sample(micro_model, CONFIG.model_copy(update={"seed": 6}))
    assert np.array_equal(first.frames, second.frames) and torch.equal(first.latents, second.latents)
    assert not torch.equal(first.latents, other.latents)
    assert first.frames.shape == (9, 48, 32, 3) and first.frames.dtype == np.uint8
    assert first.latents.shape == (4, 3, 6, 4) and 0 < first.decode_seconds < first.seconds


def test_it_is_the_pipeline_s_own_clip(micro_model: LoadedModel) -> None:
    ours = sample(micro_model, CONFIG)
    pipeline: Any = micro_model.pipeline
    theirs = pipeline(
        prompt="a red ball",
        height=48,
        width=32,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        max_sequence_length=16,
    ).frames[0]
    assert np.array_equal(np.round(theirs * 255).astype(np.uint8), ours.frames)


def test_global_randomness_does_not_matter(micro_model: LoadedModel) -> None:
    torch.manual_seed(1)
    first = sample(micro_model, CONFIG)
    torch.manual_seed(2)
    assert torch.equal(sample(micro_model, CONFIG).latents, first.latents)


class Diary(SilentReporter):
    def __init__(self, *, stop_after: int = 99) -> None:
        self.lines: list[str] = []
        self.stop_after = stop_after

    def stage(self, name: str, steps: int) -> None:
        self.lines.append(f"{name}/{steps}")

    def step(self, step: int, **_: Any) -> None:
        self.lines.append(str(step))
        if step >= self.stop_after:
            raise Cancelled("enough")


def test_every_step_is_reported_and_may_stop_the_run(micro_model: LoadedModel) -> None:
    diary = Diary()
    before = sample(micro_model, CONFIG, reporter=diary)
    assert diary.lines == ["sampling/3", "1", "2", "3", "decoding/1", "1"]
    diary = Diary(stop_after=2)
    with pytest.raises(Cancelled):
        sample(micro_model, CONFIG, reporter=diary)
    assert diary.lines == ["sampling/3", "1", "2"]
    assert torch.equal(sample(micro_model, CONFIG).latents, before.latents)


def test_a_clip_is_kept_with_its_settings(micro_model: LoadedModel, workspace: Workspace) -> None:
    made = sample(micro_model, CONFIG)
    folder = save_clip(made, CONFIG, workspace, model=micro_model, manifest={"study": "demo"})
    assert {file.name for file in folder.iterdir()} == {
        "clip.mp4", "poster.png", "manifest.json", "latents.safetensors",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert GenerateConfig.parse(manifest["settings"], what="settings") == CONFIG.resolved(micro_model.facts)
    assert manifest["model"]["fingerprint"] == micro_model.fingerprint and manifest["study"] == "demo"
    assert manifest["tokens"] == 72 and manifest["fps"] == 8 and manifest["seconds"] == made.seconds
    assert torch.equal(load_tensors(folder / "latents.safetensors")["latents"], made.latents)
    again = read_mp4(folder / "clip.mp4")
    assert again.shape == made.frames.shape
    assert np.abs(again.astype(int) - made.frames).mean() < 12
    assert folder.parent == workspace.folder("clips")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": 10}, "Frames must be 4k.1 for micro, got 10; the nearest are 9 and 13"),
        ({"height": 40}, "Height must be a multiple of 16 for micro, got 40; the nearest are 32 and 48"),
        ({"width": 1600}, "tokens along one axis"),
        ({"prompt": " "}, "The prompt is empty"),
    ],
)
def test_bad_settings_are_refused(micro_model: LoadedModel, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sample(micro_model, CONFIG.model_copy(update=changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "'steps': .*greater than or equal to 1, got '0'"),
        ({"steps": 2.5}, "'steps': .*integer"),
        ({"steps": True}, "'steps'"),
        ({"steps": 10**9}, "'steps': .*less than or equal to 1000"),
        ({"guidance": -5.0}, "'guidance'"),
        ({"seed": -1}, "'seed'"),
        ({"seed": 2**63}, "'seed'"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"prompt": None}, "'prompt'"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        GenerateConfig.parse({"prompt": "a", **changes}, what="settings")


def test_a_cut_prompt_is_noted(micro_model: LoadedModel) -> None:
    made = sample(micro_model, CONFIG.model_copy(update={"prompt": "a red ball " * 30, "steps": 1}))
    assert made.notes == ("The prompt is too long: the first 16 of its 91 tokens were used.",)


def test_a_decoder_that_runs_out_of_memory_does_not_lose_the_clip(
    micro_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample(micro_model, CONFIG)
    codec: Any = micro_model.pipeline.vae
    whole = codec.decode

    def fail_once(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(codec, "decode", whole)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(codec, "decode", fail_once)
    made = sample(micro_model, CONFIG)
    assert codec.use_tiling and torch.equal(made.latents, expected.latents)
    assert np.array_equal(made.frames, expected.frames)
    assert made.notes == ("Decoding the clip at once ran out of memory; it was decoded in tiles.",)
    monkeypatch.setattr(micro_model.transformer, "forward", fail_once)
    with pytest.raises(torch.OutOfMemoryError):
        sample(micro_model, CONFIG)


def test_a_clip_that_cannot_fit_is_refused_before_any_step(
    micro_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.models.placement.free_memory", lambda _: Free(1000.0, 1000.0))
    with pytest.raises(
        InputError, match=r"A clip of 9×48×32 needs about .* GB are free; choose fewer frames or"
    ):
        sample(micro_model, CONFIG)
