"""Place a scene in space and time: the camera, and every object's path, size and turn.

World units: x right, y up, z away from the viewer, ground at y = 0. The camera stands at
(0, CAMERA_HEIGHT, -CAMERA_DISTANCE), looks along z through a lens shifted downwards, so that verticals stay
vertical, and pans by turning about its own vertical. Time is counted in clips: 17 frames are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench.models.embedded.world.scene import Motion, Scene, Shape, Solid

CAMERA_HEIGHT = 4.6
CAMERA_DISTANCE = 11.5
FRAME_SLOPE = 0.8
"""Width of the frame (its shorter side) at distance 1."""
HORIZON = 0.31
"""Height of the horizon in a square frame, from the top."""
CLIP_FRAMES = 17
RADIUS = {"small": 1.06, "big": 1.86}
EDGE = 0.465
"""Objects stay this far from the middle of the frame horizontally (half a frame is 0.5)."""

FOOT: dict[Shape, float] = {
    "ball": 1.0, "cube": 0.8, "cylinder": 0.95, "cone": 1.0, "ring": 1.02, "diamond": 1.12,
}  # fmt: skip
"""Distance from the centre to the ground of a resting solid, in radii."""
HALF_WIDTH: dict[Shape, float] = {
    "ball": 1.0, "cube": 1.13, "cylinder": 0.8, "cone": 1.0, "ring": 1.02, "diamond": 0.92,
}  # fmt: skip
FOOT_FRONT: dict[Shape, float] = {
    "ball": 0.55, "cube": 1.13, "cylinder": 0.8, "cone": 1.0, "ring": 0.55, "diamond": 0.25,
}  # fmt: skip
"""How far a resting solid's lowest outline reaches towards the viewer, in radii."""


@dataclass(frozen=True)
class Paths:
    """Where everything is, per object and frame (float64).

    Attributes:
        centre: [O, F, 3] in world units.
        radius: [O, F].
        yaw: [O, F] turn about the vertical, radians.
        roll: [O, F] turn about the line of sight, radians.
        pan: [F] turn of the camera to the right, radians.
        time: [F] in clips.
    """

    centre: np.ndarray
    radius: np.ndarray
    yaw: np.ndarray
    roll: np.ndarray
    pan: np.ndarray
    time: np.ndarray


@dataclass
class _Track:
    """One object's path relative to its resting place (arrays [F])."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    radius: np.ndarray
    yaw: np.ndarray


def paths(scene: Scene, num_frames: int) -> Paths:
    """Return the paths of all objects; the same scene and frame always give the same place.

    Directed motions and pans take one clip and then rest; bounces, orbits and spins go on.
    """
    rng = np.random.default_rng((scene.seed, 1))
    time = np.arange(num_frames) / (CLIP_FRAMES - 1)
    pan = _pan(scene, time, rng)
    pace = 1.0 if scene.camera == "static" else 0.78 if scene.relation is None else 0.66
    tracks = [_track(solid, time, rng, pace) for solid in scene.objects]
    if scene.relation == "orbiting":
        _orbit_around(tracks, scene, rng, time)
    places = _places(scene, tracks, rng)
    for track, (x, z) in zip(tracks, places, strict=True):
        track.x = track.x + x
        track.z = track.z + z
    _push_back(scene, tracks)
    _shift_into_frame(scene, tracks, pan, rng)
    feet = np.array([FOOT[solid.shape] for solid in scene.objects])[:, None]
    radius = np.stack([track.radius for track in tracks])
    centre = np.stack([np.stack([track.x, track.y, track.z], -1) for track in tracks])
    centre[..., 1] += feet * radius
    roll = np.stack([_roll(solid, track) for solid, track in zip(scene.objects, tracks, strict=True)])
    return Paths(centre, radius, np.stack([track.yaw for track in tracks]), roll, pan, time)


def in_camera(points: np.ndarray, pan: np.ndarray) -> np.ndarray:
    """Return world points [..., 3] under a pan [...] as (right, down, depth) of the camera."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2] + CAMERA_DISTANCE
    right = np.cos(pan) * x - np.sin(pan) * z
    depth = np.sin(pan) * x + np.cos(pan) * z
    return np.stack([right, CAMERA_HEIGHT - y, depth], -1)


def project(points: np.ndarray, pan: np.ndarray) -> np.ndarray:
    """Project world points [..., 3] under a pan [...] to (right, down) of the frame's middle, in short sides.

    The frame's middle is the middle of a square frame; multiply by min(height, width) for pixels.
    """
    camera = in_camera(points, pan)
    return camera[..., :2] / (camera[..., 2:] * FRAME_SLOPE) + np.array([0, HORIZON - 0.5])


def _pan(scene: Scene, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0.14, 0.17)  # 17 to 21 % of the frame
    sign = {"static": 0.0, "pan left": -1.0, "pan right": 1.0}[scene.camera]
    return sign * angle * (np.minimum(time, 1) - 0.5)


def _track(solid: Solid, time: np.ndarray, rng: np.random.Generator, pace: float) -> _Track:
    once, rest = np.minimum(time, 1.0), np.zeros_like(time)
    travel = rng.uniform(3.1, 3.9) * pace
    height, phase, turn = rng.uniform(2.1, 2.5), rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    hop_start, spin_angle = rng.uniform(0.0, 0.25), rng.uniform(2.0, 2.6)
    radius = RADIUS[solid.size] * rng.uniform(0.95, 1.05) * np.ones_like(time)
    motion: Motion = solid.motion
    track = _Track(rest, rest, rest, radius, rest + _resting_yaw(solid, rng))
    if motion in ("left", "right"):
        track.x = travel * (once - 0.5) * (1 if motion == "right" else -1)
    elif motion == "rise":
        track.y = height * once
    elif motion == "sink":
        track.y = height * (1 - once)
    elif motion == "bounce":
        track.y = height * np.abs(np.sin(np.pi * (hop_start + 1.15 * time)))
    elif motion == "spin":
        track.yaw = track.yaw + turn * spin_angle * time
    elif motion == "orbit":
        angle = phase + turn * 2 * np.pi * 0.62 * time
        track.x, track.z = 1.75 * np.cos(angle), 1.7 * np.sin(angle)
    elif motion in ("grow", "shrink"):
        share = once if motion == "grow" else 1 - once
        track.radius = radius / RADIUS[solid.size] * (0.84 + 1.0 * share)
    return track


def _roll(solid: Solid, track: _Track) -> np.ndarray:
    if solid.shape == "ball" and solid.motion in ("left", "right"):
        return -(track.x - track.x[0]) / track.radius
    return np.zeros_like(track.x)


def _resting_yaw(solid: Solid, rng: np.random.Generator) -> float:
    if solid.shape == "ring":
        return float(rng.uniform(-0.35, 0.35))
    if solid.shape in ("cube", "diamond"):
        return float(rng.uniform(0.3, 0.75) * rng.choice([-1, 1]))
    return float(rng.uniform(0, 2 * np.pi))


def _orbit_around(tracks: list[_Track], scene: Scene, rng: np.random.Generator, time: np.ndarray) -> None:
    """Widen the first object's circle so that it clears the second."""
    reach = 0.95 * tracks[1].radius[0] * HALF_WIDTH[scene.objects[1].shape] + 1.0 * tracks[0].radius[0]
    tracks[0].x = tracks[0].x / 1.75 * max(reach, 2.3)
    tracks[0].z = tracks[0].z / 1.7 * 2.3


def _places(scene: Scene, tracks: list[_Track], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Resting places (x, z) of the objects that satisfy the relation."""
    near = float(rng.uniform(-0.4, 0.5))
    if scene.relation is None:
        return [(0.0, near)]
    if scene.relation == "orbiting":
        return [(0.0, 0.3), (0.0, 0.3)]
    reach = sum(
        track.radius.max() * HALF_WIDTH[solid.shape]
        for solid, track in zip(scene.objects, tracks, strict=True)
    )
    if scene.relation in ("left of", "right of"):
        offset = (reach + rng.uniform(0.3, 0.7)) / 2 * (-1 if scene.relation == "left of" else 1)
        return [(offset, near), (-offset, near + rng.uniform(-0.2, 0.2))]
    front, back = float(rng.uniform(-1.5, -1.2)), float(rng.uniform(2.0, 2.6))
    aside = _aside(scene, tracks, rng.uniform(0.2, 0.5)) * rng.choice([-0.5, 0.5])
    first, second = (back, front) if scene.relation == "behind" else (front, back)
    return [(aside, first), (-aside, second)]


def _aside(scene: Scene, tracks: list[_Track], clear: float) -> float:
    """Distance sideways at which half the far object and a bit (of its radii) shows beside the near one."""
    if scene.objects[0].motion in ("left", "right"):
        return 1.6 * (clear - 0.2)
    near = 1 if scene.relation == "behind" else 0
    near_half, far_half = (
        tracks[i].radius.max() * HALF_WIDTH[scene.objects[i].shape] for i in (near, 1 - near)
    )
    return float(1.15 * near_half + clear * far_half)


def _push_back(scene: Scene, tracks: list[_Track]) -> None:
    """Move the whole group away from the viewer until the front of every foot is above the lower edge."""
    nearest = CAMERA_HEIGHT / (FRAME_SLOPE * (0.985 - HORIZON)) - CAMERA_DISTANCE
    push = max(
        float((nearest + FOOT_FRONT[solid.shape] * track.radius - track.z).max())
        for solid, track in zip(scene.objects, tracks, strict=True)
    )
    for track in tracks:
        track.z = track.z + max(push, 0.0)


def _shift_into_frame(scene: Scene, tracks: list[_Track], pan: np.ndarray, rng: np.random.Generator) -> None:
    """Move the whole group sideways to a random place at which every object stays in frame all the time."""
    low, high = np.inf, -np.inf
    for solid, track in zip(scene.objects, tracks, strict=True):
        middle = project(np.stack([track.x, track.y, track.z], -1), pan)[:, 0]
        half = track.radius * HALF_WIDTH[solid.shape] / (FRAME_SLOPE * (track.z + CAMERA_DISTANCE - 0.5))
        low, high = min(low, float((middle - half).min())), max(high, float((middle + half).max()))
    least, most = -EDGE - low, EDGE - high
    share = rng.uniform(0.1, 0.9)
    shift = (least + most) / 2 if least > most else least + share * (most - least)
    for track in tracks:
        track.x = track.x + shift * FRAME_SLOPE * CAMERA_DISTANCE


@lru_cache(maxsize=8)
def surface_points(shape: Shape) -> np.ndarray:
    """Points [K, 3] on the hull of a unit solid other than the ball, enough to bound its outline."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.zeros_like(turn), np.sin(turn)], -1)
    if shape == "cube":
        corner = [-0.8, 0.8]
        return np.array([[x, y, z] for x in corner for y in corner for z in corner])
    if shape == "cylinder":
        return np.concatenate([circle * 0.78 + [0, y, 0] for y in (-0.95, 0.95)])
    if shape == "cone":
        return np.concatenate([circle - [0, 1, 0], [[0, 1, 0]]])
    if shape == "diamond":
        return np.array([[s * a, s * b, s * c] for a, b, c in np.diag([0.9, 1.12, 0.9]) for s in (-1, 1)])
    upright = circle[:, [0, 2, 1]]
    tube = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    return np.concatenate([upright * (0.74 + 0.28 * np.cos(a)) + [0, 0, 0.28 * np.sin(a)] for a in tube])


def rotation(yaw: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] from a solid's own frame to the world: first yaw, then roll."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    cy, sy, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    about_y = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(*yaw.shape, 3, 3)
    about_z = np.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).reshape(*yaw.shape, 3, 3)
    return about_z @ about_y


def solid_boxes(
    shape: Shape, centre: np.ndarray, radius: np.ndarray, turn: np.ndarray, pan: np.ndarray
) -> np.ndarray:
    """Boxes [..., 4] of solids of one shape: left, top, right, bottom in short sides from the frame's middle.

    Args:
        shape: Of all the solids.
        centre: [..., 3].
        radius: [...].
        turn: [..., 3, 3] from `rotation`.
        pan: [...].
    """
    if shape == "ball":
        camera = in_camera(centre, pan)
        aside, depth = camera[..., :2], camera[..., 2:]
        middle, half = np.arctan2(aside, depth), np.arcsin(radius[..., None] / np.hypot(aside, depth))
        ends = [np.tan(middle - half), np.tan(middle + half)]
        return np.concatenate([end / FRAME_SLOPE + np.array([0, HORIZON - 0.5]) for end in ends], -1)
    points = (
        surface_points(shape) @ np.swapaxes(turn, -1, -2) * radius[..., None, None] + centre[..., None, :]
    )
    flat = project(points, pan[..., None])
    return np.concatenate([flat.min(-2), flat.max(-2)], -1)


def frame_boxes(scene: Scene, track: Paths) -> np.ndarray:
    """Boxes [O, F, 4] of a scene's objects; see `solid_boxes`."""
    turns = rotation(track.yaw, track.roll)
    return np.stack(
        [
            solid_boxes(solid.shape, track.centre[index], track.radius[index], turns[index], track.pan)
            for index, solid in enumerate(scene.objects)
        ]
    )


def object_boxes(scene: Scene, num_frames: int, height: int, width: int) -> np.ndarray:
    """Return the tight boxes of all objects, occluded or not: float array [objects, F, 4].

    Each is (left, top, right, bottom) in pixels, clipped to the frame.
    """
    boxes = frame_boxes(scene, paths(scene, num_frames)) * min(height, width)
    boxes += np.array([width, height, width, height]) / 2
    return np.clip(boxes, 0, np.array([width, height, width, height]))
