"""What every head does, in numbers and one word: local, temporal, global or first frame.

The thresholds are stated here and go into the profile. Knows captures, not models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from workbench.capture import METRICS, Capture

HeadKind = Literal["local", "temporal", "global", "first frame"]
KINDS: tuple[HeadKind, ...] = get_args(HeadKind)

FIRST_FRAME_SHARE = 0.4
"""A head with at least this mass on the first frame is a "first frame" head (uniform attention has 1 / T)."""
NEAR_SHARE = 0.4
"""A head with at least this mass near the token in the picture is "local" or "temporal", else "global"."""
OWN_FRAME_SHARE = 0.5
"""Of these, one with at least this share of all mass in the token's own frame is "local"."""


@dataclass(frozen=True)
class HeadProfile:
    """Numbers of one head, means over the captured steps and branches; masses are shares of 1.

    Attributes:
        entropy: in nats; `normalized_entropy` divides by that of uniform attention.
        same_frame: on the token's own frame.
        same_place: on the same place in other frames.
        near: within two tokens in the picture, in any frame.
        first_frame: on frame 0.
        entropy_by_step: over the captured steps.
    """

    block: int
    head: int
    kind: HeadKind
    entropy: float
    normalized_entropy: float
    same_frame: float
    same_place: float
    near: float
    first_frame: float
    by_frame_distance: tuple[float, ...]
    entropy_by_step: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """The profile of a capture.

    Attributes:
        metrics: name to [blocks, heads], means over steps and branches.
        by_step: name to [steps, blocks, heads], means over branches.
        by_branch: name to [branches, blocks, heads], means over steps.
        uniform: what uniform attention would have, by name.
    """

    num_blocks: int
    num_heads: int
    steps: tuple[int, ...]
    heads: tuple[HeadProfile, ...]
    metrics: dict[str, NDArray[np.float32]]
    by_step: dict[str, NDArray[np.float32]]
    by_branch: dict[str, NDArray[np.float32]]
    uniform: dict[str, float]

    def head(self, block: int, head: int) -> HeadProfile:
        """Return one head."""
        return self.heads[block * self.num_heads + head]

    def counts(self) -> dict[HeadKind, int]:
        """Return how many heads are of each kind, all kinds listed."""
        return {kind: sum(one.kind == kind for one in self.heads) for kind in KINDS}

    def block_mean(self, metric: str) -> NDArray[np.float32]:
        """Return a metric per block, the mean over its heads, [blocks]."""
        result: NDArray[np.float32] = self.metrics[metric].mean(axis=1)
        return result


def profile(capture: Capture) -> Profile:
    """Compute the numbers per block and head from a capture."""
    tensors = capture.tensors
    metrics = {name: tensors[name].mean(dim=(0, 1)).numpy() for name in METRICS}
    by_step = {name: tensors[name].mean(dim=1).numpy() for name in METRICS}
    by_branch = {name: tensors[name].mean(dim=0).numpy() for name in METRICS}
    by_distance = tensors["by_frame_distance"].mean(dim=(0, 1)).numpy()
    heads = tuple(
        HeadProfile(
            block=block,
            head=head,
            kind=classify({name: float(values[block, head]) for name, values in metrics.items()}),
            by_frame_distance=tuple(float(value) for value in by_distance[block, head]),
            entropy_by_step=tuple(float(value) for value in by_step["entropy"][:, block, head]),
            **{name: float(values[block, head]) for name, values in metrics.items()},
        )
        for block in range(capture.num_blocks)
        for head in range(capture.num_heads)
    )
    return Profile(
        num_blocks=capture.num_blocks,
        num_heads=capture.num_heads,
        steps=capture.manifest.steps,
        heads=heads,
        metrics=metrics,
        by_step=by_step,
        by_branch=by_branch,
        uniform=_uniform(capture),
    )


def classify(numbers: dict[str, float]) -> HeadKind:
    """Name what a head does from its masses, by the thresholds of this module."""
    if numbers["first_frame"] >= FIRST_FRAME_SHARE:
        return "first frame"
    if numbers["near"] < NEAR_SHARE:
        return "global"
    return "local" if numbers["same_frame"] >= OWN_FRAME_SHARE else "temporal"


def _uniform(capture: Capture) -> dict[str, float]:
    grid = capture.grid
    tokens = grid.num_tokens
    return {
        "entropy": float(np.log(tokens)),
        "normalized_entropy": 1.0,
        "same_frame": 1 / grid.frames,
        "same_place": (grid.frames - 1) / tokens,
        "first_frame": 1 / grid.frames,
    }
