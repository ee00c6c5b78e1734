"""Block-sparse attention: FlexAttention against the formula, ragged tiles, empty rows, refusals."""

import math

import pytest
import torch

from kernels.block_sparse_attention import block_sparse_attention
from kernels.hybrid_attention import hybrid_attention
from tests.kernels.inputs import TOLERANCE_IN_EPS, draw_qkv, error_in_eps


def draw_mask(query, key, tile, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (query.shape[0], query.shape[2], -(-query.shape[1] // tile), -(-key.shape[1] // tile))
    return torch.rand(shape, generator=generator) < 0.4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("tokens", "tile"), [(64, 16), (61, 16), (130, 128), (1, 16), (33, 64)])
def test_flex_equals_the_formula(tokens, tile, dtype):
    query, key, value = draw_qkv(tokens, heads=2, dtype=dtype)
    mask = draw_mask(query, key, tile)
    mask[0, 0, 0] = False
    mask[1, 1, -1] = True
    expected, expected_lse = block_sparse_attention(query, key, value, mask, tile=tile, impl="reference")
    output, lse = block_sparse_attention(query, key, value, mask, tile=tile, impl="flex")
    assert error_in_eps(output, expected) < TOLERANCE_IN_EPS
    assert torch.equal(lse.isfinite(), expected_lse.isfinite())
    finite = lse.isfinite()
    assert error_in_eps(lse[finite], expected_lse[finite]) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("impl", ["reference", "flex"])
def test_every_tile_is_dense_attention(impl):
    query, key, value = draw_qkv(45)
    mask = torch.ones(2, 3, 3, 3, dtype=torch.bool)
    output, lse = block_sparse_attention(query, key, value, mask, tile=16, impl=impl)
    assert error_in_eps(output, hybrid_attention(query, key, value, None, None, rate=1)) < TOLERANCE_IN_EPS
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(8)
    torch.testing.assert_close(lse.to(scores.dtype), scores.logsumexp(-1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("impl", ["reference", "flex"])
def test_a_row_without_a_tile_gives_zeros_and_minus_infinity(impl):
    query, key, value = draw_qkv(40, dtype=torch.float32)
    mask = torch.ones(2, 3, 3, 3, dtype=torch.bool)
    mask[1, 2, 1] = False
    output, lse = block_sparse_attention(query, key, value, mask, tile=16, impl=impl)
    assert torch.equal(output[1, 16:32, 2], torch.zeros(16, 8))
    assert (lse[1, 2, 16:32] == -math.inf).all()
    assert output.isfinite().all() and lse[0].isfinite().all()


def test_masks_differ_by_head_and_keys_outside_do_not_matter():
    query, key, value = draw_qkv(32)
    mask = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    mask[:, 0, :, 0] = True
    mask[:, 1:, :, 1] = True
    before, _ = block_sparse_attention(query, key, value, mask, tile=16)
    value = value.clone()
    value[:, 16:, 0] = math.nan
    after, _ = block_sparse_attention(query, key.clone(), value.nan_to_num(99.0), mask, tile=16)
    assert torch.equal(before[:, :, 0], after[:, :, 0])


def test_gradients():
    query, key, value = (x.requires_grad_() for x in draw_qkv(11, batch=1, heads=2, head_dim=4))
    mask = torch.tensor([[[[1, 0, 1], [0, 1, 0], [1, 1, 1]]] * 2], dtype=torch.bool)

    def run(*tensors):
        return block_sparse_attention(*tensors, mask, tile=4, impl="reference")

    assert torch.autograd.gradcheck(run, (query, key, value), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": 0}, "tile must be"),
        ({"tile": 16.0}, "tile must be"),
        ({"tile": 8}, "tile_mask must be bool"),
        ({"tile_mask": torch.ones(2, 3, 2, 2)}, "tile_mask must be bool"),
        ({"impl": "triton"}, "impl must be one of"),
        ({"value": torch.zeros(2, 31, 3, 8, dtype=torch.float64)}, "same tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_refused(change, message):
    query, key, value = draw_qkv(32)
    mask = torch.ones(2, 3, 2, 2, dtype=torch.bool)
    arguments = {"query": query, "key": key, "value": value, "tile_mask": mask, "tile": 16, **change}
    with pytest.raises(ValueError, match=message):
        block_sparse_attention(**arguments)
