"""What a user chooses when finetuning a student, ready-made choices, and the check before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from workbench.distillation.clips import captioned_files
from workbench.distillation.config import OptimizerName, Prompts
from workbench.distillation.trajectories import SamplingSettings
from workbench.errors import InputError
from workbench.models import ModelFacts, check_words
from workbench.models.prompts import has_closed_vocabulary
from workbench.surgery import Student, read_student
from workbench.types import ClipSize, StrictModel

Method = Literal["lora", "maps", "full"]
Objective = Literal["teacher", "flow"]
Precision = Literal["auto", "float32", "bfloat16"]


class FinetuneConfig(StrictModel):
    """How a student is finetuned.

    Attributes:
        model: student folder.
        method: "lora" trains a LoRA and the feature maps, "maps" the feature maps alone, "full" the whole
            transformer and the feature maps.
        objective: "teacher" learns the teacher's velocity on its cached trajectories and needs no videos;
            "flow" is flow matching on captioned clips.
        clips: of "flow": a folder of clips, each `name.mp4` with its caption in `name.txt`; None renders the
            procedural world, for models that know its words.
        num_clips: rendered where no folder is given; of a folder at most so many are used.
        rank: of the LoRA.
        updates: optimiser steps; each sees `accumulate` states, of all processes together.
        batch: of these states, so many go through the model in one pass, where a GPU has room; the loss is
            the same. Of a plan with dense first steps only states of one step do. As many trajectories are
            sampled at once.
        optimizer: of the whole transformer's matrices: "muon" moves them along orthogonalised momentum;
            everything else is moved by AdamW.
        lr: of the LoRA or the transformer; None takes 5e-4 and 5e-5. `maps_lr` of the feature maps.
        warmup: share of the updates over which the rate rises.
        ema: decay of the averaged weights, which are the ones that are kept; 0 keeps the last weights.
        precision: of the arithmetic; weights that are trained stay float32. "auto" takes the model's own.
        prompts, num_prompts, held_out_prompts, num_held_out, steps, guidance, frames, height, width: of the
            teacher's trajectories, as in measuring; "flow" samples the held-out ones alone.
        gradient_checkpointing: trades time for memory.
        sample_prompt: of the clip that is made when the user asks for a sample; empty takes a held-out one.
        sample_every: updates between two samples that are made unasked; 0 makes none.
        cache_megabytes: bound on trajectories and encoded clips kept in the workspace.
        memory_gb: use at most so much of the GPU, in 1e9 bytes, its context included; enforced on a larger
            card too, so that what works here works on a card of that size.
    """

    model: str
    method: Method = "lora"
    objective: Objective = "teacher"
    clips: str | None = None
    num_clips: Annotated[int, Field(ge=1, le=100_000)] = 64
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    updates: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    batch: Annotated[int, Field(ge=1, le=1024)] = 1
    optimizer: OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0, le=1)] | None = None
    maps_lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    precision: Precision = "auto"
    prompts: Prompts = ()
    held_out_prompts: Prompts = ()
    num_prompts: Annotated[int, Field(ge=1, le=512)] = 16
    num_held_out: Annotated[int, Field(ge=1, le=512)] = 4
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    gradient_checkpointing: bool = False
    sample_prompt: Annotated[str, Field(max_length=10_000)] = ""
    sample_every: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    cache_megabytes: Annotated[int, Field(ge=1)] = 1024
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    name: Annotated[str, Field(max_length=200)] = ""

    @property
    def peak_lr(self) -> float:
        """The learning rate of the LoRA or the transformer."""
        return self.lr or (5e-5 if self.method == "full" else 5e-4)

    def sampling(self, facts: ModelFacts) -> SamplingSettings:
        """Return how the teacher's trajectories are sampled.

        Raises:
            InputError: a size that the model cannot make.
        """
        usual = facts.default_size
        size = ClipSize(self.frames or usual.frames, self.height or usual.height, self.width or usual.width)
        facts.check_size(size)
        guidance = facts.default_guidance if self.guidance is None else self.guidance
        return SamplingSettings(steps=self.steps, guidance=guidance, size=size)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "1min": {"updates": 40, "num_prompts": 4, "num_held_out": 2, "steps": 4, "ema": 0.9, "sample_every": 20},
    "10min": {"updates": 500, "num_prompts": 16, "num_held_out": 4, "steps": 8, "sample_every": 100},
    "overnight": {
        "updates": 30_000,
        "num_prompts": 192,
        "num_held_out": 16,
        "steps": 8,
        "ema": 0.999,
        "sample_every": 3000,
    },
    "24gb": {
        "method": "lora",
        "objective": "teacher",
        "updates": 500,
        "accumulate": 2,
        "num_prompts": 48,
        "num_held_out": 4,
        "steps": 8,
        "gradient_checkpointing": True,
        "memory_gb": 22.0,
        "cache_megabytes": 8192,
    },
}
"""Named choices of settings: the first three by about how long they take with the embedded model on two CPU
cores; "24gb" is for Wan2.1 1.3B at 81×480×832 on one GPU of 24 GB, from prompts alone."""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a named preset.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"There is no finetuning preset {name[:40]!r}; known: {', '.join(PRESETS)}.")
    return dict(PRESETS[name])


def check_finetune(config: FinetuneConfig) -> Student:
    """Refuse what can be refused without loading weights.

    Returns:
        The student that is finetuned.

    Raises:
        InputError: no student folder, a size or word that its teacher refuses, clips that are not there.
    """
    student = read_student(config.model)
    facts = student.manifest.teacher
    config.sampling(facts)
    if config.optimizer == "muon" and config.method != "full":
        raise InputError(
            f"Optimizer muon moves the whole transformer's matrices and method {config.method} trains none "
            "of them; choose method full, or optimizer adamw."
        )
    if not student.plan.converted and config.method == "maps":
        raise InputError(
            f"Student {student.name} converts no block, so there are no feature maps to train; "
            "choose a plan that converts some, or method lora."
        )
    for prompt in (*config.prompts, *config.held_out_prompts, config.sample_prompt):
        if prompt:
            check_words(facts, prompt)
    if config.objective == "teacher" and config.clips is not None:
        raise InputError("A folder of clips is used by flow matching only; choose objective flow as well.")
    if config.objective == "flow" and config.clips is None and not has_closed_vocabulary(facts):
        raise InputError(
            f"Flow matching of {facts.name} needs captioned clips; name a folder of .mp4 files, each with "
            "its caption in a .txt file."
        )
    if config.clips is not None:
        for clip in captioned_files(Path(config.clips)):
            check_words(facts, clip.caption)
    return student
