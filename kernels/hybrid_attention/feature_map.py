"""The feature map phi of Attention Surgery: the one place of its formula, and the parameters it needs.

    phi(x) = exp(log_scale) * [psi_1(x)^1, ..., psi_P(x)^P]
    psi(x) = positivity(activation(x @ weight_1 + bias_1) @ weight_2 + bias_2)        per head

Other maps (Hedgehog, elu + 1, ...) are evaluated by the caller and passed as features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["gelu", "silu", "relu"]
Positivity = Literal["relu", "softplus", "square", "none"]
MAX_DEGREE = 3


def _gelu_(x: Tensor) -> Tensor:
    return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def _silu_(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not x.requires_grad)


# Both tables may overwrite their argument.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": _gelu_, "silu": _silu_, "relu": torch.relu_}
POSITIVITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "softplus": F.softplus,
    "square": torch.square,
    "none": lambda x: x,
}


@dataclass(frozen=True, eq=False)
class MapParameters:
    """Hold the parameters of one two-layer polynomial feature map (Attention Surgery, arXiv 2509.24899).

    Attributes:
        weight_1: [H, D, W1].
        bias_1: [H, W1].
        weight_2: [H, W1, F]; F is the number of features per head.
        bias_2: [H, F].
        log_scale: [H] or scalar; the features are multiplied by its exponential. Start small (log 0.01): the
            hybrid then starts where the linear branch is off and distils to a lower error.
        degree: P in 1..3; output p of P (split as ``torch.tensor_split`` does) is raised to the power p.
        activation: of the hidden layer; ``gelu`` is the exact (erf) form.
        positivity: applied to the output before the powers.

    Raises:
        ValueError: for shapes or names that do not fit together.
    """

    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor
    bias_2: Tensor
    log_scale: Tensor
    degree: int = 2
    activation: Activation = "gelu"
    positivity: Positivity = "relu"

    def __post_init__(self) -> None:
        if self.weight_1.dim() != 3 or self.weight_2.dim() != 3:
            raise ValueError(
                "a feature map needs weight_1 [heads, head_dim, hidden] and weight_2 [heads, hidden, "
                f"features], got {list(self.weight_1.shape)} and {list(self.weight_2.shape)}"
            )
        heads, _, hidden = self.weight_1.shape
        features = self.weight_2.shape[2]
        expected = {
            "bias_1": (heads, hidden),
            "weight_2": (heads, hidden, features),
            "bias_2": (heads, features),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, got {list(getattr(self, name).shape)}")
        if tuple(self.log_scale.shape) not in ((), (heads,)):
            raise ValueError(f"log_scale must be a scalar or [{heads}], got {list(self.log_scale.shape)}")
        if isinstance(self.degree, bool) or self.degree not in range(1, MAX_DEGREE + 1):
            raise ValueError(f"degree must be 1, 2 or 3, got {self.degree!r}")
        if self.degree > features:
            raise ValueError(f"degree {self.degree} needs at least as many features, got {features}")
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {get_args(Activation)}, got {self.activation!r}")
        if self.positivity not in get_args(Positivity):
            raise ValueError(f"positivity must be one of {get_args(Positivity)}, got {self.positivity!r}")

    @property
    def num_heads(self) -> int:
        """Number of heads H."""
        return self.weight_1.shape[0]

    @property
    def head_dim(self) -> int:
        """Head dimension D of the input."""
        return self.weight_1.shape[1]

    @property
    def num_features(self) -> int:
        """Number of features F per head."""
        return self.weight_2.shape[2]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Weights, biases and log scale, in the order of the fields."""
        return self.weight_1, self.bias_1, self.weight_2, self.bias_2, self.log_scale

    @property
    def requires_grad(self) -> bool:
        """Whether any parameter takes a gradient."""
        return any(tensor.requires_grad for tensor in self.tensors)


def init_map_parameters(
    num_heads: int,
    head_dim: int,
    *,
    scale: float = 0.01,
    degree: int = 2,
    generator: torch.Generator | None = None,
) -> MapParameters:
    """Draw the published widths D -> 2D -> 2D with uniform fan-in weights, zero biases and a small scale.

    Returns fp32 tensors on the CPU without gradients. ``generator`` makes the draw repeatable.
    """
    hidden = features = 2 * head_dim

    def uniform(*shape: int) -> Tensor:
        bound = math.sqrt(3.0 / shape[1])
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    return MapParameters(
        weight_1=uniform(num_heads, head_dim, hidden),
        bias_1=torch.zeros(num_heads, hidden),
        weight_2=uniform(num_heads, hidden, features),
        bias_2=torch.zeros(num_heads, features),
        log_scale=torch.full((num_heads,), math.log(scale)),
        degree=degree,
    )


def degree_edges(num_features: int, degree: int) -> list[int]:
    """Return where the parts of the features end, the last one included."""
    whole, extra = divmod(num_features, degree)
    return [part * whole + min(part, extra) for part in range(1, degree + 1)]


def unscaled_features(x: Tensor, parameters: MapParameters) -> Tensor:
    """Evaluate phi without its scale, head by head: [H, B*N, F] in at least fp32, from ``x`` [B, N, H, D]."""
    batch, tokens, heads, head_dim = x.shape
    weight_1, bias_1, weight_2, bias_2 = (tensor.to(x.dtype) for tensor in parameters.tensors[:4])
    rows_HMD = x.permute(2, 0, 1, 3).reshape(heads, batch * tokens, head_dim)
    hidden = ACTIVATIONS[parameters.activation](torch.baddbmm(bias_1.unsqueeze(1), rows_HMD, weight_1))
    psi = torch.baddbmm(bias_2.unsqueeze(1), hidden, weight_2)
    psi = psi.to(torch.promote_types(psi.dtype, torch.float32))
    if psi.requires_grad and parameters.positivity == "relu":
        return ReluPowers.apply(psi, parameters.degree)
    positive = POSITIVITIES[parameters.positivity](psi)
    if parameters.degree == 1:
        return positive
    parts = torch.tensor_split(positive, parameters.degree, dim=2)
    if not positive.requires_grad:
        for power, part in enumerate(parts[1:], start=2):
            part.pow_(power)
        return positive
    return torch.cat([parts[0], *(part**power for power, part in enumerate(parts[1:], start=2))], dim=2)


class ReluPowers(torch.autograd.Function):
    """Parts of relu(psi), psi [..., F], to the powers 1 to degree, as `torch.tensor_split` cuts them.

    Keeps psi alone for the backward, which fills one tensor in place of one for every part.
    """

    @staticmethod
    def forward(ctx: Any, psi: Tensor, degree: int) -> Tensor:
        ctx.save_for_backward(psi)
        ctx.degree = degree
        powers = torch.relu(psi)
        for power, part in enumerate(torch.tensor_split(powers, degree, dim=-1)[1:], start=2):
            part.pow_(power)
        return powers

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (psi,) = ctx.saved_tensors
        slope = torch.relu(psi)
        first, *rest = torch.tensor_split(slope, ctx.degree, dim=-1)
        if torch.is_grad_enabled():
            slopes = [power * part ** (power - 1) for power, part in enumerate(rest, start=2)]
            return grad * torch.cat([(first > 0).to(grad.dtype), *slopes], dim=-1), None
        torch.gt(first, 0, out=first)
        for power, part in enumerate(rest, start=2):
            part.pow_(power - 1).mul_(power)
        return slope.mul_(grad), None


def apply_feature_map(x: Tensor, parameters: MapParameters) -> Tensor:
    """Evaluate phi.

    Args:
        x: [B, N, H, D] queries or keys as the softmax sees them, any floating dtype.
        parameters: cast to the dtype of ``x`` for the two products.

    Returns:
        Features [B, N, H, F] in the dtype of ``x``; positivity, powers and scale run in at least fp32.
    """
    batch, tokens = x.shape[:2]
    features = unscaled_features(x, parameters)
    scale = parameters.log_scale.to(features.dtype).exp().reshape(-1, 1, 1)
    return (features * scale).to(x.dtype).unflatten(1, (batch, tokens)).permute(1, 2, 0, 3)
