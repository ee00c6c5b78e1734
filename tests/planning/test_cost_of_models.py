"""The cost calculator against torch's own count of operations, on the real architectures at real sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models.published import TRANSFORMERS
from workbench.models import ModelFacts, model_facts
from workbench.operators import SOFTMAX, LinearSpec, OperatorSpec, build, parse_rate
from workbench.operators.context import AttentionContext
from workbench.planning import block_flops, cost, parse_short
from workbench.planning.cost import attention_flops
from workbench.types import ClipSize, TokenGrid

SIZES = {
    "wan2.1-t2v-1.3b": (ClipSize(81, 480, 832), ClipSize(33, 320, 480)),
    "wan2.1-t2v-14b": (ClipSize(81, 720, 1280), ClipSize(81, 480, 832)),
    "wan2.2-ti2v-5b": (ClipSize(121, 704, 1280),),
    "wan2.2-t2v-a14b": (ClipSize(81, 480, 832),),
}


@torch.no_grad()
def counted(name: str, size: ClipSize, *, num_blocks: int) -> float:
    """Return the operations of one forward pass that torch counts, on tensors without memory."""
    from diffusers import WanTransformer3DModel

    grid, config = model_facts(name).token_grid(size), {**TRANSFORMERS[name], "num_layers": num_blocks}
    with FakeTensorMode(allow_non_fake_inputs=True):
        transformer: Any = WanTransformer3DModel(**config)
        latents = torch.empty(1, config["in_channels"], grid.frames, 2 * grid.height, 2 * grid.width)
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            transformer(
                hidden_states=latents,
                timestep=torch.tensor([500]),
                encoder_hidden_states=torch.empty(1, 512, 4096),
                return_dict=False,
            )
    return float(counter.get_total_flops())


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_a_dense_block_is_what_torch_counts(name: str, size: ClipSize) -> None:
    """The difference of three and one blocks leaves out everything outside the blocks."""
    facts = model_facts(name)
    block = (counted(name, size, num_blocks=3) - counted(name, size, num_blocks=1)) / 2
    assert block_flops(facts, facts.token_grid(size)).total == pytest.approx(block, rel=1e-3)


def test_the_blocks_are_nearly_all_of_a_forward_pass() -> None:
    facts = model_facts("wan2.1-t2v-1.3b")
    whole = counted("wan2.1-t2v-1.3b", facts.default_size, num_blocks=30)
    assert cost(parse_short("softmax", facts), facts).dense_tflop == pytest.approx(whole / 1e12, rel=2e-3)


def fused_softmax(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Count scores and weighted sum of the fused kernel, which torch's counter does not know."""
    batch, heads, queries, width = query
    return int(4 * batch * heads * queries * key[2] * width)


def operator_flops(facts: ModelFacts, rate: str, grid: TokenGrid) -> tuple[float, float]:
    """Return the operations of one operator by the formula, and as torch counts them."""
    spec: OperatorSpec = parse_rate(rate)
    operator = build(spec, facts)
    shape = (1, grid.num_tokens, facts.num_heads, facts.head_dim)
    query, key, value = (torch.randn(shape) for _ in range(3))
    context = AttentionContext(grid=grid, block=0, step=None, num_steps=None, branch=None, timesteps=None)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={fused: fused_softmax}) as counter, torch.no_grad():
        operator(query, key, value, context=context)
    return attention_flops(spec, facts, grid), float(counter.get_total_flops())


@pytest.mark.parametrize("rate", ["R2", "R4", "R8", "linear"])
@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "wan2.2-ti2v-5b"])
def test_an_operator_is_what_torch_counts(name: str, rate: str) -> None:
    """At a small size, with real numbers."""
    formula, counted_here = operator_flops(model_facts(name), rate, TokenGrid(4, 4, 8))
    assert formula == pytest.approx(counted_here, rel=0.01)


def test_rehyat_runs_a_few_features_more_than_are_needed() -> None:
    """The formula counts features that are used; the operator maps all tokens, the first chunk's too."""
    formula, counted_here = operator_flops(model_facts("wan2.1-t2v-1.3b"), "T3o1", TokenGrid(21, 2, 4))
    assert formula < counted_here < 1.25 * formula


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("rate", ["R2", "R4", "R8", "R16", "linear"])
def test_every_plan_of_every_model_lies_between_its_parts(name: str, rate: str) -> None:
    facts = model_facts(name)
    for size in SIZES[name]:
        grid = facts.token_grid(size)
        dense = block_flops(facts, grid)
        converted = dense.rest + attention_flops(parse_rate(rate), facts, grid)
        for count in (1, facts.num_blocks // 2, facts.num_blocks):
            found = cost(parse_short(f"{count}x{rate}", facts), facts, size)
            expected = count * converted + (facts.num_blocks - count) * dense.total
            assert found.dit_tflop == pytest.approx(expected / 1e12)
            assert found.dense_tflop == pytest.approx(facts.num_blocks * dense.total / 1e12)
    assert attention_flops(SOFTMAX, facts, grid) == dense.core
    assert attention_flops(LinearSpec(), facts, grid) < dense.core
