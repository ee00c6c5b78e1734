"""Read a clip: which objects it shows, how they look and move, before what, under which camera.

Nothing here knows what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.evaluation.classifiers import Reader, load_reader, shape_logits
from workbench.evaluation.motion import look_change, read_motion
from workbench.evaluation.pixels import Blob, colour_labels, find_blobs, standard_frames
from workbench.evaluation.scenery import backdrop_features, background_shift, free_pixels, read_background
from workbench.evaluation.tracks import Track, clear_frames, crops, resting_boxes, track
from workbench.models.embedded.world.layout import CAMERA_HEIGHT, FRAME_SLOPE, HORIZON
from workbench.models.embedded.world.scene import (
    PANNABLE,
    SHAPES,
    Background,
    Camera,
    Colour,
    Motion,
    Relation,
    Shape,
    Size,
)

SHAPE_LEAD = 0.25
"""By how much the best shape's probability must lead."""
SIZE_LIMITS = (1.30, 1.48)
"""Radii (world units) up to which an object is small, and from which it is big."""
PAN_LIMITS = (0.06, 0.10)
"""Shifts of the background (frames) up to which the camera stands still, and from which it pans."""
DEPTH_LIMITS = (1.2, 2.0)
"""Differences of depth (world units): side by side up to the first, one behind the other from the second."""

FRONT: dict[Shape, float] = {
    "ball": 0.25, "cube": 1.0, "cylinder": 0.77, "cone": 1.0, "ring": 0.1, "diamond": -0.1,
}  # fmt: skip
"""How far the lowest visible outline of a resting solid lies before its centre, in radii."""
WIDTH_PER_RADIUS: dict[Shape, float] = {
    "ball": 2.08, "cube": 2.2, "cylinder": 1.62, "cone": 2.0, "ring": 2.08, "diamond": 1.58,
}  # fmt: skip
HEIGHT_PER_RADIUS: dict[Shape, float] = {
    "ball": 2.08, "cube": 2.08, "cylinder": 2.2, "cone": 2.3, "ring": 2.15, "diamond": 2.05,
}  # fmt: skip


@dataclass(frozen=True)
class ObjectReading:
    """One object as read; None where the pixels do not say.

    Attributes:
        colour: Its colour.
        shape: Its shape.
        size: Its size, corrected for distance; None also for an object that grows or shrinks.
        motion: Its motion relative to the background.
        place: Median (x, depth) of its foot: shorter sides from the left edge, world units from the viewer.
        radius: Estimated radius in world units.
    """

    colour: Colour
    shape: Shape | None
    size: Size | None
    motion: Motion | None
    place: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Reading:
    """All that was read, largest object first; None where the pixels do not say."""

    objects: tuple[ObjectReading, ...]
    count: int | None
    background: Background | None
    camera: Camera | None


def read_clip(frames: np.ndarray, *, reader: Reader | None = None) -> Reading:
    """Read a clip.

    Args:
        frames: uint8 [F, H, W, 3], any size.
        reader: Fitted classifiers; the shipped ones by default.

    Raises:
        InputError: when it is no such clip.
    """
    reader = reader or load_reader()
    clip = standard_frames(frames)
    labels = colour_labels(clip, reader)
    free = free_pixels(labels)
    background = read_background(backdrop_features(clip, free), reader.weights)
    shift, _ = background_shift(clip, free)
    if background is not None and background not in PANNABLE:
        shift = np.zeros_like(shift)
    blobs = find_blobs(labels)
    objects = []
    for blob in blobs:
        others = np.zeros_like(blob.mask)
        for other in blobs:
            if other is not blob:
                others |= other.mask
        objects.append(_read_object(clip, blob, others, shift, reader))
    if background is None and not objects:
        return Reading((), None, None, None)
    return Reading(
        tuple(objects),
        _count(blobs),
        background,
        _camera(shift, background),
    )


def _count(blobs: list[Blob]) -> int:
    """Colours, plus second parts of a colour where no other object can have split it."""
    if len(blobs) == 1:
        return int(max(1, round(float(np.median(blobs[0].pieces)))))
    return len(blobs)


def _camera(shift: np.ndarray, background: Background | None) -> Camera | None:
    total = float(shift[-1] - shift[0])
    if background is None:
        return None
    if abs(total) <= PAN_LIMITS[0]:
        return "static"
    if abs(total) < PAN_LIMITS[1]:
        return None
    return "pan left" if total > 0 else "pan right"


def _read_object(
    clip: np.ndarray, blob: Blob, others: np.ndarray, shift: np.ndarray, reader: Reader
) -> ObjectReading:
    measured = track(blob, others)
    chosen = clear_frames(measured, most=17)
    looks = crops(clip, blob, others, chosen)
    shape, best_shape = _read_shape(looks, reader)
    shown = np.flatnonzero(measured.shown)
    resting = crops(clip, blob, others, shown, boxes=resting_boxes(measured, shift))
    change = look_change(resting.numpy())
    motion = read_motion(measured, shift, change)
    lowest = motion.ground if motion.best == "bounce" else np.nan
    foot = _foot_depth(measured, lowest)
    radius = _radius(measured, best_shape, foot)
    size: Size | None = None
    if radius <= SIZE_LIMITS[0]:
        size = "small"
    elif radius >= SIZE_LIMITS[1]:
        size = "big"
    if motion.best in ("grow", "shrink"):
        size = None
    middle = (measured.edges[:, 0] + measured.edges[:, 2]) / 2
    place = (float(np.median(middle[measured.shown])), foot + FRONT[best_shape] * radius)
    return ObjectReading(blob.colour, shape, size, motion.motion, place, radius)


def _read_shape(looks: torch.Tensor, reader: Reader) -> tuple[Shape | None, Shape]:
    """The shape over all crops, or None when it is a close call, and the likeliest shape."""
    chances = shape_logits(looks, reader.weights).log_softmax(-1).mean(0).softmax(-1)
    first, second = chances.topk(2).values.tolist()
    likeliest = SHAPES[int(chances.argmax())]
    return (likeliest if first - second >= SHAPE_LEAD else None), likeliest


def _foot_depth(measured: Track, ground: float) -> float:
    """Distance of the foot from the viewer, from the lowest place the object reaches or would reach."""
    lowest = float(measured.edges[measured.shown, 3].max()) if np.isnan(ground) else ground
    return CAMERA_HEIGHT / (FRAME_SLOPE * max(lowest - HORIZON, 0.1))


def _radius(measured: Track, shape: Shape, foot: float) -> float:
    """Radius in world units, from width and height where both their edges are in view."""
    estimates = []
    spans = ((0, 2, WIDTH_PER_RADIUS), (1, 3, HEIGHT_PER_RADIUS))
    for low, high, ratio in spans:
        both = measured.valid[:, low] & measured.valid[:, high]
        both = both if both.sum() >= 2 else measured.shown
        span = measured.edges[both, high] - measured.edges[both, low]
        guess = float(np.median(span)) * FRAME_SLOPE * foot / ratio[shape]
        estimates.append(float(np.median(span)) * FRAME_SLOPE * (foot + FRONT[shape] * guess) / ratio[shape])
    return max(estimates) if shape == "ring" else float(np.mean(estimates))


def relation_between(first: ObjectReading, second: ObjectReading) -> Relation | None:
    """Say how the first object stands to the second, or None where the pixels do not say."""
    if first.motion == "orbit":
        return "orbiting"
    deeper = first.place[1] - second.place[1]
    if abs(deeper) >= DEPTH_LIMITS[1]:
        return "behind" if deeper > 0 else "in front of"
    if abs(deeper) > DEPTH_LIMITS[0]:
        return None
    return "left of" if first.place[0] < second.place[0] else "right of"
