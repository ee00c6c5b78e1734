"""Describe a scene of the procedural world: typed attributes, how they are drawn, and which are held out.

Knows nothing of pixels, words or positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from workbench.errors import InputError

Shape = Literal["ball", "cube", "cylinder", "cone", "ring", "diamond"]
Colour = Literal["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
Size = Literal["small", "big"]
Motion = Literal["still", "left", "right", "rise", "sink", "bounce", "orbit", "spin", "grow", "shrink"]
Texture = Literal["plain", "striped", "checked"]
Relation = Literal["left of", "right of", "behind", "in front of", "orbiting"]
Background = Literal["studio", "desert", "meadow", "tiles", "sunset", "night", "clouds", "sea"]
Camera = Literal["static", "pan left", "pan right"]
Split = Literal["train", "held-out"]
Option = TypeVar("Option")

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
TEXTURES: tuple[Texture, ...] = get_args(Texture)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
BACKGROUNDS: tuple[Background, ...] = get_args(Background)
CAMERAS: tuple[Camera, ...] = get_args(Camera)
PANNABLE: tuple[Background, ...] = ("desert", "meadow", "tiles", "sunset", "night")
"""Backgrounds with fixed landmarks, in which a panning camera can be seen."""

ROUND: tuple[Shape, ...] = ("ball", "cylinder", "cone")
"""Solids of revolution: a spin about the vertical shows only in their texture."""

PAIR_SHARE = 0.34
"""Share of scenes with two objects, unless asked otherwise."""

IN_PLACE: tuple[Motion, ...] = ("still", "bounce", "spin", "rise", "sink", "grow", "shrink")


@dataclass(frozen=True)
class Solid:
    """One object. A growing solid starts small and a shrinking one big, whatever `size` says."""

    shape: Shape
    colour: Colour
    size: Size = "big"
    motion: Motion = "still"
    texture: Texture = "plain"


@dataclass(frozen=True)
class Scene:
    """What a clip shows.

    Attributes:
        objects: One or two solids of different colours; the relation reads "first … second".
        relation: None for one object. "orbiting" goes with the motion "orbit" of the first.
        background: Ground and sky.
        camera: A pan needs a background in `PANNABLE`.
        seed: Fixes all nuisance parameters: places, light, pace, exact tints.

    Raises:
        InputError: when the attributes do not fit together.
    """

    objects: tuple[Solid, ...]
    relation: Relation | None
    background: Background
    camera: Camera
    seed: int

    def __post_init__(self) -> None:
        """Refuse combinations that cannot be shown."""
        if len(self.objects) not in (1, 2):
            raise InputError(f"A scene holds one or two objects, not {len(self.objects)}; remove or add one.")
        if (self.relation is None) != (len(self.objects) == 1):
            raise InputError(
                "A relation needs two objects and two objects need a relation; give both or neither."
            )
        if self.camera != "static" and self.background not in PANNABLE:
            raise InputError(
                f"A pan cannot be seen before '{self.background}'; choose one of {', '.join(PANNABLE)}."
            )
        if len(self.objects) == 2:
            self._check_pair()

    def _check_pair(self) -> None:
        first, second = self.objects
        if first.colour == second.colour:
            raise InputError(
                f"Two objects need two colours, but both are {first.colour}; change one of them."
            )
        if (self.relation == "orbiting") != (first.motion == "orbit"):
            raise InputError(
                "The relation 'orbiting' and the motion 'orbit' of the first object go together."
            )
        if second.motion not in IN_PLACE:
            raise InputError(
                f"The second object moves in place ({', '.join(IN_PLACE)}), not '{second.motion}'."
            )


def held_out_triple(solid: Solid) -> bool:
    """Whether this (shape, colour, motion) is kept out of training.

    A Latin square: shape + 3 · colour + 5 · motion ≡ 0 (mod 8) over the positions in `SHAPES`, `COLOURS`
    and `MOTIONS`. For every shape and motion exactly one colour of eight is held out, so that every
    single attribute, and every pair of them, is trained on.
    """
    total = SHAPES.index(solid.shape) + 3 * COLOURS.index(solid.colour) + 5 * MOTIONS.index(solid.motion)
    return total % 8 == 0


def is_held_out(scene: Scene) -> bool:
    """Whether any object of the scene has a held-out (shape, colour, motion); see `held_out_triple`."""
    return any(held_out_triple(solid) for solid in scene.objects)


def sample_scene(rng: np.random.Generator, *, split: Split, pair_share: float = PAIR_SHARE) -> Scene:
    """Draw a scene of one split, with one object or two.

    Args:
        rng: Source of all randomness.
        split: "train" draws only scenes without a held-out triple, "held-out" only scenes whose first
            object has one.
        pair_share: Share of scenes with two objects.
    """
    if split not in get_args(Split):
        raise InputError(f"Unknown split '{split}'; expected one of {', '.join(get_args(Split))}.")
    relation: Relation | None = None
    if rng.random() < pair_share:
        relation = _pick(rng, RELATIONS)
    first = _sample_first(rng, relation, held_out=split == "held-out")
    objects: tuple[Solid, ...] = (first,)
    if relation is not None:
        objects = (first, _sample_second(rng, relation, first, allow_held_out=split == "held-out"))
    camera: Camera = "static"
    background = _pick(rng, BACKGROUNDS)
    if relation != "orbiting" and first.motion != "orbit" and rng.random() < 0.2:
        camera = _pick(rng, CAMERAS[1:])
        background = _pick(rng, PANNABLE)
    return Scene(objects, relation, background, camera, int(rng.integers(2**31)))


def _pick(rng: np.random.Generator, options: tuple[Option, ...]) -> Option:
    return options[int(rng.integers(len(options)))]


def _sample_first(rng: np.random.Generator, relation: Relation | None, *, held_out: bool) -> Solid:
    motions: tuple[Motion, ...] = MOTIONS
    if relation == "orbiting":
        motions = ("orbit",)
    elif relation in ("left of", "right of"):
        motions = IN_PLACE
    elif relation is not None:
        motions = (*IN_PLACE, "left", "right", "left", "right")
    while True:
        motion = _pick(rng, motions)
        passing = relation is not None and motion in ("left", "right", "orbit")
        solid = _solid(rng, "small" if passing else _pick(rng, SIZES), motion)
        if held_out_triple(solid) == held_out:
            return solid


def _sample_second(
    rng: np.random.Generator, relation: Relation, first: Solid, *, allow_held_out: bool
) -> Solid:
    while True:
        motion: Motion = "still"
        if relation != "orbiting" and rng.random() < 0.4:
            motion = _pick(rng, IN_PLACE)
        size = _pick(rng, SIZES)
        passing = relation == "behind" and first.motion in ("left", "right")
        if passing or (relation in ("left of", "right of") and _reaches_big(first)):
            size, motion = "small", motion if motion not in ("grow", "shrink") else "still"
        solid = _solid(rng, size, motion)
        if solid.colour != first.colour and (allow_held_out or not held_out_triple(solid)):
            return solid


def _reaches_big(solid: Solid) -> bool:
    return solid.size == "big" or solid.motion in ("grow", "shrink")


def _solid(rng: np.random.Generator, size: Size, motion: Motion) -> Solid:
    shape = _pick(rng, SHAPES)
    texture: Texture = "plain"
    if (motion == "spin" and shape in ROUND) or rng.random() < 0.3:
        texture = _pick(rng, TEXTURES[1:])
    if motion in ("grow", "shrink"):
        size = "small" if motion == "grow" else "big"
    return Solid(shape, _pick(rng, COLOURS), size, motion, texture)
