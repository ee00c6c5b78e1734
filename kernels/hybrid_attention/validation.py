"""Checks of shapes, dtypes, devices and names, made before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from kernels.hybrid_attention.feature_map import MapParameters

Stabilizer = Literal["lse", "rowmax"]
Impl = Literal["auto", "reference", "sdpa", "triton"]
Form = Literal["parallel", "recurrent"]


@dataclass(frozen=True)
class ChunkSpec:
    """Describe the chunks of ReHyAt (arXiv 2601.04342).

    Attributes:
        frame_tokens: H*W, tokens of one latent frame.
        chunk_frames: T_c, latent frames of one chunk of queries; the last chunk may be shorter.
        overlap_frames: T_o, latent frames before the chunk that keep softmax.
    """

    frame_tokens: int
    chunk_frames: int
    overlap_frames: int = 0

    def __post_init__(self) -> None:
        for name, low in (("frame_tokens", 1), ("chunk_frames", 1), ("overlap_frames", 0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < low:
                raise ValueError(f"{name} must be an integer of at least {low}, got {number!r}")

    def boundaries(self, tokens: int) -> list[tuple[int, int, int]]:
        """Return (first softmax key, first query, end) of every chunk; keys before the first are linear."""
        step = self.chunk_frames * self.frame_tokens
        overlap = self.overlap_frames * self.frame_tokens
        return [
            (max(first - overlap, 0), first, min(first + step, tokens)) for first in range(0, tokens, step)
        ]

    def linear_tokens(self, tokens: int) -> tuple[int, int]:
        """Return (first query with linear keys, number of linear keys): only these need features."""
        boundaries = self.boundaries(tokens)
        first_reader = next((first for far, first, _ in boundaries if far), tokens)
        return first_reader, boundaries[-1][0]


def check_choice(name: str, choice: str, options: tuple[str, ...]) -> None:
    """Raise ValueError unless ``choice`` is one of ``options``."""
    if choice not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {choice!r}")


def check_rate(rate: int | None) -> None:
    """Raise ValueError unless ``rate`` is None (linear) or a whole number of at least 1."""
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int) or rate < 1):
        raise ValueError(f"rate must be None (linear) or a whole number of at least 1, got {rate!r}")


def check_query_key_value(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ValueError unless query [B, N, H, D] and key, value [B, M, H, D] fit together."""
    if query.dim() != 4 or min(query.shape) < 1:
        raise ValueError(
            f"query must be [batch, tokens, heads, head_dim], none of them 0, got {list(query.shape)}"
        )
    if not query.is_floating_point():
        raise ValueError(f"query must be floating point, got {query.dtype}")
    for name, tensor in (("key", key), ("value", value)):
        batch, _, heads, head_dim = query.shape
        if tensor.dim() != 4 or (*tensor.shape[:1], *tensor.shape[2:]) != (batch, heads, head_dim):
            raise ValueError(f"{name} must be {[batch, 'tokens', heads, head_dim]}, got {list(tensor.shape)}")
        if tensor.shape[1] < 1 or tensor.shape[1] != key.shape[1]:
            raise ValueError(
                f"key and value must have the same tokens, got {key.shape[1]} and {tensor.shape[1]}"
            )
        if tensor.dtype != query.dtype:
            raise ValueError(f"{name} must have the dtype of query {query.dtype}, got {tensor.dtype}")
        if tensor.device != query.device:
            raise ValueError(f"{name} must be on the device of query {query.device}, got {tensor.device}")


def check_features(
    query: Tensor,
    key: Tensor,
    query_features: Tensor | None,
    key_features: Tensor | None,
    *,
    needed: tuple[int, int],
) -> None:
    """Raise ValueError unless the features are [B, tokens, H, F] for this query and key, dtype and device.

    ``needed``: how many of the queries and of the keys take part in the linear branch; features of these
    alone are accepted too.
    """
    if query_features is None or key_features is None:
        raise ValueError("query_features and key_features are needed unless rate is 1, got None")
    for name, features, tokens, fewest in (
        ("query_features", query_features, query, needed[0]),
        ("key_features", key_features, key, needed[1]),
    ):
        batch, count, heads, _ = tokens.shape
        fits = features.dim() == 4 and (features.shape[0], features.shape[2]) == (batch, heads)
        if not fits or features.shape[1] not in (count, fewest) or features.shape[3] < 1:
            raise ValueError(f"{name} must be {[*tokens.shape[:3], 'features']}, got {list(features.shape)}")
        if features.dtype != query.dtype:
            raise ValueError(f"{name} must have the dtype of query {query.dtype}, got {features.dtype}")
        if features.device != query.device:
            raise ValueError(f"{name} must be on the device of query {query.device}, got {features.device}")
    if query_features.shape[3] != key_features.shape[3]:
        raise ValueError(
            "query_features and key_features must have the same number of features, got "
            f"{query_features.shape[3]} and {key_features.shape[3]}"
        )


def check_maps(query: Tensor, query_map: MapParameters, key_map: MapParameters) -> None:
    """Raise ValueError unless both maps fit the heads, head dimension and device of ``query``."""
    heads, head_dim = query.shape[2:]
    for name, parameters in (("query_map", query_map), ("key_map", key_map)):
        if (parameters.num_heads, parameters.head_dim) != (heads, head_dim):
            raise ValueError(
                f"{name} must be for {heads} heads of {head_dim}, got {parameters.num_heads} of "
                f"{parameters.head_dim}"
            )
        if any(tensor.device != query.device for tensor in parameters.tensors):
            raise ValueError(f"{name} must be on the device of query {query.device}")
    if query_map.num_features != key_map.num_features:
        raise ValueError(
            "query_map and key_map must have the same number of features, got "
            f"{query_map.num_features} and {key_map.num_features}"
        )


def check_operator(rate: int | None, stabilizer: str, impl: str) -> None:
    """Raise ValueError unless the three options of a hybrid operator are known."""
    check_rate(rate)
    check_choice("stabilizer", stabilizer, get_args(Stabilizer))
    check_choice("impl", impl, get_args(Impl))
