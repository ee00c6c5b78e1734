"""Twins: two scenes that differ in one thing that was asked for, everything else the same.

A model that reads its prompt must tell twins apart; a bag of words cannot tell those whose colours or shapes
are swapped. Used in training, side by side under the same noise, and to measure what a model reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from workbench.models.embedded.world.scene import (
    COLOURS,
    ROUND,
    SHAPES,
    Motion,
    Relation,
    Scene,
    Size,
    Solid,
    is_held_out,
)

Change = Literal["motion", "shape", "colour", "size", "colours swapped", "shapes swapped", "side"]
CHANGES_OF_ONE: tuple[Change, ...] = ("motion", "motion", "shape", "colour", "size")
CHANGES_OF_TWO: tuple[Change, ...] = ("colours swapped", "shapes swapped", "side", "motion")
OPPOSITE: dict[Motion, Motion] = {
    "left": "right",
    "right": "left",
    "rise": "sink",
    "sink": "rise",
    "grow": "shrink",
    "shrink": "grow",
    "still": "bounce",
    "bounce": "rise",
    "orbit": "left",
    "spin": "still",
}
OTHER_SIDE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "behind": "in front of",
    "in front of": "behind",
}


class Twin(NamedTuple):
    """A scene beside another, and what is different."""

    scene: Scene
    change: Change


def twin(scene: Scene, rng: np.random.Generator, *, held_out_too: bool = False) -> Twin | None:
    """Draw a scene that differs from another in one thing; it has the same seed, so the same place and light.

    Args:
        scene: The scene.
        rng: Chooses what changes.
        held_out_too: Whether the twin may have a combination that is held out of training.

    Returns:
        The twin, or None where none of the changes fits.
    """
    offered = CHANGES_OF_ONE if scene.relation is None else CHANGES_OF_TWO
    for index in rng.permutation(len(offered)):
        changed = _changed(scene, offered[index], rng)
        if changed is not None and (held_out_too or not is_held_out(changed)):
            return Twin(changed, offered[index])
    return None


def _changed(scene: Scene, change: Change, rng: np.random.Generator) -> Scene | None:
    first = scene.objects[0]
    if change == "side":
        return _other_side(scene)
    if change in ("colours swapped", "shapes swapped"):
        return _swapped(scene, colours=change == "colours swapped")
    if change == "motion":
        return _other_motion(scene)
    if change == "size":
        if first.motion in ("grow", "shrink"):
            return None
        size: Size = "big" if first.size == "small" else "small"
        return replace(scene, objects=(replace(first, size=size),))
    if change == "shape":
        solid = replace(first, shape=SHAPES[int(rng.integers(len(SHAPES)))])
    else:
        solid = replace(first, colour=COLOURS[int(rng.integers(len(COLOURS)))])
    return None if solid == first or not _visible(solid) else replace(scene, objects=(solid,))


def _visible(solid: Solid) -> bool:
    """Whether the motion shows: a solid of revolution needs a texture to be seen spinning."""
    return not (solid.motion == "spin" and solid.shape in ROUND and solid.texture == "plain")


def _other_side(scene: Scene) -> Scene | None:
    relation = OTHER_SIDE.get(scene.relation) if scene.relation else None
    passing = scene.objects[0].motion in ("left", "right")
    return None if relation is None or passing else replace(scene, relation=relation)


def _swapped(scene: Scene, *, colours: bool) -> Scene | None:
    first, second = scene.objects
    if colours:
        pair = (replace(first, colour=second.colour), replace(second, colour=first.colour))
    else:
        pair = (replace(first, shape=second.shape), replace(second, shape=first.shape))
    different = pair != scene.objects
    return replace(scene, objects=pair) if different and all(map(_visible, pair)) else None


def _other_motion(scene: Scene) -> Scene | None:
    first = scene.objects[0]
    motion = OPPOSITE[first.motion]
    if scene.relation is not None and (first.motion == "orbit" or scene.relation == "orbiting"):
        return None
    size: Size = "small" if motion == "grow" else "big" if motion == "shrink" else first.size
    solid = Solid(first.shape, first.colour, size, motion, first.texture)
    return replace(scene, objects=(solid, *scene.objects[1:])) if _visible(solid) else None
