"""Surgery on other transformers: Wan for images and for editing, another family, offload, caches, one
graph.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.banks import write_bank
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts, adapter_of
from workbench.operators import Schedule, observe, parse_rate
from workbench.planning import Bank, make_plan, parse_assign
from workbench.sampling import GenerateConfig, sample
from workbench.surgery import FreshCells, install, install_operators, linearize, restore, save_student
from workbench.workspace import Workspace

CONFIG = GenerateConfig(prompt="a red ball", seed=2)
WAN = {
    "patch_size": (1, 1, 1),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "rope_max_seq_len": 64,
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, micro_facts: ModelFacts) -> Bank:
    return write_bank(tmp_path_factory.mktemp("bank"), micro_facts)


@pytest.fixture
def student(bank: Bank, workspace: Workspace) -> Path:
    return save_student(parse_assign("0:R4,2:linear", bank.facts), bank, workspace)


def wan_for_images() -> tuple[Any, dict[str, Any]]:
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel(**WAN, image_dim=8, added_kv_proj_dim=24)
    return transformer, {
        "hidden_states": torch.randn(1, 4, 3, 6, 4),
        "timestep": torch.tensor([300]),
        "encoder_hidden_states": torch.randn(1, 512, 16),
        "encoder_hidden_states_image": torch.randn(1, 5, 8),
        "return_dict": False,
    }


def wan_for_editing() -> tuple[Any, dict[str, Any]]:
    from diffusers import WanVACETransformer3DModel

    transformer = WanVACETransformer3DModel(**WAN, vace_layers=[0, 2], vace_in_channels=8)
    return transformer, {
        "hidden_states": torch.randn(1, 4, 3, 6, 4),
        "timestep": torch.tensor([300]),
        "encoder_hidden_states": torch.randn(1, 16, 16),
        "control_hidden_states": torch.randn(1, 8, 3, 6, 4),
        "control_hidden_states_scale": torch.ones(2),
        "return_dict": False,
    }


@torch.no_grad()
@pytest.mark.parametrize("make", [wan_for_images, wan_for_editing])
def test_relatives_of_wan_take_a_student(make: Any, student: Path) -> None:
    torch.manual_seed(0)
    transformer, inputs = make()
    transformer.eval()
    before, keys = transformer(**inputs)[0], list(transformer.state_dict())
    report = linearize(transformer, student)
    assert [each.module for each in report.converted] == ["blocks.0.attn1", "blocks.2.attn1"]
    converted = transformer(**inputs)[0]
    assert torch.isfinite(converted).all() and not torch.equal(converted, before)
    restore(transformer)
    assert torch.equal(transformer(**inputs)[0], before) and list(transformer.state_dict()) == keys


@torch.no_grad()
def test_another_architecture_is_watched_converted_and_restored(micro_facts: ModelFacts) -> None:
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(0)
    transformer: Any = LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=3,
        caption_channels=16,
    ).eval()
    adapter = adapter_of(transformer)
    model = SimpleNamespace(transformer=transformer, adapter=adapter)
    inputs = {
        "hidden_states": torch.randn(2, 72, 4),
        "encoder_hidden_states": torch.randn(2, 8, 16),
        "timestep": torch.tensor([300, 300]),
        "encoder_attention_mask": torch.ones(2, 8),
        "num_frames": 3,
        "height": 6,
        "width": 4,
        "return_dict": False,
    }
    before, keys = transformer(**inputs)[0], list(transformer.state_dict())
    seen: list[Any] = []
    with observe(model, lambda block, query, key, value, context: seen.append((block, query.shape, context))):
        assert torch.equal(transformer(**inputs)[0], before)
    assert [each[0] for each in seen] == [0, 1, 2] and seen[0][1] == (2, 72, 2, 12)
    assert tuple(seen[0][2].grid) == (3, 6, 4) and seen[0][2].timestep == 300.0
    plan = make_plan({0: parse_rate("R4"), 2: parse_rate("T1o1")}, micro_facts)
    report = install_operators(transformer, adapter, plan, FreshCells(adapter.shape(transformer)))
    assert [each.module for each in report.converted] == [
        "transformer_blocks.0.attn1",
        "transformer_blocks.2.attn1",
    ]
    converted = transformer(**inputs)[0]
    assert torch.isfinite(converted).all() and not torch.equal(converted, before)
    assert restore(transformer) == (0, 2)
    assert torch.equal(transformer(**inputs)[0], before) and list(transformer.state_dict()) == keys


def test_two_transformers_are_refused(micro_model: LoadedModel, bank: Bank) -> None:
    micro_model.facts = micro_model.facts.model_copy(update={"num_transformers": 2})
    with pytest.raises(InputError, match="has two transformers, one for early and one for late steps"):
        install(micro_model, parse_assign("0:R4", bank.facts), bank)


@pytest.mark.parametrize("offload", ["leaf_level", "block_level"])
@pytest.mark.parametrize("first", ["surgery", "offload"])
def test_group_offload_before_or_after(
    micro_model: LoadedModel, bank: Bank, offload: str, first: str
) -> None:
    plan = parse_assign("0:R4,1:linear", bank.facts)
    transformer: Any = micro_model.transformer
    install(micro_model, plan, bank)
    expected = sample(micro_model, CONFIG).latents
    if first == "offload":
        restore(micro_model)
    options = {"num_blocks_per_group": 1} if offload == "block_level" else {}
    cpu = torch.device("cpu")
    transformer.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type=offload, **options)
    if first == "offload":
        install(micro_model, plan, bank)
    assert torch.equal(sample(micro_model, CONFIG).latents, expected)
    assert restore(micro_model) == (0, 1)


def test_first_block_cache_beside_surgery(micro_model: LoadedModel, bank: Bank) -> None:
    from diffusers import FirstBlockCacheConfig

    plan = parse_assign("0:R4,1:linear", bank.facts, schedule=Schedule(dense_first=1))
    install(micro_model, plan, bank)
    expected = sample(micro_model, CONFIG).latents
    transformer: Any = micro_model.transformer
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    assert torch.equal(sample(micro_model, CONFIG).latents, expected)
    restore(micro_model)
    install(micro_model, plan, bank)
    assert torch.equal(sample(micro_model, CONFIG).latents, expected)
    transformer.disable_cache()
    assert torch.equal(sample(micro_model, CONFIG).latents, expected)


@torch.no_grad()
def test_the_whole_transformer_is_one_graph_on_all_steps(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, parse_assign("0:R4,1:linear,2:R2", bank.facts), bank)
    transformer: Any = micro_model.transformer
    inputs = {
        "hidden_states": torch.randn(1, 4, 3, 6, 4),
        "timestep": torch.tensor([300]),
        "encoder_hidden_states": torch.randn(1, 16, 16),
        "return_dict": False,
    }
    expected = transformer(**inputs)[0]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(transformer, fullgraph=True, backend="eager")
    for step in range(4):
        for branch in ("cond", "uncond"):
            with transformer.cache_context(branch, step_index=step, num_inference_steps=4):
                assert torch.equal(compiled(**inputs)[0], expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
