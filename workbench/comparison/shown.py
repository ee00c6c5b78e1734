"""How a player shows a comparison: rows of clips with their facts and curves, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.comparison.record import ComparedClip, Comparison

MEGABYTE = 1e6


def player_data(comparison: Comparison, address: Callable[[str], str] = str) -> dict[str, Any]:
    """Return what the player shows.

    Args:
        comparison: as read.
        address: from the file name of a clip to where the browser finds it.
    """
    return {
        "seed": comparison.settings.seed,
        "fps": comparison.fps,
        "frames": comparison.size[0],
        "columns": [column.name for column in comparison.columns],
        "rows": [
            {
                "prompt": prompt,
                "clips": [_clip(clip, address) for clip in comparison.clips if clip.row == row],
            }
            for row, prompt in enumerate(comparison.prompts)
        ],
    }


def operations(tflop: float) -> tuple[str, str]:
    """Return a number of operations with its unit, three digits."""
    for scale, unit in ((1e-3, "PFLOP"), (1.0, "TFLOP"), (1e3, "GFLOP")):
        if tflop * scale >= 1:
            return f"{tflop * scale:.3g}", unit
    return f"{tflop * 1e6:.3g}", "MFLOP"


def _clip(clip: ComparedClip, address: Callable[[str], str]) -> dict[str, Any]:
    metrics = clip.metrics
    return {
        "role": clip.role,
        "column": clip.column,
        "name": clip.name,
        "plan": list(clip.plan),
        "branch": clip.linear_branch,
        "url": address(clip.path),
        "facts": _facts(clip),
        "verdicts": [[name, verdict] for name, verdict in clip.verdicts.items()],
        "curves": {"psnr": list(metrics.psnr), "ssim": list(metrics.ssim)} if metrics else None,
        "means": {"psnr": metrics.mean_psnr, "ssim": metrics.mean_ssim} if metrics else None,
    }


def _facts(clip: ComparedClip) -> list[list[str]]:
    """Return label, value, unit and what it means, of all that is known of a clip."""
    facts: list[list[str]] = []
    if clip.tflop is not None:
        facts.append(["transformer", *operations(clip.tflop), "Operations of the whole clip, counted"])
    if clip.seconds is not None:
        tip = f"Measured, one run; {clip.decode_seconds or 0:.1f} s of it for decoding"
        facts.append(["time", f"{clip.seconds:.1f}", "s", tip])
    if clip.peak_bytes is not None:
        facts.append(
            ["peak memory", f"{clip.peak_bytes / MEGABYTE:,.0f}", "MB", "Measured while it was made"]
        )
    if clip.motion_ratio is not None:
        tip = "How much moves, over how much moves in the teacher's clip"
        facts.append(["motion", f"{clip.motion_ratio:.2f}".removeprefix("0"), "×", tip])
    return facts
