"""A pool of rendered clips of the procedural world, kept as bytes on the training device."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from workbench.models.embedded.tokenizer import TEXT_LENGTH, build_tokenizer
from workbench.models.embedded.world import Scene, caption, object_boxes, render, sample_scene, twin
from workbench.models.embedded.world.scene import PAIR_SHARE

CAPTIONS_PER_CLIP = 4
"""The first says everything in the usual words, the others leave things out and vary."""
MAX_OBJECTS = 2
RENDERED_AT_ONCE = 32
"""Bounds the memory of a process that renders: several share a GPU with the training."""
Split = Literal["train", "held-out"]


@dataclass
class ClipPool:
    """Clips with their captions.

    Attributes:
        frames: uint8 [N, F, H, W, 3].
        boxes: Boxes of the objects, int16 [N, 2, F, 4], (left, top, right, bottom); zeros without an object.
        tokens: Token ids of the captions, int64 [N, 4, TEXT_LENGTH].
        captions: The first caption of every clip.
        scenes: The scenes, in the same order.
    """

    frames: torch.Tensor
    boxes: torch.Tensor
    tokens: torch.Tensor
    captions: list[str]
    scenes: list[Scene]

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """Return clips as pixels in [-1, 1], float32 [B, F, H, W, 3]."""
        return to_pixels(self.frames[indices])


def to_pixels(frames: torch.Tensor) -> torch.Tensor:
    """Turn bytes into float32 in [-1, 1]."""
    return frames.float().div_(127.5).sub_(1.0)


def box_mask(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return where any object's box is, bool [N, F, H, W], from boxes [N, objects, F, 4]."""
    rows = torch.arange(height, device=boxes.device).view(1, 1, 1, height, 1)
    columns = torch.arange(width, device=boxes.device).view(1, 1, 1, 1, width)
    left, top, right, bottom = boxes[..., None, None].unbind(3)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return inside.any(1)


@dataclass(frozen=True)
class Draw:
    """Which scenes a pool holds.

    Attributes:
        split: Which attribute combinations.
        pair_share: Share of scenes with two objects.
        twins: Whether every second scene is the twin of the one before it, different in one thing.
        orbit_share: Share of scenes drawn again until something orbits: the fastest motion, which codec and
            transformer learn last.
    """

    split: Split = "train"
    pair_share: float = PAIR_SHARE
    twins: bool = False
    orbit_share: float = 0.0


def draw_scenes(count: int, *, seed: int, draw: Draw) -> tuple[list[Scene], list[list[str]], np.ndarray]:
    """Draw scenes, `CAPTIONS_PER_CLIP` captions for each, and their boxes at 17 × 128 × 128."""
    rng = np.random.default_rng((seed, 0 if draw.split == "train" else 1))
    scenes = _draw_twins(count, rng, draw) if draw.twins else [_one(rng, draw) for _ in range(count)]
    captions = [
        [caption(scene), *(caption(scene, rng) for _ in range(CAPTIONS_PER_CLIP - 1))] for scene in scenes
    ]
    boxes = np.zeros((count, MAX_OBJECTS, 17, 4), np.int16)
    for index, scene in enumerate(scenes):
        found = np.asarray(object_boxes(scene, 17, 128, 128))
        boxes[index, : len(found), :, :2] = np.floor(found[..., :2])
        boxes[index, : len(found), :, 2:] = np.ceil(found[..., 2:])
    return scenes, captions, boxes


def _one(rng: np.random.Generator, draw: Draw) -> Scene:
    wanted = draw.orbit_share > 0 and rng.random() < draw.orbit_share
    while True:
        scene = sample_scene(rng, split=draw.split, pair_share=draw.pair_share)
        if not wanted or scene.objects[0].motion == "orbit":
            return scene


def _draw_twins(count: int, rng: np.random.Generator, draw: Draw) -> list[Scene]:
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = _one(rng, draw)
        other = twin(scene, rng, held_out_too=draw.split == "held-out")
        if other is not None:
            scenes += [scene, other.scene]
    return scenes[:count]


@contextmanager
def scene_chunks(
    chunks: list[tuple[int, int]], *, draw: Draw, workers: int
) -> Iterator[Iterator[tuple[list[Scene], list[list[str]], np.ndarray]]]:
    """Draw chunks of (count, seed) scenes, in `workers` processes where more than one is asked for."""
    if workers <= 1:
        yield (draw_scenes(count, seed=seed, draw=draw) for count, seed in chunks)
        return
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        futures = [executor.submit(draw_scenes, count, seed=seed, draw=draw) for count, seed in chunks]
        yield (future.result() for future in futures)


def build_pool(
    count: int, *, seed: int, draw: Draw, device: str, workers: int = 1, chunk: int = 128
) -> ClipPool:
    """Draw, caption and render `count` clips of 17 × 128 × 128.

    Args:
        count: Number of clips.
        seed: Seed; the same seed, draw and chunk give the same clips.
        draw: Which scenes.
        device: Where to render and keep the clips.
        workers: Processes that draw scenes while the device renders.
        chunk: Clips drawn from one seed.
    """
    tokenizer = build_tokenizer()
    frames = torch.empty((count, 17, 128, 128, 3), dtype=torch.uint8, device=device)
    plan = [(min(chunk, count - start), seed * 1_000_003 + start) for start in range(0, count, chunk)]
    scenes: list[Scene] = []
    captions: list[list[str]] = []
    boxes: list[np.ndarray] = []
    with scene_chunks(plan, draw=draw, workers=workers) as drawn:
        for new_scenes, new_captions, new_boxes in drawn:
            start = len(scenes)
            for first in range(0, len(new_scenes), RENDERED_AT_ONCE):
                part = new_scenes[first : first + RENDERED_AT_ONCE]
                frames[start + first : start + first + len(part)] = render(part, device=device).to(device)
            scenes += new_scenes
            captions += new_captions
            boxes.append(new_boxes)
    encoded = tokenizer(
        [text for group in captions for text in group],
        padding="max_length",
        max_length=TEXT_LENGTH,
        truncation=True,
        return_tensors="pt",
    )
    tokens = encoded.input_ids.view(count, CAPTIONS_PER_CLIP, TEXT_LENGTH).to(device)
    return ClipPool(
        frames=frames,
        boxes=torch.from_numpy(np.concatenate(boxes)).to(device),
        tokens=tokens,
        captions=[group[0] for group in captions],
        scenes=scenes,
    )
