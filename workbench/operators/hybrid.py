"""Hybrid attention of Attention Surgery and its linear limit: spec, cost and module.

Every R-th token keeps softmax, all others go through the feature maps (arXiv 2509.24899). The formula
itself is in `kernels.hybrid_attention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from kernels.hybrid_attention import hybrid_attention, hybrid_attention_from_maps, resolve_impl
from kernels.hybrid_attention.sdpa import linear_tokens, merge_with_softmax
from workbench.operators.feature_maps import AnyFeatureMapSpec, FeatureMapSpec, PolynomialSpec
from workbench.operators.flops import AttentionFlops, HeadShape, dense_core
from workbench.operators.module import FeatureOperator
from workbench.operators.softmax import softmax_attention
from workbench.types import StrictModel, TokenGrid

if TYPE_CHECKING:
    from workbench.operators.context import BlockContext

Stabilizer = Literal["lse", "rowmax"]


class HybridSpec(StrictModel):
    """Softmax over tokens 0, R, 2R, ... and linear attention over the others, in one normalised sum.

    Attributes:
        rate: R, at least 2; 1 would be softmax and `linear` has its own spec.
        stabilizer: what the softmax branch is scaled by against the linear one; equal in quality, "lse"
            cheaper.
    """

    kind: Literal["hybrid"] = "hybrid"
    rate: Annotated[int, Field(ge=2)]
    feature_map: FeatureMapSpec = PolynomialSpec()
    stabilizer: Stabilizer = "lse"

    @property
    def needs_training(self) -> bool:
        return True

    @property
    def short(self) -> str:
        return f"R{self.rate}"

    def flops(self, grid: TokenGrid, shape: HeadShape) -> AttentionFlops:
        """Return 4 N N_S d, the maps on N queries and N_L keys, and the state of N_L keys read by N
        queries.
        """
        tokens = grid.num_tokens
        kept = -(-tokens // self.rate)
        return _linear_flops(self.feature_map, tokens, tokens - kept, shape)._replace(
            softmax=dense_core(tokens, kept, shape)
        )


class LinearSpec(StrictModel):
    """Linear attention over all tokens: no softmax at all."""

    kind: Literal["linear"] = "linear"
    feature_map: FeatureMapSpec = PolynomialSpec()

    @property
    def needs_training(self) -> bool:
        return True

    @property
    def short(self) -> str:
        return "linear"

    def flops(self, grid: TokenGrid, shape: HeadShape) -> AttentionFlops:
        """Return the maps on N queries and N keys, and the state of N keys read by N queries."""
        return _linear_flops(self.feature_map, grid.num_tokens, grid.num_tokens, shape)


def _linear_flops(
    feature_map: AnyFeatureMapSpec, queries: int, keys: int, shape: HeadShape
) -> AttentionFlops:
    features = feature_map.num_features(shape.head_dim)
    return AttentionFlops(
        softmax=0.0,
        feature_maps=feature_map.flops_per_token(shape) * (queries + keys),
        linear=2.0 * shape.num_heads * features * shape.head_dim * (queries + keys),
    )


class HybridAttention(FeatureOperator):
    """The operator of `HybridSpec` and `LinearSpec`."""

    def __init__(
        self, spec: HybridSpec | LinearSpec, shape: HeadShape, *, generator: torch.Generator
    ) -> None:
        super().__init__(spec.feature_map, shape, generator=generator)
        self.spec = spec
        self.rate = spec.rate if isinstance(spec, HybridSpec) else None
        self.stabilizer: Stabilizer = spec.stabilizer if isinstance(spec, HybridSpec) else "lse"

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, context: BlockContext) -> Tensor:
        """Attend; all tensors [B, N, H, D]. With the linear branch off only the kept tokens are attended
        to.
        """
        query, key = query.to(value.dtype), key.to(value.dtype)
        if self.impl == "diffusers" and self.rate is not None:
            return self._around_diffusers(query, key, value, context)
        if not self.linear_branch:
            if self.rate is None:
                return torch.zeros_like(value)
            nothing = query.new_zeros(*query.shape[:3], 1)
            return self._attend(query, key, value, nothing, nothing)
        query_map, key_map = self.query_map(None), self.key_map(None)
        if query_map is None or key_map is None:
            key_features = self.key_map(linear_tokens(key, self.rate))
            return self._attend(query, key, value, self.query_map(query), key_features)
        return hybrid_attention_from_maps(
            query, key, value, query_map, key_map,
            rate=self.rate, stabilizer=self.stabilizer, impl=self.kernel_impl,
        )  # fmt: skip

    def _around_diffusers(self, query: Tensor, key: Tensor, value: Tensor, context: BlockContext) -> Tensor:
        if (obstacle := self.obstacle()) is not None:
            raise ValueError(obstacle)
        kept, backend = slice(None, None, self.rate), context.attention_backend
        output = softmax_attention(query, key[:, kept], value[:, kept], backend=backend)
        if not self.linear_branch:
            return output
        features = self.query_map(query), self.key_map(linear_tokens(key, self.rate))
        return merge_with_softmax(output, *features, linear_tokens(value, self.rate))

    def obstacle(self) -> str | None:
        if self.impl != "diffusers" or self.stabilizer == "lse":
            return None
        return (
            "With the stabilizer 'rowmax' a hybrid needs the log-sum-exp of its softmax, which the attention "
            "backends of diffusers do not return; choose impl 'auto'."
        )

    @property
    def has_kernel(self) -> bool:
        """Whether `kernels` evaluates the feature maps itself, for any subset of the queries."""
        return self.query_map(None) is not None and self.key_map(None) is not None

    def implementation(self, query: Tensor) -> str:
        if self.impl == "diffusers" and self.rate is not None:
            return self.impl
        return resolve_impl(query, rate=self.rate, impl=self.kernel_impl)

    def _attend(self, *tensors: Tensor) -> Tensor:
        return hybrid_attention(*tensors, rate=self.rate, stabilizer=self.stabilizer, impl=self.kernel_impl)
