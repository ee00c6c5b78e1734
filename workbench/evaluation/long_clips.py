"""Report where clips longer than those the embedded model was trained on break.

    python -m workbench.evaluation.long_clips [--num 12] [--frames 33]

Beside every sampled clip stands the same length of rendered truth, as it is and through the codec alone, so
that what the codec loses is told apart from what the transformer loses.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.evaluation.adherence import compare
from workbench.evaluation.fidelity import psnr
from workbench.evaluation.held_out_report import IMAGES, RESULTS, facts_of_run, sampled
from workbench.evaluation.measures import gradient_energy
from workbench.evaluation.reading import read_clip
from workbench.evaluation.sheets import save_sheet, strip
from workbench.evaluation.suite import Prompt, held_out_suite
from workbench.models import LoadedModel
from workbench.models.embedded.world import render
from workbench.surgery import open_model
from workbench.workspace import Workspace

log = logging.getLogger(__name__)
COMMAND = "python -m workbench.evaluation.long_clips"
TRAINED_FRAMES = 17
STAYS = ("shape", "colour", "background", "count")
"""Attributes that hold in every part of a clip; motions end with the first 17 frames, so they do not."""
SHOWN = 9
STILL = 0.05
"""Levels of 255 added to both sides of a ratio of steps, so that two frames at rest count as alike."""


def report(prompts: Sequence[Prompt], clips: Sequence[np.ndarray], model: LoadedModel) -> dict[str, Any]:
    """Measure clips of one length frame by frame and window by window.

    Args:
        prompts: What was asked for.
        clips: uint8 [F, H, W, 3] each, of one shape.
        model: Whose codec the truth is passed through.

    Returns:
        by_frame: crispness of the clips and of the codec alone over the truth's, the codec's PSNR, and how
        much a frame differs from the one before it, over the truth's; adherence by window of 17 frames;
        breaks: the first frame at which crispness leaves the first window's range, or None; and jumps: the
        first past the trained ones that is twice as far from the one before it as in the truth, or None.
    """
    size = clips[0].shape
    scenes = [asked.scene for asked in prompts]
    truths = render(scenes, num_frames=size[0], height=size[1], width=size[2]).numpy()
    coded = [through_codec(truth, model) for truth in truths]
    energy = np.mean([gradient_energy(truth) for truth in truths], axis=0)
    crisp = np.mean([gradient_energy(clip) for clip in clips], axis=0) / energy
    ours, theirs = (np.mean([_steps(clip) for clip in some], axis=0) + STILL for some in (clips, truths))
    by_frame = {
        "crispness": _rounded(crisp),
        "codec_crispness": _rounded(np.mean([gradient_energy(clip) for clip in coded], axis=0) / energy),
        "codec_psnr": _rounded(np.mean([psnr(a, b) for a, b in zip(coded, truths, strict=True)], axis=0)),
        "step_over_truth": _rounded(ours / theirs),
    }
    return {
        "frames": size[0],
        "trained_frames": TRAINED_FRAMES,
        "clips": len(clips),
        "by_frame": by_frame,
        "windows": _windows(prompts, clips),
        "windows_of_truth": _windows(prompts, list(truths)),
        "breaks": first_break(crisp),
        "jumps": first_jump(ours / theirs),
    }


def first_break(crispness: np.ndarray, *, tolerance: float = 0.1) -> int | None:
    """Return the first frame past the trained ones whose crispness leaves their range, or None."""
    usual = crispness[:TRAINED_FRAMES]
    low, high = float(usual.min()) - tolerance, float(usual.max()) + tolerance
    outside = [
        index for index, value in enumerate(crispness) if index >= TRAINED_FRAMES and not low <= value <= high
    ]
    return outside[0] if outside else None


def first_jump(steps: np.ndarray, *, most: float = 2.0) -> int | None:
    """Return the first frame past the trained ones whose step, over the truth's, is above `most`, or None."""
    above = [index + 1 for index, value in enumerate(steps) if index + 1 >= TRAINED_FRAMES and value > most]
    return above[0] if above else None


@torch.no_grad()
def through_codec(frames: np.ndarray, model: LoadedModel) -> np.ndarray:
    """Return a clip encoded and decoded by a model's codec, uint8 [F, H, W, 3]."""
    codec = model.pipeline.vae
    pixels = torch.from_numpy(frames).to(model.device, codec.dtype).div(127.5).sub(1)
    latents = codec.encode(pixels.permute(3, 0, 1, 2)[None]).latent_dist.mode()
    decoded = codec.decode(latents, return_dict=False)[0][0].permute(1, 2, 3, 0).float().clamp(-1, 1)
    result: np.ndarray = decoded.add(1).mul(127.5).round().to(torch.uint8).cpu().numpy()
    return result


def _steps(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame to the one before it, [F - 1], levels of 255."""
    difference: np.ndarray = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3))
    return difference


def _windows(prompts: Sequence[Prompt], clips: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Share of right verdicts by window of 17 frames, of the attributes that hold in every window."""
    found: dict[str, dict[str, float]] = {}
    for start in range(0, len(clips[0]) - TRAINED_FRAMES + 1, TRAINED_FRAMES - 1):
        right = dict.fromkeys(STAYS, 0)
        for asked, clip in zip(prompts, clips, strict=True):
            verdicts = compare(read_clip(clip[start : start + TRAINED_FRAMES]), asked.scene, stated=STAYS)
            for name in STAYS:
                right[name] += getattr(verdicts, name) == "right"
        window = f"{start}-{start + TRAINED_FRAMES - 1}"
        found[window] = {name: round(count / len(clips), 4) for name, count in right.items()}
    return found


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample long clips and write the report and a sheet."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--num", type=int, default=12)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--out", type=Path, default=RESULTS / "long_clips.json")
    parser.add_argument("--sheet", type=Path, default=IMAGES / "long_clips.png")
    parser.add_argument("--workspace", type=Path, help="where clips are kept")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prompts = held_out_suite(options.num)
    model = open_model(options.model)
    clips = sampled(model, prompts, Workspace.open(options.workspace), frames=options.frames)
    command = f"{COMMAND} --num {options.num} --frames {options.frames}"
    what = "clips longer than trained: crispness, steps and adherence over time, beside truth and codec"
    document = {"what": what, **facts_of_run(model, clips, command)}
    document |= report(prompts, [clip.frames for clip in clips], model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    rows = [[strip(clip.frames, count=SHOWN, most_width=SHOWN * 96)] for clip in clips]
    save_sheet(options.sheet, rows, titles=[asked.prompt for asked in prompts])
    log.info(
        "blurs at frame %s, jumps at frame %s; windows %s",
        document["breaks"],
        document["jumps"],
        json.dumps(document["windows"]),
    )


if __name__ == "__main__":
    main()
