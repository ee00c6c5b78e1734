"""Name the motion of a tracked object: the simplest path of the world's that explains its edges.

Every motion says how the four edges of an object move; its amounts are fitted by least squares to the edges
that are in full view, so that a half-hidden object is still read. Motions that do not move the outline
(still, spin) are told apart by how much the look inside it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from workbench.evaluation.tracks import Track
from workbench.models.embedded.world.layout import CLIP_FRAMES
from workbench.models.embedded.world.scene import Motion

LEFT, TOP, RIGHT, BOTTOM = range(4)
PIXEL = 0.008
"""Expected error of an edge, in shorter sides of the frame."""
WORST_FIT = 0.035
"""Mean error of the best motion beyond which none is named."""
LEAD = 0.12
"""By how much (in log error per observation) the best motion must lead."""
TRAVEL, CLIMB, GROWTH, CIRCLE = 0.13, 0.09, 0.22, 0.055
"""Least amounts: sideways and upwards in frames, in log size, radius of a circle in frames."""
CHANGE = 0.032
"""Least change of look of a spinning object."""


class Fit(NamedTuple):
    """A motion fitted to a track: cost (lower is better), mean error, amounts, lower edge at rest."""

    motion: Motion
    cost: float
    error: float
    amounts: np.ndarray
    ground: float = np.nan


@dataclass(frozen=True)
class MotionReading:
    """The motion read, or None when the track is too short, fits nothing, or fits two motions alike.

    `best` is the likeliest motion in any case; `ground` the height of the lower edge at rest, where it is
    fitted.
    """

    motion: Motion | None
    best: Motion | None
    error: float
    ground: float = np.nan


def read_motion(track: Track, shift: np.ndarray, change: float) -> MotionReading:
    """Name the motion of an object relative to the background.

    Args:
        track: Its edges.
        shift: [F] sideways movement of the background, in shorter sides.
        change: How much its look changes (`look_change`).
    """
    edges = track.edges - np.stack([shift, 0 * shift, shift, 0 * shift], -1)
    seen = track.valid & track.shown[:, None]
    if len(edges) < 5 or seen.any(1).sum() < 4 or seen.sum() < 12:
        return MotionReading(None, None, np.inf)
    time = np.arange(len(edges)) / (CLIP_FRAMES - 1)
    best: dict[Motion, Fit] = {}
    for fit in _fits(edges, seen, time):
        if _large_enough(fit) and (fit.motion not in best or fit.cost < best[fit.motion].cost):
            best[fit.motion] = fit
    ranked = sorted(best.values(), key=lambda fit: fit.cost)
    winner = ranked[0]
    motion: Motion = winner.motion
    if motion in ("still", "spin"):
        motion = "spin" if change > CHANGE else "still"
        ranked = [fit for fit in ranked if fit.motion not in ("still", "spin")]
        close = bool(ranked) and ranked[0].cost - winner.cost < LEAD
        close |= 0.9 * CHANGE < change < 1.1 * CHANGE and winner.motion == "still"
    else:
        close = len(ranked) > 1 and ranked[1].cost - winner.cost < LEAD
    sure = winner.error < WORST_FIT and not close
    return MotionReading(motion if sure else None, motion, winner.error, winner.ground)


def _fits(edges: np.ndarray, seen: np.ndarray, time: np.ndarray) -> list[Fit]:
    once, none = np.minimum(time, 1.0), np.zeros_like(time)
    sideways = np.stack([once, none, once, none], -1)
    upwards = np.stack([none, -once, none, -once], -1)
    wider = np.stack([-once, none, once, none], -1)
    taller = np.stack([none, -once, none, none], -1)
    lower = np.stack([none, none, none, once], -1)
    fits = [
        _fit("still", [], edges, seen),
        _fit_turning(edges, seen),
        *_signed(("right", "left"), [sideways], edges, seen),
        *_signed(("rise", "sink"), [upwards], edges, seen),
        *_signed(("grow", "shrink"), [wider, taller, lower], edges, seen, lead=1),
    ]
    for start in np.linspace(-0.05, 0.3, 8):
        for pace in (1.0, 1.15, 1.3):
            hop = np.abs(np.sin(np.pi * (start + pace * time)))
            fits.append(_fit("bounce", [np.stack([none, -hop, none, -hop], -1)], edges, seen, searched=2))
    for phase in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        for turn in (-1, 1):
            angle = phase + turn * 2 * np.pi * 0.62 * time
            across, depth = np.cos(angle), -np.sin(angle)
            circle = [
                np.stack([across, none, across, none], -1),
                np.stack([none, none, none, depth], -1),
                np.stack([none, depth, none, none], -1),
                np.stack([-depth, none, depth, none], -1),
            ]
            fits.append(_fit("orbit", circle, edges, seen, searched=2))
    return fits


def _signed(
    names: tuple[Motion, Motion],
    basis: list[np.ndarray],
    edges: np.ndarray,
    seen: np.ndarray,
    *,
    lead: int = 0,
) -> list[Fit]:
    fit = _fit(names[0], basis, edges, seen)
    return [fit if fit.amounts[lead] > 0 else fit._replace(motion=names[1])]


def _fit(
    motion: Motion, basis: list[np.ndarray], edges: np.ndarray, seen: np.ndarray, *, searched: int = 0
) -> Fit:
    """Fit a resting place for each edge plus shared amounts of the basis movements [F, 4]."""
    offsets = [np.broadcast_to(np.eye(4)[edge], edges.shape) for edge in range(4) if seen[:, edge].any()]
    columns = np.stack([*(part[seen] for part in offsets), *(part[seen] for part in basis)], -1)
    target = edges[seen]
    solution = np.linalg.lstsq(columns, target, rcond=1e-6)[0]
    left_over = np.minimum(np.abs(target - columns @ solution), 0.1)
    amounts = solution[len(offsets) :]
    scored = _scored(motion, left_over, len(amounts) + searched, amounts)
    return scored._replace(ground=float(solution[len(offsets) - 1])) if seen[:, BOTTOM].any() else scored


def _fit_turning(edges: np.ndarray, seen: np.ndarray) -> Fit:
    """Fit a solid that turns in place: its middle, top and bottom rest, its width is free."""
    both = seen[:, LEFT] & seen[:, RIGHT]
    middle = (edges[both, LEFT] + edges[both, RIGHT]) / 2
    parts = [middle - np.median(middle)] if both.any() else []
    for edge in (TOP, BOTTOM):
        if seen[:, edge].any():
            parts.append(edges[seen[:, edge], edge] - np.median(edges[seen[:, edge], edge]))
    if sum(map(len, parts)) < 8:
        return Fit("spin", np.inf, np.inf, np.zeros(0))
    left_over = np.minimum(np.abs(np.concatenate(parts)), 0.1)
    return _scored("spin", left_over, 3, np.zeros(0))


def _scored(motion: Motion, left_over: np.ndarray, freedom: int, amounts: np.ndarray) -> Fit:
    error = float(np.sqrt((left_over**2).mean()))
    cost = np.log(error**2 + PIXEL**2) + freedom * np.log(len(left_over)) / len(left_over)
    return Fit(motion, float(cost), error, amounts)


def _large_enough(fit: Fit) -> bool:
    amounts = fit.amounts
    if fit.motion in ("left", "right"):
        return bool(abs(amounts[0]) >= TRAVEL)
    if fit.motion in ("rise", "sink"):
        return bool(abs(amounts[0]) >= CLIMB)
    if fit.motion == "bounce":
        return bool(amounts[0] >= CLIMB)
    if fit.motion in ("grow", "shrink"):
        height = amounts[1] + amounts[2]
        return bool(
            abs(height) >= 0.06 and np.sign(height) == np.sign(amounts[1]) and amounts[0] * height > 0
        )
    if fit.motion == "orbit":
        return bool(amounts[0] >= CIRCLE and amounts[1] >= 0.012)
    return True


def look_change(looks: np.ndarray) -> float:
    """Measure how much the light and shade inside an object's outline moves over time.

    Args:
        looks: Crops [N, 3, n, n] of the object in order of time (`tracks.crops`); what others hide is left
            out.
    """
    if len(looks) < 4:
        return 0.0
    light = ndimage.uniform_filter(looks[:, 1], (0, 3, 3))
    hidden = ndimage.maximum_filter(looks[:, 2], (0, 5, 5)) > 0.02
    inside = (ndimage.uniform_filter(looks[:, 0], (0, 3, 3)) > 0.8) & ~hidden
    times = inside.sum(0)
    steady = times >= max(4, 0.6 * times.max())
    if steady.sum() < 12:
        return 0.0
    light, inside, count = light[:, steady], inside[:, steady], times[steady]
    mean = (light * inside).sum(0) / count
    spread = (((light - mean) ** 2) * inside).sum(0) / count
    triple = inside[:-2] & inside[1:-1] & inside[2:]
    bend = (light[1:-1] - (light[:-2] + light[2:]) / 2) ** 2 * triple
    noise = bend.sum() / max(1, triple.sum()) / 1.5
    return float(np.sqrt(np.maximum(spread - noise, 0)).mean())
