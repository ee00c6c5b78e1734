"""The Triton kernels against the fp64 formula: on a GPU, or through Triton's interpreter on a CPU in fp32.

Run by ``test_triton.py``, which chooses the device; not collected by itself.
"""

import os
from dataclasses import replace

import pytest
import torch

from kernels.hybrid_attention import (
    hybrid_attention,
    hybrid_attention_from_maps,
    resolve_impl,
    triton_host,
)
from kernels.hybrid_attention.sdpa import linear_tokens
from kernels.hybrid_attention.triton_host import hardware
from kernels.hybrid_attention.triton_tiles import GradientPlan
from tests.kernels.inputs import draw_features, draw_maps, draw_qkv, error_in_eps, poisoned_memory

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32] if INTERPRETED else [torch.bfloat16, torch.float16, torch.float32]
HEAD_DIMS = [16] if INTERPRETED else [32, 64, 128]
TOKENS = [1, 75] if INTERPRETED else [1, 77, 1000]
RATES = [None, 1, 2, 3, 8, 100]
FORWARD_EPS, GRADIENT_EPS, HALF_GRADIENT_EPS = 16, 100, 8
WORSE_THAN_TORCH = 3
NAMES = ("weight_1", "bias_1", "weight_2", "bias_2", "log_scale")


def bound(dtype, in_eps):
    """bf16 and fp16 products round operands a few times; fp32 errors grow with the number of terms."""
    return in_eps if dtype == torch.float32 else 4


def draw(tokens, head_dim, dtype, **choices):
    if dtype == torch.float32 and head_dim > 32:
        pytest.skip("fp32 runs without matrix units and is for testing alone: one head dimension is enough")
    inputs = draw_qkv(tokens, heads=2, head_dim=head_dim, dtype=dtype, device=DEVICE)
    return inputs, draw_maps(inputs[0], dtype=torch.float32, **choices)


def widen(inputs, maps):
    wide = [replace(m, **{name: getattr(m, name).double() for name in NAMES}) for m in maps]
    return [x.double() for x in inputs], wide


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("stabilizer", ["lse", "rowmax"])
@pytest.mark.parametrize("rate", RATES)
def test_forward_from_maps(rate, stabilizer, tokens, head_dim, dtype):
    inputs, maps = draw(tokens, head_dim, dtype)
    wide_inputs, wide_maps = widen(inputs, maps)
    options = {"rate": rate, "stabilizer": stabilizer}
    expected = hybrid_attention_from_maps(*wide_inputs, *wide_maps, **options, impl="reference")
    with poisoned_memory():
        result = hybrid_attention_from_maps(*inputs, *maps, **options, impl="triton")
    assert result.dtype == dtype
    assert error_in_eps(result, expected) < bound(dtype, FORWARD_EPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("rate", RATES)
def test_forward_on_features(rate, tokens, dtype):
    head_dim = HEAD_DIMS[0 if dtype == torch.float32 else -1]
    inputs = draw_qkv(tokens, heads=2, head_dim=head_dim, dtype=dtype, device=DEVICE)
    features = draw_features(inputs[0], 32)
    expected = hybrid_attention(*(x.double() for x in (*inputs, *features)), rate=rate, impl="reference")
    with poisoned_memory():
        result = hybrid_attention(*inputs, *features, rate=rate, impl="triton")
    assert error_in_eps(result, expected) < bound(dtype, FORWARD_EPS)
    features[1] = linear_tokens(features[1], rate) if rate != 1 else None
    assert torch.equal(hybrid_attention(*inputs, *features, rate=rate, impl="triton"), result)


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
@pytest.mark.parametrize("positivity", ["relu", "softplus", "square"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_every_map(activation, positivity, degree):
    choices = {"activation": activation, "positivity": positivity, "degree": degree}
    inputs, maps = draw(50, HEAD_DIMS[0], DTYPES[0], **choices)
    wide_inputs, wide_maps = widen(inputs, maps)
    expected = hybrid_attention_from_maps(*wide_inputs, *wide_maps, rate=3, impl="reference")
    result = hybrid_attention_from_maps(*inputs, *maps, rate=3, impl="triton")
    assert error_in_eps(result, expected) < bound(DTYPES[0], FORWARD_EPS)


def gradients(inputs, maps, *, dtype, train_inputs, **options):
    leaves = [x.to(dtype).detach().requires_grad_(train_inputs) for x in inputs]
    parts = [[getattr(m, name).detach().clone().requires_grad_() for name in NAMES] for m in maps]
    built = [replace(m, **dict(zip(NAMES, part, strict=True))) for m, part in zip(maps, parts, strict=True)]
    output = hybrid_attention_from_maps(*leaves, *built, **options)
    generator = torch.Generator().manual_seed(9)
    grad = torch.randn(output.shape, generator=generator).to(output)
    wanted = [*(leaves if train_inputs else []), *parts[0], *parts[1]]
    found = list(torch.autograd.grad(output, wanted, grad))
    # The gradient of log_scale is a sum that nearly cancels (to zero where a map's scale is divided out
    # again). Its rounding is that of its terms, which are like those of weight_2: they share a norm.
    for part in range(len(wanted) - 10, len(wanted), 5):
        found[part + 4] = torch.cat([found[part + 2].flatten(), found[part + 4].flatten()])
    return found


def assert_gradients_close(result, torchs, expected, *, dtype):
    """Within a limit of the dtype, or no further off than torch's own operators in the same dtype are."""
    in_eps = GRADIENT_EPS if dtype == torch.float32 else HALF_GRADIENT_EPS
    for index, (got, other, want) in enumerate(zip(result, torchs, expected, strict=True)):
        limit = in_eps * torch.finfo(dtype).eps / torch.finfo(got.dtype).eps
        error, of_torch = error_in_eps(got, want), error_in_eps(other, want)
        assert error < max(limit, WORSE_THAN_TORCH * of_torch), (index, error, of_torch, limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("train_inputs", [False, True])
@pytest.mark.parametrize(("rate", "stabilizer"), [(None, "lse"), (2, "lse"), (3, "lse"), (3, "rowmax")])
def test_gradients_from_maps(rate, stabilizer, train_inputs, dtype):
    if stabilizer == "rowmax" and dtype != torch.float32 and train_inputs:
        pytest.skip("in half precision the row's maximum and its key may differ from fp64")
    head_dim = HEAD_DIMS[0 if dtype == torch.float32 else -1]
    check_gradients(TOKENS[-1], head_dim, dtype, rate=rate, stabilizer=stabilizer, train_inputs=train_inputs)


def check_gradients(tokens, head_dim, dtype, **options):
    inputs, maps = draw(tokens, head_dim, dtype, activation="silu", positivity="softplus")
    wide_inputs, wide_maps = widen(inputs, maps)
    expected = gradients(wide_inputs, wide_maps, dtype=torch.float64, impl="reference", **options)
    torchs = gradients(inputs, maps, dtype=dtype, impl="sdpa", **options)
    with poisoned_memory():
        result = gradients(inputs, maps, dtype=dtype, impl="triton", **options)
    assert_gradients_close(result, torchs, expected, dtype=dtype)


@pytest.mark.parametrize("way", ["default", "one_pass", "split_products"])
@pytest.mark.parametrize("rate", [None, 3])
def test_gradients_of_many_tokens_do_not_underflow_in_fp16(monkeypatch, rate, way):
    plan = GradientPlan(**({} if way == "default" else {way: True}))
    monkeypatch.setattr(triton_host, "hardware", lambda x: (replace(hardware(x)[0], gradients=plan), 2))
    check_gradients(1000, 16, torch.float16, rate=rate, stabilizer="lse", train_inputs=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("train_inputs", [False, True])
@pytest.mark.parametrize("rate", [None, 3])
@pytest.mark.parametrize("plan", [GradientPlan(one_pass=True), GradientPlan(split_products=True)])
def test_other_ways_to_the_gradients(monkeypatch, plan, rate, train_inputs, dtype):
    monkeypatch.setattr(triton_host, "hardware", lambda x: (replace(hardware(x)[0], gradients=plan), 2))
    test_gradients_from_maps(rate, "lse", train_inputs, dtype)


@pytest.mark.parametrize("dtype", [*DTYPES[:1], torch.float16])
@pytest.mark.parametrize("rate", [None, 3])
def test_gradients_on_features(rate, dtype):
    inputs = draw_qkv(TOKENS[-1], heads=2, head_dim=HEAD_DIMS[-1], dtype=dtype, device=DEVICE)
    tensors = [*inputs, *draw_features(inputs[0], 32)]

    def run(dtype, impl):
        leaves = [x.to(dtype).detach().requires_grad_() for x in tensors]
        output = hybrid_attention(*leaves, rate=rate, impl=impl)
        return torch.autograd.grad(output.float().square().sum(), leaves, allow_unused=True)

    found = [run(dtype, "triton"), run(dtype, "sdpa"), run(torch.float64, "reference")]
    assert [[g is None for g in part] for part in found[:2]] == [[g is None for g in found[2]]] * 2
    assert_gradients_close(*([g for g in part if g is not None] for part in found), dtype=dtype)


def test_logits_of_a_hundred_and_strange_features():
    inputs, _ = draw(50, HEAD_DIMS[0], DTYPES[0])
    inputs = [inputs[0] * 40, *inputs[1:]]
    features = draw_features(inputs[0], 16)
    for query_features, key_features in (
        (features[0], features[1]),
        (features[0], -features[1]),
        (features[0] * 0, features[1] * 0),
    ):
        for rate in (None, 2):
            tensors = [*inputs, query_features, key_features]
            expected = hybrid_attention(*(x.double() for x in tensors), rate=rate, impl="reference")
            result = hybrid_attention(*tensors, rate=rate, impl="triton")
            assert result.isfinite().all()
            assert error_in_eps(result, expected) < bound(DTYPES[0], 500)


def test_strides_do_not_matter_and_bits_repeat():
    inputs, maps = draw(TOKENS[-1], HEAD_DIMS[-1], DTYPES[0])
    expected = hybrid_attention_from_maps(*inputs, *maps, rate=3, impl="triton")
    assert torch.equal(expected, hybrid_attention_from_maps(*inputs, *maps, rate=3, impl="triton"))
    for strided in (
        [x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for x in inputs],
        [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs],
    ):
        result = hybrid_attention_from_maps(*strided, *maps, rate=3, impl="triton")
        assert error_in_eps(result, expected.double()) < bound(DTYPES[0], FORWARD_EPS)


@torch.no_grad()
def test_compiled_in_one_graph_it_gives_the_same_bits():
    inputs, maps = draw(TOKENS[-1], HEAD_DIMS[0], DTYPES[0])
    features = draw_features(inputs[0], 32)
    impl = "triton" if INTERPRETED else "auto"

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(query, key, value):
        known = hybrid_attention_from_maps(2 * query, key, value, *maps, rate=3, impl=impl)
        return hybrid_attention(known + query, key, value, *features, rate=None, impl=impl) + 1

    query, key, value = inputs
    known = hybrid_attention_from_maps(2 * query, key, value, *maps, rate=3, impl=impl)
    expected = hybrid_attention(known + query, key, value, *features, rate=None, impl=impl) + 1
    assert torch.equal(compiled(*inputs), expected)


def test_a_subset_of_queries():
    (query, key, value), maps = draw(TOKENS[-1], HEAD_DIMS[0], DTYPES[0])
    rows = torch.tensor([0, 3, TOKENS[-1] - 1], device=DEVICE)
    full = hybrid_attention_from_maps(query, key, value, *maps, rate=3, impl="triton")
    part = hybrid_attention_from_maps(query[:, rows], key, value, *maps, rate=3, impl="triton")
    assert error_in_eps(part, full[:, rows].double()) < bound(DTYPES[0], FORWARD_EPS)


def test_choice():
    inputs, maps = draw(20, HEAD_DIMS[0], DTYPES[0])
    assert resolve_impl(inputs[0], rate=2, impl="triton") == "triton"
    assert resolve_impl(inputs[0], rate=2) == ("sdpa" if INTERPRETED else "triton")
    assert resolve_impl(inputs[0], rate=2, num_features=48) == "sdpa"
    with pytest.raises(ValueError, match="power of two"):
        resolve_impl(inputs[0], rate=2, impl="triton", num_features=48)
    with pytest.raises(ValueError, match="float64"):
        hybrid_attention_from_maps(*(x.double() for x in inputs), *maps, rate=2, impl="triton")
