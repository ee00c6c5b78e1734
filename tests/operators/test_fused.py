"""Blocks with fused element-wise work compute what the plain ones do, with and without surgery."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from workbench.errors import InputError
from workbench.models import adapter_of
from workbench.models.registry import find
from workbench.operators import HybridSpec, observe
from workbench.operators.fused import fused_elementwise
from workbench.planning import make_plan
from workbench.surgery import FreshCells, install_operators, restore


def small(**change):
    torch.manual_seed(0)
    config = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 16,
        "freq_dim": 32,
        "ffn_dim": 96,
        "num_layers": 2,
        **change,
    }
    return WanTransformer3DModel(**config).eval()


def run(transformer, *, per_token=False):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 3, 8, 8, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    timestep = torch.full((2, 48), 500) if per_token else torch.full((2,), 500)
    with torch.no_grad():
        return transformer(latents, timestep, text, return_dict=False)[0]


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("cross_attn_norm", [False, True])
def test_fused_blocks_compute_the_same(cross_attn_norm, per_token):
    transformer = small(cross_attn_norm=cross_attn_norm)
    expected = run(transformer, per_token=per_token)
    with fused_elementwise(transformer):
        fused = run(transformer, per_token=per_token)
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(run(transformer, per_token=per_token), expected)


def test_surgery_and_observers_work_inside():
    transformer = small()
    adapter = adapter_of(transformer)
    entry = find("wan2.1-t2v-1.3b")
    facts = entry.facts.model_copy(update={"num_blocks": 2, "num_heads": 2, "head_dim": 32})
    plan = make_plan({1: HybridSpec(rate=2)}, facts)
    install_operators(transformer, adapter, plan, FreshCells(facts))
    expected = run(transformer)
    seen = []

    class Model:
        pass

    model = Model()
    model.transformer, model.adapter = transformer, adapter
    with (
        fused_elementwise(transformer),
        observe(model, lambda block, query, *_: seen.append((block, tuple(query.shape)))),
    ):
        fused = run(transformer)
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)
    assert seen == [(0, (2, 48, 2, 32)), (1, (2, 48, 2, 32))]
    restore(transformer)


def test_other_blocks_are_refused():
    with pytest.raises(InputError, match="WanTransformerBlock"), fused_elementwise(torch.nn.Linear(2, 2)):
        pass
