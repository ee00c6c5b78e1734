"""ReHyAt, recurrent hybrid attention (arXiv 2601.04342): spec, cost and module.

A chunk of frames attends with softmax to itself and to a few frames before it, and linearly to all earlier
frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from kernels.hybrid_attention import ChunkSpec, rehyat_attention, resolve_impl
from workbench.operators.feature_maps import FeatureMapSpec, PolynomialSpec
from workbench.operators.flops import AttentionFlops, HeadShape, dense_core
from workbench.operators.module import FeatureOperator
from workbench.types import StrictModel, TokenGrid

if TYPE_CHECKING:
    from workbench.operators.context import BlockContext


class RehyatSpec(StrictModel):
    """Chunks of T_c latent frames with T_o frames of overlap.

    Attributes:
        chunk_frames: T_c.
        overlap_frames: T_o.
    """

    kind: Literal["rehyat"] = "rehyat"
    chunk_frames: Annotated[int, Field(ge=1)]
    overlap_frames: Annotated[int, Field(ge=0)] = 0
    feature_map: FeatureMapSpec = PolynomialSpec()

    @property
    def needs_training(self) -> bool:
        return True

    @property
    def short(self) -> str:
        return f"T{self.chunk_frames}o{self.overlap_frames}"

    def chunks(self, grid: TokenGrid) -> ChunkSpec:
        """Return the chunking of a token grid."""
        return ChunkSpec(grid.height * grid.width, self.chunk_frames, self.overlap_frames)

    def flops(self, grid: TokenGrid, shape: HeadShape) -> AttentionFlops:
        """Return softmax per chunk, the maps on the tokens that need them, and each far key added once."""
        chunks, tokens = self.chunks(grid), grid.num_tokens
        softmax = sum(
            dense_core(end - first, end - first_key, shape)
            for first_key, first, end in chunks.boundaries(tokens)
        )
        first_reader, far = chunks.linear_tokens(tokens)
        reading = tokens - first_reader
        features = self.feature_map.num_features(shape.head_dim)
        return AttentionFlops(
            softmax=softmax,
            feature_maps=self.feature_map.flops_per_token(shape) * (reading + far),
            linear=2.0 * shape.num_heads * features * shape.head_dim * (reading + far),
        )


class RehyatAttention(FeatureOperator):
    """The operator of `RehyatSpec`."""

    def __init__(self, spec: RehyatSpec, shape: HeadShape, *, generator: torch.Generator) -> None:
        super().__init__(spec.feature_map, shape, generator=generator)
        self.spec = spec

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, context: BlockContext) -> Tensor:
        """Attend; all tensors [B, N, H, D], tokens frame-major on `context.grid`."""
        if (obstacle := self.obstacle()) is not None:
            raise ValueError(obstacle)
        query, key = query.to(value.dtype), key.to(value.dtype)
        chunks = self.spec.chunks(context.grid)
        first_reader, far = chunks.linear_tokens(query.shape[1])
        features = (None, None)
        if self.linear_branch and far:
            features = (self.query_map(query[:, first_reader:]), self.key_map(key[:, :far]))
        return rehyat_attention(query, key, value, *features, chunks=chunks, impl=self.kernel_impl)

    def obstacle(self) -> str | None:
        if self.impl != "diffusers":
            return None
        return "ReHyAt computes its softmax chunk by chunk and cannot follow diffusers; choose impl 'auto'."

    def implementation(self, query: Tensor) -> str:
        return resolve_impl(query, rate=2, impl=self.kernel_impl)
