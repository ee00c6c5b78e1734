"""Hybrid attention against its fp64 formula on the CPU: values, gradients, edges, refusals."""

import math
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels.hybrid_attention import (
    MapParameters,
    apply_feature_map,
    fused_softmax,
    hybrid_attention,
    hybrid_attention_from_maps,
    init_map_parameters,
    resolve_impl,
)
from kernels.hybrid_attention.feature_map import ReluPowers
from kernels.hybrid_attention.fused_softmax import as_copied
from kernels.hybrid_attention.sdpa import linear_tokens
from tests.kernels.inputs import (
    TOLERANCE_IN_EPS,
    draw_features,
    draw_maps,
    draw_qkv,
    error_in_eps,
    poisoned_memory,
)

RATES = [None, 1, 2, 3, 8, 100]


def formula(query, key, value, query_features, key_features, *, rate, stabilizer):
    """The published sum, written token by token."""
    output = torch.empty_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[2]):
            for i in range(query.shape[1]):
                kept = [] if rate is None else list(range(0, key.shape[1], rate))
                scores = {j: query[b, i, h] @ key[b, j, h] / math.sqrt(query.shape[3]) for j in kept}
                offset = 0.0
                if kept:
                    stacked = torch.stack(list(scores.values()))
                    offset = stacked.logsumexp(0) if stabilizer == "lse" else stacked.max()
                weights = {j: torch.exp(score - offset) for j, score in scores.items()}
                for j in range(key.shape[1]):
                    if j not in weights:
                        weights[j] = query_features[b, i, h] @ key_features[b, j, h]
                total = sum(weights.values())
                output[b, i, h] = sum(weight * value[b, j, h] for j, weight in weights.items()) / total
    return output


@pytest.mark.parametrize("stabilizer", ["lse", "rowmax"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("tokens", [1, 11])
def test_reference_is_the_published_formula(tokens, rate, stabilizer):
    inputs = draw_qkv(tokens, batch=1, heads=2)
    features = draw_features(inputs[0])
    options = {"rate": rate, "stabilizer": stabilizer}
    result = hybrid_attention(*inputs, *features, **options, impl="reference")
    assert error_in_eps(result, formula(*inputs, *features, **options)) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stabilizer", ["lse", "rowmax"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("tokens", [1, 37, 64])
def test_sdpa_equals_reference_in_fp64(tokens, rate, stabilizer, dtype):
    inputs = draw_qkv(tokens, dtype=dtype)
    features = draw_features(inputs[0])
    options = {"rate": rate, "stabilizer": stabilizer}
    wide = hybrid_attention(*(x.double() for x in (*inputs, *features)), **options, impl="reference")
    with poisoned_memory():
        result = hybrid_attention(*inputs, *features, **options, impl="sdpa")
    assert result.dtype == dtype and result.shape == inputs[0].shape
    assert error_in_eps(result, wide) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
@pytest.mark.parametrize("positivity", ["relu", "softplus", "square", "none"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_every_feature_map_inside_equals_features_outside(activation, positivity, degree):
    inputs = draw_qkv(33)
    maps = draw_maps(inputs[0], activation=activation, positivity=positivity, degree=degree)
    features = apply_feature_map(inputs[0], maps[0]), apply_feature_map(inputs[1], maps[1])
    for rate in (None, 3):
        expected = hybrid_attention(*inputs, *features, rate=rate, impl="reference")
        result = hybrid_attention_from_maps(*inputs, *maps, rate=rate, impl="sdpa")
        cancels = positivity == "none" and rate is None
        assert error_in_eps(result, expected) < (1e6 if cancels else 64 * TOLERANCE_IN_EPS)


def test_feature_map_is_its_formula():
    query = draw_qkv(5, batch=1, heads=2, head_dim=3)[0]
    parameters = draw_maps(query, degree=3, activation="silu", positivity="softplus")[0]
    x = query[0, 4, 1]
    hidden = x @ parameters.weight_1[1] + parameters.bias_1[1]
    psi = (hidden * torch.sigmoid(hidden)) @ parameters.weight_2[1] + parameters.bias_2[1]
    psi = torch.log1p(psi.exp())
    expected = parameters.log_scale[1].exp() * torch.cat([psi[:2], psi[2:4] ** 2, psi[4:] ** 3])
    torch.testing.assert_close(apply_feature_map(query, parameters)[0, 4, 1], expected)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_powers_of_relu_have_the_gradients_of_their_formula(degree):
    psi = torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    parts = torch.tensor_split(torch.relu(psi), degree, dim=2)
    expected = torch.cat([part**power for power, part in enumerate(parts, start=1)], dim=2)
    result = ReluPowers.apply(psi, degree)
    assert torch.equal(result, expected)
    weight = torch.randn_like(psi)
    gradients = [torch.autograd.grad(one, psi, weight, retain_graph=True)[0] for one in (result, expected)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradgradcheck(lambda x: ReluPowers.apply(x, degree), psi)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rate", [None, 1, 2, 4])
def test_slices_of_a_long_clip_join(rate, dtype):
    inputs = draw_qkv(1111, batch=1, heads=2, dtype=dtype)
    maps = draw_maps(inputs[0], dtype=torch.float32)
    wide = [x.double() for x in inputs]
    expected = hybrid_attention_from_maps(*wide, *draw_maps(wide[0]), rate=rate, impl="reference")
    with poisoned_memory(), torch.no_grad():
        result = hybrid_attention_from_maps(*inputs, *maps, rate=rate)
    assert error_in_eps(result, expected) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("stabilizer", ["lse", "rowmax"])
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("rate", [None, 1, 2, 3])
def test_gradients_of_all_inputs(rate, impl, stabilizer):
    inputs = [x.requires_grad_() for x in draw_qkv(7, heads=2, head_dim=4)]
    features = [x.requires_grad_() for x in draw_features(inputs[0], 3)]

    def run(*tensors):
        return hybrid_attention(*tensors, rate=rate, stabilizer=stabilizer, impl=impl)

    assert torch.autograd.gradcheck(run, (*inputs, *features), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("rate", [None, 2])
def test_gradients_of_feature_maps_alone(rate):
    query, key, value = draw_qkv(6, batch=1, heads=2, head_dim=3)
    maps = draw_maps(query, positivity="softplus", activation="silu", degree=3)
    tensors = [x.clone().requires_grad_() for parameters in maps for x in parameters.tensors]

    def rebuild(parts):
        return MapParameters(*parts, degree=3, activation="silu", positivity="softplus")

    def run(*parts):
        return hybrid_attention_from_maps(
            query, key, value, rebuild(parts[:5]), rebuild(parts[5:]), rate=rate, impl="sdpa"
        )

    assert torch.autograd.gradcheck(run, tensors, atol=1e-6, fast_mode=True)


def test_a_distillation_step_leaves_the_inputs_alone():
    query, key, value = draw_qkv(20, dtype=torch.float32)
    maps = draw_maps(query)
    for parameters in maps:
        for tensor in parameters.tensors:
            tensor.requires_grad_()
    hybrid_attention_from_maps(query, key, value, *maps, rate=4).abs().sum().backward()
    assert query.grad is None and key.grad is None and value.grad is None
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for m in maps for tensor in m.tensors)


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
def test_a_subset_of_queries_gives_the_same_rows(impl):
    query, key, value = draw_qkv(40)
    maps = draw_maps(query)
    rows = torch.tensor([3, 39, 17])
    for rate in (None, 1, 4):
        full = hybrid_attention_from_maps(query, key, value, *maps, rate=rate, impl=impl)
        part = hybrid_attention_from_maps(query[:, rows], key, value, *maps, rate=rate, impl=impl)
        assert error_in_eps(part, full[:, rows]) < 64 * TOLERANCE_IN_EPS


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
def test_features_of_kept_keys_are_ignored(impl):
    inputs = draw_qkv(12)
    query_features, key_features = draw_features(inputs[0])
    expected = hybrid_attention(*inputs, query_features, key_features, rate=4, impl=impl)
    key_features[:, ::4] = math.nan
    assert torch.equal(hybrid_attention(*inputs, query_features, key_features, rate=4, impl=impl), expected)


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("rate", [None, 2, 3])
def test_strides_do_not_matter(rate, impl):
    inputs = [*draw_qkv(13, dtype=torch.float32)]
    tensors = [*inputs, *draw_features(inputs[0])]
    expected = hybrid_attention(*tensors, rate=rate, impl=impl)
    transposed = [x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for x in tensors]
    spread = [torch.stack([x, x], dim=-1)[..., 0] for x in tensors]
    for strided in (transposed, spread):
        result = hybrid_attention(*strided, rate=rate, impl=impl)
        assert error_in_eps(result, expected) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("stabilizer", ["lse", "rowmax"])
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_a_hundred_stay_finite_and_right(impl, stabilizer, dtype):
    query, key, value = draw_qkv(24, head_dim=8, dtype=torch.float64)
    query = query / query.norm(dim=-1, keepdim=True) * math.sqrt(100 * math.sqrt(8))
    key = (query.roll(1, dims=1) * torch.tensor([1.0, -1.0]).repeat(12).reshape(1, 24, 1, 1)).contiguous()
    narrow = [x.to(dtype) for x in (query, key, value, *draw_features(query))]
    scores = torch.einsum("bnhd,bmhd->bhnm", narrow[0].double(), narrow[1].double()) / math.sqrt(8)
    assert scores.max() > 99 and scores.min() < -99
    expected = hybrid_attention(
        *(x.double() for x in narrow), rate=2, stabilizer=stabilizer, impl="reference"
    )
    result = hybrid_attention(*narrow, rate=2, stabilizer=stabilizer, impl=impl)
    assert error_in_eps(result, expected) < 100 * TOLERANCE_IN_EPS


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("stabilizer", ["lse", "rowmax"])
def test_zero_features_leave_softmax_over_the_kept_keys(impl, stabilizer):
    query, key, value = draw_qkv(10)
    zero = torch.zeros(2, 10, 3, 4, dtype=query.dtype)
    result = hybrid_attention(query, key, value, zero, zero, rate=2, stabilizer=stabilizer, impl=impl)
    kept = hybrid_attention(query, key[:, ::2], value[:, ::2], None, None, rate=1, impl="reference")
    assert error_in_eps(result, kept) < TOLERANCE_IN_EPS
    alone = hybrid_attention(query, key, value, zero, zero, rate=None, impl=impl)
    assert torch.equal(alone, torch.zeros_like(alone))


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("rate", [None, 2])
def test_negative_mass_counts_as_none(impl, rate):
    query, key, value = draw_qkv(10)
    query_features, key_features = draw_features(query)
    tensors = [x.clone().requires_grad_() for x in (query, key, value, query_features, -key_features)]
    result = hybrid_attention(*tensors, rate=rate, impl=impl)
    assert result.isfinite().all()
    if rate is None:
        assert torch.equal(result, torch.zeros_like(result))
    else:
        kept = hybrid_attention(query, key[:, ::2], value[:, ::2], None, None, rate=1, impl="reference")
        linear = torch.einsum("bnhf,bmhf,bmhd->bnhd", query_features, -key_features[:, 1::2], value[:, 1::2])
        assert error_in_eps(result, kept + linear) < TOLERANCE_IN_EPS
    result.sum().backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in tensors)


def test_the_same_call_gives_the_same_bits():
    inputs = draw_qkv(333, dtype=torch.float32)
    maps = draw_maps(inputs[0])
    for rate in (None, 3):
        first = hybrid_attention_from_maps(*inputs, *maps, rate=rate)
        assert torch.equal(first, hybrid_attention_from_maps(*inputs, *maps, rate=rate))


def test_eight_thousand_tokens_need_no_square_matrix():
    inputs = draw_qkv(8000, batch=1, heads=1, head_dim=16, dtype=torch.float32)
    maps = draw_maps(inputs[0])
    with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
        hybrid_attention_from_maps(*inputs, *maps, rate=8)
    allocated = sum(
        event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage > 0
    )
    assert allocated < 8000 * 1000 * 4


def test_small_start_is_softmax_over_the_kept_keys():
    query, key, value = draw_qkv(64, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    maps = [init_map_parameters(3, 8, scale=1e-4, generator=generator) for _ in range(2)]
    result = hybrid_attention_from_maps(query, key, value, *maps, rate=4)
    kept = hybrid_attention(query, key[:, ::4], value[:, ::4], None, None, rate=1)
    torch.testing.assert_close(result, kept, atol=1e-4, rtol=1e-3)


def test_the_choice_is_that_for_dense_copies():
    """What FlashAttention does too: a last dimension that is not dense is copied, not refused."""
    dense = torch.zeros(2, 5, 3, 8)
    assert as_copied(dense[:, ::2]).data_ptr() == dense.data_ptr()
    permuted = dense.transpose(1, 3).contiguous().transpose(1, 3)
    stand_in = as_copied(permuted)
    assert stand_in.shape == dense.shape and stand_in.stride(-1) == 1
    assert stand_in.untyped_storage().nbytes() == 8 * 4


def trace(function, *arguments):
    """Compile in one graph and run; returns what came out and the graph's nodes."""
    nodes = []

    def keep(graph, _):
        nodes.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    return torch.compile(function, fullgraph=True, backend=keep)(*arguments), nodes


@torch.no_grad()
def test_on_cuda_the_operator_is_one_node_of_a_compiled_graph():
    """On tensors without memory, which is all of CUDA that a CPU has."""
    with FakeTensorMode():
        query = torch.empty(1, 24, 2, 12, device="cuda", dtype=torch.bfloat16)
        shapes = ((2, 12, 24), (2, 24), (2, 24, 24), (2, 24), (2,))
        maps = [MapParameters(*(torch.empty(shape, device="cuda") for shape in shapes)) for _ in range(2)]
        output, nodes = trace(lambda x: hybrid_attention_from_maps(x, x, x, *maps, rate=4), query)
    assert output.shape == query.shape and output.device.type == "cuda"
    assert sum("from_maps" in name for name in nodes) == 1


def test_what_torch_is_asked_is_a_constant_of_the_graph(monkeypatch):
    """The question itself (SDPAParams) cannot be traced; the device here stands for a CUDA one."""
    monkeypatch.setattr(fused_softmax, "_cuda_backend", lambda *_: "flash")
    chosen, nodes = trace(
        lambda x: x + 1 if fused_softmax._usual_backend(x.device, x.dtype, 8) == "flash" else x, torch.ones(2)
    )
    assert chosen.tolist() == [2, 2] and not any("empty" in name for name in nodes)


def test_auto_names_its_choice():
    query = draw_qkv(9, dtype=torch.float32)[0]
    assert resolve_impl(query, rate=2) == "sdpa"
    assert resolve_impl(query, rate=2, impl="reference") == "reference"


def bad_calls():
    query, key, value = draw_qkv(6)
    features = draw_features(query)
    good = {
        "query": query,
        "key": key,
        "value": value,
        "query_features": features[0],
        "key_features": features[1],
    }
    return [
        ({**good, "rate": 0}, "rate must be None"),
        ({**good, "rate": -2}, "rate must be None"),
        ({**good, "rate": 2.0}, "rate must be None"),
        ({**good, "rate": True}, "rate must be None"),
        ({**good, "rate": "linear"}, "rate must be None"),
        ({**good, "rate": 2, "stabilizer": "max"}, "stabilizer must be one of lse, rowmax"),
        ({**good, "rate": 2, "impl": "cuda"}, "impl must be one of"),
        ({**good, "rate": 2, "impl": "triton"}, "triton"),
        ({**good, "rate": 2, "query": query[0]}, "query must be"),
        ({**good, "rate": 2, "query": query.long()}, "floating point"),
        ({**good, "rate": 2, "key": key[..., :4]}, "key must be"),
        ({**good, "rate": 2, "value": value.float()}, "value must have the dtype"),
        ({**good, "rate": 2, "value": value[:, :3]}, "same tokens"),
        ({**good, "rate": 2, "key": key.to("meta")}, "device"),
        ({**good, "rate": 2, "query_features": None}, "needed unless rate is 1"),
        ({**good, "rate": 2, "key_features": features[1][:, :4]}, "key_features must be"),
        ({**good, "rate": None, "key_features": features[1][..., :3]}, "same number of features"),
        ({**good, "rate": None, "key_features": features[1].half()}, "key_features must have the dtype"),
    ]


@pytest.mark.parametrize("call", bad_calls(), ids=lambda call: call[1])
def test_what_does_not_fit_is_refused(call):
    arguments, message = call
    with pytest.raises(ValueError, match=message):
        hybrid_attention(**arguments)


def test_maps_that_do_not_fit_are_refused():
    inputs = draw_qkv(6)
    good, _ = draw_maps(inputs[0])
    other = draw_maps(draw_qkv(6, heads=2)[0])[0]
    with pytest.raises(ValueError, match="key_map must be for 3 heads of 8, got 2 of 8"):
        hybrid_attention_from_maps(*inputs, good, other, rate=2)
    with pytest.raises(ValueError, match="query_map must be on the device"):
        hybrid_attention_from_maps(*inputs, replace(good, bias_1=good.bias_1.to("meta")), good, rate=2)
    for change, message in (
        ({"bias_1": good.bias_1[:, :-1]}, "bias_1 must be"),
        ({"weight_2": good.weight_2[:, :-1]}, "weight_2 must be"),
        ({"log_scale": good.bias_1}, "log_scale must be"),
        ({"degree": 4}, "degree must be 1, 2 or 3"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"positivity": "abs"}, "positivity must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("rate", [None, 2, 3, 8, 100])
@pytest.mark.parametrize("tokens", [1, 24, 26])
def test_features_of_the_linear_keys_alone_are_enough(tokens, rate, impl):
    inputs = draw_qkv(tokens)
    query_features, key_features = draw_features(inputs[0])
    used = linear_tokens(key_features, rate).detach().requires_grad_()
    everything = key_features.requires_grad_()
    options = {"rate": rate, "impl": impl}
    expected = hybrid_attention(*inputs, query_features, everything, **options)
    found = hybrid_attention(*inputs, query_features, used, **options)
    assert torch.equal(found, expected)
    if used.numel():
        (grad,) = torch.autograd.grad(found.square().sum(), used)
        (whole,) = torch.autograd.grad(expected.square().sum(), everything)
        assert torch.equal(grad, linear_tokens(whole, rate))
