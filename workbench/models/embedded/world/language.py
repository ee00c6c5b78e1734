"""Put scenes into words: captions, the words they can hold, and help with words they cannot.

The grammar, with everything in brackets optional:

    [background,] a [size] [colour] [texture] shape [motion]
    [relation a [size] [colour] [texture] shape [that motion]] [background] [, camera]
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple, TypeVar

import numpy as np

from workbench.models.embedded.world.scene import (
    COLOURS,
    Background,
    Camera,
    Colour,
    Motion,
    Relation,
    Scene,
    Shape,
    Size,
    Solid,
    Texture,
)

Choice = TypeVar("Choice")


class Verb(NamedTuple):
    """One way to say a motion: "spins" and "spinning"."""

    finite: str
    participle: str


SHAPE_WORDS: dict[Shape, tuple[str, ...]] = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "box", "block", "square"),
    "cylinder": ("cylinder", "drum", "can"),
    "cone": ("cone",),
    "ring": ("ring", "torus", "donut", "hoop"),
    "diamond": ("diamond", "octahedron", "gem", "crystal"),
}
COLOUR_WORDS: dict[Colour, tuple[str, ...]] = {
    **{colour: (colour,) for colour in COLOURS},
    "cyan": ("cyan", "turquoise"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
}
SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge"),
}
TEXTURE_WORDS: dict[Texture, tuple[str, ...]] = {
    "plain": ("plain", "smooth"),
    "striped": ("striped", "banded"),
    "checked": ("checked", "checkered"),
}
MOTION_WORDS: dict[Motion, tuple[Verb, ...]] = {
    "still": (
        Verb("stays still", "staying still"),
        Verb("rests", "resting"),
        Verb("stands still", "standing still"),
    ),
    "left": (
        Verb("moves left", "moving left"),
        Verb("moves to the left", "moving to the left"),
        Verb("slides left", "sliding left"),
        Verb("travels left", "travelling left"),
    ),
    "right": (
        Verb("moves right", "moving right"),
        Verb("moves to the right", "moving to the right"),
        Verb("slides right", "sliding right"),
        Verb("travels right", "travelling right"),
    ),
    "rise": (Verb("rises", "rising"), Verb("floats up", "floating up"), Verb("moves up", "moving up")),
    "sink": (
        Verb("sinks", "sinking"),
        Verb("floats down", "floating down"),
        Verb("moves down", "moving down"),
    ),
    "bounce": (
        Verb("bounces", "bouncing"),
        Verb("bounces up and down", "bouncing up and down"),
        Verb("hops", "hopping"),
    ),
    "orbit": (
        Verb("moves in a circle", "moving in a circle"),
        Verb("circles", "circling"),
        Verb("circles around", "circling around"),
    ),
    "spin": (Verb("spins", "spinning"), Verb("rotates", "rotating"), Verb("turns around", "turning around")),
    "grow": (Verb("grows", "growing"), Verb("gets bigger", "getting bigger")),
    "shrink": (Verb("shrinks", "shrinking"), Verb("gets smaller", "getting smaller")),
}
ROLLING: dict[Motion, Verb] = {
    "left": Verb("rolls left", "rolling left"),
    "right": Verb("rolls right", "rolling right"),
}
ORBITING = (
    Verb("orbits", "orbiting"),
    Verb("circles around", "circling around"),
    Verb("goes around", "going around"),
)
RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "behind": ("behind",),
    "in front of": ("in front of",),
    "orbiting": ("orbiting",),
}
BACKGROUND_WORDS: dict[Background, tuple[str, ...]] = {
    "studio": ("in a grey studio", "in a studio", "on a plain grey floor"),
    "desert": ("over sand", "on sand", "in the desert"),
    "meadow": ("on a meadow", "on grass", "over a green field"),
    "tiles": ("on a tiled floor", "over tiles", "on a floor of tiles"),
    "sunset": ("at sunset", "in the evening", "under an evening sky"),
    "night": ("at night", "in the dark", "under the moon"),
    "clouds": ("on snow under drifting clouds", "under drifting clouds", "in the snow"),
    "sea": ("over the sea", "on water", "over the waves"),
}
CAMERA_WORDS: dict[Camera, tuple[str, ...]] = {
    "static": ("the camera stays still", "static camera"),
    "pan left": ("the camera pans left", "camera panning left", "the camera turns to the left"),
    "pan right": ("the camera pans right", "camera panning right", "the camera turns to the right"),
}
GLUE = "a an and that object video of"
MIRROR: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "behind": "in front of",
    "in front of": "behind",
}
ALIASES = {
    "aqua": "cyan", "azure": "blue", "brown": "orange", "crimson": "red", "gold": "yellow",
    "golden": "yellow", "lime": "green", "magenta": "pink", "navy": "blue", "scarlet": "red", "teal": "cyan",
    "giant": "huge", "mini": "tiny", "beach": "sand", "dune": "sand", "lawn": "grass", "lake": "water",
    "ocean": "sea", "dusk": "sunset", "pyramid": "cone", "globe": "ball", "wheel": "ring", "jumps": "hops",
    "jumping": "hopping", "dotted": "checked",
}  # fmt: skip


class _Voice:
    """Chooses wordings: always the first and everything without a generator, else at random."""

    def __init__(self, rng: np.random.Generator | None) -> None:
        self.rng = rng

    def pick(self, options: tuple[Choice, ...]) -> Choice:
        """Choose one wording."""
        return options[0] if self.rng is None else options[int(self.rng.integers(len(options)))]

    def says(self, chance: float, *, canonical: bool = True) -> bool:
        """Whether to use something that is said this often."""
        return canonical if self.rng is None else bool(self.rng.random() < chance)


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Describe a scene in one lower-case sentence that is true of it.

    Args:
        scene: What to describe.
        rng: None gives the canonical sentence with every attribute; a generator draws synonyms and orders
            and leaves attributes out.

    The size of a growing or shrinking object is never said, and a still second object is not called still.
    """
    voice = _Voice(rng)
    body = _single(scene.objects[0], voice) if scene.relation is None else _pair(scene, voice)
    place = voice.pick(BACKGROUND_WORDS[scene.background]) if voice.says(0.72) else ""
    moving = scene.camera != "static"
    camera = (
        voice.pick(CAMERA_WORDS[scene.camera])
        if voice.says(0.75 if moving else 0.05, canonical=moving)
        else ""
    )
    if place and voice.says(0.15, canonical=False):
        sentence = f"{place}, {body}"
    else:
        prefix = "a video of " if voice.says(0.03, canonical=False) else ""
        sentence = f"{prefix}{body} {place}".strip()
    return f"{sentence}, {camera}" if camera else sentence


def _noun(solid: Solid, voice: _Voice) -> str:
    words = []
    if solid.motion not in ("grow", "shrink") and voice.says(0.7):
        words.append(voice.pick(SIZE_WORDS[solid.size]))
    if voice.says(0.9):
        words.append(voice.pick(COLOUR_WORDS[solid.colour]))
    plain = solid.texture == "plain"
    if voice.says(0.06 if plain else 0.6, canonical=not plain):
        words.append(voice.pick(TEXTURE_WORDS[solid.texture]))
    words.append("object" if voice.says(0.03, canonical=False) else voice.pick(SHAPE_WORDS[solid.shape]))
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _verb(solid: Solid, voice: _Voice) -> Verb:
    if solid.shape == "ball" and solid.motion in ROLLING and voice.says(0.4, canonical=False):
        return ROLLING[solid.motion]
    return voice.pick(MOTION_WORDS[solid.motion])


def _said(verb: Verb, voice: _Voice) -> str:
    return verb.participle if voice.says(0.35, canonical=False) else verb.finite


def _single(solid: Solid, voice: _Voice) -> str:
    noun = _noun(solid, voice)
    spoken = voice.says(0.5 if solid.motion == "still" else 0.85)
    return f"{noun} {_said(_verb(solid, voice), voice)}" if spoken else noun


def _pair(scene: Scene, voice: _Voice) -> str:
    first, second = scene.objects
    relation = scene.relation
    assert relation is not None
    if relation == "orbiting":
        return f"{_noun(first, voice)} {_said(voice.pick(ORBITING), voice)} {_noun(second, voice)}"
    if voice.says(0.1, canonical=False):
        return f"{_single(first, voice)} and {_single(second, voice)}"
    if second.motion in ("still", first.motion) and voice.says(0.15, canonical=False):
        first, second, relation = second, first, MIRROR[relation]
    text = f"{_single(first, voice)} {voice.pick(RELATION_WORDS[relation])} {_noun(second, voice)}"
    if second.motion != "still" and voice.says(0.85):
        verb = _verb(second, voice)
        text += f" {verb.participle}" if voice.says(0.3, canonical=False) else f" that {verb.finite}"
    return text


def words(prompt: str) -> list[str]:
    """Split a prompt into lower-case words, without punctuation."""
    return re.findall(r"[^\W_]+", prompt.lower())


def vocabulary() -> tuple[str, ...]:
    """Return every word a caption can contain, sorted."""
    phrases = [GLUE]
    for table in (
        SHAPE_WORDS,
        COLOUR_WORDS,
        SIZE_WORDS,
        TEXTURE_WORDS,
        RELATION_WORDS,
        BACKGROUND_WORDS,
        CAMERA_WORDS,
    ):
        phrases += [phrase for options in table.values() for phrase in options]
    verbs = [verb for options in MOTION_WORDS.values() for verb in options]
    phrases += [form for verb in (*verbs, *ROLLING.values(), *ORBITING) for form in verb]
    return tuple(sorted({word for phrase in phrases for word in words(phrase)}))


def builder_vocabulary() -> dict[str, list[str]]:
    """Return the phrases of a prompt builder: attribute → canonical phrases, in the order of a sentence."""
    return {
        "size": [options[0] for options in SIZE_WORDS.values()],
        "colour": [options[0] for options in COLOUR_WORDS.values()],
        "texture": [options[0] for options in TEXTURE_WORDS.values()],
        "shape": [options[0] for options in SHAPE_WORDS.values()],
        "motion": [options[0].finite for options in MOTION_WORDS.values()],
        "relation": [*(RELATION_WORDS[relation][0] for relation in MIRROR), ORBITING[0].finite],
        "background": [options[0] for options in BACKGROUND_WORDS.values()],
        "camera": [CAMERA_WORDS["pan left"][0], CAMERA_WORDS["pan right"][0]],
    }


def unknown_words(prompt: str) -> list[tuple[str, list[str]]]:
    """Return each word of a prompt that no caption contains, once, with up to three known words near it."""
    known = vocabulary()
    unknown = dict.fromkeys(word for word in words(prompt) if word not in known)
    return [(word, _near(word, known)) for word in unknown]


def _near(word: str, known: tuple[str, ...]) -> list[str]:
    meant = [ALIASES[word]] if word in ALIASES else []
    spelt = difflib.get_close_matches(word, known, n=3, cutoff=0.0 if not meant else 0.7)
    return list(dict.fromkeys([*meant, *spelt]))[:3]
