"""Meet rays with unit solids: hit mask, point and normal, all in the solid's own frame.

Rays of one solid start at one point (the camera): origins are [M, 3], directions are three arrays
[M, h, w] and need not have length one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from workbench.models.embedded.world.scene import Shape

Vector = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

TORUS_RADIUS, TORUS_TUBE, TORUS_STEPS = 0.74, 0.28, 18


class Hits(NamedTuple):
    """Where rays meet a solid: mask [M, h, w] and two vectors of such arrays, meaningful inside the mask."""

    mask: torch.Tensor
    point: Vector
    normal: Vector


def _parts(origins: torch.Tensor) -> Vector:
    x, y, z = origins[:, :, None, None].unbind(1)
    return x, y, z


def _along(origin: Vector, direction: Vector, distance: torch.Tensor) -> Vector:
    x, y, z = (o + distance * d for o, d in zip(origin, direction, strict=True))
    return x, y, z


def ball(origins: torch.Tensor, direction: Vector) -> Hits:
    """Unit sphere."""
    ox, oy, oz = _parts(origins)
    dx, dy, dz = direction
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    root = b * b - a * (ox * ox + oy * oy + oz * oz - 1)
    distance = (-b - root.clamp(min=0).sqrt()) / a
    point = _along((ox, oy, oz), direction, distance)
    return Hits(root > 0, point, point)


def _polyhedron(
    origins: torch.Tensor, direction: Vector, faces: list[tuple[float, float, float, float]]
) -> Hits:
    """Convex solid of faces (unit normal, distance of the plane from the centre)."""
    ox, oy, oz = _parts(origins)
    dx, dy, dz = direction
    enter = torch.full_like(dx, -torch.inf)
    leave = torch.full_like(dx, torch.inf)
    normal: Vector = (torch.zeros_like(dx), torch.zeros_like(dx), torch.zeros_like(dx))
    for nx, ny, nz, offset in faces:
        slope = dx * nx + dy * ny + dz * nz
        distance = (offset - (ox * nx + oy * ny + oz * nz)) / slope
        closer = (slope < 0) & (distance > enter)
        enter = torch.where(closer, distance, enter)
        leave = torch.where(slope > 0, torch.minimum(leave, distance), leave)
        face = (nx, ny, nz)
        normal = tuple(part.masked_fill(closer, n) for part, n in zip(normal, face, strict=True))  # type: ignore[assignment]
    return Hits(enter < leave, _along((ox, oy, oz), direction, enter), normal)


def cube(origins: torch.Tensor, direction: Vector) -> Hits:
    """Cube of half side 0.8."""
    axes = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    return _polyhedron(origins, direction, [(s * x, s * y, s * z, 0.8) for x, y, z in axes for s in (1, -1)])


def diamond(origins: torch.Tensor, direction: Vector) -> Hits:
    """Octahedron with half axes 0.9, 1.12, 0.9, standing on its tip."""
    inverse = (1 / 0.9, 1 / 1.12, 1 / 0.9)
    length = sum(i * i for i in inverse) ** 0.5
    nx, ny, nz = (i / length for i in inverse)
    signs = [(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    return _polyhedron(origins, direction, [(a * nx, b * ny, c * nz, 1 / length) for a, b, c in signs])


def cylinder(origins: torch.Tensor, direction: Vector) -> Hits:
    """Upright cylinder of radius 0.78 and half height 0.95."""
    ox, oy, oz = _parts(origins)
    dx, dy, dz = direction
    a = dx * dx + dz * dz
    b = ox * dx + oz * dz
    root = b * b - a * (ox * ox + oz * oz - 0.78**2)
    spread = root.clamp(min=0).sqrt()
    side, side_out = (-b - spread) / a, (-b + spread) / a
    cap, cap_out = _slab(oy, dy, 0.95)
    enter, leave = torch.maximum(side, cap), torch.minimum(side_out, cap_out)
    x, y, z = _along((ox, oy, oz), direction, enter)
    on_side = side > cap
    zero = torch.zeros_like(x)
    normal = (
        torch.where(on_side, x / 0.78, zero),
        torch.where(on_side, zero, -dy.sign()),
        torch.where(on_side, z / 0.78, zero),
    )
    return Hits((root > 0) & (enter < leave), (x, y, z), normal)


def cone(origins: torch.Tensor, direction: Vector) -> Hits:
    """Upright cone, apex at y = 1, base of radius 1 at y = -1; for rays flatter than its side (slope 2)."""
    ox, oy, oz = _parts(origins)
    dx, dy, dz = direction
    a = dx * dx + dz * dz - 0.25 * dy * dy
    b = ox * dx + oz * dz + 0.25 * (1 - oy) * dy
    root = b * b - a * (ox * ox + oz * oz - 0.25 * (1 - oy) ** 2)
    spread = root.clamp(min=0).sqrt()
    side, side_out = (-b - spread) / a, (-b + spread) / a
    base, base_out = _slab(oy, dy, 1.0)
    enter, leave = torch.maximum(side, base), torch.minimum(side_out, base_out)
    x, y, z = _along((ox, oy, oz), direction, enter)
    on_side = side > base
    across = (x * x + z * z).sqrt().clamp(min=1e-6) * 1.118
    zero = torch.zeros_like(x)
    normal = (
        torch.where(on_side, x / across, zero),
        torch.where(on_side, torch.full_like(x, 0.447), -dy.sign()),
        torch.where(on_side, z / across, zero),
    )
    return Hits((root > 0) & (enter < leave), (x, y, z), normal)


def _slab(oy: torch.Tensor, dy: torch.Tensor, half: float) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (-half - oy) / dy, (half - oy) / dy
    return torch.minimum(first, second), torch.maximum(first, second)


def ring(origins: torch.Tensor, direction: Vector) -> Hits:
    """Torus round the z axis, met by a fixed number of sphere-tracing steps."""
    ox, oy, oz = _parts(origins)
    dx, dy, dz = direction
    scale = torch.rsqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx * scale, dy * scale, dz * scale
    toward = -(ox * dx + oy * dy + oz * dz)
    distance = toward - 1.05
    for _ in range(TORUS_STEPS):
        distance = distance + _torus_distance((ox + distance * dx, oy + distance * dy, oz + distance * dz))
    point = _along((ox, oy, oz), (dx, dy, dz), distance)
    x, y, z = point
    across = (x * x + y * y).sqrt().clamp(min=1e-6)
    shrink = (across - TORUS_RADIUS) / (across * TORUS_TUBE)
    mask = (_torus_distance(point) < 0.02) & (distance < toward + 1.1)
    return Hits(mask, point, (x * shrink, y * shrink, z / TORUS_TUBE))


def _torus_distance(point: Vector) -> torch.Tensor:
    x, y, z = point
    out = (x * x + y * y).sqrt() - TORUS_RADIUS
    return (out * out + z * z).sqrt() - TORUS_TUBE


INTERSECT: dict[Shape, Callable[[torch.Tensor, Vector], Hits]] = {
    "ball": ball, "cube": cube, "cylinder": cylinder, "cone": cone, "ring": ring, "diamond": diamond,
}  # fmt: skip


def pattern(shape: Shape, point: Vector, *, checked: bool) -> torch.Tensor:
    """Large soft pattern on a solid: about 1 on light parts and 0 on dark ones."""
    x, y, z = point
    if shape == "cube":
        wave = torch.sin(4.4 * y + 0.8)
        if checked:
            wave = _square(x) * _square(y) * _square(z) * 1.5
    elif shape == "diamond":
        wave = torch.sin(4.4 * y + 0.8)
        if checked:
            wave = torch.sin(4 * torch.atan2(z, x)) * torch.tanh(9 * torch.sin(5.2 * y)) * 1.5
    elif shape == "ring":
        wave = torch.sin(4 * torch.atan2(y, x) + 0.7)
        if checked:
            wave = wave * torch.tanh(8 * z) * 1.2
    else:
        wave = torch.sin(3 * torch.atan2(z, x))
        if checked:
            wave = wave * torch.sin(2.9 * y) * 1.5
    return torch.sigmoid(wave * 9)


def _square(along: torch.Tensor) -> torch.Tensor:
    """One of two squares along an edge of the cube; the sign of the side where it is the face's own axis."""
    return torch.where(along.abs() > 0.79, along.sign(), torch.sin(3.927 * along))
