"""The cost calculator against torch's own count of operations, on the real architectures at real sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models.published import TRANSFORMERS
from workbench.models import ModelFacts, model_facts
from workbench.operators import (
    SOFTMAX,
    ElementwiseSpec,
    HedgehogSpec,
    HybridSpec,
    LinearSpec,
    PolynomialSpec,
    RehyatSpec,
    build,
    parse_rate,
)
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


def operator_flops(facts: ModelFacts, spec: Any, grid: TokenGrid) -> tuple[float, float]:
    """Return the operations of one operator by the formula, and as torch counts them.

    From the formula is left out what is elementwise to torch (the biases), and to it is added what the cost
    model leaves out: the linear mass, computed as one more column of the values.
    """
    operator = build(spec, facts)
    shape = (1, grid.num_tokens, facts.num_heads, facts.head_dim)
    query, key, value = (torch.randn(shape) for _ in range(3))
    context = AttentionContext(grid=grid, block=0, step=None, num_steps=None, branch=None, timesteps=None)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={fused: fused_softmax}) as counter, torch.no_grad():
        operator(query, key, value, context=context)
    formula = spec.flops(grid, facts)
    maps = formula.feature_maps
    if isinstance(spec.feature_map, PolynomialSpec):
        widths = spec.feature_map.widths(facts.head_dim)
        weights = sum(before * after for before, after in pairwise(widths))
        maps *= weights / (weights + sum(widths[1:]))
    linear = formula.linear * (facts.head_dim + 1) / facts.head_dim
    return formula.softmax + maps + linear, float(counter.get_total_flops())


@pytest.mark.parametrize("rate", ["R2", "R3", "R8", "linear", "T3o1", "T2o0", "T1o2", "T5o3", "T6o0", "T9o1"])
@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "wan2.2-ti2v-5b"])
def test_an_operator_is_what_torch_counts(name: str, rate: str) -> None:
    """Exactly, at a small size, with real numbers: short clips, ragged last chunks, one chunk alone."""
    formula, found = operator_flops(model_facts(name), parse_rate(rate), TokenGrid(6, 3, 5))
    assert formula == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize(
    "feature_map",
    [
        PolynomialSpec(layers=3, degree=4),
        PolynomialSpec(layers=1),
        HedgehogSpec(),
        ElementwiseSpec(kind="elu"),
    ],
    ids=lambda spec: f"{spec.kind}{getattr(spec, 'layers', '')}",
)
def test_every_map_is_what_torch_counts(feature_map: Any) -> None:
    """Maps that the kernels do not know are run on the linear keys alone, too."""
    facts, grid = model_facts("wan2.1-t2v-1.3b"), TokenGrid(4, 3, 5)
    specs = (
        HybridSpec(rate=2, feature_map=feature_map),
        HybridSpec(rate=7, feature_map=feature_map),
        LinearSpec(feature_map=feature_map),
        RehyatSpec(chunk_frames=2, feature_map=feature_map),
    )
    for spec in specs:
        formula, found = operator_flops(facts, spec, grid)
        assert formula == pytest.approx(found, rel=1e-12), spec


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
