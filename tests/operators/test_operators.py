"""Every operator and every feature map: shapes, positivity, gradients, dtypes, agreement with the
reference.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from kernels.hybrid_attention.reference import hybrid_attention_reference, rehyat_attention_reference
from workbench.models.adapter import AttentionShape
from workbench.operators import (
    SOFTMAX,
    BlockContext,
    ElementwiseSpec,
    HedgehogSpec,
    HybridSpec,
    LinearSpec,
    OperatorSpec,
    PolynomialSpec,
    RehyatSpec,
    Schedule,
    build,
    build_feature_map,
)
from workbench.operators.feature_maps import AnyFeatureMapSpec
from workbench.types import TokenGrid

SHAPE = AttentionShape(2, 3, 8)
GRID = TokenGrid(4, 3, 5)
MAPS: tuple[AnyFeatureMapSpec, ...] = (
    PolynomialSpec(),
    PolynomialSpec(layers=1, degree=1),
    PolynomialSpec(layers=3, degree=6),
    PolynomialSpec(activation="silu", positivity="softplus", width=1),
    PolynomialSpec(activation="relu", positivity="exp"),
    PolynomialSpec(positivity="elu", degree=3),
    PolynomialSpec(positivity="abs"),
    PolynomialSpec(positivity="square"),
    HedgehogSpec(),
    ElementwiseSpec(kind="elu"),
    ElementwiseSpec(kind="relu"),
    ElementwiseSpec(kind="exp", clamp=2.0),
)


class Context:
    grid = GRID
    attention_backend = None


def tensors(dtype: torch.dtype = torch.float32, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(batch, GRID.num_tokens, 3, 8, generator=generator).to(dtype) for _ in range(3)]
    return made[0], made[1], made[2]


def run(spec: OperatorSpec, inputs: tuple[Tensor, Tensor, Tensor], **changes: Any) -> Tensor:
    operator = build(spec, SHAPE, seed=1)
    for name, value in changes.items():
        setattr(operator, name, value)
    result: Tensor = operator(*inputs, context=cast(BlockContext, Context()))
    return result


def name_of(spec: AnyFeatureMapSpec) -> str:
    return "-".join(str(value) for value in spec.model_dump().values())


@pytest.mark.parametrize("spec", MAPS, ids=name_of)
def test_maps_are_positive_trainable_and_start_small(spec: AnyFeatureMapSpec) -> None:
    states = tensors()[0].requires_grad_()
    feature_map = build_feature_map(spec, SHAPE, generator=torch.Generator().manual_seed(0))
    features = feature_map(states)
    assert features.shape == (2, 60, 3, spec.num_features(8)) and (features >= 0).all()
    assert torch.isfinite(features).all() and features.abs().mean() < 0.2
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in feature_map.parameters())
    assert feature_map(states.to(torch.bfloat16)).dtype == torch.bfloat16
    wide = feature_map(states.detach().double())
    torch.testing.assert_close(wide.float(), features.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layers", [2])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_both_ways_to_evaluate_a_polynomial_agree(layers: int, degree: int) -> None:
    spec = PolynomialSpec(layers=layers, degree=degree)
    feature_map: Any = build_feature_map(spec, SHAPE, generator=torch.Generator().manual_seed(3))
    states = tensors()[0]
    by_kernels = feature_map(states)
    feature_map.kernel_parameters = lambda: None
    torch.testing.assert_close(feature_map(states), by_kernels)


@pytest.mark.parametrize("feature_map", MAPS, ids=name_of)
@pytest.mark.parametrize("rate", [2, 7, None])
def test_hybrids_follow_the_reference(feature_map: AnyFeatureMapSpec, rate: int | None) -> None:
    spec: OperatorSpec = (
        LinearSpec(feature_map=feature_map)
        if rate is None
        else HybridSpec(rate=rate, feature_map=feature_map)
    )
    inputs = tensors()
    operator: Any = build(spec, SHAPE, seed=1)
    query, key, value = (tensor.double() for tensor in inputs)
    expected = hybrid_attention_reference(
        query, key, value, operator.query_map(query), operator.key_map(key), rate=rate, stabilizer="lse"
    )
    torch.testing.assert_close(run(spec, inputs).double(), expected, rtol=2e-3, atol=2e-4)


def test_rehyat_follows_the_reference() -> None:
    spec = RehyatSpec(chunk_frames=1, overlap_frames=1)
    inputs = tensors()
    operator: Any = build(spec, SHAPE, seed=1)
    query, key, value = (tensor.double() for tensor in inputs)
    expected = rehyat_attention_reference(
        query,
        key,
        value,
        operator.query_map(query),
        operator.key_map(key),
        chunks=spec.chunks(GRID),
        stabilizer="lse",
    )
    torch.testing.assert_close(run(spec, inputs).double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spec", [HybridSpec(rate=4), HybridSpec(rate=4, stabilizer="rowmax"), LinearSpec()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_the_model_is_kept(spec: OperatorSpec, dtype: torch.dtype) -> None:
    result = run(spec, tensors(dtype))
    assert result.dtype == dtype and torch.isfinite(result).all()
    query, key, value = tensors()
    assert run(spec, (query, key, value.to(dtype))).dtype == dtype


@pytest.mark.parametrize("spec", [HybridSpec(rate=4), RehyatSpec(chunk_frames=2)])
def test_small_start_is_near_the_branch_off(spec: OperatorSpec) -> None:
    inputs = tensors()
    off = run(spec, inputs, linear_branch=False)
    on = run(spec, inputs)
    assert not torch.equal(on, off)
    assert (on - off).abs().mean() < 0.05 * off.abs().mean()


def test_nothing_is_left_of_a_linear_operator_without_its_branch() -> None:
    assert not run(LinearSpec(), tensors(), linear_branch=False).any()


def test_builds_are_repeatable_and_differ_by_seed() -> None:
    first, second, third = (build(LinearSpec(), SHAPE, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    assert not torch.equal(first["query_map.weight_1"], first["key_map.weight_1"])
    with pytest.raises(ValueError, match="softmax has no operator"):
        build(SOFTMAX, SHAPE)


def test_an_implementation_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="triton"):
        run(HybridSpec(rate=4), tensors(), impl="triton")


@pytest.mark.parametrize("feature_map", [PolynomialSpec(), HedgehogSpec()], ids=name_of)
@pytest.mark.parametrize("rate", [2, 7])
def test_a_hybrid_around_diffusers_softmax(feature_map: AnyFeatureMapSpec, rate: int) -> None:
    """The same result and the same gradients as with the kernels' own softmax."""
    spec = HybridSpec(rate=rate, feature_map=feature_map)
    gradients = []
    for impl in ("auto", "diffusers"):
        inputs = tuple(tensor.requires_grad_() for tensor in tensors())
        operator: Any = build(spec, SHAPE, seed=1)
        operator.impl = impl
        output = operator(*inputs, context=cast(BlockContext, Context()))
        found = torch.autograd.grad(output.square().sum(), [*inputs, *operator.parameters()])
        gradients.append([output, *found])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    off = [run(spec, tensors(), linear_branch=False, impl=impl) for impl in ("auto", "diffusers")]
    torch.testing.assert_close(off[1], off[0])
    assert operator.implementation(inputs[0]) == "diffusers"


def test_where_diffusers_softmax_is_not_enough() -> None:
    for spec, words in (
        (HybridSpec(rate=4, stabilizer="rowmax"), "log-sum-exp"),
        (RehyatSpec(chunk_frames=2), "ReHyAt"),
    ):
        with pytest.raises(ValueError, match=words):
            run(spec, tensors(), impl="diffusers")


def test_schedules() -> None:
    schedule = Schedule(dense_first=2, dense_every=4)
    assert [schedule.is_dense(step) for step in range(9)] == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
        False,
        True,
    ]
    assert schedule.num_dense(9) == 4 and Schedule().num_dense(9) == 0
