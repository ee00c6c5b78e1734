"""The text encoder's stage: learn to say of every caption which object does what, before any clip is seen.

Trained with the transformer alone, the encoder stays a bag of words for long: which colour belongs to which
shape, and left against right, change the clip's loss little. Here small queries read each attribute of each
object from the encoder's tokens, so that the tokens must carry it. Runs on a CPU in minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workbench.models.embedded.architecture import TEXT_WIDTH, build_text_encoder
from workbench.models.embedded.tokenizer import TEXT_LENGTH, build_tokenizer, token_list
from workbench.models.embedded.training.loop import Budget, Recorder, Schedule, StagePlan, run_stage
from workbench.models.embedded.training.pool import Split
from workbench.models.embedded.training.state import Part, is_saved
from workbench.models.embedded.world import Scene, caption, sample_scene
from workbench.models.embedded.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
)

FOLDER = "text"
STAGES = {"text": Schedule(peak=1e-3, final=0.02, warmup=50, decay=0.99)}
BATCH = 96
OF_OBJECT: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "motion": MOTIONS,
    "texture": TEXTURES,
}
OF_SCENE: dict[str, tuple[str, ...]] = {
    "relation": RELATIONS,
    "background": BACKGROUNDS,
    "camera": CAMERAS,
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    **{f"{slot} {name}": values for slot in ("first", "second") for name, values in OF_OBJECT.items()},
    **OF_SCENE,
}
"""What is asked of a caption, and the possible answers; the answer after the last is "there is none"."""


class CaptionReader(nn.Module):
    """The text encoder with one query and one linear head per question.

    Args:
        vocabulary_size: Tokens of the text encoder.
    """

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(vocabulary_size)
        self.queries = nn.Parameter(torch.randn(len(QUESTIONS), TEXT_WIDTH) / TEXT_WIDTH**0.5)
        self.keys = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        self.heads = nn.ModuleList([nn.Linear(TEXT_WIDTH, len(known) + 1) for known in QUESTIONS.values()])

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits of every question, [B, answers + 1] each, for token ids [B, L]."""
        hidden = encode_text(self.text_encoder, tokens)
        scores = self.queries @ self.keys(hidden).transpose(1, 2)
        scores = scores.masked_fill((tokens == 0)[:, None], -torch.inf)
        read = scores.softmax(-1) @ hidden
        return [head(read[:, index]) for index, head in enumerate(self.heads)]


def encode_text(text_encoder: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return text embeddings [B, L, 128] of token ids [B, L], zero at padding, as in the pipeline."""
    mask = tokens != 0
    hidden: torch.Tensor = text_encoder(tokens, mask.long()).last_hidden_state
    return hidden * mask[..., None].to(hidden.dtype)


def answers_of(scene: Scene) -> list[int]:
    """Return the index of the true answer to every question about a scene."""
    found: list[int] = []
    for slot in range(2):
        for name, values in OF_OBJECT.items():
            there = slot < len(scene.objects)
            found.append(values.index(getattr(scene.objects[slot], name)) if there else len(values))
    for name, values in OF_SCENE.items():
        value = getattr(scene, name)
        found.append(len(values) if value is None else values.index(value))
    return found


def open_reader(folder: Path, *, device: str, seed: int, resume: bool = False) -> Part:
    """Build the caption reader, fresh or from its last checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)
        reader = CaptionReader(len(token_list()))
    part = Part(reader.to(device), seed=seed + 2, weight_decay=0.01)
    if resume and is_saved(folder / FOLDER):
        part.load(folder / FOLDER)
    return part


def draw_captions(
    count: int, *, rng: np.random.Generator, split: Split, complete: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw scenes and return their captions' token ids [B, TEXT_LENGTH] and true answers [B, questions].

    With `complete` every caption states everything; otherwise it leaves things out as in training.
    """
    scenes = [sample_scene(rng, split=split) for _ in range(count)]
    captions = [caption(scene, None if complete else rng) for scene in scenes]
    tokenizer = build_tokenizer()
    encoded = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
    return encoded.input_ids, torch.tensor([answers_of(scene) for scene in scenes])


def train_text_stage(part: Part, *, budget: Budget, recorder: Recorder, batch: int = BATCH) -> bool:
    """Run or go on with the text encoder's stage; returns whether it is finished."""
    reader: Any = part.module

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rng = np.random.default_rng((part.seed, part.progress.steps))
        tokens, answers = (value.to(part.device) for value in draw_captions(batch, rng=rng, split="train"))
        tokens = tokens[:, : int((tokens != 0).sum(1).max())]
        logits = reader(tokens)
        losses = [nn.functional.cross_entropy(found, answers[:, i]) for i, found in enumerate(logits)]
        return torch.stack(losses).mean(), {}

    def watch() -> dict[str, Any]:
        return measure_reader(reader, device=part.device)

    plan = StagePlan("text", FOLDER, budget, STAGES["text"], batch)
    return run_stage(part, plan, step=step, recorder=recorder, watch=watch)


@torch.no_grad()
def measure_reader(reader: Any, *, device: torch.device | str, count: int = 256) -> dict[str, float]:
    """Return the share of right answers to every question on complete captions of held-out scenes."""
    rng = np.random.default_rng(99)
    tokens, answers = (
        value.to(device) for value in draw_captions(count, rng=rng, split="held-out", complete=True)
    )
    right = [(logits.argmax(-1) == answers[:, index]) for index, logits in enumerate(reader(tokens))]
    return {name: round(hit.float().mean().item(), 4) for name, hit in zip(QUESTIONS, right, strict=True)}
