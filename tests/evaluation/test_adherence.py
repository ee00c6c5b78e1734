"""The judge: right on truth, steady under blur and noise, undecided on garbage."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from workbench.errors import InputError
from workbench.evaluation.adherence import ATTRIBUTES, compare, judge, stated_in
from workbench.evaluation.reading import read_clip
from workbench.evaluation.suite import Prompt, evaluate_adherence, held_out_suite
from workbench.models.embedded.world import Scene, Solid, caption, render

NUM = 48


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def suite():
    return held_out_suite(NUM, seed=11)


@pytest.fixture(scope="module")
def clips(suite):
    return render([prompt.scene for prompt in suite]).numpy()


@pytest.fixture(scope="module")
def readings(clips):
    return [read_clip(clip) for clip in clips]


def shares(readings, scenes):
    """Right, undecided and all verdicts by attribute."""
    counts = {}
    for reading, scene in zip(readings, scenes, strict=True):
        for name, verdict in compare(reading, scene).asked().items():
            count = counts.setdefault(name, [0, 0, 0])
            count[0] += verdict == "right"
            count[1] += verdict == "undecided"
            count[2] += 1
    return counts


def test_rendered_truth_is_judged_right(readings, suite):
    counts = shares(readings, [prompt.scene for prompt in suite])
    assert set(counts) == set(ATTRIBUTES)
    right, total = (sum(count[index] for count in counts.values()) for index in (0, 2))
    assert right / total >= 0.99, counts
    assert all(count[2] - count[0] <= 1 for count in counts.values()), counts


def test_mild_blur_and_noise_change_little(clips, suite):
    rng = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(clips[:24].astype(np.float32), (0, 0, 1, 1, 0))
    rough = (rough + 5 * rng.standard_normal(rough.shape)).clip(0, 255).astype(np.uint8)
    counts = shares([read_clip(clip) for clip in rough], [prompt.scene for prompt in suite[:24]])
    right, total = (sum(count[index] for count in counts.values()) for index in (0, 2))
    assert right / total >= 0.97, counts


def test_shuffled_captions_collapse(readings, suite):
    scenes = [prompt.scene for prompt in suite]
    counts = shares(readings, scenes[1:] + scenes[:1])
    for name in ("shape", "colour", "motion", "background", "relation"):
        right, _, total = counts[name]
        assert right / total < 0.4, (name, counts)


def garbage(kind, clips):
    rng = np.random.default_rng(3)
    if kind == "noise":
        return rng.integers(0, 256, (17, 128, 128, 3), dtype=np.uint8)
    if kind == "soft noise":
        soft = ndimage.gaussian_filter(rng.standard_normal((17, 128, 128, 3)), (1, 6, 6, 0))
        return (128 + 60 * soft / soft.std()).clip(0, 255).astype(np.uint8)
    if kind == "grey":
        return np.full((17, 128, 128, 3), 128, np.uint8)
    if kind == "black":
        return np.zeros((17, 128, 128, 3), np.uint8)
    return clips[:17].mean(0).astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "grey", "black"])
def test_garbage_is_undecided(kind, clips, suite):
    verdicts = [judge(garbage(kind, clips), prompt.scene).asked() for prompt in suite[:4]]
    assert {verdict for asked in verdicts for verdict in asked.values()} == {"undecided"}


@pytest.mark.parametrize("kind", ["soft noise", "mean of clips"])
def test_mush_is_never_called_right_on_its_object(kind, clips, suite):
    reading = read_clip(garbage(kind, clips))
    for prompt in suite:
        assert not compare(reading, prompt.scene).fully_right


def test_missing_object_is_a_wrong_count(clips):
    backdrop = render([Scene((Solid("ball", "red"),), None, "meadow", "static", 5)]).numpy()[0]
    empty = np.repeat(np.median(backdrop, axis=2, keepdims=True), 128, axis=2).astype(np.uint8)
    asked = judge(empty, Scene((Solid("ball", "red"),), None, "meadow", "static", 5)).asked()
    assert asked["count"] == "wrong"
    assert asked["colour"] == asked["shape"] == asked["motion"] == "undecided"


@pytest.mark.parametrize(
    ("changed", "attribute"),
    [
        (Scene((Solid("cube", "red", "big", "left"),), None, "desert", "static", 4), "shape"),
        (Scene((Solid("ball", "blue", "big", "left"),), None, "desert", "static", 4), "colour"),
        (Scene((Solid("ball", "red", "small", "left"),), None, "desert", "static", 4), "size"),
        (Scene((Solid("ball", "red", "big", "right"),), None, "desert", "static", 4), "motion"),
        (Scene((Solid("ball", "red", "big", "left"),), None, "night", "static", 4), "background"),
        (Scene((Solid("ball", "red", "big", "left"),), None, "desert", "pan left", 4), "camera"),
        (
            Scene(
                (Solid("ball", "red", "big", "still"), Solid("cube", "blue", "small")),
                "left of",
                "desert",
                "static",
                4,
            ),
            "count",
        ),
    ],
)
def test_only_what_differs_is_wrong(changed, attribute):
    asked = Scene((Solid("ball", "red", "big", "left"),), None, "desert", "static", 4)
    verdicts = judge(render([changed]).numpy()[0], asked).asked()
    wrong = {name for name, verdict in verdicts.items() if verdict != "right"}
    assert attribute in wrong
    assert wrong <= {attribute, *(["motion"] if attribute == "count" else [])}


def test_other_sizes_and_lengths_are_read_alike():
    scene = Scene((Solid("ring", "purple", "big", "rise"),), None, "meadow", "static", 9)
    for options in ({"height": 96, "width": 160}, {"height": 256, "width": 256}, {"num_frames": 25}):
        assert judge(render([scene], **options).numpy()[0], scene).fully_right


def test_motion_is_judged_relative_to_the_background():
    for motion in ("still", "left", "right"):
        scene = Scene((Solid("cube", "yellow", "small", motion),), None, "meadow", "pan left", 2)
        assert judge(render([scene]).numpy()[0], scene).fully_right


def test_only_stated_attributes_count():
    scene = Scene((Solid("ball", "red", "big", "left"),), None, "desert", "static", 4)
    clip = render([scene]).numpy()[0]
    assert set(judge(clip, scene, stated={"colour", "shape"}).asked()) == {"colour", "shape"}
    assert stated_in("a red ball", scene) == {"count", "colour", "shape"}
    assert stated_in(caption(scene), scene) == {"count", "colour", "shape", "size", "motion", "background"}
    with pytest.raises(InputError, match="hue"):
        judge(clip, scene, stated={"hue"})


def test_something_else_than_a_clip_is_refused():
    scene = Scene((Solid("ball", "red"),), None, "desert", "static", 4)
    with pytest.raises(InputError, match="uint8"):
        judge(np.zeros((17, 64, 64, 3), np.float32), scene)


def test_suite_reports_fractions_intervals_and_clips(clips, suite):
    by_prompt = {prompt.prompt: clip for prompt, clip in zip(suite, clips, strict=True)}
    report = evaluate_adherence(lambda asked: by_prompt[asked.prompt], suite[:6])
    document = report.to_json()
    assert document["adherence"]["colour"] == 1.0
    low, high = document["intervals"]["colour"]
    assert 0.5 < low < high == 1.0
    assert len(document["clips"]) == 6
    assert document["clips"][0]["verdicts"]["colour"] == "right"
    swapped = evaluate_adherence(lambda asked: by_prompt[asked.prompt], suite[:6], swap_prompts=True)
    assert swapped.adherence["motion"] < 0.7
    assert swapped.clips[0].judged_by == suite[1].prompt


def test_suites_are_held_out_seeded_and_grow(suite):
    assert held_out_suite(5, seed=11) == suite[:5]
    assert held_out_suite(5, seed=12) != suite[:5]
    assert isinstance(suite[0], Prompt)
    with pytest.raises(InputError, match="at least one"):
        held_out_suite(0)
    with pytest.raises(InputError, match="at least 2"):
        evaluate_adherence(lambda asked: None, suite[:1], swap_prompts=True)
