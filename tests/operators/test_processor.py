"""Watching changes nothing; the processor computes what diffusers computes; the clock knows where it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.banks import write_bank
from workbench.models import LoadedModel
from workbench.operators import AttentionContext, clock_of, observe
from workbench.planning import parse_assign
from workbench.sampling import GenerateConfig, sample
from workbench.surgery import install
from workbench.types import TokenGrid

CONFIG = GenerateConfig(prompt="a red ball", seed=1, steps=3)


def test_observing_a_clip_changes_no_bit_and_leaves_nothing(micro_model: LoadedModel) -> None:
    plain = sample(micro_model, CONFIG)
    transformer: Any = micro_model.transformer
    keys, processors = list(transformer.state_dict()), dict(transformer.attn_processors)
    seen: list[AttentionContext] = []

    def look(block: int, query: Any, key: Any, value: Any, context: AttentionContext) -> None:
        assert query.shape == key.shape == value.shape == (1, 72, 2, 12)
        seen.append(context)

    watched = sample(micro_model, CONFIG, observer=look)
    assert torch.equal(plain.latents, watched.latents)
    assert len(seen) == 3 * 3 * 2
    assert [(each.step, each.branch, each.block) for each in seen[:6]] == [
        (0, "cond", 0), (0, "cond", 1), (0, "cond", 2), (0, "uncond", 0), (0, "uncond", 1), (0, "uncond", 2),
    ]  # fmt: skip
    assert {each.grid for each in seen} == {TokenGrid(3, 6, 4)} and {each.num_steps for each in seen} == {3}
    timesteps = [each.timestep for each in seen[::6]]
    assert timesteps[0] == 1000.0 and timesteps == sorted(timesteps, reverse=True)
    assert clock_of(transformer) is None and list(transformer.state_dict()) == keys
    assert transformer.attn_processors == processors
    assert torch.equal(sample(micro_model, CONFIG).latents, plain.latents)


@torch.no_grad()
def test_query_and_key_are_those_of_the_softmax(micro_model: LoadedModel) -> None:
    transformer: Any = micro_model.transformer
    attention = transformer.blocks[1].attn1
    seen: dict[str, torch.Tensor] = {}
    handle = attention.to_out[0].register_forward_pre_hook(lambda _, inputs: seen.update(result=inputs[0]))

    def look(block: int, query: Any, key: Any, value: Any, context: Any) -> None:
        seen.update(query=query, key=key, value=value)

    with observe(micro_model, look, blocks=[1]):
        transformer(
            hidden_states=torch.randn(1, 4, 3, 6, 4),
            timestep=torch.tensor([10]),
            encoder_hidden_states=torch.randn(1, 16, 16),
        )
    handle.remove()
    query, key, value = (seen[name].transpose(1, 2) for name in ("query", "key", "value"))
    expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen["result"], expected)


@torch.no_grad()
def test_students_can_be_watched_and_watchers_nested(micro_model: LoadedModel, tmp_path: Any) -> None:
    bank = write_bank(tmp_path, micro_model.facts)
    install(micro_model, parse_assign("1:R4", micro_model.facts), bank)
    plain = sample(micro_model, CONFIG)
    counts = [0, 0]

    def outer(*_: Any) -> None:
        counts[0] += 1

    def inner(*_: Any) -> None:
        counts[1] += 1

    with observe(micro_model, outer):
        watched = sample(micro_model, CONFIG, observer=inner)
    assert torch.equal(plain.latents, watched.latents) and counts == [18, 18]
    assert torch.equal(sample(micro_model, CONFIG).latents, plain.latents)


def test_an_interrupted_observer_is_taken_off(micro_model: LoadedModel) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        sample(micro_model, CONFIG, observer=fail)
    assert clock_of(micro_model.transformer) is None


@torch.no_grad()
def test_fused_projections_give_the_same_query(micro_model: LoadedModel) -> None:
    transformer: Any = micro_model.transformer
    inputs = {
        "hidden_states": torch.randn(1, 4, 3, 6, 4),
        "timestep": torch.tensor([10]),
        "encoder_hidden_states": torch.randn(1, 16, 16),
    }
    seen: list[torch.Tensor] = []
    with observe(micro_model, lambda block, query, key, value, context: seen.append(query), blocks=[0]):
        transformer(**inputs)
        transformer.fuse_qkv_projections()
        transformer(**inputs)
    torch.testing.assert_close(seen[0], seen[1])
