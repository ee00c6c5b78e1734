"""The world's vocabulary for a prompt builder, and prompts built from choices in it.

What is offered here is what the grammar of `language` can say; `build_prompt` gives a sentence that the
embedded model was trained to read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.errors import InputError
from workbench.models.embedded.world.language import (
    BACKGROUND_WORDS,
    CAMERA_WORDS,
    COLOUR_WORDS,
    MOTION_WORDS,
    ORBITING,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    TEXTURE_WORDS,
    caption,
    vocabulary,
)
from workbench.models.embedded.world.scene import IN_PLACE, PANNABLE, sample_scene

OBJECT_PARTS = ("size", "colour", "texture", "shape", "motion")
SECOND = "second "
"""Prefix of the choices for the second object."""
ORDER = (
    *OBJECT_PARTS, "relation", *(f"{SECOND}{part}" for part in OBJECT_PARTS), "background", "camera",
)  # fmt: skip
"""The choices in the order of a sentence."""


def prompt_vocabulary(*, num_examples: int = 8) -> dict[str, Any]:
    """Return all that a prompt builder needs, as JSON data.

    Args:
        num_examples: Example prompts.

    Returns:
        attributes (name → options with value, phrase and synonyms, in the order of a sentence), order (the
        choices that `build_prompt` takes), second_motions, pannable, rules, words, examples.
    """
    rng = np.random.default_rng(3)
    return {
        "attributes": {name: _options(table) for name, table in _tables().items()},
        "order": list(ORDER),
        "second_motions": list(IN_PLACE),
        "pannable": list(PANNABLE),
        "rules": [
            "A prompt needs a shape; everything else may be left open.",
            "A relation needs a second shape, and a second shape needs a relation.",
            "Two objects have two colours, and the second one moves in place.",
            "With the relation 'orbiting' the first object moves in a circle.",
            "A pan of the camera needs a background with landmarks.",
            "Growing and shrinking objects have no size.",
        ],
        "words": list(vocabulary()),
        "examples": [caption(sample_scene(rng, split="train")) for _ in range(num_examples)],
    }


def build_prompt(choices: Mapping[str, str]) -> str:
    """Turn choices into a prompt.

    Args:
        choices: Values of `prompt_vocabulary()["attributes"]` by the names in `ORDER`; "shape" is needed.

    Returns:
        For example "a small red ball bounces behind a big blue cube on a meadow".

    Raises:
        InputError: an unknown choice, or choices that cannot be shown together.
    """
    tables = _tables()
    for name, value in choices.items():
        if name not in ORDER:
            raise InputError(f"There is no choice {name!r}; known: {', '.join(ORDER)}.")
        known = tables[name.removeprefix(SECOND)]
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}."
            raise InputError(f"There is no {name} {value[:40]!r}; {hint}")
    _check_together(choices)
    sentence = _object(choices, "")
    relation = choices.get("relation")
    if relation == "orbiting":
        sentence += f" {ORBITING[0].finite} {_object(choices, SECOND)}"
    elif relation:
        sentence += f" {tables['relation'][relation][0]} {_object(choices, SECOND)}"
    if "background" in choices:
        sentence += f" {tables['background'][choices['background']][0]}"
    camera = choices.get("camera", "static")
    return sentence if camera == "static" else f"{sentence}, {tables['camera'][camera][0]}"


def _tables() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return value → phrases of every attribute, the first phrase the usual one."""
    spoken = {motion: tuple(verb.finite for verb in verbs) for motion, verbs in MOTION_WORDS.items()}
    circling = {"orbiting": tuple(verb.finite for verb in ORBITING)}
    return {
        "size": _by_name(SIZE_WORDS),
        "colour": _by_name(COLOUR_WORDS),
        "texture": _by_name(TEXTURE_WORDS),
        "shape": _by_name(SHAPE_WORDS),
        "motion": _by_name(spoken),
        "relation": _by_name(RELATION_WORDS) | circling,
        "background": _by_name(BACKGROUND_WORDS),
        "camera": _by_name(CAMERA_WORDS),
    }


def _by_name(table: Mapping[Any, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {str(value): phrases for value, phrases in table.items()}


def _options(table: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    return [{"value": value, "phrase": said[0], "synonyms": list(said[1:])} for value, said in table.items()]


def _check_together(choices: Mapping[str, str]) -> None:
    second = [name for name in choices if name.startswith(SECOND)]
    if "shape" not in choices:
        raise InputError("A prompt needs a shape; choose one.")
    if ("relation" in choices) != bool(second) or (second and f"{SECOND}shape" not in choices):
        raise InputError("Two objects need a relation and a second shape; choose both or neither.")
    if second and "colour" in choices and choices["colour"] == choices.get(f"{SECOND}colour"):
        raise InputError(f"Two objects need two colours, but both are {choices['colour']}; change one.")
    if choices.get(f"{SECOND}motion", "still") not in IN_PLACE:
        raise InputError(f"The second object moves in place; choose one of {', '.join(IN_PLACE)}.")
    if choices.get("relation") == "orbiting" and choices.get("motion", "orbit") != "orbit":
        raise InputError("An orbiting object moves in a circle; choose the motion 'orbit' or none.")
    if second and choices.get("motion") == "orbit" and choices["relation"] != "orbiting":
        raise InputError("Of two objects, one moves in a circle around the other; choose 'orbiting'.")
    camera, background = choices.get("camera", "static"), choices.get("background", PANNABLE[0])
    if camera != "static" and background not in PANNABLE:
        raise InputError(f"A pan cannot be seen before '{background}'; choose one of {', '.join(PANNABLE)}.")


def _object(choices: Mapping[str, str], prefix: str) -> str:
    """Return the words of one object with its motion, as the grammar has them."""
    chosen = {part: choices[prefix + part] for part in OBJECT_PARTS if prefix + part in choices}
    tables = _tables()
    motion = chosen.pop("motion", None)
    if motion in ("grow", "shrink"):
        chosen.pop("size", None)
    said = [tables[part][chosen[part]][0] for part in OBJECT_PARTS[:-1] if part in chosen]
    noun = f"{'an' if said[0][0] in 'aeiou' else 'a'} {' '.join(said)}"
    if motion is None or (prefix and motion == "still") or choices.get("relation") == "orbiting":
        return noun
    verb = tables["motion"][motion][0]
    return f"{noun} that {verb}" if prefix else f"{noun} {verb}"
