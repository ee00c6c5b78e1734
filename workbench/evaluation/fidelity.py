"""Compare a clip with another frame by frame: a student's with its teacher's of the same prompt and seed."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from skimage.metrics import structural_similarity

from workbench.errors import InputError
from workbench.evaluation.temporal import (
    background_consistency,
    check_clip,
    dynamic_degree,
    flicker,
    motion_ratio,
    motion_smoothness,
    subject_consistency,
)

__all__ = [
    "MAX_PSNR",
    "background_consistency",
    "dynamic_degree",
    "flicker",
    "has_vmaf",
    "motion_ratio",
    "motion_smoothness",
    "psnr",
    "ssim",
    "subject_consistency",
    "vmaf",
]

MAX_PSNR = 99.0
"""PSNR in dB that stands for equal frames (and caps all others), so that no report holds an infinity."""


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = check_clip(first), check_clip(second)
    if first.shape != second.shape:
        raise InputError(
            f"Two clips can be compared only at the same size, not {list(first.shape)} and "
            f"{list(second.shape)} (frames, height, width, channels); generate both with the same settings."
        )
    return first, second


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio per frame in dB, float [F]; equal frames give `MAX_PSNR`.

    Raises:
        InputError: when the clips are not uint8 [F, H, W, 3] of one shape.
    """
    first, second = _pair(first, second)
    error = ((first.astype(np.float64) - second.astype(np.float64)) ** 2).mean((1, 2, 3))
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-12)), MAX_PSNR)


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the structural similarity per frame, float [F] (scikit-image, 7 × 7 windows).

    Raises:
        InputError: when the clips are not uint8 [F, H, W, 3] of one shape, or smaller than a window.
    """
    first, second = _pair(first, second)
    if min(first.shape[1:3]) < 7:
        raise InputError(
            f"SSIM needs frames of at least 7 × 7 pixels, not {first.shape[1]} × {first.shape[2]}."
        )
    pairs = zip(first, second, strict=True)
    return np.array([structural_similarity(a, b, channel_axis=-1, data_range=255) for a, b in pairs])


@lru_cache(maxsize=1)
def has_vmaf() -> bool:
    """Whether the ffmpeg that imageio-ffmpeg brings can compute VMAF."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-filters"]
    listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return re.search(r"\blibvmaf\b", listing.stdout) is not None


def vmaf(distorted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return VMAF per frame, float [F], 0 to 100, from ffmpeg's libvmaf and its default model.

    Raises:
        InputError: when ffmpeg lacks libvmaf (ask `has_vmaf` first) or the clips do not go together.
    """
    distorted, reference = _pair(distorted, reference)
    if not has_vmaf():
        raise InputError("VMAF needs an ffmpeg with libvmaf, and the one found has none; use PSNR and SSIM.")
    height, width = distorted.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "16"]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("distorted.rgb", "reference.rgb")]
        for path, clip in zip(paths, (distorted, reference), strict=True):
            path.write_bytes(np.ascontiguousarray(clip).tobytes())
        inputs = [part for path in paths for part in (*raw, "-i", path.name)]
        graph = "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]libvmaf=log_fmt=json:log_path=vmaf.json"
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "error",
            *inputs,
            "-lavfi",
            graph,
            "-f",
            "null",
            "-",
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        frames = json.loads((Path(folder) / "vmaf.json").read_text())["frames"]
    return np.array([frame["metrics"]["vmaf"] for frame in frames])
