"""A student beside everything else that people do to a pipeline; the table of docs/export.md, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.banks import write_bank
from tests.conftest import build_micro_pipeline
from workbench.errors import InputError
from workbench.export import export_student
from workbench.export.loader import linearize, restore
from workbench.jobs.tensors import save_tensors
from workbench.models import ModelFacts
from workbench.operators import Schedule
from workbench.planning import parse_assign
from workbench.surgery import save_student
from workbench.workspace import Workspace

USER = "user"
Tool = Callable[[Any], object]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, micro_facts: ModelFacts) -> Path:
    """A student with a hybrid, a softmax and a linear block."""
    home = Workspace.open(tmp_path_factory.mktemp("home"))
    bank = write_bank(home.folder("banks") / "one", micro_facts, rates=("R4", "linear"))
    student = save_student(parse_assign("0:R4,2:linear", micro_facts), bank, home)
    return export_student(student, tmp_path_factory.mktemp("out") / "bundle")


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory, micro_facts: ModelFacts) -> Path:
    """The same student, dense on its first step."""
    home = Workspace.open(tmp_path_factory.mktemp("home"))
    bank = write_bank(home.folder("banks") / "one", micro_facts, rates=("R4", "linear"))
    plan = parse_assign("0:R4,2:linear", micro_facts, schedule=Schedule(dense_first=1))
    return export_student(save_student(plan, bank, home), tmp_path_factory.mktemp("out") / "bundle")


@pytest.fixture
def pipeline() -> Any:
    made: Any = build_micro_pipeline()
    made.set_progress_bar_config(disable=True)
    return made


def clip(pipeline: Any, *, prompt: str | list[str] = "a red ball", seed: int = 0, **changed: Any) -> Tensor:
    settings = {"num_inference_steps": 3, "guidance_scale": 3.0, **changed}
    latents: Tensor = pipeline(
        prompt=prompt,
        height=48,
        width=32,
        num_frames=9,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        max_sequence_length=16,
        **settings,
    ).frames
    assert torch.isfinite(latents).all()
    return latents


def write_lora(folder: Path, pipeline: Any, *, seed: int = 3) -> Path:
    """Write a LoRA as its users find them, on attention and feed-forward."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in pipeline.transformer.named_modules():
        if isinstance(module, nn.Linear) and (".attn1.to_" in name or ".attn2.to_q" in name):
            rows, columns = module.weight.shape
            tensors[f"transformer.{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator) / 3
            tensors[f"transformer.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=generator) / 3
    folder.mkdir()
    save_tensors(folder / "pytorch_lora_weights.safetensors", tensors, {"format": "pt"})
    return folder


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backends_serve_the_softmax_that_is_left(
    pipeline: Any, bundle: Path, scheduled: Path, backend: str
) -> None:
    """A backend becomes diffusers' global one as well, so the test leaves with the native one set."""
    for student in (bundle, scheduled):
        linearize(pipeline, student)
        expected = clip(pipeline)
        pipeline.transformer.set_attention_backend(backend)
        found = clip(pipeline)
        assert torch.allclose(found, expected, atol=1e-4)
        pipeline.transformer.set_attention_backend("native")
        assert torch.equal(clip(pipeline), expected)
        pipeline.transformer.set_attention_backend(backend)
        linearize(pipeline, student)
        assert torch.equal(clip(pipeline), found), "before or after, it is the same"
        pipeline.transformer.set_attention_backend("native")


def test_the_softmax_inside_a_hybrid_follows_diffusers_where_asked(
    pipeline: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models import attention_dispatch

    linearize(pipeline, bundle)
    expected = clip(pipeline)
    linearize(pipeline, bundle, impl="diffusers")
    assert torch.allclose(clip(pipeline), expected, atol=1e-4)
    registry: Any = attention_dispatch._AttentionBackendRegistry
    math = attention_dispatch.AttentionBackendName._NATIVE_MATH
    plain, lengths = registry._backends[math], set()

    def watched(**arguments: Any) -> Tensor:
        lengths.add((arguments["query"].shape[1], arguments["key"].shape[1]))
        result: Tensor = plain(**arguments)
        return result

    monkeypatch.setitem(registry._backends, math, watched)
    pipeline.transformer.set_attention_backend("_native_math")
    try:
        assert torch.allclose(clip(pipeline), expected, atol=1e-4)
        assert (72, 18) in lengths, "every fourth of 72 tokens keeps softmax"
    finally:
        pipeline.transformer.set_attention_backend("native")


def test_a_users_lora_before_or_after(pipeline: Any, bundle: Path, tmp_path: Path) -> None:
    teacher = clip(pipeline)
    lora = write_lora(tmp_path / "lora", pipeline)
    linearize(pipeline, bundle)
    plain = clip(pipeline)
    pipeline.load_lora_weights(lora, adapter_name=USER)
    after = clip(pipeline)
    assert not torch.allclose(after, plain, atol=1e-3)
    restore(pipeline)
    assert pipeline.get_active_adapters() == [USER], "the user's LoRA stays"
    linearize(pipeline, bundle)
    assert torch.equal(clip(pipeline), after), "the LoRA was there before"
    pipeline.set_adapters([USER], adapter_weights=[0.5])
    half = clip(pipeline)
    assert not torch.allclose(half, after, atol=1e-4) and not torch.allclose(half, plain, atol=1e-4)
    pipeline.unload_lora_weights()
    assert torch.equal(clip(pipeline), plain)
    restore(pipeline)
    assert torch.equal(clip(pipeline), teacher)


def test_a_users_lora_fused_into_the_weights(pipeline: Any, bundle: Path, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "lora", pipeline)
    linearize(pipeline, bundle)
    pipeline.load_lora_weights(lora, adapter_name=USER)
    expected = clip(pipeline)
    pipeline.fuse_lora(components=["transformer"])
    pipeline.unload_lora_weights()
    assert torch.allclose(clip(pipeline), expected, atol=1e-4)


def test_a_few_step_lora_without_guidance(pipeline: Any, scheduled: Path, tmp_path: Path) -> None:
    from diffusers import UniPCMultistepScheduler

    pipeline.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    few = {"num_inference_steps": 4, "guidance_scale": 1.0}
    lora = write_lora(tmp_path / "few", pipeline)
    pipeline.load_lora_weights(lora, adapter_name=USER)
    teacher = clip(pipeline, **few)
    linearize(pipeline, scheduled)
    first = clip(pipeline, **few)
    assert not torch.allclose(first, teacher, atol=1e-3)
    assert torch.equal(clip(pipeline, **few), first), "a second clip starts anew"


@pytest.mark.parametrize("threshold", [0.0, 10.0])
@pytest.mark.parametrize("first", ["student", "cache"])
def test_first_block_cache(pipeline: Any, scheduled: Path, threshold: float, first: str) -> None:
    from diffusers import FirstBlockCacheConfig

    linearize(pipeline, scheduled)
    plain = clip(pipeline)
    if first == "cache":
        restore(pipeline)
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    if first == "cache":
        linearize(pipeline, scheduled)
    cached = clip(pipeline)
    assert torch.equal(cached, plain) == (threshold == 0.0), "a high threshold skips blocks"
    assert torch.equal(clip(pipeline), cached), "a second clip starts anew"
    pipeline.transformer.disable_cache()
    assert torch.equal(clip(pipeline), plain)


def test_several_clips_at_once_are_those_made_alone(pipeline: Any, bundle: Path) -> None:
    linearize(pipeline, bundle)
    prompts = ["a red ball", "a blue cube"]
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    noise = torch.cat([torch.randn(1, 4, 3, 6, 4, generator=each) for each in generators])
    together = clip(pipeline, prompt=prompts, latents=noise)
    for index, prompt in enumerate(prompts):
        alone = clip(pipeline, prompt=prompt, latents=noise[index : index + 1])
        assert torch.allclose(together[index : index + 1], alone, atol=1e-4)
    assert clip(pipeline, num_videos_per_prompt=2).shape[0] == 2


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
@pytest.mark.parametrize("first", ["student", "offload"])
def test_group_offload_that_really_takes_the_weights_away(
    pipeline: Any, bundle: Path, tmp_path: Path, level: str, first: str
) -> None:
    """Weights go to a file and their memory is given up, so that a weight used without its hook is noise."""
    linearize(pipeline, bundle)
    expected = clip(pipeline)
    if first == "offload":
        restore(pipeline)
    options = {"num_blocks_per_group": 1} if level == "block_level" else {}
    pipeline.transformer.enable_group_offload(
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type=level,
        offload_to_disk_path=str(tmp_path / "offload"),
        **options,
    )
    if first == "offload":
        linearize(pipeline, bundle)
    assert torch.allclose(clip(pipeline), expected, atol=1e-4)


def test_sequential_offload_of_accelerate(pipeline: Any, bundle: Path) -> None:
    from accelerate import cpu_offload

    linearize(pipeline, bundle)
    expected = clip(pipeline)
    cpu_offload(pipeline.transformer, execution_device=torch.device("cpu"))
    operator = pipeline.transformer.blocks[0].attn1.operator
    assert all(parameter.is_meta for parameter in operator.parameters()), "its weights are away too"
    assert torch.allclose(clip(pipeline), expected, atol=1e-4)


def test_weights_stored_in_8_bit_floats(pipeline: Any, bundle: Path) -> None:
    linearize(pipeline, bundle)
    expected = clip(pipeline)
    pipeline.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    cast = clip(pipeline)
    assert not torch.equal(cast, expected)
    assert (cast - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_compiled_transformer_is_one_graph(
    pipeline: Any, bundle: Path, tmp_path: Path, with_lora: bool
) -> None:
    linearize(pipeline, bundle)
    if with_lora:
        pipeline.load_lora_weights(write_lora(tmp_path / "lora", pipeline), adapter_name=USER)
    expected = clip(pipeline)
    torch._dynamo.reset()
    pipeline.transformer.compile(fullgraph=True, backend="eager")
    assert torch.allclose(clip(pipeline), expected, atol=1e-5)
    torch._dynamo.reset()


class Int8Linear(nn.Module):
    """Stands for the linear layers of a quantized transformer: 8-bit weights with a scale a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", torch.round(linear.weight.detach() / scale).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.weight.to(states.dtype) * self.scale, self.bias)


def quantize(transformer: nn.Module) -> None:
    for block in transformer.blocks:  # type: ignore[union-attr]
        for name in ("to_q", "to_k", "to_v"):
            setattr(block.attn1, name, Int8Linear(getattr(block.attn1, name)))


def test_quantized_linear_layers(pipeline: Any, bundle: Path) -> None:
    linearize(pipeline, bundle)
    expected = clip(pipeline)
    restore(pipeline)
    quantize(pipeline.transformer)
    linearize(pipeline, bundle)
    found = clip(pipeline)
    assert not torch.equal(found, expected)
    assert (found - expected).norm() < 0.2 * expected.norm()
    assert math.isfinite(float(found.norm()))
    assert restore(pipeline) == (0, 2)


def test_a_wholly_finetuned_student_is_refused_on_other_weights(
    pipeline: Any, micro_facts: ModelFacts, tmp_path: Path
) -> None:
    from workbench.planning.bank import file_digest
    from workbench.workspace import read_json, write_json

    home = Workspace.open(tmp_path / "home")
    bank = write_bank(home.folder("banks") / "one", micro_facts, rates=("R4",))
    student = save_student(parse_assign("0:R4", micro_facts), bank, home)
    weights = {name: value.detach() for name, value in pipeline.transformer.named_parameters()}
    save_tensors(student / "transformer.safetensors", weights)
    manifest = read_json(student / "student.json", what="student")
    digest = file_digest(student / "transformer.safetensors")
    write_json(student / "student.json", {**manifest, "weights_sha256": digest})
    whole = export_student(student, tmp_path / "bundle")
    quantize(pipeline.transformer)
    before = clip(pipeline)
    with pytest.raises(InputError, match=r"transformer\.safetensors does not fit this transformer"):
        linearize(pipeline, whole)
    assert torch.equal(clip(pipeline), before), "nothing was changed"
