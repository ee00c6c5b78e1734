"""The statistics kernel against the whole matrix in fp64: on a GPU, or through Triton's interpreter in fp32.

Run by ``test_triton.py``, which chooses the device; not collected by itself.
"""

import os
from dataclasses import replace

import pytest
import torch

from kernels.attention_stats import attention_stats, resolve_stats_impl, triton_host
from kernels.attention_stats.triton_tiles import FULL_PRECISION
from tests.kernels.inputs import draw_qkv, error_in_eps, poisoned_memory

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32] if INTERPRETED else [torch.bfloat16, torch.float16, torch.float32]
HEAD_DIM = 16 if INTERPRETED else 64
LIMIT = 1e3


def compare(query, key, *, impl="triton", given=None, **options):
    expected = attention_stats(query.double(), key.double(), **options, impl="reference")
    with poisoned_memory():
        result = attention_stats(query, key, log_sum_exp=given, **options, impl=impl)
    for name, got, want in zip(expected._fields, result, expected, strict=True):
        assert got.shape == want.shape, name
        assert got.dtype == torch.float32, name
        if name == "same_place":  # a difference of two masses: exact to fp32 beside 1
            assert (got - want).abs().max() < 1e-5, name
        else:
            assert want.numel() == 0 or error_in_eps(got, want) < LIMIT, name
    return result


def lse_of(query, key):
    scores = torch.einsum("bnhd,bmhd->bhnm", query.double(), key.double()) / query.shape[-1] ** 0.5
    return scores.logsumexp(-1).float()


def draw(tokens, dtype, *, spread=1.0, batch=1, heads=1):
    query, key, _ = draw_qkv(
        tokens, batch=batch, heads=heads, head_dim=HEAD_DIM, dtype=torch.float32, device=DEVICE
    )
    return (query * spread).to(dtype), key.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("grid", "query_stride", "map_size"),
    [
        ((3, 4, 5), 1, 8),
        ((3, 4, 5), 7, 60),
        ((5, 3, 7), 2, 5),
        ((2, 5, 10), 3, 32),
        ((4, 4, 4), 4, 7),
        ((1, 6, 9), 1, 3),
        ((7, 1, 1), 1, 4),
    ],
)
def test_grids_strides_and_bins(grid, query_stride, map_size, given, dtype):
    query, key = draw(grid[0] * grid[1] * grid[2], dtype)
    compare(
        query,
        key,
        given=lse_of(query, key) if given else None,
        grid=grid,
        query_stride=query_stride,
        map_size=map_size,
        row_queries=(0, 3),
    )


@pytest.mark.parametrize("given", [False, True])
def test_logits_of_a_hundred(given):
    query, key = draw(60, DTYPES[0], spread=40.0)
    compare(query, key, given=lse_of(query, key) if given else None, grid=(3, 4, 5), map_size=8)


def test_an_approximate_log_sum_exp_is_put_right():
    query, key = draw(60, DTYPES[0])
    compare(query, key, given=lse_of(query, key) + 3.0, grid=(3, 4, 5), map_size=8)


def test_one_token():
    query, key = draw(1, DTYPES[0])
    stats = attention_stats(query, key, grid=(1, 1, 1), map_size=1, impl="triton")
    assert stats.entropy.max() < 1e-6
    torch.testing.assert_close(stats.same_frame, torch.ones_like(stats.same_frame))
    assert stats.same_place.max() < 1e-6


@pytest.mark.parametrize("keys", [16, 32, 64])
def test_tiles_that_divide_the_places_and_tiles_that_do_not(monkeypatch, keys):
    tiles = replace(FULL_PRECISION, keys=keys, group_frames=3)
    monkeypatch.setattr(triton_host, "stats_tiles", lambda _: tiles)
    query, key = draw(192, torch.float32)
    compare(query, key, grid=(3, 8, 8), query_stride=5, map_size=3)
    query, key = draw(210, torch.float32)
    compare(query, key, grid=(5, 6, 7), query_stride=5, map_size=6)


def test_heads_in_several_rounds_and_strides_of_the_inputs(monkeypatch):
    monkeypatch.setattr(triton_host, "WORK_BYTES", 1)
    query, key = draw(60, DTYPES[0], batch=2, heads=2)
    options = {"grid": (3, 4, 5), "query_stride": 3, "map_size": 5}
    expected = compare(query, key, **options)
    strided = [x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for x in (query, key)]
    for got, want in zip(attention_stats(*strided, **options, impl="triton"), expected, strict=True):
        assert torch.equal(got, want)


def test_choice():
    query, _ = draw(20, DTYPES[0])
    assert resolve_stats_impl(query, impl="triton") == "triton"
    assert resolve_stats_impl(query) == ("chunked" if INTERPRETED else "triton")
    assert resolve_stats_impl(query.double()) == "chunked"
    with pytest.raises(ValueError, match="head_dim must be one of"):
        resolve_stats_impl(query[..., :9], impl="triton")
    with pytest.raises(ValueError, match="float64"):
        attention_stats(query.double(), query.double(), grid=(1, 4, 5), map_size=4, impl="triton")
