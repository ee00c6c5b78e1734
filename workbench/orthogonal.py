"""Momentum whose matrices are made orthogonal before they are added (Muon), for a network's inner weights.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; scaled to AdamW's
usual step as in J. Liu et al., "Muon is scalable for LLM training", 2025, so that learning rates carry over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class OrthogonalMomentum(torch.optim.Optimizer):
    """Muon for matrices; equal shapes are worked on together.

    Args:
        parameters: Matrices, [rows, columns] each.
        momentum: Share of the old direction that is kept.
        weight_decay: As in AdamW.
    """

    def __init__(
        self, parameters: Iterable[torch.Tensor], *, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": 1e-3, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the gradients; `closure` is not supported."""
        if closure is not None:
            raise ValueError(
                "OrthogonalMomentum takes its gradients from the parameters, not from a closure."
            )
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for value in group["params"]:
                if value.grad is not None:
                    by_shape.setdefault(value.shape, []).append(value)
            for shape, values in by_shape.items():
                self._move(values, shape, group)

    def _move(self, values: list[torch.Tensor], shape: torch.Size, group: dict[str, Any]) -> None:
        gradients = [value.grad for value in values if value.grad is not None]
        moments = [self.state[value].setdefault("exp_avg", torch.zeros_like(value)) for value in values]
        torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, moments, group["momentum"])
        directions = orthogonalised(torch.stack(list(ahead)))
        step = group["lr"] * 0.2 * max(shape) ** 0.5
        torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(values, list(directions.to(values[0].dtype).unbind(0)), alpha=-step)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices [B, rows, columns] with all singular values near one, by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x.to(torch.bfloat16) if x.is_cuda else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
