"""The transformer's training data: normalised latents of rendered clips, made once, used with fresh noise."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from workbench.models.embedded.architecture import build_codec
from workbench.models.embedded.training.codec_stage import FOLDER as CODEC_FOLDER
from workbench.models.embedded.training.parallel import use_own_device
from workbench.models.embedded.training.pool import Draw, box_mask, build_pool, to_pixels
from workbench.models.embedded.training.state import load_average
from workbench.models.embedded.whole_clip import WholeClip

CHUNK = 128
ENCODED_AT_ONCE = 16
FIRST_CLIPS = 1024
"""Clips that must be there before training starts; their latents give every channel's mean and deviation."""

TRAINING = Draw(pair_share=0.5, twins=True)
"""The transformer sees more pairs than the world has, and twins side by side."""
LatentChunk = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Latents, tokens and boxes of a chunk of clips, as processes hand them over."""

_WORKER: dict[str, WholeClip | str | Draw] = {}


@dataclass
class LatentPool:
    """Normalised latents with their captions' tokens; more clips may arrive while training runs.

    Attributes:
        latents: bfloat16 [N, 16, 5, 16, 16], every channel of mean 0 and deviation 1; `count` are there.
        tokens: int64 [N, captions, TEXT_LENGTH].
        inside: bool [N, 5, 16, 16], where any object's box reaches in the latent's frames.
        mean: Of every channel before normalisation, [16].
        std: Of every channel before normalisation, [16].
        count: Clips that are there.
    """

    latents: torch.Tensor
    tokens: torch.Tensor
    inside: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    count: int = 0
    _pending: deque[Future[LatentChunk]] = field(default_factory=deque)
    _executor: ProcessPoolExecutor | None = None

    def __len__(self) -> int:
        return self.count

    def add(self, latents: torch.Tensor, tokens: torch.Tensor, inside: torch.Tensor) -> None:
        """Append clips: latents as the codec gave them, bfloat16 [B, 16, 5, 16, 16], tokens, boxes."""
        end = self.count + len(latents)
        values = latents.to(self.latents.device).float()
        values = (values - self.mean.view(1, -1, 1, 1, 1)) / self.std.view(1, -1, 1, 1, 1)
        self.latents[self.count : end] = values.to(torch.bfloat16)
        self.tokens[self.count : end] = tokens.to(self.tokens.device)
        self.inside[self.count : end] = inside.to(self.inside.device)
        self.count = end

    def collect(self) -> None:
        """Take in what the workers have finished, in the order of its seeds."""
        while self._pending and self._pending[0].done():
            latents, tokens, inside = self._pending.popleft().result()
            self.add(
                torch.from_numpy(latents).view(torch.bfloat16),
                torch.from_numpy(tokens),
                torch.from_numpy(inside),
            )
        if not self._pending and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def close(self) -> None:
        """Drop the clips that have not arrived."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
        self._pending.clear()


def open_trained_codec(folder: Path, *, device: str) -> WholeClip:
    """Load the averaged codec of a training folder for encoding and decoding."""
    codec = build_codec()
    load_average(folder / CODEC_FOLDER, codec)
    return WholeClip(codec.to(device).eval().requires_grad_(False))


@torch.no_grad()
def encode_clips(codec: WholeClip, frames: torch.Tensor, *, batch: int = 64) -> torch.Tensor:
    """Return the posterior means [N, 16, T, H / 8, W / 8] of bytes [N, F, H, W, 3], bfloat16."""
    dtype = torch.bfloat16 if frames.is_cuda else torch.float32
    parts = []
    for start in range(0, len(frames), batch):
        mean = codec.encode(to_pixels(frames[start : start + batch]).to(dtype)).chunk(2, dim=-1)[0]
        parts.append(mean.permute(0, 4, 1, 2, 3).to(torch.bfloat16))
    return torch.cat(parts)


def build_latents(
    folder: Path,
    count: int,
    *,
    seed: int,
    device: str,
    workers: int = 1,
    scale: tuple[torch.Tensor, torch.Tensor] | None = None,
    orbit_share: float = 0.0,
) -> LatentPool:
    """Render and encode training clips with the codec of a training folder.

    With one worker all clips are there on return. With more, processes go on making them and `collect` takes
    them in; the pool then starts with its first `FIRST_CLIPS`.

    Args:
        folder: Training output that holds the codec.
        count: Clips in all.
        seed: Seed of the clips.
        device: Where to render, encode and keep them.
        workers: Processes that render and encode.
        scale: Mean and deviation of every channel, [16] each, where an earlier run has fixed them.
        orbit_share: As `Draw` has it.
    """
    draw = replace(TRAINING, orbit_share=orbit_share)
    plan = [
        (min(CHUNK, count - start), seed * 1_000_003 + 500_000 + start) for start in range(0, count, CHUNK)
    ]
    executor = None
    if workers > 1:
        executor = ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(folder, device, draw),
        )
        futures = [executor.submit(_make_latents, *chunk) for chunk in plan]
    else:
        _start_worker(folder, device, draw)
        futures = [_done(_make_latents(*chunk)) for chunk in plan]
    first = [future.result() for future in futures[: -(-min(FIRST_CLIPS, count) // CHUNK)]]
    sample = torch.cat([torch.from_numpy(latents).view(torch.bfloat16) for latents, *_ in first]).float()
    mean, std = scale or (sample.mean((0, 2, 3, 4)), sample.std((0, 2, 3, 4)))
    pool = LatentPool(
        latents=torch.empty((count, *sample.shape[1:]), dtype=torch.bfloat16, device=device),
        tokens=torch.empty((count, *first[0][1].shape[1:]), dtype=torch.long, device=device),
        inside=torch.empty((count, *first[0][2].shape[1:]), dtype=torch.bool, device=device),
        mean=mean.to(device),
        std=std.to(device),
        _pending=deque(futures),
        _executor=executor,
    )
    pool.collect()
    return pool


def _start_worker(folder: Path, device: str, draw: Draw) -> None:
    use_own_device()
    _WORKER["draw"] = draw
    _WORKER["codec"] = open_trained_codec(folder, device=device)
    _WORKER["device"] = device


def _make_latents(count: int, seed: int) -> LatentChunk:
    """Return latents as the bits of bfloat16, int16 [N, 16, 5, 16, 16], tokens, and boxes of objects."""
    codec, device, draw = _WORKER["codec"], _WORKER["device"], _WORKER["draw"]
    if not isinstance(codec, WholeClip) or not isinstance(device, str) or not isinstance(draw, Draw):
        raise TypeError("The worker has no codec.")
    pool = build_pool(count, seed=seed, draw=draw, device=device)
    latents = encode_clips(codec, pool.frames, batch=ENCODED_AT_ONCE)
    inside = latent_mask(box_mask(pool.boxes, *pool.frames.shape[2:4]))
    return latents.cpu().view(torch.int16).numpy(), pool.tokens.cpu().numpy(), inside.cpu().numpy()


def latent_mask(inside: torch.Tensor) -> torch.Tensor:
    """Return which latent cells a mask of pixels touches, [N, F, H, W] to [N, (F + 3) / 4, H / 8, W / 8]."""
    cells = inside.unflatten(3, (-1, 8)).any(4).unflatten(2, (-1, 8)).any(3)
    later = cells[:, 1:].unflatten(1, (-1, 4)).any(2)
    return torch.cat([cells[:, :1], later], dim=1)


def _done(value: LatentChunk) -> Future[LatentChunk]:
    future: Future[LatentChunk] = Future()
    future.set_result(value)
    return future
