"""A prompt of the embedded world says what its clip is judged by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workbench.comparison.asked import asked_scene, verdicts
from workbench.models import ModelFacts, model_facts
from workbench.models.embedded.world import Scene, caption, render, sample_scene


def without_unsaid(scene: Scene) -> Scene:
    """The size of a growing or shrinking object is never said."""
    solids = tuple(
        replace(solid, size="big") if solid.motion in ("grow", "shrink") else solid for solid in scene.objects
    )
    return replace(scene, objects=solids, seed=0)


def test_every_caption_is_read_back_as_its_scene() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        scene = sample_scene(rng, split="train")
        asked = asked_scene(caption(scene))
        assert asked is not None and without_unsaid(asked) == without_unsaid(scene), caption(scene)


def test_what_is_no_caption_is_not_judged() -> None:
    assert asked_scene("a portrait of a lady") is None
    assert asked_scene("") is None


def test_a_clip_is_judged_by_what_its_prompt_states(micro_facts: ModelFacts) -> None:
    rng = np.random.default_rng(2)
    scene = next(s for s in iter(lambda: sample_scene(rng, split="train"), None) if s.relation is None)
    frames = render([scene])[0].numpy()
    facts = model_facts("embedded")
    colour = scene.objects[0].colour
    other = "green" if colour != "green" else "red"
    assert verdicts(frames, f"a {colour} object", facts)["colour"] == "right"
    assert verdicts(frames, f"a {other} object", facts)["colour"] == "wrong"
    assert "motion" not in verdicts(frames, f"a {colour} object", facts)
    assert verdicts(frames, "a red ball", micro_facts) == {}, "an open world has no judge"
