"""Base of the operators that replace softmax: a module that lives inside a self-attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from workbench.operators.feature_maps import AnyFeatureMapSpec, build_feature_map
from workbench.operators.flops import HeadShape

if TYPE_CHECKING:
    from workbench.operators.context import BlockContext

Impl = Literal["auto", "reference", "sdpa", "triton", "diffusers"]
KernelImpl = Literal["auto", "reference", "sdpa", "triton"]


class AttentionOperator(nn.Module):
    """Query, key and value [B, N, H, D] of one self-attention in, its result [B, N, H, D] out.

    Attributes:
        impl: implementation that `kernels` is asked for; "auto" lets it choose. "diffusers" lets the softmax
            inside a hybrid follow the attention backend of diffusers; `obstacle` says where that cannot be.
        linear_branch: whether linear attention takes part; off is the ablation "softmax over kept tokens
            only".
    """

    impl: Impl = "auto"
    linear_branch: bool = True

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, context: BlockContext) -> Tensor:
        raise NotImplementedError

    def obstacle(self) -> str | None:
        """Return why `impl` cannot be had here, in a sentence, or None."""
        return None

    @property
    def kernel_impl(self) -> KernelImpl:
        """What `kernels` is asked for where the softmax does not follow diffusers."""
        return "auto" if self.impl == "diffusers" else self.impl

    def implementation(self, query: Tensor) -> str:
        """Name what runs for a query [B, N, H, D] of this dtype, device and shape."""
        raise NotImplementedError


class FeatureOperator(AttentionOperator):
    """An operator with one feature map for queries and one for keys."""

    spec: Any

    def __init__(
        self, feature_map: AnyFeatureMapSpec, shape: HeadShape, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.query_map = build_feature_map(feature_map, shape, generator=generator)
        self.key_map = build_feature_map(feature_map, shape, generator=generator)
