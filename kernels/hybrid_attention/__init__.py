"""Hybrid softmax and linear attention of Attention Surgery and ReHyAt."""

from kernels.hybrid_attention.api import (
    hybrid_attention,
    hybrid_attention_from_maps,
    rehyat_attention,
    resolve_impl,
)
from kernels.hybrid_attention.feature_map import MapParameters, apply_feature_map, init_map_parameters
from kernels.hybrid_attention.validation import ChunkSpec

__all__ = [
    "ChunkSpec",
    "MapParameters",
    "apply_feature_map",
    "hybrid_attention",
    "hybrid_attention_from_maps",
    "init_map_parameters",
    "rehyat_attention",
    "resolve_impl",
]
