"""The embedded model as a folder: untrained and shipped, its tokenizer, and the codec's whole-clip pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.models import load_model
from workbench.models.embedded import build_untrained, default_folder, nearest_words, unknown_words, world
from workbench.models.embedded.architecture import build_codec
from workbench.models.embedded.tokenizer import TEXT_LENGTH, build_tokenizer
from workbench.models.embedded.whole_clip import WholeClip
from workbench.models.text import remember


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained(tmp_path_factory.mktemp("untrained"), seed=3)


def _load(folder: Path):  # type: ignore[no-untyped-def]
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _frames(pipeline, prompt: str, *, size: tuple[int, int, int], steps: int, length: int = TEXT_LENGTH):  # type: ignore[no-untyped-def]
    frames, height, width = size
    return pipeline(
        prompt,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=3.0,
        max_sequence_length=length,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames[0]


def test_untrained_folder_loads_and_samples_other_sizes(untrained: Path) -> None:
    pipeline = _load(untrained)
    for size in ((5, 32, 48), (1, 64, 32)):
        clip = _frames(pipeline, "a red ball", size=size, steps=2)
        assert clip.shape == (*size, 3)
        assert np.isfinite(clip).all()


def test_untrained_weights_follow_the_seed(untrained: Path, tmp_path: Path) -> None:
    again = build_untrained(tmp_path / "again", seed=3)
    other = build_untrained(tmp_path / "other", seed=4)
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert (again / file).read_bytes() == (untrained / file).read_bytes()
    assert (other / file).read_bytes() != (untrained / file).read_bytes()


def test_building_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_untrained(tmp_path, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_every_caption_is_known_to_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    captions = [world.caption(world.sample_scene(rng, split="train"), rng) for _ in range(400)]
    encoded = tokenizer(captions)["input_ids"]
    assert all(tokenizer.unk_token_id not in ids for ids in encoded)
    assert all(ids[-1] == tokenizer.eos_token_id and len(ids) < TEXT_LENGTH for ids in encoded)


def test_tokenizer_ignores_case_and_marks_unknown_words() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("A RED Ball")["input_ids"] == tokenizer("a red ball")["input_ids"]
    assert tokenizer("a red ball,")["input_ids"][:3] == tokenizer("a red ball")["input_ids"][:3]
    assert tokenizer.unk_token_id in tokenizer("a red zeppelin")["input_ids"]


def test_unknown_words_and_their_neighbours() -> None:
    assert unknown_words("a crimson ball and a bal") == ("crimson", "bal")
    assert "red" in nearest_words("crimson")
    assert "ball" in nearest_words("bal")
    assert nearest_words("ball") == ()


@pytest.mark.parametrize("form", ["conv3d", "taps"])
def test_whole_clip_pass_has_the_numbers_of_the_chunked_one(form: str) -> None:
    torch.manual_seed(0)
    codec = build_codec().double().eval()
    whole = WholeClip(codec, form=form)  # type: ignore[arg-type]
    clip = torch.rand(1, 9, 16, 32, 3, dtype=torch.float64) * 2 - 1
    latents = torch.randn(1, 3, 2, 4, 16, dtype=torch.float64)
    with torch.no_grad():
        moments = codec.encode(clip.permute(0, 4, 1, 2, 3)).latent_dist.parameters
        decoded = codec.decode(latents.permute(0, 4, 1, 2, 3)).sample
        ours_moments = whole.encode(clip).permute(0, 4, 1, 2, 3)
        ours_decoded = whole.decode(latents).permute(0, 4, 1, 2, 3).clamp(-1, 1)
    torch.testing.assert_close(ours_moments, moments, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours_decoded, decoded, rtol=1e-6, atol=1e-6)


def test_shipped_folder_is_small_and_in_16_bits() -> None:
    folder = default_folder()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 25e6
    from safetensors import safe_open

    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_shipped_tokenizer_knows_the_words_of_the_world() -> None:
    stored = json.loads((default_folder() / "tokenizer" / "tokenizer.json").read_text())
    assert (
        stored["model"]["vocab"] == json.loads(build_tokenizer().backend_tokenizer.to_str())["model"]["vocab"]
    )


def test_shipped_model_obeys_a_colour_at_any_called_length() -> None:
    pipeline = _load(default_folder())
    assert pipeline.text_encoder.dtype == pipeline.vae.dtype == torch.float32
    red = _frames(pipeline, "a big red ball on grass", size=(5, 128, 128), steps=5)
    long = _frames(pipeline, "a big red ball on grass", size=(5, 128, 128), steps=5, length=226)
    blue = _frames(pipeline, "a big blue ball on grass", size=(5, 128, 128), steps=5)

    def share(clip: np.ndarray, channel: int) -> float:
        others = [other for other in range(3) if other != channel]
        return float((clip[..., channel] > clip[..., others].max(-1) + 0.25).mean())

    assert share(red, 0) > 0.02 > share(red, 2)
    assert share(blue, 2) > share(red, 2) + 0.02
    assert np.abs(long - red).mean() < 0.02


def test_all_prompts_of_one_request_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.models.text.REMEMBERED", 2)
    model = load_model("embedded", device="cpu")
    words = [f"a big {colour} ball" for colour in ("red", "blue", "green", "yellow")]
    remember(model, words[:3])
    remember(model, words)
    assert set(words) <= set(model.texts)
    remember(model, ["a small pink cube"])
    assert list(model.texts) == [words[3], "a small pink cube"], "the oldest go first"
