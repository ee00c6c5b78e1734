"""The clips of a setup on held-out scenes: judged, and set beside the teacher's of the same prompt and seed.

The teacher's frames and every clip's numbers are kept, so that a run that was killed repeats one clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.evaluation.adherence import judge
from workbench.evaluation.fidelity import psnr, ssim
from workbench.evaluation.suite import Prompt, held_out_suite
from workbench.evaluation.temporal import background_consistency, flicker, mean_speed, subject_consistency
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.settings import TEACHER, Setup
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models import LoadedModel
from workbench.sampling import GenerateConfig, sample
from workbench.workspace import read_json, write_json

Numbers = dict[str, float]
RIGHT = "right: "
"""Before the name of an attribute that was asked for: 1 where the clip shows it, else 0."""


def clip_numbers(lab: Laboratory, setup: Setup, scenes: range, *, frames: int | None = None) -> list[Numbers]:
    """Sample and measure clips of some of the held-out scenes; those measured before are read.

    Args:
        setup: the teacher's clips must have been measured before a student's.
        scenes: which of the scenes, always in the same order; the number is also the seed.
        frames: of a clip; None takes the model's default.

    Returns:
        For every clip its adherence (share of what was asked that is right), what was asked one by one
        (`RIGHT`), mean speed, flicker and consistencies; for a student's also PSNR and SSIM to the teacher's.
    """
    prompts = held_out_suite(scenes.stop)[scenes.start :]
    length = lab.size(frames).frames
    stem = f"{lab.identity(setup)}-{length}"
    files = [lab.scratch / f"{stem}-{prompt.seed:04d}.json" for prompt in prompts]
    missing = [index for index, file in enumerate(files) if not file.exists()]
    if missing:
        batch = lab.shared.batch if lab.model.device.type == "cuda" else 1
        with lab.installed(setup) as model:
            for first in range(0, len(missing), batch):
                group = missing[first : first + batch]
                made = sample_clips(lab, model, [prompts[index] for index in group], length)
                for index, clip in zip(group, made, strict=True):
                    if setup == TEACHER:
                        _save_frames(_teacher_file(lab, length, prompts[index].seed), clip)
                    write_json(files[index], _numbers(lab, setup, prompts[index], clip))
    return [read_json(file, what=file.name) for file in files]


def sample_clips(
    lab: Laboratory, model: LoadedModel, prompts: Sequence[Prompt], length: int
) -> list[np.ndarray]:
    """Sample clips in one batch, uint8 [F, H, W, 3] each; the seed alone determines the noise of a clip."""
    settings = GenerateConfig(
        prompt=prompts[0].prompt, seed=prompts[0].seed, steps=lab.shared.clip_steps, frames=length
    ).resolved(model.facts)
    if len(prompts) == 1:
        return [sample(model, settings).frames]
    output = model.pipeline(
        prompt=[prompt.prompt for prompt in prompts],
        height=settings.height,
        width=settings.width,
        num_frames=length,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts],
        output_type="np",
        max_sequence_length=model.facts.text_tokens,
    )
    return list(np.round(np.asarray(output.frames) * 255).clip(0, 255).astype(np.uint8))


def _numbers(lab: Laboratory, setup: Setup, asked: Prompt, clip: np.ndarray) -> Numbers:
    right = {name: verdict == "right" for name, verdict in judge(clip, asked.scene).asked().items()}
    numbers = {
        **{f"{RIGHT}{name}": float(is_right) for name, is_right in right.items()},
        "adherence": sum(right.values()) / len(right),
        "speed": mean_speed(clip),
        "flicker": flicker(clip),
        "subject_consistency": subject_consistency(clip),
        "background_consistency": background_consistency(clip),
    }
    if setup == TEACHER:
        return numbers
    teacher: Any = load_tensors(_teacher_file(lab, len(clip), asked.seed), what="a teacher's clip")["frames"]
    reference = teacher.numpy()
    return {
        **numbers,
        "psnr": float(psnr(clip, reference).mean()),
        "ssim": float(ssim(clip, reference).mean()),
    }


def _teacher_file(lab: Laboratory, length: int, seed: int) -> Path:
    name = f"{lab.identity(TEACHER)}-{length}-{seed:04d}.safetensors"
    return lab.scratch / name


def _save_frames(path: Path, clip: np.ndarray) -> None:
    save_tensors(path, {"frames": torch.from_numpy(np.ascontiguousarray(clip))})
