"""Which shapes the Triton kernels take, and the tiles they use on each generation of GPU.

Only sm_90 was timed. The other rows are chosen by shared memory and registers and checked by compiling.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class TileSet:
    """Hold the tiles of the state kernel, of the apply kernel and of the backward of a map."""

    state: Tiles
    apply: Tiles
    backward: Tiles


HOPPER = TileSet(
    state=Tiles(tokens=128, hidden=64, features=128, warps=8, stages=2),
    apply=Tiles(tokens=128, hidden=64, features=256, warps=8, stages=2),
    backward=Tiles(tokens=64, hidden=64, features=64, warps=4, stages=2),
)
AMPERE_DATACENTER = TileSet(
    state=Tiles(tokens=64, hidden=32, features=128, warps=8, stages=2),
    apply=Tiles(tokens=64, hidden=32, features=128, warps=8, stages=2),
    backward=Tiles(tokens=64, hidden=64, features=64, warps=8, stages=2),
)
CONSUMER = TileSet(
    state=Tiles(tokens=64, hidden=32, features=64, warps=4, stages=1),
    apply=Tiles(tokens=64, hidden=32, features=64, warps=4, stages=1),
    backward=Tiles(tokens=64, hidden=32, features=32, warps=4, stages=2),
)
FULL_PRECISION = TileSet(*(Tiles(tokens=32, hidden=32, features=32, warps=4, stages=1) for _ in range(3)))
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
