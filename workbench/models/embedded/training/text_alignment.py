"""Fit the transformer's text projection to a new text encoder, so that it can read on.

A separately trained encoder has embeddings of its own. The projection behind it (two linear layers) is fitted
to give, word by word, what it gave for the old encoder; the transformer then goes on where it was, and what
the new encoder knows more is there to be learned. Needs captions only, no clips.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from workbench.models.embedded.training.state import Part
from workbench.models.embedded.training.text_stage import draw_captions, encode_text

PROJECTION = "transformer.condition_embedder.text_embedder"
STEPS, BATCH, RATE = 800, 64, 2e-3
PADDING_WEIGHT = 1.0


def fit_projection(
    part: Part, old_encoder: Any, *, steps: int = STEPS, batch: int = BATCH, seed: int = 0
) -> float:
    """Fit the projection of a denoiser whose text encoder was replaced.

    Args:
        part: The denoiser, with its new text encoder and the projection of the old one.
        old_encoder: The text encoder that the projection was trained with.
        steps: Updates.
        batch: Captions an update.
        seed: Of the captions.

    Returns:
        The share of the old projections' variance over the words of held-out captions that is not explained.
    """
    denoiser: Any = part.module
    old = denoiser.transformer.condition_embedder.text_embedder
    new = copy.deepcopy(old)
    new_encoder = denoiser.text_encoder
    optimizer = torch.optim.AdamW(new.parameters(), lr=RATE, weight_decay=0.0)
    for step in range(steps):
        rng = np.random.default_rng((seed, 17, step))
        tokens, _ = draw_captions(batch, rng=rng, split="train", complete=step % 2 == 0)
        tokens = _shortened(tokens).to(part.device)
        with torch.no_grad():
            target = old(encode_text(old_encoder, tokens))
            inputs = encode_text(new_encoder, tokens)
        error = (new(inputs) - target).square().mean(-1)
        weight = torch.where(tokens == 0, PADDING_WEIGHT, 1.0)
        loss = (error * weight).sum() / weight.sum() / target.var().clamp(min=1e-8)
        for group in optimizer.param_groups:
            group["lr"] = RATE * max(0.01, 1 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    part.replace({f"{PROJECTION}.{name}": value for name, value in new.named_parameters()})
    return _unexplained(part, old_encoder, old, new)


def _shortened(tokens: torch.Tensor) -> torch.Tensor:
    """Cut tokens [B, L] to the longest caption and two places of padding."""
    return tokens[:, : int((tokens != 0).sum(1).max()) + 2]


@torch.no_grad()
def _unexplained(part: Part, old_encoder: Any, old: Any, new: Any) -> float:
    denoiser: Any = part.module
    tokens, _ = draw_captions(128, rng=np.random.default_rng(98), split="held-out", complete=True)
    tokens = tokens.to(part.device)
    words = tokens != 0
    target = old(encode_text(old_encoder, tokens))[words]
    found = new(encode_text(denoiser.text_encoder, tokens))[words]
    spread = (target - target.mean(0)).square().sum()
    return float(((found - target).square().sum() / spread).item())
