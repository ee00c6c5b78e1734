"""Attention statistics: what they mean on hand-made attention, and that chunks equal the whole matrix."""

import math

import pytest
import torch
from torch.nn import functional as F

from kernels.attention_stats import DISTANCE_EDGES, attention_stats, chunked, softmax_with_lse
from tests.kernels.inputs import draw_qkv, error_in_eps, poisoned_memory

GRID = (3, 4, 5)


def assert_stats_equal(result, expected, *, in_eps):
    for name, got, want in zip(expected._fields, result, expected, strict=True):
        assert got.shape == want.shape, name
        assert want.numel() == 0 or error_in_eps(got, want) < in_eps, name


@pytest.mark.parametrize("given_lse", [False, True])
@pytest.mark.parametrize("spread", [1, 40])
@pytest.mark.parametrize("query_stride", [1, 2, 7, 60])
@pytest.mark.parametrize("chunk", [1, 200, 1 << 17])
def test_chunks_equal_the_whole_matrix(monkeypatch, chunk, query_stride, spread, given_lse):
    monkeypatch.setitem(chunked.CHUNK_SCORES, "cpu", chunk)
    monkeypatch.setattr(chunked, "GROUP_ELEMENTS", 3 * chunk)
    query, key, value = draw_qkv(60)
    query = query * spread
    options = {"grid": GRID, "query_stride": query_stride, "row_queries": (0, 59, 3), "map_size": 8}
    expected = attention_stats(query, key, **options, impl="reference")
    lse = softmax_with_lse(query, key, value)[1] if given_lse else None
    with poisoned_memory():
        result = attention_stats(query, key, **options, log_sum_exp=lse)
    assert_stats_equal(result, expected, in_eps=1e4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("map_size", [4, 7, 60])
def test_narrow_dtypes_are_measured_in_fp32(dtype, map_size):
    query, key, _ = draw_qkv(60, dtype=dtype)
    result = attention_stats(query, key, grid=GRID, map_size=map_size)
    expected = attention_stats(query.double(), key.double(), grid=GRID, map_size=map_size, impl="reference")
    assert result.entropy.dtype == torch.float32
    assert_stats_equal(result, expected, in_eps=200)


def test_even_attention_has_known_numbers():
    frames, height, width = GRID
    query, key, _ = draw_qkv(60, dtype=torch.float64)
    stats = attention_stats(torch.zeros_like(query), key, grid=GRID, map_size=6, row_queries=(7,))
    every = torch.ones(2, 3, dtype=torch.float64)
    torch.testing.assert_close(stats.entropy, every * math.log(60))
    torch.testing.assert_close(stats.normalized_entropy, every)
    torch.testing.assert_close(stats.same_frame, every / frames)
    torch.testing.assert_close(stats.first_frame, every / frames)
    torch.testing.assert_close(stats.same_place, every * (frames - 1) / 60)
    torch.testing.assert_close(
        stats.by_frame_distance[0, 0], torch.tensor([3, 4, 2], dtype=torch.float64) / 9
    )
    torch.testing.assert_close(stats.pooled, torch.full_like(stats.pooled, 1 / 6))
    torch.testing.assert_close(stats.rows, torch.full_like(stats.rows, 1 / 60))
    places = [(h, w) for h in range(height) for w in range(width)]
    close = [math.dist(a, b) <= 2 for a in places for b in places]
    torch.testing.assert_close(stats.near, every * sum(close) / len(close))


def test_attention_to_one_token_away_has_known_numbers():
    frames, height, width = GRID
    tokens = frames * height * width
    index = torch.arange(tokens)
    target = index // width * width + (index % width + 1) % width
    code = torch.eye(tokens, dtype=torch.float64).reshape(1, tokens, 1, tokens) * 40
    stats = attention_stats(code[:, target] * 10, code, grid=GRID, map_size=1)
    assert stats.entropy.item() < 1e-9
    assert stats.same_frame.item() == pytest.approx(1)
    assert stats.same_place.item() == pytest.approx(0)
    edges = [DISTANCE_EDGES.index(1.0), DISTANCE_EDGES.index(4.0)]
    assert stats.by_distance[0, 0, edges].tolist() == pytest.approx([4 / 5, 1 / 5])
    assert stats.near.item() == pytest.approx(4 / 5)
    assert stats.first_frame.item() == pytest.approx(1 / frames)


def test_same_place_over_time_leaves_the_own_frame_out():
    place = torch.eye(20, dtype=torch.float64).repeat(3, 1).reshape(1, 60, 1, 20) * 60
    stats = attention_stats(place, place, grid=GRID, map_size=1)
    assert stats.same_place.item() == pytest.approx(2 / 3)
    assert stats.by_distance[0, 0].tolist() == pytest.approx([1] + [0] * (len(DISTANCE_EDGES) - 1))
    assert stats.by_frame_distance[0, 0].tolist() == pytest.approx([3 / 9, 4 / 9, 2 / 9])


def test_distributions_sum_to_one():
    query, key, _ = draw_qkv(60, dtype=torch.float32)
    stats = attention_stats(query, key, grid=GRID, query_stride=3, map_size=4, row_queries=(1,))
    for part in (stats.by_frame_distance, stats.by_distance, stats.pooled, stats.rows):
        torch.testing.assert_close(part.sum(dim=-1), torch.ones(part.shape[:-1]))


def test_one_token():
    query, key, _ = draw_qkv(1)
    stats = attention_stats(query, key, grid=(1, 1, 1), map_size=1)
    assert 0 <= stats.entropy.max() < 1e-12 and torch.equal(
        stats.normalized_entropy, torch.ones(2, 3).double()
    )
    assert error_in_eps(stats.same_frame, torch.ones(2, 3)) < 4
    assert torch.equal(stats.same_place, torch.zeros(2, 3).double())


def test_strides_do_not_matter():
    query, key, _ = draw_qkv(60)
    expected = attention_stats(query, key, grid=GRID, map_size=5)
    strided = [x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for x in (query, key)]
    assert_stats_equal(attention_stats(*strided, grid=GRID, map_size=5), expected, in_eps=100)


def test_softmax_with_lse_is_torchs_attention_bit_for_bit():
    query, key, value = draw_qkv(77, dtype=torch.float32)
    output, lse = softmax_with_lse(query, key, value)
    dense = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
    assert torch.equal(output, dense)
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(8)
    torch.testing.assert_close(lse, scores.logsumexp(-1))


def test_eight_thousand_tokens_need_no_square_matrix():
    query, key, _ = draw_qkv(8000, batch=1, heads=1, head_dim=8, dtype=torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        attention_stats(query, key, grid=(5, 40, 40), query_stride=16)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 8000 * 1700 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (3, 4, 6)}, "grid must be"),
        ({"grid": (3, 20)}, "grid must be"),
        ({"query_stride": 0}, "query_stride must be"),
        ({"query_stride": 1.5}, "query_stride must be"),
        ({"query_stride": 61}, "query_stride must be"),
        ({"map_size": 0}, "map_size must be"),
        ({"map_size": 61}, "map_size must be"),
        ({"row_queries": (60,)}, "row_queries must be"),
        ({"row_queries": (-1,)}, "row_queries must be"),
        ({"log_sum_exp": torch.zeros(2, 60, 3)}, "log_sum_exp must be"),
        ({"impl": "fast"}, "impl must be one of"),
        ({"impl": "triton"}, "impl 'triton' cannot run here"),
        ({"key": torch.zeros(2, 59, 3, 8, dtype=torch.float64)}, "key must have the shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_refused(change, message):
    query, key, _ = draw_qkv(60)
    arguments = {"query": query, "key": key, "grid": GRID, "map_size": 8, **change}
    with pytest.raises(ValueError, match=message):
        attention_stats(**arguments)
