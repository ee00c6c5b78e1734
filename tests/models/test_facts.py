"""Sizes a model accepts, the registry, recognition by architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.models import ModelFacts, model_facts, registry
from workbench.types import ClipSize


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        ("embedded", (17, 128, 128), (5, 16, 16)),
        ("wan2.1-t2v-1.3b", (81, 480, 832), (21, 30, 52)),
        ("wan2.1-t2v-1.3b", (81, 320, 480), (21, 20, 30)),
        ("wan2.1-t2v-14b", (81, 720, 1280), (21, 45, 80)),
        ("wan2.2-ti2v-5b", (81, 704, 1280), (21, 22, 40)),
    ],
)
def test_token_grids(name: str, size: tuple[int, int, int], tokens: tuple[int, int, int]) -> None:
    assert tuple(model_facts(name).token_grid(ClipSize(*size))) == tokens


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((16, 128, 128), "Frames must be 4k.1 for wan2.1-t2v-1.3b, got 16; the nearest are 13 and 17"),
        ((0, 128, 128), "the nearest are 1 and 5"),
        ((-7, 128, 128), "the nearest are 1 and 5"),
        ((17, 120, 128), "Height must be a multiple of 16 .* got 120; the nearest are 112 and 128"),
        ((17, 128, 1), "Width must be a multiple of 16 .* got 1; the nearest are 16 and 32"),
        ((17, 128, 0), "Width must be a multiple of 16"),
        ((17, 128, 160_000), "has 10,000 tokens along one axis, .* knows 1,024; choose a smaller clip"),
        ((8001, 128, 128), "2,001 tokens along one axis"),
    ],
)
def test_sizes_that_cannot_be(size: tuple[int, int, int], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        model_facts("wan2.1-t2v-1.3b").check_size(ClipSize(*size))
    assert "\n" not in str(caught.value)


def test_every_default_size_can_be_made() -> None:
    for entry in registry.ENTRIES:
        assert entry.facts.token_grid(entry.facts.default_size).num_tokens >= 1000


def test_registry_names_need_no_files() -> None:
    assert "embedded" in registry.names() and "wan2.1-t2v-1.3b" in registry.names()
    assert registry.find("Wan-AI/Wan2.1-T2V-1.3B-Diffusers") is registry.find("wan2.1-t2v-1.3b")
    assert registry.nearest_name("wan2.1-1.3b") == "wan2.1-t2v-1.3b"
    facts = model_facts("wan2.1-t2v-1.3b")
    assert (facts.num_blocks, facts.dim, facts.ffn_dim, facts.fingerprint) == (30, 1536, 8960, "")


def test_facts_survive_json() -> None:
    for entry in registry.ENTRIES:
        assert ModelFacts.parse(json.loads(entry.facts.model_dump_json()), what="facts") == entry.facts


def test_a_folder_is_recognised_by_its_architecture(untrained_model_folder: Path) -> None:
    facts = model_facts(str(untrained_model_folder))
    known = registry.find("embedded")
    assert known is not None and facts.name == "untrained" and facts.source == str(untrained_model_folder)
    for field in (
        "num_blocks",
        "head_dim",
        "text_tokens",
        "default_size",
        "default_steps",
        "fps",
        "vae_scale",
    ):
        assert getattr(facts, field) == getattr(known.facts, field), field
    assert len(facts.fingerprint) == 16


def test_a_folder_may_state_its_own_defaults(micro_facts: ModelFacts) -> None:
    assert micro_facts.default_size == ClipSize(9, 48, 32) and micro_facts.text_tokens == 16
    assert micro_facts.token_grid(micro_facts.default_size).num_tokens == 72
