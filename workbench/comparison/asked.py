"""What a prompt of the embedded world asks for, and whether a clip shows it. Knows words and the judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from workbench.errors import InputError
from workbench.evaluation.adherence import judge, stated_in
from workbench.models import ModelFacts
from workbench.models.embedded.world import Scene, Solid, unknown_words, words
from workbench.models.embedded.world.language import (
    BACKGROUND_WORDS,
    CAMERA_WORDS,
    COLOUR_WORDS,
    MOTION_WORDS,
    ORBITING,
    RELATION_WORDS,
    ROLLING,
    SHAPE_WORDS,
    SIZE_WORDS,
    TEXTURE_WORDS,
)
from workbench.models.embedded.world.scene import PANNABLE, Motion, Relation
from workbench.models.prompts import has_closed_vocabulary

Key = TypeVar("Key", bound=str)


def verdicts(frames: np.ndarray, prompt: str, facts: ModelFacts) -> dict[str, str]:
    """Judge a clip by its prompt, attribute by attribute: "right", "wrong" or "undecided".

    Only what the prompt states is judged; a model of the open world, or a prompt that is no caption of the
    embedded world, gives nothing.
    """
    if not has_closed_vocabulary(facts):
        return {}
    scene = asked_scene(prompt)
    if scene is None:
        return {}
    return dict(judge(frames, scene, stated=stated_in(prompt, scene)).asked())


def asked_scene(prompt: str) -> Scene | None:
    """Return the scene that a caption describes, with defaults for what it leaves out; else None."""
    if unknown_words(prompt) or not words(prompt):
        return None
    spoken = " ".join(words(prompt))
    camera, spoken = _take(CAMERA_WORDS, spoken)
    background, spoken = _take(BACKGROUND_WORDS, spoken)
    relation, parts = _split(spoken)
    first = _solid(parts[0])
    objects: tuple[Solid, ...] = (first,)
    if len(parts) == 2:
        if relation == "orbiting":
            first = Solid(first.shape, first.colour, first.size, "orbit", first.texture)
        second = _solid(parts[1], unlike=first.colour)
        objects = (first, second)
    pans = camera not in (None, "static")
    try:
        return Scene(objects, relation, background or PANNABLE[0], camera if pans and camera else "static", 0)
    except InputError:
        return None


def _split(spoken: str) -> tuple[Relation | None, list[str]]:
    phrases: dict[str, Relation] = {
        phrase: relation for relation, options in RELATION_WORDS.items() for phrase in _forms(options)
    }
    phrases |= dict.fromkeys(_forms(ORBITING), "orbiting")
    for phrase in sorted(phrases, key=len, reverse=True):
        parts = re.split(rf"\b{re.escape(phrase)} (?=an? )", spoken, maxsplit=1)
        if len(parts) == 2:
            return phrases[phrase], parts
    parts = re.split(r"\band (?=an? )", spoken, maxsplit=1)
    return ("left of" if len(parts) == 2 else None), parts


def _solid(spoken: str, *, unlike: str = "") -> Solid:
    colour, rest = _take(COLOUR_WORDS, spoken)
    size, rest = _take(SIZE_WORDS, rest)
    texture, rest = _take(TEXTURE_WORDS, rest)
    moving: dict[Motion, tuple[object, ...]] = {
        motion: (*verbs, *([ROLLING[motion]] if motion in ROLLING else []))
        for motion, verbs in MOTION_WORDS.items()
    }
    motion, rest = _take(moving, rest)
    shape, rest = _take(SHAPE_WORDS, rest)
    return Solid(
        shape or "ball",
        colour or ("red" if unlike != "red" else "blue"),
        size or "big",
        motion or "still",
        texture or "plain",
    )


def _take(table: Mapping[Key, Iterable[object]], spoken: str) -> tuple[Key | None, str]:
    """Return the key whose longest wording is spoken, and the text without it."""
    found: dict[str, Key] = {phrase: key for key, options in table.items() for phrase in _forms(options)}
    for phrase in sorted(found, key=len, reverse=True):
        match = re.search(rf"\b{re.escape(phrase)}\b", spoken)
        if match:
            rest = f"{spoken[: match.start()]} {spoken[match.end() :]}"
            return found[phrase], " ".join(rest.split())
    return None, spoken


def _forms(options: Iterable[object]) -> list[str]:
    """Return wordings as they are spoken; a verb has two."""
    texts: list[str] = []
    for option in options:
        texts += [str(form) for form in option] if isinstance(option, tuple) else [str(option)]
    return [" ".join(words(one)) for one in texts]
