"""One head, refitted in a second or two: what rate, degree and width do to its attention row.

The fit sees only queries and keys that a capture kept. Its target is the softmax row itself: values are drawn
at random at every update, so that the mean squared error of the outputs is, in expectation, that of the rows.
It shows what a feature map can do for one head; a cell of the bank is distilled on real values of many clips.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.hybrid_attention import hybrid_attention
from kernels.hybrid_attention.sdpa import linear_tokens
from workbench.capture import Capture
from workbench.distillation.cells import MATRIX_RATE, Turned, matrices_of
from workbench.distillation.implied import implied_rows
from workbench.errors import InputError
from workbench.operators import HybridSpec, LinearSpec, PolynomialSpec, build
from workbench.operators.hybrid import HybridAttention

UPDATES = 160
SECONDS = 2.0
QUERIES = 128
"""Queries an update trains on, and those of the held-out error."""
LEAST_UPDATES = 40
LEARNING_RATE = 1e-2
HELD_OUT_STRIDE = 5
"""Every so many-th query is never trained on."""


@dataclass(frozen=True)
class OneHead:
    """The shape of a single head, as operators want it."""

    head_dim: int
    num_heads: int = 1


@dataclass(frozen=True)
class HeadFit:
    """Feature maps fitted to one head.

    Attributes:
        spec: operator of the fit.
        error: distance of implied and softmax rows, mean over held-out queries: half the absolute
            differences summed over keys, so the share of attention that lies elsewhere, 0 to 1.
        error_off: the same with the linear branch off; 1 where there is no other branch.
        denominators: of every query: mass of the linear branch, and 1 for the softmax branch where there is
            one. [tokens]
        losses: by update.
        seconds: that the fit took.
    """

    spec: HybridSpec | LinearSpec
    block: int
    head: int
    error: float
    error_off: float
    denominators: NDArray[np.float32]
    losses: tuple[float, ...]
    seconds: float
    operator: HybridAttention
    query: Tensor
    key: Tensor
    grid: tuple[int, int, int]

    def softmax_row(self, token: int) -> NDArray[np.float32]:
        """Return the head's own row of a query, [T, H, W]."""
        return self._shaped(softmax_rows(self.query[token : token + 1], self.key)[0])

    def implied_row(self, token: int) -> NDArray[np.float32]:
        """Return the row that the fit gives to a query, [T, H, W]; it sums to 1."""
        with torch.no_grad():
            rows = implied_rows(self.operator, _batched(self.query[token : token + 1]), _batched(self.key))
        return self._shaped(rows[0, 0, 0])

    def _shaped(self, row: Tensor) -> NDArray[np.float32]:
        result: NDArray[np.float32] = row.reshape(self.grid).numpy()
        return result


def playground_spec(rate: int | None, *, degree: int = 2, width: int = 2) -> HybridSpec | LinearSpec:
    """Return the operator of three sliders.

    Args:
        rate: R, at least 2; None is linear.
        degree: 1 to 6, the highest power of the features.
        width: 1 to 8, hidden and output width over the head dimension.

    Raises:
        InputError: out of range, named.
    """
    feature_map = PolynomialSpec(degree=degree, width=width)
    return (
        LinearSpec(feature_map=feature_map)
        if rate is None
        else HybridSpec(rate=rate, feature_map=feature_map)
    )


def fit_head(
    capture: Capture,
    spec: HybridSpec | LinearSpec,
    *,
    block: int,
    head: int,
    updates: int = UPDATES,
    seconds: float = SECONDS,
    seed: int = 0,
    on_update: Callable[[int, float], None] | None = None,
) -> HeadFit:
    """Fit the feature maps of one head to its softmax rows at the step whose queries and keys were kept.

    Args:
        capture: with queries and keys kept.
        spec: a hybrid or linear operator; see `playground_spec`.
        updates: at most so many.
        seconds: and about so long; on a slow machine or a large clip there are fewer updates, at least 40.
        on_update: hears update and loss.

    Raises:
        InputError: no such block or head, or nothing kept.
    """
    capture.check_place(block, head, 0)
    queries, keys = capture.kept(block)
    query, key = queries[:, head], keys[:, head]
    started = time.monotonic()
    operator = build(spec, OneHead(head_dim=query.shape[1]), seed=seed)
    if not isinstance(operator, HybridAttention):
        raise InputError(f"One head can be fitted as hybrid or linear, not as {spec.kind}.")
    held_out = torch.arange(len(query)) % HELD_OUT_STRIDE == 0
    generator = torch.Generator().manual_seed(seed)
    losses = _train(
        operator,
        query[~held_out],
        key,
        generator=generator,
        updates=updates,
        seconds=seconds,
        on_update=on_update,
    )
    judged = query[held_out][:: max(1, int(held_out.sum()) // QUERIES)]
    with torch.no_grad():
        target = softmax_rows(judged, key)
        implied = implied_rows(operator, _batched(judged), _batched(key))[0, :, 0]
        masses = _denominators(operator, query, key)
    return HeadFit(
        spec=spec,
        block=block,
        head=head,
        error=_elsewhere(implied, target),
        error_off=_elsewhere(_kept_rows(judged, key, operator.rate), target),
        denominators=masses.numpy(),
        losses=losses,
        seconds=time.monotonic() - started,
        operator=operator,
        query=query,
        key=key,
        grid=capture.manifest.grid,
    )


def softmax_rows(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention rows of queries [M, D] over keys [N, D], [M, N]."""
    return torch.softmax(query @ key.T / math.sqrt(query.shape[1]), dim=1)


def _train(
    operator: HybridAttention,
    query: Tensor,
    key: Tensor,
    *,
    generator: torch.Generator,
    updates: int,
    seconds: float,
    on_update: Callable[[int, float], None] | None,
) -> tuple[float, ...]:
    matrices = matrices_of(operator)
    turned = Turned(matrices)
    chosen_ids = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in operator.parameters() if id(parameter) not in chosen_ids]
    optimizer = torch.optim.AdamW(rest, lr=LEARNING_RATE, weight_decay=0.0)
    losses: list[float] = []
    ends = math.inf
    for update in range(updates):
        if update == 1:  # the first one also loads what the process never needed before
            ends = time.monotonic() + seconds
        if time.monotonic() > ends and update >= LEAST_UPDATES:
            break
        rate = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * update / updates))
        optimizer.param_groups[0]["lr"] = rate
        chosen = query[torch.randint(len(query), (QUERIES,), generator=generator)]
        value = torch.randn(key.shape, generator=generator)
        target = softmax_rows(chosen, key) @ value
        output = hybrid_attention(
            _batched(chosen),
            _batched(key),
            _batched(value),
            operator.query_map(_batched(chosen)),
            operator.key_map(_batched(key)),
            rate=operator.rate,
            stabilizer=operator.stabilizer,
        )
        loss = (output[0, :, 0] - target).square().mean() / target.square().mean()
        operator.zero_grad()
        loss.backward()
        turned.step(MATRIX_RATE * rate)
        optimizer.step()
        losses.append(float(loss.detach()))
        if on_update is not None:
            on_update(update, losses[-1])
    return tuple(losses)


def _denominators(operator: HybridAttention, query: Tensor, key: Tensor) -> Tensor:
    """Return what every query's row is divided by, [N]."""
    features = linear_tokens(operator.key_map(_batched(key)), operator.rate)
    linear = torch.einsum("bnhf,bhf->n", operator.query_map(_batched(query)), features.sum(dim=1))
    return linear if operator.rate is None else 1 + linear.clamp_min(0)


def _kept_rows(query: Tensor, key: Tensor, rate: int | None) -> Tensor:
    rows = torch.zeros(len(query), len(key))
    if rate is not None:
        rows[:, ::rate] = softmax_rows(query, key[::rate])
    return rows


def _elsewhere(rows: Tensor, target: Tensor) -> float:
    distance = (rows - target).abs().sum(dim=1) / 2
    missing = (1 - rows.sum(dim=1)).abs() / 2
    return float((distance + missing).mean())


def _batched(values: Tensor) -> Tensor:
    """Return [N, D] as [1, N, 1, D]."""
    return values.unsqueeze(0).unsqueeze(2)
