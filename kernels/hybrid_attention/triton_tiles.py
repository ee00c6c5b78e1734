"""Which shapes the Triton kernels take, and the tiles they use on each generation of GPU.

Only sm_90 was timed. The other rows are chosen by shared memory and registers and checked by compiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIN_WIDTH, MAX_WIDTH = 16, 256


@dataclass(frozen=True)
class Tiles:
    """Hold block sizes of one kernel: tokens, hidden chunk, features; warps; pipeline stages."""

    tokens: int
    hidden: int
    features: int
    warps: int
    stages: int
    resident: bool = False

    def fit(self, *, hidden: int, features: int) -> Tiles:
        """Shrink the blocks to the widths of a smaller map."""
        return Tiles(
            self.tokens,
            min(self.hidden, hidden),
            min(self.features, features),
            self.warps,
            self.stages,
            self.resident,
        )


@dataclass(frozen=True)
class GradientPlan:
    """Say how a map is differentiated.

    ``one_pass`` takes the kernel of ``triton_one_pass`` for a map (with ``TileSet.one_pass``) in the place of
    that of ``triton_backward``; ``split_products`` sums over tokens in split programs in the place of torch's
    batched matrix products.
    """

    one_pass: bool = False
    split_products: bool = False


@dataclass(frozen=True)
class TileSet:
    """Hold the tiles of the state kernel, of the apply kernel and of the backward of a map.

    ``products`` are the tokens, rows (``hidden``) and columns (``features``) of a tile of the split products.
    """

    state: Tiles
    apply: Tiles
    backward: Tiles
    one_pass: Tiles
    products: Tiles
    gradients: GradientPlan = GradientPlan()

    @classmethod
    def from_json(cls, data: dict[str, dict[str, Any]]) -> TileSet:
        """Read what ``dataclasses.asdict`` wrote."""
        tiles = {name: Tiles(**fields) for name, fields in data.items() if name != "gradients"}
        return cls(**tiles, gradients=GradientPlan(**data.get("gradients", {})))


HOPPER = TileSet(
    state=Tiles(tokens=128, hidden=64, features=128, warps=8, stages=2),
    apply=Tiles(tokens=128, hidden=64, features=256, warps=8, stages=2),
    backward=Tiles(tokens=64, hidden=64, features=64, warps=4, stages=2),
    one_pass=Tiles(tokens=64, hidden=256, features=32, warps=8, stages=3),
    products=Tiles(tokens=64, hidden=128, features=128, warps=4, stages=3),
    gradients=GradientPlan(split_products=True),
)
AMPERE_DATACENTER = TileSet(
    state=Tiles(tokens=64, hidden=32, features=128, warps=8, stages=2),
    apply=Tiles(tokens=64, hidden=32, features=128, warps=8, stages=2),
    backward=Tiles(tokens=64, hidden=64, features=64, warps=8, stages=2),
    one_pass=Tiles(tokens=32, hidden=256, features=32, warps=4, stages=1),
    products=Tiles(tokens=32, hidden=128, features=128, warps=8, stages=3),
)
CONSUMER = TileSet(
    state=Tiles(tokens=64, hidden=32, features=64, warps=4, stages=1),
    apply=Tiles(tokens=64, hidden=32, features=64, warps=4, stages=1),
    backward=Tiles(tokens=64, hidden=32, features=32, warps=4, stages=2),
    one_pass=Tiles(tokens=32, hidden=256, features=32, warps=4, stages=1),
    products=Tiles(tokens=32, hidden=128, features=64, warps=4, stages=3),
)
_SMALL = Tiles(tokens=32, hidden=32, features=32, warps=4, stages=1)
FULL_PRECISION = TileSet(state=_SMALL, apply=_SMALL, backward=_SMALL, one_pass=_SMALL, products=_SMALL)
TILES_BY_CAPABILITY = {
    80: AMPERE_DATACENTER,
    86: CONSUMER,
    89: CONSUMER,
    90: HOPPER,
    120: CONSUMER,
}


def linear_indexing(rate: int) -> tuple[int, int]:
    """Return (group, skip): linear key i is token i + skip * (i // group + 1). Rate 0 keeps no key."""
    return (rate - 1, 1) if rate > 1 else (1, 0)


def tiles_for(capability: int) -> TileSet:
    """Return the tiles for a compute capability such as 90; an unknown one gets those of consumer cards."""
    return TILES_BY_CAPABILITY.get(capability, CONSUMER)


def is_width(number: int) -> bool:
    """Say whether a width is a power of two that the kernels take."""
    return MIN_WIDTH <= number <= MAX_WIDTH and number & (number - 1) == 0


def why_not(*, head_dim: int, hidden: int | None, features: int) -> str | None:
    """Return why these widths cannot run, or None."""
    for name, number in (("head_dim", head_dim), ("hidden width", hidden), ("features", features)):
        if number is not None and not is_width(number):
            return f"{name} must be a power of two from {MIN_WIDTH} to {MAX_WIDTH}, got {number}"
    return None if head_dim <= 128 else f"head_dim must be at most 128, got {head_dim}"
