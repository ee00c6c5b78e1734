"""The world's scenes, captions and split."""

import numpy as np
import pytest

from workbench.errors import InputError
from workbench.models.embedded.world import (
    Scene,
    Solid,
    builder_vocabulary,
    caption,
    held_out_triple,
    is_held_out,
    object_boxes,
    sample_scene,
    unknown_words,
    vocabulary,
    words,
)
from workbench.models.embedded.world.language import MOTION_WORDS, SHAPE_WORDS
from workbench.models.embedded.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
)


def scenes(num, split="train", seed=0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, split=split) for _ in range(num)]


def test_split_keeps_held_out_triples_apart():
    assert not any(map(is_held_out, scenes(1500)))
    assert all(held_out_triple(scene.objects[0]) for scene in scenes(300, "held-out"))


def test_split_holds_out_an_eighth_of_the_triples_and_no_pair():
    triples = {
        (s, c, m): held_out_triple(Solid(s, c, motion=m)) for s in SHAPES for c in COLOURS for m in MOTIONS
    }
    assert 0.1 < np.mean(list(triples.values())) < 0.15
    for shape in SHAPES:
        for colour in COLOURS:
            assert not all(triples[shape, colour, motion] for motion in MOTIONS)
        for motion in MOTIONS:
            assert sum(triples[shape, colour, motion] for colour in COLOURS) == 1


def test_training_shows_every_attribute_and_every_word():
    drawn = scenes(3000)
    solids = [solid for scene in drawn for solid in scene.objects]
    for name, values in (
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("size", SIZES),
        ("motion", MOTIONS),
        ("texture", TEXTURES),
    ):
        assert {getattr(solid, name) for solid in solids} == set(values)
    assert {scene.background for scene in drawn} == set(BACKGROUNDS)
    assert {scene.camera for scene in drawn} == set(CAMERAS)
    assert {scene.relation for scene in drawn} == {None, *RELATIONS}
    rng = np.random.default_rng(1)
    spoken = {word for scene in drawn * 3 for word in words(caption(scene, rng))}
    assert spoken == set(vocabulary())


def test_same_generator_state_gives_same_scene():
    assert scenes(20, seed=5) == scenes(20, seed=5)


def test_canonical_caption_states_everything():
    solid = Solid("ball", "orange", "big", "right", "striped")
    scene = Scene((solid,), None, "desert", "pan left", 3)
    assert caption(scene) == "a big orange striped ball moves right over sand, the camera pans left"
    orbit = Scene(
        (Solid("ball", "red", "small", "orbit"), Solid("cube", "blue", "big")), "orbiting", "sea", "static", 3
    )
    assert caption(orbit) == "a small red ball orbits a big blue cube over the sea"


def test_short_prompts_are_sentences_of_the_grammar():
    scene = Scene((Solid("ball", "red"),), None, "meadow", "static", 0)
    rng = np.random.default_rng(0)
    assert "a red ball" in {caption(scene, rng) for _ in range(3000)}


def test_random_captions_say_nothing_false():
    rng = np.random.default_rng(2)
    for scene in scenes(400, seed=3):
        spoken = words(caption(scene, rng))
        for shape, options in SHAPE_WORDS.items():
            named = set(options) & set(spoken)
            if named:
                assert shape in {solid.shape for solid in scene.objects}
        for colour in set(COLOURS) & set(spoken):
            assert colour in {solid.colour for solid in scene.objects} or f"{colour} field" in " ".join(
                spoken
            )
        moving = {solid.motion for solid in scene.objects}
        for motion in ("bounce", "spin", "rise", "grow"):
            finite = {verb.finite for verb in MOTION_WORDS[motion]}
            if any(f" {verb} " in f" {' '.join(spoken)} " for verb in finite):
                assert motion in moving
        if any(solid.motion in ("grow", "shrink") for solid in scene.objects) and len(scene.objects) == 1:
            assert not {"small", "big", "little", "large", "tiny", "huge"} & set(spoken)


def test_mirrored_relations_stay_true():
    first, second = Solid("ball", "red", "small"), Solid("cube", "blue", "small")
    scene = Scene((first, second), "left of", "studio", "static", 0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = caption(scene, rng)
        if "red" in text and "blue" in text and " and " not in text:
            red_first = text.index("red") < text.index("blue")
            assert ("left of" in text) == red_first
            assert ("right of" in text) != red_first


def test_builder_phrases_use_known_words():
    known = set(vocabulary())
    phrases = [phrase for group in builder_vocabulary().values() for phrase in group]
    assert len(phrases) > 40
    assert all(set(words(phrase)) <= known for phrase in phrases)


def test_unknown_words_come_with_near_ones():
    assert unknown_words("A big RED ball, moves left!") == []
    found = dict(unknown_words("a crimson bal jumpng over the the bal"))
    assert list(found) == ["crimson", "bal", "jumpng"]
    assert found["crimson"][0] == "red"
    assert "ball" in found["bal"]
    assert all(1 <= len(near) <= 3 for near in found.values())


def test_objects_stay_in_frame():
    for scene in scenes(250, seed=8) + scenes(250, "held-out", seed=9):
        boxes = object_boxes(scene, 17, 128, 128)
        assert boxes.shape == (len(scene.objects), 17, 4)
        assert boxes[..., :2].min() >= 0
        assert boxes[..., 2:].max() <= 128
        margin = min(boxes[..., :2].min(), 128 - boxes[..., 2:].max())
        assert margin > 0 or scene.relation is not None


def test_sizes_differ_clearly():
    widths = {"small": [], "big": []}
    for scene in scenes(400, seed=4):
        solid = scene.objects[0]
        if scene.relation is None and solid.shape == "ball" and solid.motion not in ("grow", "shrink"):
            box = object_boxes(scene, 1, 128, 128)[0, 0]
            widths[solid.size].append(box[2] - box[0])
    assert max(widths["small"]) < 0.9 * min(widths["big"])
    assert 0.2 < np.mean(widths["small"]) / 128 < 0.27
    assert 0.34 < np.mean(widths["big"]) / 128 < 0.45


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (((Solid("ball", "red"), Solid("cube", "red")), "behind", "sea", "static", 0), "red"),
        (((Solid("ball", "red"),), "behind", "sea", "static", 0), "relation"),
        (((Solid("ball", "red"),), None, "sea", "pan left", 0), "sea"),
        (((Solid("ball", "red"), Solid("cube", "blue")), "orbiting", "sea", "static", 0), "orbit"),
        (((), None, "sea", "static", 0), "one or two"),
    ],
)
def test_impossible_scenes_are_refused(arguments, named):
    with pytest.raises(InputError, match=named):
        Scene(*arguments)
