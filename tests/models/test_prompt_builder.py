"""The prompt builder's vocabulary: everything offered can be said, and is understood by the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from workbench.errors import InputError
from workbench.models.embedded.world import (
    Scene,
    build_prompt,
    caption,
    prompt_vocabulary,
    sample_scene,
    unknown_words,
)


def _choices(scene: Scene) -> dict[str, str]:
    made = {"background": scene.background, "camera": scene.camera}
    for prefix, solid in zip(("", "second "), scene.objects, strict=False):
        parts = {"size": solid.size, "colour": solid.colour, "shape": solid.shape, "motion": solid.motion}
        made |= {prefix + name: value for name, value in parts.items()}
        if solid.texture != "plain":
            made[prefix + "texture"] = solid.texture
    return made if scene.relation is None else {**made, "relation": scene.relation}


def test_choices_of_a_scene_give_its_canonical_caption() -> None:
    rng = np.random.default_rng(1)
    for scene in [sample_scene(rng, split="train") for _ in range(200)]:
        assert build_prompt(_choices(scene)) == caption(scene)


def test_every_option_is_known_to_the_model() -> None:
    document = json.loads(json.dumps(prompt_vocabulary()))
    for name, options in document["attributes"].items():
        assert len(options) > 1, name
        for option in options:
            assert all(not unknown_words(text) for text in [option["phrase"], *option["synonyms"]])
    assert set(document["order"]) >= set(document["attributes"])
    assert len(document["examples"]) == 8 and not any(map(unknown_words, document["examples"]))


def test_a_shape_alone_is_enough() -> None:
    assert build_prompt({"shape": "ball"}) == "a ball"
    assert build_prompt({"shape": "cone", "colour": "orange", "motion": "grow", "size": "big"}) == (
        "an orange cone grows"
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "needs a shape"),
        ({"shape": "bal"}, "did you mean 'ball'"),
        ({"form": "ball"}, "no choice 'form'; known: size"),
        ({"shape": "ball", "relation": "behind"}, "second shape"),
        ({"shape": "ball", "colour": "red", "relation": "behind", "second shape": "cube",
          "second colour": "red"}, "two colours"),
        ({"shape": "ball", "relation": "behind", "second shape": "cube", "second motion": "left"},
         "in place"),
        ({"shape": "ball", "camera": "pan left", "background": "sea"}, "pan cannot be seen"),
        ({"shape": "ball", "motion": "rise", "relation": "orbiting", "second shape": "cube"}, "orbiting"),
    ],
)  # fmt: skip
def test_choices_that_do_not_go_together_are_refused(choices: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_prompt(choices)
