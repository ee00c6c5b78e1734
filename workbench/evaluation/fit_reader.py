"""Fit the small classifiers of the clip reader to rendered truth.

    python -m workbench.evaluation.fit_reader [--scenes 900] [--seed 7]

writes `weights/reader.safetensors`: a classifier of single pixels (7 → 48 → 48 → 9), one of object crops
(3 × 24 × 24 → 96 → 6), and the statistics of the backdrops. All clips are drawn from the training split and
are softened, made noisy and tinted at random, so that a generated clip need not be perfect to be read.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import ndimage

from workbench.evaluation import pixels, scenery, tracks
from workbench.evaluation.classifiers import WEIGHTS, Weights, make_reader, pixel_logits, shape_logits
from workbench.models.embedded.world import Scene, object_masks, render, sample_scene
from workbench.models.embedded.world.scene import BACKGROUNDS, COLOURS, SHAPES

log = logging.getLogger(__name__)
FRAMES = 17
BATCH = 16


def degrade(clip: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """Return a clip uint8 [F, H, W, 3] blurred, ghosted, tinted and made noisy, by up to `strength`."""
    image = clip.astype(np.float32) / 255
    image = ndimage.gaussian_filter(image, (0, *(2 * [strength * rng.uniform(0, 1.7)]), 0))
    ghost = strength * rng.uniform(0, 0.25) * (rng.random() < 0.4)
    image[1:] = (1 - ghost) * image[1:] + ghost * image[:-1]
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * (1 + strength * rng.uniform(-0.2, 0.12))
    image = image * (1 + strength * rng.uniform(-0.1, 0.1, size=3)) + strength * rng.uniform(-0.02, 0.02)
    image += strength * rng.uniform(0, 0.035) * rng.standard_normal(image.shape, dtype=np.float32)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def fit(num_scenes: int, seed: int) -> Weights:
    """Fit all parts of the reader; see the module."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    drawn = [sample_scene(rng, split="train") for _ in range(2 * num_scenes)]
    pairs = [scene for scene in drawn if scene.relation is not None]
    scenes = (pairs + [scene for scene in drawn if scene.relation is None])[:num_scenes]
    clips, samples, labels = [], [], []
    for start in range(0, num_scenes, BATCH):
        part = scenes[start : start + BATCH]
        masks = object_masks(part).numpy()
        for scene, clip, mask in zip(part, render(part).numpy(), masks, strict=True):
            rough = degrade(clip, rng)
            clips.append(rough)
            chosen = _pixel_samples(scene, rough, mask, rng)
            samples.append(chosen[0])
            labels.append(chosen[1])
    log.info("rendered %d scenes", num_scenes)
    weights = _fit_pixels(np.concatenate(samples), np.concatenate(labels))
    reader = make_reader(weights)
    looks, shapes, backdrops = [], [], []
    for scene, clip in zip(scenes, clips, strict=True):
        frames = pixels.standard_frames(clip)
        found = pixels.colour_labels(frames, reader)
        backdrops.append(scenery.backdrop_features(frames, scenery.free_pixels(found)))
        for crop, shape in _labelled_crops(scene, frames, found):
            looks.append(crop)
            shapes.append(shape)
    weights |= _fit_shapes(torch.stack(looks), torch.tensor(shapes))
    weights |= _backdrop_statistics(scenes, np.array(backdrops))
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _pixel_samples(
    scene: Scene, clip: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colours and classes of some pixels well inside or outside the objects of one clip."""
    colours, classes = [], []
    planes = [masks[:2].sum(0) < 0.01, *(masks[index] > 0.97 for index in range(len(scene.objects)))]
    numbers = [0, *(1 + COLOURS.index(solid.colour) for solid in scene.objects)]
    for plane, number in zip(planes, numbers, strict=True):
        inside = np.flatnonzero(ndimage.binary_erosion(plane, np.ones((1, 3, 3), bool)))
        if len(inside) == 0:
            continue
        chosen = rng.choice(inside, 300)
        colours.append(clip.reshape(-1, 3)[chosen])
        classes.append(np.full(300, number))
    return np.concatenate(colours), np.concatenate(classes)


def _fit_pixels(samples: np.ndarray, labels: np.ndarray) -> Weights:
    inputs, target = torch.from_numpy(samples).float() / 255, torch.from_numpy(labels)
    sizes = (7, 48, 48, 9)
    weights: Weights = {}
    for layer, (size, next_size) in enumerate(itertools.pairwise(sizes)):
        weights[f"pixel.{layer}.weight"] = torch.randn(next_size, size) * (2 / size) ** 0.5
        weights[f"pixel.{layer}.bias"] = torch.zeros(next_size)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        logits = pixel_logits(inputs[chosen], weights)
        return torch.nn.functional.cross_entropy(logits, target[chosen])

    _descend(weights, loss, count=len(inputs), batch=4096, steps=2500)
    correct = (pixel_logits(inputs, weights).argmax(-1) == target).float().mean()
    log.info("pixels: %.4f of %d right", correct, len(inputs))
    return {name: tensor.detach().half() for name, tensor in weights.items()}


def _labelled_crops(scene: Scene, frames: np.ndarray, labels: np.ndarray) -> list[tuple[torch.Tensor, int]]:
    pairs = []
    blobs = pixels.find_blobs(labels)
    for blob in blobs:
        meant = [solid for solid in scene.objects if solid.colour == blob.colour]
        if not meant:
            continue
        others = np.zeros_like(blob.mask)
        for other in blobs:
            if other is not blob:
                others |= other.mask
        measured = tracks.track(blob, others)
        chosen = tracks.clear_frames(measured, most=6)
        if len(chosen):
            crop = tracks.crops(frames, blob, others, chosen)
            pairs += [(look, SHAPES.index(meant[0].shape)) for look in crop]
    return pairs


def _fit_shapes(looks: torch.Tensor, shapes: torch.Tensor) -> Weights:
    size, hidden = looks[0].numel(), 96
    weights: Weights = {
        "shape.0.weight": torch.randn(hidden, size) * (1 / size) ** 0.5,
        "shape.0.bias": torch.zeros(hidden),
        "shape.1.weight": torch.randn(len(SHAPES), hidden) * (1 / hidden) ** 0.5,
        "shape.1.bias": torch.zeros(len(SHAPES)),
    }

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        crop = looks[chosen]
        crop = torch.where(torch.rand(len(crop), 1, 1, 1) < 0.5, crop, crop.flip(-1))
        crop = crop.roll((int(torch.randint(-1, 2, ())), int(torch.randint(-1, 2, ()))), (2, 3))
        crop = torch.nn.functional.dropout(crop, 0.1)
        return torch.nn.functional.cross_entropy(
            shape_logits(crop, weights), shapes[chosen], label_smoothing=0.05
        )

    _descend(weights, loss, count=len(looks), batch=256, steps=2500, decay=0.02)
    correct = (shape_logits(looks, weights).argmax(-1) == shapes).float().mean()
    log.info("shapes: %.4f of %d crops right", correct, len(looks))
    return {name: tensor.detach().half() for name, tensor in weights.items()}


def _backdrop_statistics(scenes: list[Scene], features: np.ndarray) -> Weights:
    names = np.array([scene.background for scene in scenes])
    mean = np.stack([features[names == name].mean(0) for name in BACKGROUNDS])
    spread = np.stack([features[names == name].std(0) for name in BACKGROUNDS])
    floor = np.array([0.03] * 15 + [0.012] * 5)
    spread = np.maximum(spread, floor)
    return {
        "backdrop.mean": torch.from_numpy(mean).float(),
        "backdrop.spread": torch.from_numpy(spread).float(),
    }


def _descend(
    weights: Weights,
    loss: Callable[[torch.Tensor], torch.Tensor],
    *,
    count: int,
    batch: int,
    steps: int,
    decay: float = 0.0,
) -> None:
    """Adam with a cosine rate over random batches of 0 … count - 1."""
    for tensor in weights.values():
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(weights.values(), lr=2e-3, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.randint(count, (batch,))).backward()
        optimizer.step()
        schedule.step()


def main() -> None:
    """Fit the reader and write its weights."""
    parser = argparse.ArgumentParser(description="Fit the clip reader to rendered truth.")
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = fit(arguments.scenes, arguments.seed)
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(weights, WEIGHTS)
    log.info("wrote %s, %d bytes", WEIGHTS, WEIGHTS.stat().st_size)


if __name__ == "__main__":
    main()
