"""What cells learn from: fp32 on a CPU, bit for bit; the model's own bfloat16 for the kernels of a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.hybrid_attention import hybrid_attention_from_maps
from kernels.hybrid_attention.fused_softmax import fused_softmax
from workbench.distillation.cells import CellTrainer, TrainingChoices
from workbench.distillation.losses import relative_error, value_loss
from workbench.distillation.teacher import TeacherAttention
from workbench.models.adapter import AttentionShape
from workbench.operators import (
    HedgehogSpec,
    HybridSpec,
    LinearSpec,
    OperatorSpec,
    RehyatSpec,
    build,
)
from workbench.types import TokenGrid

GRID = TokenGrid(4, 5, 6)
SHAPE = AttentionShape(1, 2, 16)
SPECS = (
    HybridSpec(rate=4),
    HybridSpec(rate=2, stabilizer="rowmax"),
    LinearSpec(),
    HybridSpec(rate=4, feature_map=HedgehogSpec()),
    RehyatSpec(chunk_frames=1, overlap_frames=1),
)
ROWS = slice(4, 20)


def drawn(dtype: torch.dtype, *, narrow: bool | None = None) -> TeacherAttention:
    generator = torch.Generator().manual_seed(0)
    shape = (1, GRID.num_tokens, SHAPE.num_heads, SHAPE.head_dim)
    query, key, value = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    chosen = torch.randperm(GRID.num_tokens, generator=generator)[:24]
    return TeacherAttention.of(query, key, value, chosen=chosen, grid=GRID, narrow=narrow)


def trainer(spec: OperatorSpec, **choices: Any) -> CellTrainer:
    return CellTrainer("cell", build(spec, SHAPE, seed=3), choices=TrainingChoices(**choices))


def trained(spec: OperatorSpec, attention: TeacherAttention, updates: int = 12) -> tuple[list[float], Tensor]:
    cell = trainer(spec)
    losses = [cell.update(attention, rows=ROWS, progress=(step + 1) / updates) for step in range(updates)]
    return losses, torch.cat([tensor.reshape(-1) for tensor in cell.weights().values()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_cpu_works_in_fp32_or_wider_bit_for_bit(dtype: torch.dtype) -> None:
    """The same loss and gradient as of the formula written out in wide numbers."""
    attention = drawn(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    assert attention.widened is attention
    tensors = (attention.query, attention.key, attention.value, attention.output)
    assert {tensor.dtype for tensor in tensors} == {wide}
    picked = attention.all_queries.index_select(1, attention.chosen)
    narrow = fused_softmax(picked, attention.key.to(dtype), attention.value.to(dtype), need_lse=False)
    assert torch.equal(attention.output, narrow.output.to(wide))
    cell = trainer(HybridSpec(rate=4))
    operator: Any = cell.operator
    maps = operator.query_map(None), operator.key_map(None)
    output = hybrid_attention_from_maps(
        picked.to(wide)[:, ROWS], attention.key, attention.value, *maps, rate=4
    )
    expected = value_loss(output, attention.output[:, ROWS], name="value")
    found = cell.loss(attention, rows=ROWS)
    assert found.dtype == wide and torch.equal(found, expected)
    parameters = list(operator.parameters())
    pairs = zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    )
    assert all(torch.equal(here, there) for here, there in pairs)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.short}-{spec.feature_map.kind}")
def test_cells_learn_the_same_from_bfloat16(spec: OperatorSpec) -> None:
    """As on a GPU; the loss is a wide number, the weights stay fp32, and both end where fp32 ends."""
    narrow, wide = drawn(torch.bfloat16, narrow=True), drawn(torch.bfloat16)
    assert narrow.key.dtype == torch.bfloat16 and narrow.output.dtype == torch.float32
    assert torch.equal(narrow.widened.key, wide.key) and torch.equal(narrow.output, wide.output)
    assert trainer(spec).loss(narrow).dtype == torch.float32
    (losses, weights), (expected, expected_weights) = trained(spec, narrow), trained(spec, wide)
    assert weights.dtype == torch.float32 and weights.isfinite().all()
    assert losses == pytest.approx(expected, rel=0.01)
    _, start = trained(spec, wide, updates=0)
    moved = (expected_weights - start).norm()
    assert moved > 0 and (weights - expected_weights).norm() < 0.2 * moved


def test_only_what_the_kernels_run_is_narrow() -> None:
    narrow, wide = drawn(torch.bfloat16, narrow=True), drawn(torch.bfloat16)
    for spec in SPECS:
        cell = trainer(spec)
        runs_in_bfloat16 = not torch.equal(cell.output(narrow), cell.output(wide))
        assert runs_in_bfloat16 == (spec.kind != "rehyat" and spec.feature_map.kind == "polynomial"), spec
        assert cell.output(narrow).dtype == torch.float32
    score = trainer(HybridSpec(rate=4), loss="score")
    assert torch.equal(score.loss(narrow, rows=ROWS), score.loss(wide, rows=ROWS))
    for rate in (4, None):
        off = narrow.kept_output(rate)
        assert off.dtype == torch.float32
        if rate is not None:
            assert relative_error(off, wide.kept_output(rate)) < 0.01


SCRIPT = """
import torch
from tests.distillation.test_teacher import HybridSpec, LinearSpec, ROWS, drawn, trainer

attention = drawn(torch.float32)
for spec in (HybridSpec(rate=4), LinearSpec()):
    gradients = []
    for impl in ("sdpa", "triton"):
        cell = trainer(spec)
        cell.operator.impl = impl
        loss = cell.loss(attention, rows=ROWS)
        found = torch.autograd.grad(loss, list(cell.operator.parameters()))
        gradients.append(torch.cat([loss.reshape(1), *(each.reshape(-1) for each in found)]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="triton is installed on Linux alone")
def test_the_kernels_give_an_update_its_gradient() -> None:
    """For some of the queries, through Triton's interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rate", [4, None])
def test_a_gpu_learns_through_the_kernels(rate: int | None) -> None:
    """Nothing is widened, `auto` takes Triton, and the gradient is that of fp32."""
    spec: OperatorSpec = LinearSpec() if rate is None else HybridSpec(rate=rate)
    wide = drawn(torch.bfloat16)
    query, key, value = (x.to("cuda", torch.bfloat16) for x in (wide.all_queries, wide.key, wide.value))
    attention = TeacherAttention.of(query, key, value, chosen=wide.chosen.cuda(), grid=GRID)
    assert attention.query.dtype == attention.key.dtype == attention.value.dtype == torch.bfloat16
    found = []
    for given, device in ((attention, "cuda"), (wide, "cpu")):
        operator: Any = build(spec, SHAPE, seed=3).to(device)
        assert operator.implementation(given.query) == ("triton" if device == "cuda" else "sdpa")
        cell = CellTrainer("cell", operator, choices=TrainingChoices(loss="mse"))
        loss = cell.loss(given, rows=ROWS)
        assert loss.dtype == torch.float32
        gradients = torch.autograd.grad(loss, list(operator.parameters()))
        found.append(torch.cat([gradient.reshape(-1).float().cpu() for gradient in gradients]))
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()
