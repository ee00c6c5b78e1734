"""Captioned clips for flow matching: a user's folder, or the procedural world, as latents of the model's VAE.

Every clip is encoded once and kept in the workspace's cache, named by a hash of its pixels and of the model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.types import ClipSize, Reporter
from workbench.video import Frames, read_mp4

if TYPE_CHECKING:
    from workbench.models import LoadedModel

PREFIX = "clip-"
MAX_CAPTION_BYTES = 40_000
Split = Literal["train", "held-out"]


class CaptionedFile(NamedTuple):
    """A clip of a user's folder and what its text file says."""

    path: Path
    caption: str


class Clip(NamedTuple):
    """One clip to learn from: normalised latents, [1, C, T, H, W] in float32, and its caption."""

    latents: Tensor
    caption: str


def captioned_files(folder: Path) -> tuple[CaptionedFile, ...]:
    """Return the clips of a folder in the order of their names.

    Raises:
        InputError: no folder, no clip in it, or a clip without a readable caption.
    """
    if not folder.is_dir():
        raise InputError(f"The folder of clips {folder.name!r} does not exist; check the path.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".mp4")
    if not paths:
        raise InputError(
            f"The folder of clips {folder.name!r} holds no .mp4 file; put clips there, each with its caption "
            "in a .txt file of the same name."
        )
    return tuple(CaptionedFile(path, _caption(path.with_suffix(".txt"), path)) for path in paths)


def _caption(path: Path, clip: Path) -> str:
    try:
        text = path.read_bytes()[: MAX_CAPTION_BYTES + 1].decode("utf-8-sig")
    except OSError:
        raise InputError(f"Clip {clip.name!r} has no caption; write it into {path.name!r}.") from None
    except UnicodeDecodeError:
        raise InputError(f"The caption {path.name!r} is not UTF-8 text; save it as such.") from None
    if not text.strip():
        raise InputError(f"The caption {path.name!r} is empty; describe the clip in a few words.")
    return " ".join(text.split())


class ClipSource:
    """Captioned clips of one size for one model, encoded when they are first asked for.

    Args:
        model: whose VAE encodes.
        cache: folder of encoded clips.
        size: in pixels.
        folder: of the user's clips; None renders the world.
    """

    def __init__(self, model: LoadedModel, cache: Path, *, size: ClipSize, folder: Path | None) -> None:
        self.model = model
        self.cache = cache
        self.size = size
        self.folder = folder

    def prepare(self, count: int, *, held_out: int, seed: int, reporter: Reporter) -> list[list[Clip]]:
        """Return at most `count` clips to learn from and `held_out` others.

        Raises:
            InputError: too few clips in the folder, or one that is too short.
        """
        if self.folder is None:
            groups = [_world(count, "train", seed), _world(held_out, "held-out", seed)]
        else:
            groups = self._split(captioned_files(self.folder), count, held_out)
        total = sum(len(group) for group in groups)
        reporter.stage("encoding clips", total)
        made: list[list[Clip]] = []
        done = 0
        for group in groups:
            made.append([])
            for source in group:
                made[-1].append(self._clip(source))
                done += 1
                reporter.step(done)
        return made

    def _split(
        self, files: Sequence[CaptionedFile], count: int, held_out: int
    ) -> list[list[CaptionedFile | Any]]:
        if len(files) < 2:
            raise InputError("Flow matching needs at least two clips, one of them held out; add more.")
        held = min(held_out, max(1, len(files) // 5))
        places = {(2 * index + 1) * len(files) // (2 * held) for index in range(held)}
        kept = [file for index, file in enumerate(files) if index not in places]
        return [kept[:count], [files[place] for place in sorted(places)]]

    def _clip(self, source: Any) -> Clip:
        """Return a clip from the cache, or encode it."""
        caption = source.caption if isinstance(source, CaptionedFile) else _world_caption(source)
        path = self.cache / f"{PREFIX}{self._digest(source)}.safetensors"
        if path.exists():
            try:
                latents = load_tensors(path, what="an encoded clip")["latents"]
                os.utime(path)
                return Clip(latents, caption)
            except InputError:
                path.unlink(missing_ok=True)
        latents = encode(self.model, self._pixels(source))
        save_tensors(path, {"latents": latents})
        return Clip(latents, caption)

    def _digest(self, source: Any) -> str:
        if isinstance(source, CaptionedFile):
            with source.path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            content = repr(source)
        identity = json.dumps([str(self.model.folder.name), self.model.companions, content, list(self.size)])
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    def _pixels(self, source: Any) -> Tensor:
        """Return pixels in [-1, 1], [1, 3, F, H, W]."""
        frames, height, width = self.size
        if isinstance(source, CaptionedFile):
            pixels = fitted(read_mp4(source.path), self.size, what=f"Clip {source.path.name!r}")
        else:
            from workbench.models.embedded.world import render

            pixels = render([source], num_frames=frames, height=height, width=width)[0]
        return pixels.permute(3, 0, 1, 2).unsqueeze(0).float() / 127.5 - 1


def fitted(frames: Frames, size: ClipSize, *, what: str) -> Tensor:
    """Cut and scale a clip to a size: its first frames, the largest centred window of the right shape.

    Args:
        frames: uint8 [F, H, W, 3].
        what: how to call the clip in an error.

    Returns:
        [F, H, W, 3], 0 to 255.

    Raises:
        InputError: fewer frames than asked for.
    """
    if len(frames) < size.frames:
        raise InputError(
            f"{what} has {len(frames)} frames and {size.frames} are needed; take it out, or finetune with "
            "fewer frames."
        )
    height, width = frames.shape[1:3]
    scale = min(height / size.height, width / size.width)
    high, wide = round(size.height * scale), round(size.width * scale)
    top, left = (height - high) // 2, (width - wide) // 2
    cut = np.ascontiguousarray(frames[: size.frames, top : top + high, left : left + wide])
    images = torch.from_numpy(cut).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(images, size=(size.height, size.width), mode="bilinear", antialias=True)
    return scaled.clamp(0, 255).permute(0, 2, 3, 1)


@torch.no_grad()
def encode(model: LoadedModel, pixels: Tensor) -> Tensor:
    """Return the normalised latents of pixels [1, 3, F, H, W] in [-1, 1], float32 on the CPU."""
    codec: Any = model.pipeline.vae
    posterior = codec.encode(pixels.to(codec.device, codec.dtype)).latent_dist
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(codec.config.latents_mean).view(shape)
    deviation = torch.tensor(codec.config.latents_std).view(shape)
    return ((posterior.mode().float().cpu() - mean) / deviation).contiguous()


def _world(count: int, split: Split, seed: int) -> list[Any]:
    from workbench.models.embedded.world import sample_scene

    rng = np.random.default_rng([seed, int(split == "held-out"), 7])
    return [sample_scene(rng, split=split) for _ in range(count)]


def _world_caption(scene: Any) -> str:
    from workbench.models.embedded.world import caption

    return caption(scene)
