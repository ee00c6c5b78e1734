"""What a denoiser reads of its prompt: does it explain a clip better by its own caption than by its twin's?

Cheaper and finer than judging sampled clips: it needs no sampling, and says at which noise level and for
which kind of difference the prompt is read.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.models.embedded.tokenizer import TEXT_LENGTH, build_tokenizer
from workbench.models.embedded.training.latents import encode_clips
from workbench.models.embedded.whole_clip import WholeClip
from workbench.models.embedded.world import Scene, caption, render, sample_scene, twin

LEVELS = (0.95, 0.85, 0.7)


@dataclass(frozen=True)
class TwinClips:
    """Held-out clips with their own captions and those of their twins.

    Attributes:
        latents: Normalised, float32 [N, 16, 5, 16, 16].
        own: Token ids [N, TEXT_LENGTH].
        other: Token ids of the twins' captions, [N, TEXT_LENGTH].
        changes: What differs, one a clip.
    """

    latents: torch.Tensor
    own: torch.Tensor
    other: torch.Tensor
    changes: list[str]


def draw_twin_clips(
    codec: WholeClip,
    scale: tuple[torch.Tensor, torch.Tensor],
    *,
    count: int,
    seed: int,
    device: str,
    pair_share: float = 0.6,
) -> TwinClips:
    """Render held-out scenes that have a twin, and encode them.

    Args:
        codec: Encodes the clips.
        scale: Mean and deviation of the latents, [16] each.
        count: Clips.
        seed: Of the scenes.
        device: Where the clips are made and kept.
        pair_share: Share of scenes with two objects.
    """
    rng = np.random.default_rng((seed, 31))
    scenes: list[Scene] = []
    others: list[Scene] = []
    changes: list[str] = []
    while len(scenes) < count:
        scene = sample_scene(rng, split="held-out", pair_share=pair_share)
        found = twin(scene, rng, held_out_too=True)
        if found is not None:
            scenes.append(scene)
            others.append(found.scene)
            changes.append(found.change)
    latents = encode_clips(codec, render(scenes, device=device).to(device)).float()
    mean, std = (value.to(latents.device).view(1, -1, 1, 1, 1) for value in scale)
    tokenizer = build_tokenizer()

    def tokens(texts: list[str]) -> torch.Tensor:
        encoded = tokenizer(texts, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
        ids: torch.Tensor = encoded.input_ids
        return ids.to(device)

    own = tokens([caption(scene) for scene in scenes])
    return TwinClips((latents - mean) / std, own, tokens([caption(scene) for scene in others]), changes)


@torch.no_grad()
def measure_reading(
    denoiser: Any, clips: TwinClips, *, levels: tuple[float, ...] = LEVELS, seed: int = 0, batch: int = 64
) -> dict[str, Any]:
    """Compare the velocity loss under the own and the twin's caption, with equal noise.

    Returns:
        velocity_loss: mean loss under the own caption, by noise level; prefers_own: share of clips whose
        loss under the own caption is lower, over all levels, by level, and by change. Guessing gives a half.
    """
    device = clips.latents.device
    noise = torch.randn(clips.latents.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    losses: dict[float, float] = {}
    right: dict[str, list[float]] = defaultdict(list)
    for level in levels:
        errors = [
            _errors(denoiser, clips, noise, tokens, level=level, batch=batch)
            for tokens in (clips.own, clips.other)
        ]
        losses[level] = errors[0].mean().item()
        hits = (errors[0] < errors[1]).float().tolist()
        right[f"noise {level}"] += hits
        right["all"] += hits
        for change, hit in zip(clips.changes, hits, strict=True):
            right[change].append(hit)
    return {
        "velocity_loss": {str(level): round(value, 5) for level, value in losses.items()},
        "prefers_own": {name: round(sum(hits) / len(hits), 3) for name, hits in sorted(right.items())},
    }


def _errors(
    denoiser: Any, clips: TwinClips, noise: torch.Tensor, tokens: torch.Tensor, *, level: float, batch: int
) -> torch.Tensor:
    """Return the velocity loss of every clip at one noise level, [N]."""
    found = []
    device = clips.latents.device
    for start in range(0, len(tokens), batch):
        part = slice(start, start + batch)
        clean, added = clips.latents[part], noise[part]
        sigma = torch.full((len(clean),), level, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            text = denoiser.encode_text(tokens[part])
            velocity = denoiser((1 - level) * clean + level * added, sigma, text)
        found.append((velocity.float() - (added - clean)).square().mean((1, 2, 3, 4)))
    return torch.cat(found)
