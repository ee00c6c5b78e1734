"""Placements on a GPU: the same clip wherever the parts lie, a bound that holds, a passing text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.models import PlacementConfig, load_model
from workbench.models.placement import limit_memory
from workbench.sampling import GenerateConfig, sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CONFIG = GenerateConfig(prompt="a red ball", seed=2, steps=4)


@pytest.fixture(autouse=True)
def whole_device_afterwards() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize(
    "choice",
    [{"offload": "model"}, {"offload": "group"}, {"text_encoder": "passing"}, {"memory_gb": 4.0}],
)
def test_the_clip_is_the_same_wherever_the_parts_lie(
    untrained_model_folder: Path, choice: dict[str, Any]
) -> None:
    expected = sample(load_model(str(untrained_model_folder), device="cuda"), CONFIG)
    model = load_model(str(untrained_model_folder), device="cuda", placement=PlacementConfig(**choice))
    made = sample(model, CONFIG)
    assert torch.equal(made.latents, expected.latents) and np.array_equal(made.frames, expected.frames)
    again = sample(model, CONFIG)
    assert torch.equal(again.latents, expected.latents)


def test_a_bound_on_memory_holds() -> None:
    limit_memory(torch.device("cuda"), 1.0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        torch.empty(2_000_000_000, dtype=torch.uint8, device="cuda")


def test_a_passing_encoder_leaves_nothing_on_the_device(untrained_model_folder: Path) -> None:
    """From the second clip on: the first leaves cuBLAS its workspace, 32 MiB on an H100."""
    model = load_model(
        str(untrained_model_folder), device="cuda", placement=PlacementConfig(text_encoder="passing")
    )
    sample(model, CONFIG)
    before = torch.cuda.memory_allocated()
    sample(model, CONFIG.model_copy(update={"prompt": "a green square"}))
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() - before < model.footprint.text_encoder
