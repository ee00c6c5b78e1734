"""Judge whether a clip shows what its prompt asked for, attribute by attribute, from its pixels alone.

The clip is read first (`reading.read_clip`), blind to the prompt; only then is the reading held against the
scene.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Literal

import numpy as np

from workbench.errors import InputError
from workbench.evaluation.reading import ObjectReading, Reading, read_clip, relation_between
from workbench.models.embedded.world import Scene, words
from workbench.models.embedded.world.language import (
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    MOTION_WORDS,
    ORBITING,
    ROLLING,
    SHAPE_WORDS,
    SIZE_WORDS,
)
from workbench.models.embedded.world.scene import Solid

Verdict = Literal["right", "wrong", "undecided"]
ATTRIBUTES = ("shape", "colour", "size", "motion", "background", "count", "camera", "relation")


@dataclass(frozen=True)
class Verdicts:
    """One verdict per attribute; None where the attribute was not asked for."""

    shape: Verdict | None = None
    colour: Verdict | None = None
    size: Verdict | None = None
    motion: Verdict | None = None
    background: Verdict | None = None
    count: Verdict | None = None
    camera: Verdict | None = None
    relation: Verdict | None = None

    def asked(self) -> dict[str, Verdict]:
        """Return the verdicts of what was asked for."""
        return {
            field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None
        }

    @property
    def fully_right(self) -> bool:
        """Whether everything that was asked for is right."""
        return all(verdict == "right" for verdict in self.asked().values())


def judge(frames: np.ndarray, scene: Scene, *, stated: Collection[str] | None = None) -> Verdicts:
    """Judge a clip by a scene.

    Args:
        frames: uint8 [F, H, W, 3].
        scene: What was asked for.
        stated: The attributes (of `ATTRIBUTES`) that the prompt states; by default all that the canonical
            caption states. What the scene does not have (a relation of one object) is never judged.

    Raises:
        InputError: on an unknown attribute or something that is no clip.
    """
    unknown = set(stated or ()) - set(ATTRIBUTES)
    if unknown:
        raise InputError(
            f"Unknown attribute {sorted(unknown)[0]!r}; expected one of {', '.join(ATTRIBUTES)}."
        )
    return compare(read_clip(frames), scene, stated=stated)


def stated_in(prompt: str, scene: Scene) -> set[str]:
    """Return the attributes of a scene that a caption of it states: those named for every object."""
    spoken = f" {' '.join(words(prompt))} "

    def said(phrases: Iterable[str]) -> bool:
        return any(f" {' '.join(words(phrase))} " in spoken for phrase in phrases)

    def verbs(solid: Solid) -> list[str]:
        options = [*MOTION_WORDS[solid.motion], *([ROLLING[solid.motion]] if solid.motion in ROLLING else [])]
        if solid.motion == "orbit":
            options += ORBITING
        return [form for verb in options for form in verb]

    stated = {"count"}
    solids = scene.objects
    if all(said(SHAPE_WORDS[solid.shape]) for solid in solids):
        stated.add("shape")
    if all(said(COLOUR_WORDS[solid.colour]) for solid in solids):
        stated.add("colour")
    if all(said(SIZE_WORDS[solid.size]) or _resizing(solid) for solid in solids):
        stated.add("size")
    if said(verbs(solids[0])) and all(solid.motion == "still" or said(verbs(solid)) for solid in solids[1:]):
        stated.add("motion")
    if said(BACKGROUND_WORDS[scene.background]):
        stated.add("background")
    if " camera " in spoken:
        stated.add("camera")
    if scene.relation is not None and " and a" not in spoken:
        stated.add("relation")
    return stated


def compare(reading: Reading, scene: Scene, *, stated: Collection[str] | None = None) -> Verdicts:
    """Hold a reading against a scene; see `judge`."""
    stated = set(ATTRIBUTES if stated is None else stated)
    if all(_resizing(solid) for solid in scene.objects):
        stated.discard("size")
    if scene.relation is None:
        stated.discard("relation")
    pairs = _matched(reading.objects, scene.objects)
    verdicts = {
        "shape": _all(_verdict(read and read.shape, solid.shape) for read, solid in pairs),
        "colour": _all(_verdict(read and read.colour, solid.colour) for read, solid in pairs),
        "size": _all(
            _verdict(read and read.size, solid.size) for read, solid in pairs if not _resizing(solid)
        ),
        "motion": _all(_verdict(read and read.motion, solid.motion) for read, solid in pairs),
        "background": _verdict(reading.background, scene.background),
        "count": _verdict(reading.count, len(scene.objects)),
        "camera": _verdict(reading.camera, scene.camera),
        "relation": _relation_verdict(pairs, scene),
    }
    return Verdicts(**{name: verdict for name, verdict in verdicts.items() if name in stated})


def _resizing(solid: Solid) -> bool:
    return solid.motion in ("grow", "shrink")


def _verdict(read: object, asked: object) -> Verdict:
    if read is None:
        return "undecided"
    return "right" if read == asked else "wrong"


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    found = list(verdicts)
    if "wrong" in found:
        return "wrong"
    return "undecided" if "undecided" in found else "right"


def _matched(
    objects: tuple[ObjectReading, ...], solids: tuple[Solid, ...]
) -> list[tuple[ObjectReading | None, Solid]]:
    """Pair each asked solid with the read object that fits it best, or None where none is left."""
    candidates: list[ObjectReading | None] = [*objects[:3], *[None] * len(solids)]

    def score(chosen: tuple[ObjectReading | None, ...]) -> float:
        total = 0.0
        for read, solid in zip(chosen, solids, strict=True):
            if read is not None:
                total += 0.5 + 4 * (read.colour == solid.colour) + 2 * (read.shape == solid.shape)
                total += (read.motion == solid.motion) + 0.5 * (read.size == solid.size)
        return total

    best = max(permutations(candidates, len(solids)), key=score)
    return list(zip(best, solids, strict=True))


def _relation_verdict(pairs: list[tuple[ObjectReading | None, Solid]], scene: Scene) -> Verdict:
    if len(pairs) != 2 or pairs[0][0] is None or pairs[1][0] is None:
        return "undecided"
    return _verdict(relation_between(pairs[0][0], pairs[1][0]), scene.relation)
