"""Estimates of memory against what torch allocates on the real architectures, with fake tensors."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.memory import PeakMemory, cast
from tests.models.published import CODECS, TRANSFORMERS, UMT5_XXL
from workbench.errors import InputError
from workbench.models import PlacementConfig, model_facts, model_footprint, registry
from workbench.models.footprint import decode_bytes
from workbench.models.memory import (
    Free,
    decode_peak,
    encoder_bytes_each,
    forward_bytes,
    needs,
    training_bytes,
)
from workbench.models.placement import RESERVE, check_clip, limit_memory, place
from workbench.types import ClipSize

NAMES = tuple(TRANSFORMERS)
GB = 1e9
PUBLISHED_SIZES = {"wan2.1-t2v-14b": ClipSize(81, 720, 1280), "wan2.2-t2v-a14b": ClipSize(81, 720, 1280)}


def test_the_registry_knows_every_published_model() -> None:
    assert {entry.name for entry in registry.ENTRIES if entry.hub_id} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_published_configurations(name: str) -> None:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    footprint, config = model_footprint(name), TRANSFORMERS[name]
    entry = registry.find(name)
    assert entry is not None and entry.in_channels == config["in_channels"]
    with torch.device("meta"):
        parts: tuple[Any, ...] = (
            WanTransformer3DModel(**config),
            UMT5EncoderModel(UMT5Config(**UMT5_XXL)),
            AutoencoderKLWan(**CODECS[name]),
        )
    assert tuple(sum(tensor.numel() for tensor in part.parameters()) for part in parts) == footprint[:3]
    facts = model_facts(name)
    assert (facts.num_blocks, facts.num_heads, facts.ffn_dim) == (
        config["num_layers"],
        config["num_attention_heads"],
        config["ffn_dim"],
    )
    assert footprint.decode_bytes == decode_bytes(CODECS[name], what="codec")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", NAMES[:3])
def test_activations_of_a_forward_pass(name: str, dtype: torch.dtype) -> None:
    from diffusers import WanTransformer3DModel

    facts, config = model_facts(name), {**TRANSFORMERS[name], "num_layers": 2}
    size = PUBLISHED_SIZES.get(name, facts.default_size)
    grid = facts.token_grid(size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        transformer: Any = WanTransformer3DModel(**config)
        cast(transformer, dtype)
        latents = torch.empty(
            1, config["in_channels"], grid.frames, 2 * grid.height, 2 * grid.width, dtype=dtype
        )
        text = torch.empty(1, 512, 4096, dtype=dtype)
        with PeakMemory(transformer) as memory:
            transformer(
                hidden_states=latents,
                timestep=torch.tensor([500]),
                encoder_hidden_states=text,
                return_dict=False,
            )
    assert forward_bytes(facts, size, bytes_each=dtype.itemsize) == pytest.approx(memory.peak, rel=0.08)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [("wan2.1-t2v-1.3b", ClipSize(9, 480, 832)), ("wan2.2-ti2v-5b", ClipSize(9, 704, 1280))],
)
def test_decoding_of_the_real_codecs(name: str, size: ClipSize) -> None:
    from diffusers import AutoencoderKLWan

    facts, footprint = model_facts(name), model_footprint(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        codec: Any = AutoencoderKLWan(**CODECS[name])
        space = facts.vae_scale[1]
        latents = torch.empty(1, codec.config.z_dim, 3, size.height // space, size.width // space)
        with PeakMemory(codec) as memory:
            codec.decode(latents, return_dict=False)
    assert decode_peak(footprint, size, tiling=False) == pytest.approx(memory.peak, rel=0.05)


@torch.no_grad()
def test_decoding_in_tiles_needs_no_more_than_estimated() -> None:
    from diffusers import AutoencoderKLWan

    size = ClipSize(5, 288, 352)
    with FakeTensorMode(allow_non_fake_inputs=True):
        codec: Any = AutoencoderKLWan()
        codec.enable_tiling()
        with PeakMemory(codec) as memory:
            codec.decode(torch.empty(1, 16, 2, 36, 44), return_dict=False)
    estimate = decode_peak(model_footprint("wan2.1-t2v-1.3b"), size, tiling=True)
    assert memory.peak <= 1.05 * estimate < 1.5 * memory.peak


@pytest.mark.parametrize(("name", "plan"), [("wan2.1-t2v-1.3b", "3xR4"), ("wan2.1-t2v-14b", "3xR8")])
def test_an_update_with_gradient_checkpointing(name: str, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import WanTransformer3DModel
    from peft import LoraConfig

    from workbench.models import adapter_of
    from workbench.planning import parse_short
    from workbench.surgery import FreshCells, install_operators, operators_of

    size = ClipSize(33, 320, 480)
    facts = model_facts(name).model_copy(update={"num_blocks": 3})
    grid, config = facts.token_grid(size), {**TRANSFORMERS[name], "num_layers": 3}
    monkeypatch.setattr("torch.nn.Module.to", lambda module, *_, **__: module)
    with FakeTensorMode(allow_non_fake_inputs=True):
        transformer: Any = WanTransformer3DModel(**config)
        cast(transformer, torch.bfloat16)
        adapter = adapter_of(transformer)
        install_operators(
            transformer, adapter, parse_short(plan, facts), FreshCells(adapter.shape(transformer))
        )
        targets = [f"attn1.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")]
        targets += ["ffn.net.0.proj", "ffn.net.2"]
        transformer.add_adapter(LoraConfig(r=8, target_modules=targets), adapter_name="lora")
        transformer.enable_gradient_checkpointing()
        transformer.train()
        trained = [
            weight for operator in operators_of(transformer).values() for weight in operator.parameters()
        ]
        for weight in trained:
            weight.requires_grad_()
        shape = (1, config["in_channels"], grid.frames, 2 * grid.height, 2 * grid.width)
        with PeakMemory(transformer) as memory:
            transformer(
                hidden_states=torch.empty(shape, dtype=torch.bfloat16),
                timestep=torch.tensor([500]),
                encoder_hidden_states=torch.empty(1, 512, 4096, dtype=torch.bfloat16),
                return_dict=False,
            )[0].float().square().mean().backward()
    estimate = training_bytes(facts, size, num_trained=0)
    assert estimate == pytest.approx(memory.peak, rel=0.1)


def chosen(name: str, gigabytes: float, *, host: float = 128, **config: Any) -> str:
    found = place(
        model_footprint(name),
        model_facts(name),
        PlacementConfig(**config),
        device="cuda",
        bytes_each=2,
        free=Free(gigabytes * GB, host * GB),
    )
    assert found.device_peak + RESERVE <= gigabytes * GB and found.passing_text
    return f"{found.offload}{'+tiles' if found.tiling else ''}"


@pytest.mark.parametrize(
    ("name", "gigabytes", "expected"),
    [
        ("wan2.1-t2v-1.3b", 23.5, "none"),
        ("wan2.1-t2v-1.3b", 11.0, "none+tiles"),
        ("wan2.1-t2v-1.3b", 4.3, "group+tiles"),
        ("wan2.1-t2v-14b", 79, "none"),
        ("wan2.1-t2v-14b", 23.5, "group"),
        ("wan2.1-t2v-14b", 34.5, "none+tiles"),
        ("wan2.2-ti2v-5b", 79, "none"),
        ("wan2.2-ti2v-5b", 23.5, "none+tiles"),
        ("wan2.2-t2v-a14b", 79, "none"),
        ("wan2.2-t2v-a14b", 40, "model"),
    ],
)
def test_the_fastest_placement_that_fits_is_chosen(name: str, gigabytes: float, expected: str) -> None:
    assert chosen(name, gigabytes) == expected


def test_choices_and_bounds_are_followed() -> None:
    assert chosen("wan2.1-t2v-1.3b", 79, offload="group", tiling="on") == "group+tiles"
    assert chosen("wan2.1-t2v-1.3b", 79, memory_gb=11.0) == "none+tiles"
    sentence = place(
        model_footprint("wan2.1-t2v-1.3b"),
        model_facts("wan2.1-t2v-1.3b"),
        PlacementConfig(),
        device="cuda",
        bytes_each=2,
        free=Free(10.5 * GB, 64 * GB),
    ).sentence("wan", ClipSize(81, 480, 832))
    assert re.fullmatch(
        r"wan: a clip of 81×480×832 is estimated to need \d\.\d GB of GPU memory, decoded in tiles, "
        r"the text encoder loaded for encoding alone\.",
        sentence,
    )


def test_a_large_model_is_not_put_on_a_cpu_in_silence() -> None:
    name = "wan2.1-t2v-1.3b"
    facts = model_facts(name)
    placed = place(
        model_footprint(name),
        facts,
        PlacementConfig(),
        device="cpu",
        bytes_each=4,
        free=Free(64 * GB, 64 * GB),
    )
    assert (placed.offload, placed.passing_text) == ("none", True)
    assert "GB of memory on the CPU, where it is slow" in placed.sentence(name, facts.default_size)
    with pytest.raises(InputError, match="Model offload moves components to a GPU and there is none"):
        place(
            model_footprint(name), facts, PlacementConfig(offload="model"),
            device="cpu", bytes_each=4, free=Free(64 * GB, 64 * GB),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "device", "free", "words"),
    [
        (
            "wan2.1-t2v-14b",
            "cuda",
            Free(1.5 * GB, 64 * GB),
            "needs about .* GB of GPU memory even for one fr",
        ),
        (
            "wan2.1-t2v-14b",
            "cuda",
            Free(24 * GB, 16 * GB),
            "needs about .* GB of memory beside the GPU, 16.0",
        ),
        ("wan2.1-t2v-1.3b", "cpu", Free(8 * GB, 8 * GB), "of memory on this CPU even for one frame, 8.0 GB"),
    ],
)
def test_what_is_hopeless_is_refused(name: str, device: str, free: Free, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        place(
            model_footprint(name),
            model_facts(name),
            PlacementConfig(),
            device=device,
            bytes_each=2,
            free=free,
        )
    assert "\n" not in str(caught.value)


def test_a_model_that_fits_only_for_small_clips_loads_and_large_clips_are_refused() -> None:
    footprint, facts = model_footprint("wan2.2-ti2v-5b"), model_facts("wan2.2-ti2v-5b")
    free = Free(6.0 * GB, 64 * GB)
    placed = place(footprint, facts, PlacementConfig(), device="cuda", bytes_each=2, free=free)
    assert (placed.offload, placed.tiling) == ("group", True)
    free = Free(1.5 * GB, 64 * GB)
    check_clip(footprint, facts, ClipSize(5, 256, 256), placement=placed, bytes_each=2, free=free)
    with pytest.raises(InputError, match=r"A clip of 121×704×1280 needs about .* choose fewer frames or"):
        check_clip(footprint, facts, facts.default_size, placement=placed, bytes_each=2, free=free)


def test_a_large_encoder_is_counted_in_bfloat16_and_only_where_it_lies() -> None:
    footprint, facts = model_footprint("wan2.1-t2v-1.3b"), model_facts("wan2.1-t2v-1.3b")
    assert encoder_bytes_each(footprint, 4) == 2
    ways = {
        passing: needs(
            footprint, facts, facts.default_size,
            bytes_each=2, offload="none", tiling=False, passing_text=passing,
        )
        for passing in (True, False)
    }  # fmt: skip
    assert ways[False].device - ways[True].device == 2 * footprint.text_encoder


def test_the_bound_is_set_on_a_device_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses "cuda" without a number; there is no GPU here to ask."""
    bounds: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80_000_000_000)
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: bounds.append((share, device))
    )
    for device, gigabytes in (("cuda", 20.0), ("cuda:1", 100.0), ("cpu", 1.0)):
        limit_memory(torch.device(device), gigabytes)
    assert bounds == [(0.25, 3), (1.0, 1)]


def test_a_resident_encoder_counts_where_one_block_at_a_time_is_brought() -> None:
    """It lies on the GPU then, so that the clip is that of every other placement."""
    footprint, facts = model_footprint("wan2.1-t2v-1.3b"), model_facts("wan2.1-t2v-1.3b")
    choose = {"bytes_each": 2, "offload": "group", "tiling": True}
    passing, resident = (
        needs(footprint, facts, facts.default_size, passing_text=passing, **choose)  # type: ignore[arg-type]
        for passing in (True, False)
    )
    assert resident.device - passing.device == 2 * footprint.text_encoder
