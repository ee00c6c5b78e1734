"""Public operators: check, choose an implementation, run it."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from kernels.hybrid_attention import opaque, reference, rehyat, sdpa, validation
from kernels.hybrid_attention.feature_map import MapParameters, apply_feature_map
from kernels.hybrid_attention.fused_softmax import softmax_backend
from kernels.hybrid_attention.triton_tiles import why_not
from kernels.hybrid_attention.validation import ChunkSpec

HAS_TRITON = find_spec("triton") is not None


def resolve_impl(
    query: Tensor,
    *,
    rate: int | None,
    impl: str = "auto",
    num_features: int | None = None,
    hidden: int | None = None,
) -> str:
    """Name the implementation that the hybrid operators of this package run for ``query``.

    Args:
        query: [B, N, H, D].
        rate: softmax rate; None is linear.
        impl: ``auto`` chooses by device, dtype and shape; any other choice is checked and returned.
        num_features: F, where known; 2 D is assumed otherwise.
        hidden: width of the hidden layer of a feature map, where phi runs inside.

    Returns:
        ``reference``, ``sdpa`` or ``triton``.

    Raises:
        ValueError: if a forced choice is unknown or cannot run, with the reason.
    """
    validation.check_operator(rate, "lse", impl)
    if impl == "reference":
        return impl
    has_fused = softmax_backend(query, query if rate is None else query[:, ::rate]) is not None
    obstacle = _why_not_triton(query, num_features or 2 * query.shape[-1], hidden)
    if not has_fused and (impl == "sdpa" or (impl == "triton" and obstacle is None)):
        raise ValueError(
            f"impl {impl!r} cannot run {query.dtype} with head_dim {query.shape[-1]} on {query.device}: no "
            "fused attention of torch serves it, use impl 'reference'"
        )
    if impl == "triton" and obstacle is not None:
        raise ValueError(f"impl 'triton' cannot run here: {obstacle}")
    if impl != "auto":
        return impl
    if obstacle is None and query.is_cuda and query.dtype != torch.float32 and has_fused:
        return "triton"
    return "sdpa" if has_fused else "reference"


def _why_not_triton(query: Tensor, num_features: int, hidden: int | None) -> str | None:
    if not HAS_TRITON:
        return "triton is not installed"
    if not query.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"it needs a CUDA device, got {query.device}"
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it needs float32, bfloat16 or float16, got {query.dtype}"
    return why_not(head_dim=query.shape[-1], hidden=hidden, features=num_features)


def hybrid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    rate: int | None,
    stabilizer: validation.Stabilizer = "lse",
    impl: validation.Impl = "auto",
) -> Tensor:
    """Attend by softmax to every R-th key and by linear attention to the others, in one normalised sum.

    Args:
        query: [B, N, H, D] after norm and position embedding; scores are q.k / sqrt(D). A subset of the
            queries may be given (distillation on random rows): N need not be the number of keys M.
        key: [B, M, H, D].
        value: [B, M, H, D].
        query_features: [B, N, H, F]; None is allowed at rate 1.
        key_features: [B, M, H, F], where those of kept keys 0, R, 2R, ... are ignored; or those of the
            other keys alone (see ``linear_tokens``). None is allowed at rate 1.
        rate: R >= 1 (1 is softmax attention), or None for linear attention alone.
        stabilizer: ``lse`` or ``rowmax``, what scales the softmax branch against the linear one.
        impl: ``auto``, ``reference``, ``sdpa`` or ``triton``; see ``resolve_impl``.

    Returns:
        [B, N, H, D] in the dtype of ``query``. Features should not be negative: a linear mass (summed over
        the keys) below zero counts as zero in a hybrid, and at ``rate=None`` a mass of at most 1e-20 yields
        zeros.

    Raises:
        ValueError: for shapes, dtypes, devices, rates or names that do not fit, before anything runs.

    Source: Attention Surgery, arXiv 2509.24899.
    """
    validation.check_operator(rate, stabilizer, impl)
    validation.check_query_key_value(query, key, value)
    if rate == 1:
        query_features = key_features = None
    else:
        needed = (query.shape[1], sdpa.num_linear_tokens(key.shape[1], rate))
        validation.check_features(query, key, query_features, key_features, needed=needed)
    if opaque.is_wanted(impl, query, key, value, query_features, key_features):
        return opaque.from_features(
            (query, key, value), (query_features, key_features), rate=rate, stabilizer=stabilizer, impl=impl
        )
    num_features = None if query_features is None else query_features.shape[3]
    chosen = resolve_impl(query, rate=rate, impl=impl, num_features=num_features)
    if chosen != "sdpa" and key_features is not None:
        key_features = sdpa.at_linear_tokens(key_features, key.shape[1], rate=rate)
    tensors = (query, key, value, query_features, key_features)
    if chosen == "triton":
        from kernels.hybrid_attention import triton_host

        return triton_host.hybrid_attention_triton(*tensors, rate=rate, stabilizer=stabilizer)
    run = sdpa.hybrid_attention_sdpa if chosen == "sdpa" else reference.hybrid_attention_reference
    return run(*tensors, rate=rate, stabilizer=stabilizer)


def hybrid_attention_from_maps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: MapParameters,
    key_map: MapParameters,
    *,
    rate: int | None,
    stabilizer: validation.Stabilizer = "lse",
    impl: validation.Impl = "auto",
) -> Tensor:
    """Evaluate ``hybrid_attention`` on ``apply_feature_map`` of queries and keys, phi included.

    Args and errors as ``hybrid_attention``; ``query_map`` and ``key_map`` belong to the heads and head
    dimension of ``query`` and have the same number of features.
    """
    validation.check_operator(rate, stabilizer, impl)
    validation.check_query_key_value(query, key, value)
    validation.check_maps(query, query_map, key_map)
    if opaque.is_wanted(impl, query, key, value, *query_map.tensors, *key_map.tensors):
        maps = (query_map, key_map)
        return opaque.from_maps((query, key, value), maps, rate=rate, stabilizer=stabilizer, impl=impl)
    chosen = resolve_impl(
        query,
        rate=rate,
        impl=impl,
        num_features=query_map.num_features,
        hidden=max(query_map.weight_1.shape[2], key_map.weight_1.shape[2]),
    )
    tensors = (query, key, value)
    if chosen == "triton":
        from kernels.hybrid_attention import triton_host

        return triton_host.hybrid_attention_from_maps_triton(
            *tensors, query_map, key_map, rate=rate, stabilizer=stabilizer
        )
    if chosen == "sdpa":
        return sdpa.hybrid_attention_from_maps_sdpa(
            *tensors, query_map, key_map, rate=rate, stabilizer=stabilizer
        )
    features = (
        (None, None) if rate == 1 else (apply_feature_map(query, query_map), apply_feature_map(key, key_map))
    )
    return reference.hybrid_attention_reference(*tensors, *features, rate=rate, stabilizer=stabilizer)


def rehyat_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    chunks: ChunkSpec,
    form: validation.Form = "parallel",
    impl: validation.Impl = "auto",
) -> Tensor:
    """Attend by softmax inside a chunk of frames and its overlap, by linear attention to all before (ReHyAt).

    Args:
        query: [B, N, H, D], tokens frame-major.
        key: [B, N, H, D].
        value: [B, N, H, D].
        query_features: [B, N, H, F], or those of the last queries alone, which have linear keys (see
            ``ChunkSpec.linear_tokens``). Both None leave the linear part out.
        key_features: [B, N, H, F], or those of the first keys alone, which are linear to some query.
        chunks: T_c, T_o and the tokens of a frame; N must be whole frames.
        form: ``parallel`` (states of all chunks first) or ``recurrent`` (one running state); equal results.
            The reference has one form, two N x N masks.
        impl: as ``hybrid_attention``. The stabilizer is the log-sum-exp.

    Returns:
        [B, N, H, D] in the dtype of ``query``.

    Raises:
        ValueError: for shapes, dtypes, devices or names that do not fit, before anything runs.

    Source: ReHyAt, arXiv 2601.04342.
    """
    validation.check_operator(None, "lse", impl)
    validation.check_choice("form", form, ("parallel", "recurrent"))
    validation.check_query_key_value(query, key, value)
    if query.shape != key.shape:
        raise ValueError(f"key must have the shape of query {list(query.shape)}, got {list(key.shape)}")
    if query.shape[1] % chunks.frame_tokens:
        raise ValueError(f"{query.shape[1]} tokens are not whole frames of {chunks.frame_tokens}")
    first_reader, far = chunks.linear_tokens(query.shape[1])
    if query_features is not None or key_features is not None:
        needed = (query.shape[1] - first_reader, far)
        validation.check_features(query, key, query_features, key_features, needed=needed)
    tensors = (query, key, value, query_features, key_features)
    if impl == "triton":
        raise ValueError("rehyat_attention has no 'triton' implementation, use 'auto', 'sdpa' or 'reference'")
    if resolve_impl(query, rate=2, impl=impl) == "reference":
        return reference.rehyat_attention_reference(*tensors, chunks=chunks, stabilizer="lse")
    return rehyat.rehyat_attention_sdpa(*tensors, chunks=chunks, stabilizer="lse", form=form)
