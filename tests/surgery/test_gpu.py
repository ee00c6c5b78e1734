"""Students on a GPU: half precision against float32, offload, and a compiled transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.banks import write_bank
from workbench.models import load_model
from workbench.planning import parse_assign
from workbench.sampling import GenerateConfig, sample
from workbench.surgery import install, restore

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CONFIG = GenerateConfig(prompt="a red ball", seed=2, steps=4)
PLAN = "0-2:R4,3-5:R8,6-7:linear,8:T1o1"


@torch.no_grad()
def test_half_precision_student_is_near_float32(untrained_model_folder: Path, tmp_path: Path) -> None:
    outputs = []
    for dtype in ("float32", "bfloat16"):
        model = load_model(str(untrained_model_folder), device="cuda", dtype=dtype)  # type: ignore[arg-type]
        bank = write_bank(tmp_path / dtype, model.facts, rates=("R4", "R8", "linear", "T1o1"))
        install(model, parse_assign(PLAN, model.facts), bank)
        transformer: Any = model.transformer
        generator = torch.Generator().manual_seed(0)
        inputs = {
            "hidden_states": torch.randn(1, 16, 5, 16, 16, generator=generator).to("cuda", transformer.dtype),
            "timestep": torch.tensor([500], device="cuda"),
            "encoder_hidden_states": torch.randn(1, 64, 128, generator=generator).to(
                "cuda", transformer.dtype
            ),
        }
        outputs.append(transformer(**inputs, return_dict=False)[0].float())
    error = (outputs[0] - outputs[1]).norm() / outputs[0].norm()
    assert torch.isfinite(outputs[1]).all() and error < 0.05


def test_offload_gives_the_same_clip(untrained_model_folder: Path, tmp_path: Path) -> None:
    model = load_model(str(untrained_model_folder), device="cuda")
    before = sample(model, CONFIG).latents
    bank = write_bank(tmp_path / "bank", model.facts)
    plan = parse_assign("0-5:R4,6-:linear", model.facts)
    install(model, plan, bank)
    expected = sample(model, CONFIG).latents
    assert not torch.equal(expected, before)
    model.pipeline.enable_model_cpu_offload()
    assert torch.equal(sample(model, CONFIG).latents, expected)
    restore(model)
    install(model, plan, bank)
    assert torch.equal(sample(model, CONFIG).latents, expected)
    restore(model)
    assert torch.equal(sample(model, CONFIG).latents, before)


@torch.no_grad()
def test_compiled_student_is_near_eager(untrained_model_folder: Path, tmp_path: Path) -> None:
    model = load_model(str(untrained_model_folder), device="cuda")
    install(model, parse_assign("0-5:R4,6-:linear", model.facts), write_bank(tmp_path / "bank", model.facts))
    eager = sample(model, CONFIG).latents
    transformer: Any = model.transformer
    transformer.compile_repeated_blocks(fullgraph=True)
    compiled = sample(model, CONFIG).latents
    assert (eager - compiled).norm() / eager.norm() < 0.05
