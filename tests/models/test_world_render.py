"""The world's pixels."""

import numpy as np
import pytest
import torch

from workbench.errors import InputError
from workbench.models.embedded.world import Scene, Solid, object_boxes, object_masks, render, sample_scene
from workbench.models.embedded.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def single(shape="ball", colour="red", motion="still", background="studio", **rest):
    camera, seed = rest.pop("camera", "static"), rest.pop("seed", 0)
    return Scene((Solid(shape, colour, motion=motion, **rest),), None, background, camera, seed)


def test_clip_has_the_asked_form_and_is_repeatable():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, split="train") for _ in range(3)]
    clips = render(scenes, num_frames=5, height=64, width=64)
    assert clips.shape == (3, 5, 64, 64, 3)
    assert clips.dtype == torch.uint8
    assert torch.equal(render(scenes[1:2], num_frames=5, height=64, width=64)[0], clips[1])


def test_frame_does_not_depend_on_the_clip_length():
    scene = single(motion="bounce")
    longer = render([scene], num_frames=21, height=64, width=64)
    assert torch.equal(longer[:, :9], render([scene], num_frames=9, height=64, width=64))
    assert not torch.equal(longer[:, 17], longer[:, 20])


def test_wide_frames_keep_proportions():
    square, wide = (object_boxes(single(), 1, 64, width)[0, 0] for width in (64, 112))
    np.testing.assert_allclose(wide[2:] - wide[:2], square[2:] - square[:2])
    clip = render([single()], num_frames=1, height=64, width=112)
    assert torch.equal(clip[:, :, :, 24:88], render([single()], num_frames=1, height=64, width=64))


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_fill_their_boxes(shape):
    scene = single(shape, motion="right", seed=2)
    mask = object_masks([scene], num_frames=2, height=96, width=96)[0, 0, 1].numpy() > 0.5
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = object_boxes(scene, 2, 96, 96)[0, 1]
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(found, (left, top, right, bottom), atol=1.6)


def test_near_object_hides_the_far_one():
    scene = Scene((Solid("ball", "red"), Solid("cube", "blue")), "behind", "studio", "static", 1)
    boxes = object_boxes(scene, 1, 96, 96)[:, 0]
    alone = object_masks([single(seed=1)], num_frames=1, height=96, width=96)[0, 0]
    masks = object_masks([scene], num_frames=1, height=96, width=96)[0]
    overlap = min(boxes[0, 2], boxes[1, 2]) - max(boxes[0, 0], boxes[1, 0])
    assert overlap > 4
    assert float((masks[0] * masks[1]).max()) < 0.51
    hidden = masks[0].sum() / (np.prod(boxes[0, 2:] - boxes[0, :2]) * np.pi / 4)
    assert 0.3 < float(hidden) < 0.97
    assert alone.sum() > 0


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_keep_their_hue_under_shading(colour):
    scenes = [single("ball", colour, background=background) for background in BACKGROUNDS]
    clips = render(scenes, num_frames=1, height=64, width=64).float() / 255
    masks = object_masks(scenes, num_frames=1, height=64, width=64)[:, 0] > 0.99
    from workbench.models.embedded.world.sprites import ALBEDO

    palette = torch.tensor(list(ALBEDO.values()))
    palette = palette / palette.amax(1, keepdim=True)
    mean = torch.stack([clip[mask].mean(0) for clip, mask in zip(clips, masks, strict=True)])
    nearest = torch.cdist(mean / mean.amax(1, keepdim=True), palette).argmin(1)
    assert (nearest == COLOURS.index(colour)).all()


@pytest.mark.parametrize("motion", [motion for motion in MOTIONS if motion != "still"])
def test_every_motion_changes_the_picture(motion):
    clip = render([single("cube", "blue", motion)], num_frames=9, height=64, width=64).float()
    assert (clip[0, 8] - clip[0, 0]).abs().max() > 40


def test_still_scenes_stand_still_and_moving_backdrops_do_not():
    clips = render(
        [single(), single(background="clouds"), single(background="sea")], num_frames=9, height=64, width=64
    )
    change = (clips[:, 8].float() - clips[:, 0].float()).abs().amax((1, 2, 3))
    assert change[0] == 0
    assert (change[1:] > 15).all()


def test_pan_moves_object_and_ground_alike():
    scene = single(background="meadow", camera="pan right")
    boxes = object_boxes(scene, 17, 128, 128)[0]
    shift = boxes[16, 0] - boxes[0, 0]
    assert -30 < shift < -18
    clip = render([scene])[0].float()
    skyline = slice(30, 40)
    moved = torch.roll(clip[0, skyline], round(shift), dims=1)[:, : 128 + round(shift)]
    unmoved = clip[0, skyline][:, : 128 + round(shift)]
    end = clip[16, skyline][:, : 128 + round(shift)]
    assert (moved - end).abs().mean() < 0.4 * (unmoved - end).abs().mean()


def test_directed_motion_rests_after_one_clip_and_bounces_go_on():
    right = object_boxes(single(motion="right"), 33, 128, 128)[0, :, 0]
    assert (np.diff(right[:17]) > 1).all()
    np.testing.assert_allclose(right[17:], right[16])
    bounce = object_boxes(single(motion="bounce"), 33, 128, 128)[0, :, 3]
    assert bounce[17:].std() > 3


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="0 frames"):
        render([single()], num_frames=0)
    with pytest.raises(InputError, match="at least one scene"):
        render([])
