"""What surgery promises: nothing happens to what is not planned, and everything can be taken back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.banks import write_bank
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts
from workbench.operators import OperatorProcessor, Schedule, clock_of, observe
from workbench.planning import Bank, Plan, make_plan, parse_assign, parse_short
from workbench.surgery import FreshCells, install, installed, operators_of, restore, set_linear_branch


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, micro_facts: ModelFacts) -> Bank:
    return write_bank(tmp_path_factory.mktemp("bank"), micro_facts)


def forward(transformer: Any, *, batch: int = 1, seed: int = 0, **changes: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "hidden_states": torch.randn(batch, 4, 3, 6, 4, generator=generator),
        "timestep": torch.full((batch,), 500),
        "encoder_hidden_states": torch.randn(batch, 16, 16, generator=generator),
        "return_dict": False,
    } | changes
    output: torch.Tensor = transformer(**inputs)[0]
    return output


def plan_of(text: str, facts: ModelFacts, **schedule: int) -> Plan:
    return parse_assign(text, facts, schedule=Schedule(**schedule))


@torch.no_grad()
def test_all_softmax_plan_is_the_untouched_model(micro_model: LoadedModel, bank: Bank) -> None:
    transformer = micro_model.transformer
    before, keys = forward(transformer), list(transformer.state_dict())
    report = install(micro_model, parse_short("softmax", micro_model.facts), bank)
    assert report.converted == () and report.kept == (0, 1, 2)
    assert torch.equal(forward(transformer), before)
    assert list(transformer.state_dict()) == keys and clock_of(transformer) is None


@torch.no_grad()
def test_restore_gives_back_outputs_keys_and_processors(micro_model: LoadedModel, bank: Bank) -> None:
    transformer: Any = micro_model.transformer
    before, keys = forward(transformer), list(transformer.state_dict())
    processors = dict(transformer.attn_processors)
    modules = [name for name, _ in transformer.named_modules()]
    report = install(micro_model, plan_of("0:R4,2:linear", micro_model.facts), bank)
    assert [(each.block, each.module, each.operator) for each in report.converted] == [
        (0, "blocks.0.attn1", "R4"),
        (2, "blocks.2.attn1", "linear"),
    ]
    assert report.kept == (1,) and all(each.num_parameters for each in report.converted)
    assert installed(micro_model) == report
    new_keys = set(transformer.state_dict()) - set(keys)
    assert new_keys and {key.split(".operator.")[0] for key in new_keys} == {
        "blocks.0.attn1",
        "blocks.2.attn1",
    }
    assert not torch.equal(forward(transformer), before)

    assert restore(micro_model) == (0, 2)
    assert torch.equal(forward(transformer), before)
    assert list(transformer.state_dict()) == keys
    assert [name for name, _ in transformer.named_modules()] == modules
    assert transformer.attn_processors == processors
    assert installed(micro_model) is None and restore(micro_model) == ()


@torch.no_grad()
def test_repainting_a_student_replaces_its_plan(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0:R4", micro_model.facts), bank)
    first = forward(micro_model.transformer)
    install(micro_model, plan_of("1:R2", micro_model.facts), bank)
    assert set(operators_of(micro_model)) == {1}
    install(micro_model, plan_of("0:R4", micro_model.facts), bank)
    assert torch.equal(forward(micro_model.transformer), first)


@torch.no_grad()
def test_refusals_change_nothing(micro_model: LoadedModel, bank: Bank, tmp_path: Path) -> None:
    facts = micro_model.facts
    transformer = micro_model.transformer
    install(micro_model, plan_of("0:R4", facts), bank)
    before = forward(transformer)
    other = facts.model_copy(update={"fingerprint": "0" * 16, "name": "other"})
    larger = facts.model_copy(update={"num_blocks": 99})
    foreign = write_bank(tmp_path / "foreign", other)
    for plan, cells, words in (
        (plan_of("0:R8", facts), bank, "block 0 R8; measure"),
        (make_plan({98: parse_short("1xR4", facts).operators[1]}, larger), bank, "99 blocks"),
        (plan_of("0:R4", other), bank, "other weights"),
        (plan_of("0:R4", facts), foreign, "fingerprint 0000000000000000"),
    ):
        with pytest.raises(InputError, match=words):
            install(micro_model, plan, cells)
        assert torch.equal(forward(transformer), before)
    with pytest.raises(InputError, match="Block 7 does not exist; micro has blocks 0 to 2"):
        plan_of("7:R4", facts)


@torch.no_grad()
def test_linear_branch_can_be_switched_off(micro_model: LoadedModel, bank: Bank) -> None:
    transformer = micro_model.transformer
    plan = plan_of("0:R4", micro_model.facts)
    install(micro_model, plan, bank)
    on = forward(transformer)
    set_linear_branch(micro_model, on=False)
    off = forward(transformer)
    assert not torch.equal(on, off)
    install(micro_model, plan, bank, linear_branch=False)
    assert torch.equal(forward(transformer), off)
    attention: Any = transformer.blocks[0].attn1  # type: ignore[index,union-attr]
    seen: list[torch.Tensor] = []
    with observe(
        micro_model, lambda block, query, key, value, context: seen.extend((query, key, value)), blocks=[0]
    ):
        forward(transformer)
    query, key, value = (tensor.transpose(1, 2) for tensor in seen)
    kept = torch.nn.functional.scaled_dot_product_attention(query, key[:, :, ::4], value[:, :, ::4])
    got = attention.operator(*seen, context=None)
    torch.testing.assert_close(got.transpose(1, 2), kept)


def in_step(transformer: Any, step: int, branch: str = "cond", seed: int = 0) -> torch.Tensor:
    with transformer.cache_context(branch, step_index=step, num_inference_steps=4):
        return forward(transformer, seed=seed)


@torch.no_grad()
def test_schedule_runs_the_first_steps_dense(micro_model: LoadedModel, bank: Bank) -> None:
    transformer = micro_model.transformer
    dense = forward(transformer)
    install(micro_model, plan_of("0-:R4", micro_model.facts, dense_first=1, dense_every=3), bank)
    converted = forward(transformer)
    assert not torch.equal(dense, converted)
    for step, expected in enumerate((dense, converted, converted, dense)):
        for branch in ("cond", "uncond"):
            assert torch.equal(in_step(transformer, step, branch), expected), step


@torch.no_grad()
def test_state_is_kept_by_block_and_branch_and_reset_per_clip(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("1:R4", micro_model.facts), bank)
    transformer: Any = micro_model.transformer
    clock = clock_of(transformer)
    assert clock is not None
    context = transformer.blocks[1].attn1.processor.context

    class Counter(torch.nn.Module):
        def forward(self, query: Any, key: Any, value: Any, *, context: Any) -> Any:
            context.state["calls"] = context.state.get("calls", 0) + 1
            return value

    transformer.blocks[1].attn1.operator = Counter()
    for _ in range(2):
        for step in range(2):
            for branch in ("cond", "uncond"):
                in_step(transformer, step, branch)
        assert {key: state["calls"] for key, state in clock.state.items()} == {
            (1, "cond"): 2,
            (1, "uncond"): 2,
        }
    in_step(transformer, 0)
    in_step(transformer, 0)
    assert clock.state == {(1, "cond"): {"calls": 1}}
    assert context.step is None


def test_training_reaches_the_maps_with_checkpointing(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0:R4,1:linear", micro_model.facts), bank)
    transformer: Any = micro_model.transformer.train()

    def gradients() -> dict[str, torch.Tensor]:
        transformer.zero_grad()
        forward(transformer).square().mean().backward()
        return {
            name: parameter.grad.clone()
            for name, parameter in transformer.named_parameters()
            if ".operator." in name and parameter.grad is not None
        }

    plain = gradients()
    transformer.enable_gradient_checkpointing()
    again = gradients()
    assert plain.keys() == again.keys() and any(gradient.abs().sum() > 0 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)


@torch.no_grad()
def test_batches_are_computed_clip_by_clip(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0:R4,1:linear,2:R5", micro_model.facts), FreshCells(micro_model.facts))
    transformer = micro_model.transformer
    hidden = torch.randn(2, 4, 3, 6, 4)
    text = torch.randn(2, 16, 16)
    both = forward(transformer, batch=2, hidden_states=hidden, encoder_hidden_states=text)
    for index in range(2):
        one = slice(index, index + 1)
        single = forward(transformer, hidden_states=hidden[one], encoder_hidden_states=text[one])
        torch.testing.assert_close(both[one], single)


@torch.no_grad()
def test_half_precision_keeps_dtype_and_meaning(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0:R4,2:linear", micro_model.facts), bank)
    expected = forward(micro_model.transformer)
    transformer = copy.deepcopy(micro_model.transformer).to(torch.bfloat16)
    wide = forward(micro_model.transformer)
    half = transformer(
        hidden_states=torch.randn(1, 4, 3, 6, 4, generator=torch.Generator().manual_seed(0)).bfloat16(),
        timestep=torch.full((1,), 500),
        encoder_hidden_states=torch.zeros(1, 16, 16).bfloat16(),
        return_dict=False,
    )[0]
    assert half.dtype == torch.bfloat16 and torch.isfinite(half).all()
    assert torch.equal(wide, expected)


@torch.no_grad()
def test_a_deep_copy_is_a_student_of_its_own(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0-:R4", micro_model.facts, dense_first=1), bank)
    transformer = micro_model.transformer
    twin: Any = copy.deepcopy(transformer)
    expected = forward(transformer)
    assert torch.equal(forward(twin), expected)
    assert twin.blocks[0].attn1.processor.clock is twin.workbench_clock
    restore(transformer)
    assert torch.equal(forward(twin), expected)
    assert torch.equal(in_step(twin, 0), in_step(transformer, 0))
    assert restore(twin) == (0, 1, 2)


@torch.no_grad()
@pytest.mark.parametrize("first", ["surgery", "lora"])
def test_lora_before_or_after_surgery(micro_model: LoadedModel, bank: Bank, first: str) -> None:
    from peft import LoraConfig

    transformer: Any = micro_model.transformer
    plan = plan_of("0:R4,1:linear", micro_model.facts)
    config = LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False)
    plain = None
    if first == "surgery":
        install(micro_model, plan, bank)
        plain = forward(transformer)
    torch.manual_seed(0)
    transformer.add_adapter(config)
    if first == "lora":
        install(micro_model, plan, bank)
    with_lora = forward(transformer)
    if plain is not None:
        assert not torch.equal(with_lora, plain)
    assert torch.isfinite(with_lora).all()
    assert set(operators_of(micro_model)) == {0, 1}
    restore(micro_model)
    assert not torch.equal(forward(transformer), with_lora)
    transformer.delete_adapters("default")


@torch.no_grad()
def test_compiles_in_one_graph_a_block(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0-:R4", micro_model.facts, dense_first=1), bank)
    transformer: Any = micro_model.transformer
    eager = [in_step(transformer, step) for step in range(3)]
    torch._dynamo.reset()
    for block in transformer.blocks:
        block.compile(fullgraph=True, backend="eager")
    for step, expected in enumerate(eager):
        torch.testing.assert_close(in_step(transformer, step), expected)
    torch._dynamo.reset()


@torch.no_grad()
def test_attention_backend_of_diffusers_reaches_the_dense_steps(micro_model: LoadedModel, bank: Bank) -> None:
    install(micro_model, plan_of("0:R4", micro_model.facts), bank)
    transformer: Any = micro_model.transformer
    transformer.set_attention_backend("_native_math")
    processor = transformer.blocks[0].attn1.processor
    assert isinstance(processor, OperatorProcessor)
    assert "math" in str(processor.original._attention_backend).lower()
    restore(micro_model)
    assert "math" in str(transformer.blocks[0].attn1.processor._attention_backend).lower()
