"""Feature maps: how a query or a key becomes the features of the linear branch. A spec and a module each.

The published polynomial map is evaluated by `kernels`; the maps that only an ablation needs are written here.
All maps end in a learned scale per head that starts small: a new hybrid then begins where the linear
branch is off, and distils to a lower error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.hybrid_attention import MapParameters, apply_feature_map
from kernels.hybrid_attention.feature_map import ACTIVATIONS
from workbench.operators.flops import HeadShape
from workbench.types import StrictModel

KERNEL_POSITIVITIES = ("relu", "softplus", "square", "none")
KERNEL_DEGREE = 3
StartScale = Annotated[float, Field(gt=0, le=10)]


class PolynomialSpec(StrictModel):
    """The map of Attention Surgery (arXiv 2509.24899, section 3): a per-head MLP, output parts to powers.

    Attributes:
        layers: affine layers per head.
        degree: P; output part p of P is raised to the power p.
        width: hidden and output width as a multiple of the head dimension.
        activation: between the layers.
        positivity: after the last layer, before the powers.
        start_scale: scale of the features before training.
    """

    kind: Literal["polynomial"] = "polynomial"
    layers: Annotated[int, Field(ge=1, le=4)] = 2
    degree: Annotated[int, Field(ge=1, le=6)] = 2
    width: Annotated[int, Field(ge=1, le=8)] = 2
    activation: Literal["gelu", "silu", "relu"] = "gelu"
    positivity: Literal["relu", "softplus", "square", "elu", "exp", "abs", "none"] = "relu"
    start_scale: StartScale = 0.01

    def widths(self, head_dim: int) -> list[int]:
        """Return the widths per head from input to output."""
        return [head_dim] + [self.width * head_dim] * self.layers

    def num_features(self, head_dim: int) -> int:
        return self.widths(head_dim)[-1]

    def flops_per_token(self, shape: HeadShape) -> float:
        """Return 2 operations for every weight and bias."""
        widths = self.widths(shape.head_dim)
        per_head = sum(before * after + after for before, after in pairwise(widths))
        return 2.0 * shape.num_heads * per_head


class HedgehogSpec(StrictModel):
    """The map of Hedgehog (arXiv 2402.04347): softmax of a learned linear map and of its negation."""

    kind: Literal["hedgehog"] = "hedgehog"
    start_scale: StartScale = 0.01

    def num_features(self, head_dim: int) -> int:
        return 2 * head_dim

    def flops_per_token(self, shape: HeadShape) -> float:
        """Return the operations of the linear map."""
        return 2.0 * shape.num_heads * shape.head_dim * shape.head_dim


class ElementwiseSpec(StrictModel):
    """A fixed elementwise map: elu + 1 (arXiv 2006.16236), ReLU, or an exponential clamped at `clamp`."""

    kind: Literal["elu", "relu", "exp"]
    clamp: Annotated[float, Field(gt=0, le=20)] = 6.0
    start_scale: StartScale = 0.01

    def num_features(self, head_dim: int) -> int:
        return head_dim

    def flops_per_token(self, shape: HeadShape) -> float:
        """Return 0: elementwise work is not counted anywhere in the cost model."""
        return 0.0


FeatureMapSpec = Annotated[PolynomialSpec | HedgehogSpec | ElementwiseSpec, Field(discriminator="kind")]
AnyFeatureMapSpec = PolynomialSpec | HedgehogSpec | ElementwiseSpec


class FeatureMap(nn.Module):
    """Base of the modules: [B, N, H, D] to non-negative features [B, N, H, F] in the same dtype.

    Called without states it returns `kernel_parameters`. Offloading brings the weights to the device around a
    call of their module alone, so who wants them asks by calling it.
    """

    log_scale: nn.Parameter

    def __init__(self, num_heads: int, *, start_scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((num_heads,), math.log(start_scale)))

    def forward(self, states: Tensor | None) -> Any:
        return self.kernel_parameters() if states is None else self.features(states)

    def features(self, states: Tensor) -> Tensor:
        """Return the features of states."""
        raise NotImplementedError

    def kernel_parameters(self) -> MapParameters | None:
        """Return the parameters where `kernels` evaluates this map itself, else None.

        They are views, which stay where they are when offloading takes the parameters away again.
        """
        return None

    def scaled(self, features: Tensor, like: Tensor) -> Tensor:
        """Scale features per head and bring them to the dtype of `like`."""
        return (features * self.log_scale.exp().unsqueeze(-1)).to(like.dtype)


class PolynomialMap(FeatureMap):
    """See `PolynomialSpec`; parameters `weight_i` [H, in, out] and `bias_i` [H, out], i from 1."""

    def __init__(self, spec: PolynomialSpec, shape: HeadShape, *, generator: torch.Generator) -> None:
        super().__init__(shape.num_heads, start_scale=spec.start_scale)
        self.spec = spec
        widths = spec.widths(shape.head_dim)
        for layer, (before, after) in enumerate(pairwise(widths), start=1):
            bound = math.sqrt(3.0 / before)
            weight = torch.empty(shape.num_heads, before, after).uniform_(-bound, bound, generator=generator)
            self.register_parameter(f"weight_{layer}", nn.Parameter(weight))
            self.register_parameter(f"bias_{layer}", nn.Parameter(torch.zeros(shape.num_heads, after)))

    def kernel_parameters(self) -> MapParameters | None:
        spec = self.spec
        if spec.layers != 2 or spec.degree > KERNEL_DEGREE or spec.positivity not in KERNEL_POSITIVITIES:
            return None
        return MapParameters(
            weight_1=_view(self.get_parameter("weight_1")),
            bias_1=_view(self.get_parameter("bias_1")),
            weight_2=_view(self.get_parameter("weight_2")),
            bias_2=_view(self.get_parameter("bias_2")),
            log_scale=_view(self.log_scale),
            degree=spec.degree,
            activation=spec.activation,
            positivity=spec.positivity,  # type: ignore[arg-type]
        )

    def features(self, states: Tensor) -> Tensor:
        parameters = self.kernel_parameters()
        if parameters is not None:
            return apply_feature_map(states, parameters)
        hidden = states
        for layer in range(1, self.spec.layers + 1):
            if layer > 1:
                hidden = ACTIVATIONS[self.spec.activation](hidden)
            weight = self.get_parameter(f"weight_{layer}").to(states.dtype)
            bias = self.get_parameter(f"bias_{layer}").to(states.dtype)
            hidden = torch.einsum("bnhi,hio->bnho", hidden, weight) + bias
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        parts = torch.tensor_split(_positive(wide, self.spec.positivity), self.spec.degree, dim=-1)
        return self.scaled(torch.cat([part**power for power, part in enumerate(parts, 1)], dim=-1), states)


class HedgehogMap(FeatureMap):
    """See `HedgehogSpec`; starts at the identity map."""

    def __init__(self, spec: HedgehogSpec, shape: HeadShape) -> None:
        super().__init__(shape.num_heads, start_scale=spec.start_scale)
        self.weight_1 = nn.Parameter(torch.eye(shape.head_dim).repeat(shape.num_heads, 1, 1))

    def features(self, states: Tensor) -> Tensor:
        mapped = torch.einsum("bnhi,hio->bnho", states, self.weight_1.to(states.dtype))
        wide = mapped.to(torch.promote_types(mapped.dtype, torch.float32))
        return self.scaled(torch.cat([wide.softmax(dim=-1), (-wide).softmax(dim=-1)], dim=-1), states)


class ElementwiseMap(FeatureMap):
    """See `ElementwiseSpec`; only the scale is learned."""

    def __init__(self, spec: ElementwiseSpec, shape: HeadShape) -> None:
        super().__init__(shape.num_heads, start_scale=spec.start_scale)
        self.spec = spec

    def features(self, states: Tensor) -> Tensor:
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        if self.spec.kind == "elu":
            return self.scaled(F.elu(wide) + 1, states)
        if self.spec.kind == "relu":
            return self.scaled(F.relu(wide), states)
        return self.scaled(wide.clamp(max=self.spec.clamp).exp(), states)


def build_feature_map(spec: AnyFeatureMapSpec, shape: HeadShape, *, generator: torch.Generator) -> FeatureMap:
    """Build an untrained map in float32 on the CPU; `generator` makes the draw repeatable."""
    if isinstance(spec, PolynomialSpec):
        return PolynomialMap(spec, shape, generator=generator)
    if isinstance(spec, HedgehogSpec):
        return HedgehogMap(spec, shape)
    return ElementwiseMap(spec, shape)


def _view(parameter: Tensor) -> Tensor:
    return parameter.view_as(parameter)


def _positive(wide: Tensor, positivity: str) -> Tensor:
    choices: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "softplus": F.softplus,
        "square": torch.square,
        "elu": lambda x: F.elu(x) + 1,
        "exp": lambda x: x.clamp(max=10.0).exp(),
        "abs": torch.abs,
        "none": lambda x: x,
    }
    return choices[positivity](wide)
