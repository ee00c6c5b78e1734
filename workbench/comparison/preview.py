"""What a clip will look like, before it is finished: the clean latents that a step points at, decoded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.models import LoadedModel

FRAMES_SHOWN = 3


class Preview:
    """Follows one sampling run and draws a strip of its first, middle and last frame when asked.

    Attributes:
        seconds: spent on drawing, to be taken off the time of the clip.
    """

    def __init__(self, model: LoadedModel, file: Path) -> None:
        self.file = file
        self.seconds = 0.0
        self._pipeline: Any = model.pipeline
        self._before: Tensor | None = None
        self._now: Tensor | None = None
        self._step = 0

    def start(self) -> None:
        """Forget the run before."""
        self._before, self._now, self._step, self.seconds = None, None, 0, 0.0

    def follow(self, step: int, latents: Tensor) -> None:
        """Take the latents after a step, [1, C, T, H, W]."""
        self._before, self._now, self._step = self._now, latents.detach(), step

    def clean_latents(self) -> Tensor | None:
        """Return where the run is heading: for rectified flow, x - σ · dx/dσ over the last step.

        The first step alone has no slope yet: None.
        """
        if self._now is None or self._before is None:
            return self._now
        sigmas = self._pipeline.scheduler.sigmas
        sigma, earlier = float(sigmas[self._step + 1]), float(sigmas[self._step])
        if sigma == earlier:
            return self._now
        slope = (self._now.float() - self._before.float()) / (sigma - earlier)
        return self._now.float() - sigma * slope

    @torch.no_grad()
    def draw(self) -> Path:
        """Write the strip as a PNG and return its path; after the last step there is nothing to foretell."""
        from PIL import Image

        began = time.monotonic()
        latents = self.clean_latents()
        if latents is not None and self._step + 1 < self._pipeline.scheduler.timesteps.numel():
            frames = decode(self._pipeline, latents)
            chosen = np.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().astype(int)
            strip = Image.fromarray(np.concatenate(list(frames[chosen]), axis=1))
            temporary = self.file.with_suffix(".tmp.png")
            strip.save(temporary)
            temporary.replace(self.file)
        self.seconds += time.monotonic() - began
        return self.file


def can_decode(model: LoadedModel) -> bool:
    """Return whether previews of this model can be drawn: its VAE states how latents were scaled."""
    config = getattr(getattr(model.pipeline, "vae", None), "config", None)
    return getattr(config, "latents_mean", None) is not None


def decode(pipeline: Any, latents: Tensor) -> np.ndarray:
    """Return the frames of latents [1, C, T, H, W] as uint8 [F, H, W, 3]."""
    codec = pipeline.vae
    shape = (1, -1, 1, 1, 1)
    latents = latents.to(codec.dtype)
    mean = torch.tensor(codec.config.latents_mean).view(shape).to(latents)
    spread = torch.tensor(codec.config.latents_std).view(shape).to(latents)
    video = codec.decode(latents * spread + mean, return_dict=False)[0]
    frames = pipeline.video_processor.postprocess_video(video, output_type="np")[0]
    return np.round(np.asarray(frames) * 255).clip(0, 255).astype(np.uint8)
