"""Fidelity, movement, statistics, the own prompts and the VBench layout."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from workbench.errors import InputError
from workbench.evaluation import fidelity
from workbench.evaluation.measures import CLIP_MEASURES, clip_measures, divergence, gradient_energy
from workbench.evaluation.prompt_set import own_prompts
from workbench.evaluation.statistics import (
    bootstrap_interval,
    paired_bootstrap,
    paired_ratio,
    wilson_interval,
)
from workbench.evaluation.temporal import mean_speed
from workbench.evaluation.vbench import SampledClip, clip_name, export_vbench
from workbench.models.embedded.world import Scene, Solid, render


@pytest.fixture(scope="module")
def moving():
    scene = Scene((Solid("ball", "red", "big", "right"),), None, "meadow", "static", 1)
    return render([scene], height=96, width=96).numpy()[0]


@pytest.fixture(scope="module")
def still():
    scene = Scene((Solid("ball", "red", "big", "still"),), None, "meadow", "static", 1)
    return render([scene], height=96, width=96).numpy()[0]


def noisy(clip, sigma=4.0):
    noise = sigma * np.random.default_rng(0).standard_normal(clip.shape)
    return (clip + noise).clip(0, 255).astype(np.uint8)


def test_psnr_is_capped_finite_and_exact(moving):
    equal = fidelity.psnr(moving, moving)
    assert equal.shape == (17,)
    assert (equal == fidelity.MAX_PSNR).all()
    shifted = np.full((2, 8, 8, 3), 100, np.uint8)
    np.testing.assert_allclose(fidelity.psnr(shifted, shifted + 10), 20 * np.log10(25.5))
    assert json.loads(json.dumps(equal.tolist())) == [99.0] * 17


def test_ssim_falls_with_damage(moving):
    assert (fidelity.ssim(moving, moving) > 0.999).all()
    blurred = ndimage.gaussian_filter(moving, (0, 2, 2, 0))
    assert (fidelity.ssim(moving, blurred) < 0.99).all()
    assert fidelity.ssim(moving, noisy(moving)).mean() < fidelity.ssim(moving, noisy(moving, 1)).mean()


def test_clips_of_different_size_are_refused(moving):
    with pytest.raises(InputError, match="same size"):
        fidelity.psnr(moving, moving[:5])
    with pytest.raises(InputError, match="uint8"):
        fidelity.ssim(moving / 255, moving / 255)


def test_motion_ratio_sees_less_motion(moving, still):
    half = moving[np.linspace(0, 8, 17).round().astype(int)]
    assert fidelity.motion_ratio(moving, moving) == 1
    assert fidelity.motion_ratio(half, moving) < 0.75
    assert fidelity.motion_ratio(still, moving) < 0.1
    assert fidelity.motion_ratio(still, still) == 1
    assert 0.8 < fidelity.motion_ratio(noisy(moving), moving) < 1.25


def test_speed_is_that_of_the_object(moving):
    fast = fidelity.dynamic_degree(moving)
    assert 0.015 < fast < 0.05
    assert mean_speed(moving) < fast
    assert fidelity.dynamic_degree(np.repeat(moving[:1], 5, 0)) == 0


def test_flicker_sees_unsteady_light_and_not_motion(moving, still):
    light = 1 + 0.04 * (-1.0) ** np.arange(17)[:, None, None, None]
    unsteady = (moving * light).clip(0, 255).astype(np.uint8)
    assert fidelity.flicker(still) == 0
    assert fidelity.flicker(moving) < 0.3
    assert fidelity.flicker(unsteady) > 3


def test_vbench_like_measures_fall_when_a_clip_falls_apart(moving, still):
    shuffled = moving[np.random.default_rng(0).permutation(17)]
    assert fidelity.motion_smoothness(shuffled) < fidelity.motion_smoothness(moving) <= 1
    other = render(
        [Scene((Solid("cube", "blue"),), None, "night", "static", 0)], height=96, width=96
    ).numpy()[0]
    cut = np.concatenate([moving[:9], other[9:]])
    for measure in (fidelity.subject_consistency, fidelity.background_consistency):
        assert measure(still) == pytest.approx(1, abs=1e-6)
        assert measure(cut) < measure(moving) - 0.02


def test_too_short_clips_are_refused(moving):
    with pytest.raises(InputError, match="at least 3 frames"):
        fidelity.flicker(moving[:2])


@pytest.mark.skipif(not fidelity.has_vmaf(), reason="the ffmpeg found has no libvmaf")
def test_vmaf_ranks_damage(moving):
    equal = fidelity.vmaf(moving, moving)
    assert equal.shape == (17,)
    assert equal.mean() > 95
    assert fidelity.vmaf(ndimage.gaussian_filter(moving, (0, 2, 2, 0)), moving).mean() < 80


def test_wilson_interval_holds_the_fraction():
    low, high = wilson_interval(45, 50)
    assert (round(low, 3), round(high, 3)) == (0.786, 0.957)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)


def test_paired_bootstrap_uses_the_pairs():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 10, 60)
    better = base + rng.normal(0.5, 0.5, 60)
    difference = paired_bootstrap(better, base)
    assert 0.3 < difference.low < difference.mean < difference.high < 0.7
    assert difference.share_above == 1.0
    low, high = bootstrap_interval(better)
    assert high - low > 3
    with pytest.raises(InputError, match="as many"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="finite"):
        bootstrap_interval([1.0, float("nan")])


def test_own_prompts_are_many_and_apart():
    train, held_out = own_prompts("train"), own_prompts("held-out")
    texts = [entry.prompt for entry in train + held_out]
    assert (len(train), len(held_out), len(set(texts))) == (192, 64, 256)
    assert {entry.group for entry in train} == {entry.group for entry in held_out}
    assert all(clip_name(text, 0) for text in texts)
    with pytest.raises(InputError, match="train, held-out"):
        own_prompts("test")


def test_vbench_folder_has_names_seeds_and_settings(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"video")
    clips = [SampledClip("A fox runs", sample, 100 + sample, clip) for sample in range(5)]
    protocol = export_vbench(tmp_path / "out", clips, settings={"steps": 20})
    document = json.loads(protocol.read_text())
    assert sorted(path.name for path in protocol.parent.glob("*.mp4")) == [
        f"A fox runs-{n}.mp4" for n in range(5)
    ]
    assert document["complete"]
    assert document["settings"] == {"steps": 20}
    assert document["clips"][3] == {
        "file": "A fox runs-3.mp4",
        "prompt": "A fox runs",
        "sample": 3,
        "seed": 103,
    }
    with pytest.raises(InputError, match="not empty"):
        export_vbench(tmp_path / "out", clips, settings={})
    with pytest.raises(InputError, match="named"):
        export_vbench(tmp_path / "new", [clips[0], clips[0]], settings={})
    with pytest.raises(InputError, match="file name"):
        clip_name("a / b", 0)
    assert not (tmp_path / "new").exists()


def test_a_paired_ratio_says_how_much_less():
    rng = np.random.default_rng(1)
    teacher = rng.uniform(0.01, 0.03, 40)
    found = paired_ratio(0.88 * teacher * rng.uniform(0.95, 1.05, 40), teacher)
    assert found.low < found.ratio < found.high < 1
    assert found.ratio == pytest.approx(0.88, abs=0.02)
    assert paired_ratio([0.0, 0.0], [0.0, 0.0], offset=1e-5).ratio == 1
    with pytest.raises(InputError, match="as many"):
        paired_ratio([1.0], [1.0, 2.0])


def test_trajectories_part_from_each_other():
    points = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert divergence(points, points) == [0, 0, 0]
    shifted = points.clone()
    shifted[1] *= 1.1
    assert divergence(shifted, points) == pytest.approx([0, 0.1, 0], abs=1e-5)


def test_gradient_energy_falls_with_blur(moving):
    blurred = ndimage.gaussian_filter(moving, (0, 2, 2, 0))
    assert (gradient_energy(blurred) < 0.7 * gradient_energy(moving)).all()
    assert set(clip_measures(moving)) == set(CLIP_MEASURES)
