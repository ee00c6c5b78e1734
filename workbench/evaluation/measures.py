"""The numbers of one clip, and of a clip beside its reference: what each means and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from workbench.evaluation import fidelity, temporal

Better = Literal["higher", "lower", "like the reference"]


@dataclass(frozen=True)
class Measure:
    """What a number means.

    Attributes:
        label: Short name for a table.
        better: Which way is better; motion and flicker are to be like the reference's.
        digits: Decimals worth showing.
    """

    label: str
    better: Better
    digits: int = 3


CLIP_MEASURES: dict[str, Measure] = {
    "subject_consistency": Measure("subject consistency", "higher"),
    "background_consistency": Measure("background consistency", "higher"),
    "motion_smoothness": Measure("motion smoothness", "higher"),
    "flicker": Measure("flicker (levels)", "lower", 2),
    "dynamic_degree": Measure("dynamic degree", "like the reference", 4),
    "speed": Measure("mean speed", "like the reference", 5),
    "crispness": Measure("gradient energy", "like the reference", 5),
}
"""Measures of one clip, VBench-like (`temporal`), in the order of a table."""

PAIR_MEASURES: dict[str, Measure] = {
    "psnr": Measure("PSNR (dB)", "higher", 2),
    "ssim": Measure("SSIM", "higher"),
    "vmaf": Measure("VMAF", "higher", 1),
    "divergence": Measure("latent divergence", "lower"),
    "motion_ratio": Measure("motion ratio", "like the reference"),
    "flicker_ratio": Measure("flicker ratio", "like the reference"),
}
"""Measures of a clip beside its reference's of the same prompt and seed."""

LEAST_FLICKER = 0.02
"""Levels of 255 added to both sides of a ratio of flickers, so that two calm clips count as alike."""


def clip_measures(frames: np.ndarray) -> dict[str, float]:
    """Measure one clip.

    Args:
        frames: uint8 [F, H, W, 3], at least 3 frames.

    Returns:
        A number for every name in `CLIP_MEASURES`.

    Raises:
        InputError: no clip, or one that is too short.
    """
    return {
        "subject_consistency": temporal.subject_consistency(frames),
        "background_consistency": temporal.background_consistency(frames),
        "motion_smoothness": temporal.motion_smoothness(frames),
        "flicker": temporal.flicker(frames),
        "dynamic_degree": temporal.dynamic_degree(frames),
        "speed": temporal.mean_speed(frames),
        "crispness": float(gradient_energy(frames).mean()),
    }


def gradient_energy(frames: np.ndarray) -> np.ndarray:
    """Return the mean squared spatial difference of every frame, [F], values in 0 to 1: how crisp it is."""
    values = temporal.check_clip(frames).astype(np.float32) / 255
    down = np.square(np.diff(values, axis=1)).mean((1, 2, 3))
    right = np.square(np.diff(values, axis=2)).mean((1, 2, 3))
    energy: np.ndarray = down + right
    return energy


def pair_measures(frames: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compare a clip with the reference's of the same prompt and seed.

    Args:
        frames: uint8 [F, H, W, 3].
        reference: The same shape.

    Returns:
        A number for every name in `PAIR_MEASURES` but the divergence; VMAF only where ffmpeg has it.

    Raises:
        InputError: the clips do not go together.
    """
    values = {
        "psnr": float(fidelity.psnr(frames, reference).mean()),
        "ssim": float(fidelity.ssim(frames, reference).mean()),
        "motion_ratio": fidelity.motion_ratio(frames, reference),
        "flicker_ratio": (temporal.flicker(frames) + LEAST_FLICKER)
        / (temporal.flicker(reference) + LEAST_FLICKER),
    }
    if fidelity.has_vmaf():
        values["vmaf"] = float(fidelity.vmaf(frames, reference).mean())
    return values


def divergence(points: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """Return how far a trajectory has left the reference's, point by point.

    Args:
        points: Latents after some of the steps, [P, C, T, H, W].
        reference: The same points of the reference.

    Returns:
        ‖z - z_ref‖ / ‖z_ref‖ for every point: 0 is the same, about 1.4 nothing in common.
    """
    gap = (points.float() - reference.float()).flatten(1).norm(dim=1)
    size = reference.float().flatten(1).norm(dim=1).clamp(min=1e-12)
    return [float(value) for value in gap / size]
