"""ReHyAt: both forms equal each other and the two-mask formula."""

import pytest
import torch

from kernels.hybrid_attention import ChunkSpec, hybrid_attention, rehyat_attention
from tests.kernels.inputs import TOLERANCE_IN_EPS, draw_features, draw_qkv, error_in_eps, poisoned_memory

CHUNKS = [ChunkSpec(4, 1, 0), ChunkSpec(4, 2, 1), ChunkSpec(4, 3, 1), ChunkSpec(4, 2, 5), ChunkSpec(4, 9, 0)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_both_forms_equal_the_masks(chunks, dtype):
    inputs = draw_qkv(28, dtype=dtype)
    features = draw_features(inputs[0])
    wide = [x.double() for x in (*inputs, *features)]
    expected = rehyat_attention(*wide, chunks=chunks, impl="reference")
    with poisoned_memory():
        parallel = rehyat_attention(*inputs, *features, chunks=chunks, form="parallel")
        recurrent = rehyat_attention(*inputs, *features, chunks=chunks, form="recurrent")
    assert error_in_eps(parallel, expected) < TOLERANCE_IN_EPS
    assert error_in_eps(recurrent, parallel) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("form", ["parallel", "recurrent"])
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
def test_gradients(form, impl):
    inputs = draw_qkv(12, heads=2, head_dim=4)
    tensors = [x.requires_grad_() for x in (*inputs, *draw_features(inputs[0], 3))]

    def run(*parts):
        return rehyat_attention(*parts, chunks=ChunkSpec(2, 2, 1), form=form, impl=impl)

    assert torch.autograd.gradcheck(run, tensors, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_only_features_that_are_used_need_be_given(chunks, form, impl):
    inputs = draw_qkv(28)
    query_features, key_features = draw_features(inputs[0])
    first_reader, far = chunks.linear_tokens(28)
    expected = rehyat_attention(*inputs, query_features, key_features, chunks=chunks, form=form, impl=impl)
    used = query_features[:, first_reader:], key_features[:, :far]
    assert torch.equal(rehyat_attention(*inputs, *used, chunks=chunks, form=form, impl=impl), expected)
    zeros = torch.zeros_like(query_features), torch.zeros_like(key_features)
    without = rehyat_attention(*inputs, None, None, chunks=chunks, form=form, impl=impl)
    off = rehyat_attention(*inputs, *zeros, chunks=chunks, form=form, impl=impl)
    assert error_in_eps(without, off) < TOLERANCE_IN_EPS


@pytest.mark.parametrize("form", ["parallel", "recurrent"])
def test_one_chunk_is_softmax(form):
    inputs = draw_qkv(20, dtype=torch.float32)
    features = draw_features(inputs[0])
    result = rehyat_attention(*inputs, *features, chunks=ChunkSpec(4, 5), form=form)
    expected = hybrid_attention(*inputs, None, None, rate=1)
    assert error_in_eps(result, expected) < TOLERANCE_IN_EPS


def test_later_frames_do_not_change_earlier_chunks():
    inputs = draw_qkv(24)
    features = draw_features(inputs[0])
    chunks = ChunkSpec(4, 2, 1)
    full = rehyat_attention(*inputs, *features, chunks=chunks)
    cut = rehyat_attention(*(x[:, :16] for x in (*inputs, *features)), chunks=chunks, form="recurrent")
    assert error_in_eps(cut, full[:, :16]) < TOLERANCE_IN_EPS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunks": ChunkSpec(5, 1)}, "20 tokens|not whole frames|12 tokens"),
        ({"form": "serial"}, "form must be one of"),
        ({"impl": "triton"}, "no 'triton' implementation"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    inputs = draw_qkv(12)
    arguments = {"chunks": ChunkSpec(4, 1), **change}
    with pytest.raises(ValueError, match=message):
        rehyat_attention(*inputs, *draw_features(inputs[0]), **arguments)


@pytest.mark.parametrize("numbers", [(0, 1, 0), (4, 0, 0), (4, 1, -1), (4, 1.0, 0), (4, True, 0)])
def test_a_chunk_of_nothing_is_refused(numbers):
    with pytest.raises(ValueError, match="must be an integer of at least"):
        ChunkSpec(*numbers)
