"""Every supported family from a folder of its exact format: recognised, loaded, sampled as it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.banks import write_bank
from tests.models.families import FAMILIES, save_family
from workbench.capture import CaptureConfig
from workbench.capture import check as check_capture
from workbench.errors import InputError
from workbench.models import load_model, model_facts
from workbench.models.folder import read_footprint
from workbench.operators import observe
from workbench.planning import cost, parse_assign, parse_short
from workbench.sampling import GenerateConfig, clip_manifest, sample
from workbench.surgery import install, restore

CONFIG = GenerateConfig(prompt="a red ball", negative_prompt="a blue cube", seed=5)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("family") / request.param, request.param)


def test_the_clip_is_that_of_the_unchanged_pipeline(folder: Path) -> None:
    from diffusers import WanPipeline

    facts = model_facts(str(folder))
    ours = sample(load_model(str(folder), device="cpu"), CONFIG)
    pipeline: Any = WanPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    size = facts.default_size
    theirs = pipeline(
        prompt=CONFIG.prompt,
        negative_prompt=CONFIG.negative_prompt,
        num_frames=size.frames,
        height=size.height,
        width=size.width,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(CONFIG.seed),
    ).frames[0]
    assert np.array_equal(np.round(theirs * 255).astype(np.uint8), ours.frames)


def test_a_passing_text_encoder_changes_no_bit_and_is_gone(folder: Path) -> None:
    from workbench.models import PlacementConfig

    resident = sample(load_model(str(folder), device="cpu"), CONFIG)
    passing = load_model(str(folder), device="cpu", placement=PlacementConfig(text_encoder="passing"))
    assert passing.pipeline.text_encoder is None
    made = sample(passing, CONFIG)
    assert torch.equal(made.latents, resident.latents) and np.array_equal(made.frames, resident.frames)
    assert passing.pipeline.text_encoder is None and set(passing.texts) == {"a red ball", "a blue cube"}
    without = CONFIG.model_copy(update={"guidance": 1.0})
    expected = sample(load_model(str(folder), device="cpu"), without).latents
    assert torch.equal(sample(passing, without).latents, expected)
    manifest = clip_manifest(made, CONFIG, model=passing)
    assert manifest["placement"]["text_encoder"] == "passing"


def test_group_offload_changes_no_bit(folder: Path) -> None:
    from workbench.models import PlacementConfig

    expected = sample(load_model(str(folder), device="cpu"), CONFIG).latents
    grouped = load_model(str(folder), device="cpu", placement=PlacementConfig(offload="group"))
    assert grouped.placement.offload == "group"
    assert torch.equal(sample(grouped, CONFIG).latents, expected)


def test_half_precision_keeps_the_delicate_modules_in_float32(folder: Path) -> None:
    model = load_model(str(folder), device="cpu", dtype="bfloat16")
    kept = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
    for name in ("transformer", "transformer_2"):
        transformer = getattr(model.pipeline, name, None)
        for key, tensor in () if transformer is None else transformer.state_dict().items():
            wide = any(word in key.split(".") for word in kept)
            assert tensor.dtype == (torch.float32 if wide else torch.bfloat16), key
    assert {tensor.dtype for tensor in model.pipeline.vae.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in model.pipeline.text_encoder.parameters()} <= {
        torch.bfloat16,
        torch.float32,
    }
    assert np.isfinite(sample(model, CONFIG).latents.float().numpy()).all()


def test_cost_and_sizes_are_known_and_surgery_works_or_says_why(folder: Path, tmp_path: Path) -> None:
    model = load_model(str(folder), device="cpu")
    facts = model.facts
    assert cost(parse_short("2xR4", facts), facts).dit_ratio > 0
    counted = sum(tensor.numel() for tensor in model.transformer.parameters())
    assert read_footprint(folder, name="small").transformer == counted == model.footprint.transformer
    bank = write_bank(tmp_path / "bank", facts)
    plan = parse_assign("0:R4,2:linear", facts)
    if facts.num_transformers == 2:
        with pytest.raises(InputError, match="has two transformers, one for early and one for late steps"):
            install(model, plan, bank)
        with pytest.raises(InputError, match="capturing watches models with one"):
            check_capture(CaptureConfig(model=str(folder), prompt="a red ball"), facts)
        return
    seen: list[int] = []
    with observe(model, lambda block, query, key, value, context: seen.append(context.grid.num_tokens)):
        before = sample(model, CONFIG).latents
    assert set(seen) == {facts.token_grid(facts.default_size).num_tokens}
    install(model, plan, bank)
    assert not torch.equal(sample(model, CONFIG).latents, before)
    restore(model)
    assert torch.equal(sample(model, CONFIG).latents, before)
