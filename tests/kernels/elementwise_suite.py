"""The element-wise kernels against their formulas in fp64: on a GPU, or through Triton's interpreter.

Run by ``test_triton.py``, which chooses the device; not collected by itself.
"""

import os

import pytest
import torch

from kernels.elementwise import gated_sum, residual_norm, resolve_elementwise_impl, rms_norm_rotate
from tests.kernels.inputs import error_in_eps, poisoned_memory

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32] if INTERPRETED else [torch.bfloat16, torch.float16, torch.float32]
WIDTHS = [24, 64] if INTERPRETED else [24, 1536, 3072]
LIMIT = 8


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def widened(value):
    return value.double() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("with_update", [False, True])
def test_residual_and_modulated_norm(with_update, per_token, width, dtype):
    hidden, update = draw(2, 7, width, dtype=dtype) * 3 + 5, draw(2, 7, width, dtype=dtype, seed=1)
    table = draw(2, 7 if per_token else 1, 6, width, seed=2)
    options = {"scale": table[:, :, 0], "shift": table[:, :, 1]}
    if with_update:
        options |= {"update": update, "gate": table[:, :, 2]}
    wide = {name: widened(value) for name, value in options.items()}
    expected = residual_norm(hidden.double(), **wide, impl="reference")
    with poisoned_memory():
        result = residual_norm(hidden, **options, impl="triton")
    for got, want in zip(result, expected, strict=True):
        assert got.dtype == dtype
        assert error_in_eps(got, want) < LIMIT


@pytest.mark.parametrize("dtype", DTYPES)
def test_affine_norm_of_strided_rows_without_gate(dtype):
    width = WIDTHS[-1]
    hidden = draw(1, 5, 2 * width, dtype=dtype)[..., ::2]
    update = draw(1, 9, width, dtype=dtype, seed=1)[:, 2:7]
    scale, shift = draw(width, seed=2), draw(width, seed=3)
    options = {"update": update, "scale": scale, "shift": shift}
    wide = {name: widened(value) for name, value in options.items()}
    expected = residual_norm(hidden.double(), **wide, one_plus=False, impl="reference")
    result = residual_norm(hidden, **options, one_plus=False, impl="triton")
    for got, want in zip(result, expected, strict=True):
        assert error_in_eps(got, want) < LIMIT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [False, True])
def test_gated_sum(gated, dtype):
    hidden, update, gate = (draw(2, 3, 24, dtype=dtype, seed=seed) for seed in range(3))
    gate = gate[:, :1].float() if gated else None
    expected = gated_sum(hidden.double(), update.double(), widened(gate), impl="reference")
    with poisoned_memory():
        result = gated_sum(hidden, update, gate, impl="triton")
    assert error_in_eps(result, expected) < LIMIT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("rotates", [False, True])
def test_rms_norm_and_rotation(rotates, heads, dtype):
    width, tokens = heads * WIDTHS[0], 6
    states, weight = draw(2, tokens, width, dtype=dtype), draw(width, dtype=dtype, seed=1)
    angles = draw(1, tokens, 1, WIDTHS[0] // 2, seed=2).repeat_interleave(2, dim=-1)
    rotary = (angles.cos(), angles.sin()) if rotates else None
    wide = None if rotary is None else (rotary[0].double(), rotary[1].double())
    expected = rms_norm_rotate(states.double(), weight.double(), heads=heads, rotary=wide, impl="reference")
    with poisoned_memory():
        result = rms_norm_rotate(states, weight, heads=heads, rotary=rotary, impl="triton")
    assert result.shape == (2, tokens, heads, WIDTHS[0])
    assert error_in_eps(result, expected) < LIMIT


def test_choice():
    hidden = draw(1, 2, 16)
    assert resolve_elementwise_impl(hidden) == ("reference" if INTERPRETED else "triton")
    with pytest.raises(ValueError, match="float64"):
        residual_norm(hidden.double(), impl="triton")
