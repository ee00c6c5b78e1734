"""Render scenes to clips: a painted backdrop, soft cast shadows, and shaded solids met by analytic rays.

Objects are drawn in square patches that just hold them, oversampled for clean edges, and laid over the
backdrop from far to near. Batched over scenes, frames and pixels; python loops only over shapes and layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workbench.errors import InputError
from workbench.models.embedded.world import backdrop, layout
from workbench.models.embedded.world.scene import SHAPES, Colour, Scene, Shape, Texture
from workbench.models.embedded.world.solids import INTERSECT, pattern

ALBEDO: dict[Colour, tuple[float, float, float]] = {
    "red": (0.87, 0.11, 0.09),
    "orange": (0.98, 0.47, 0.04),
    "yellow": (0.98, 0.86, 0.10),
    "green": (0.12, 0.66, 0.20),
    "cyan": (0.07, 0.78, 0.83),
    "blue": (0.12, 0.28, 0.90),
    "purple": (0.50, 0.16, 0.80),
    "pink": (0.98, 0.40, 0.68),
}
TEXTURE_DEPTH: dict[Texture, float] = {"plain": 0.0, "striped": 0.55, "checked": 0.55}
GLEAM: dict[Shape, float] = {
    "ball": 0.55,
    "ring": 0.45,
    "cone": 0.25,
    "cylinder": 0.25,
    "cube": 0.08,
    "diamond": 0.12,
}
"""Strength of the highlight: low on flat faces, which it would cover as a whole."""
PATCH_BUDGET = {"cpu": 3_000_000, "cuda": 60_000_000}
"""Rays cast at once: bounds memory, and keeps the CPU in its cache."""


@dataclass(frozen=True)
class _Sprites:
    """S objects in one frame each: where they are and how they look (tensors, first axis S)."""

    rows: torch.Tensor
    layer: torch.Tensor
    corner: torch.Tensor
    origin: torch.Tensor
    basis: torch.Tensor
    light: torch.Tensor
    half: torch.Tensor
    up: torch.Tensor
    albedo: torch.Tensor
    tint: torch.Tensor
    texture: torch.Tensor
    checked: torch.Tensor
    shape: torch.Tensor


def render(
    scenes: Sequence[Scene],
    *,
    num_frames: int = 17,
    height: int = 128,
    width: int = 128,
    device: torch.device | str = "cpu",
    oversample: int = 2,
) -> torch.Tensor:
    """Render scenes to uint8 clips [B, F, H, W, 3] on the device.

    Args:
        scenes: What to show; the same scene gives the same clip.
        num_frames: 17 frames are one clip of time; more go on after it.
        height: Pixels; any size works, the world keeps its proportions.
        width: Pixels.
        device: Where to compute and leave the result.
        oversample: Rays per pixel and axis on objects.

    Raises:
        InputError: on sizes below 1.
    """
    if min(num_frames, height, width, oversample) < 1 or not scenes:
        raise InputError(
            f"Rendering needs at least one scene, frame, pixel and ray, not {len(scenes)} scenes, "
            f"{num_frames} frames, {height}×{width} pixels and {oversample} rays; raise the one below 1."
        )
    device = torch.device(device)
    share = max(
        1, int(PATCH_BUDGET.get(device.type, 3_000_000) / (num_frames * height * width * oversample**2 * 0.4))
    )
    parts = [
        _render_part(list(scenes[start : start + share]), (num_frames, height, width), device, oversample)
        for start in range(0, len(scenes), share)
    ]
    return torch.cat(parts)


def _render_part(
    scenes: list[Scene], size: tuple[int, int, int], device: torch.device, oversample: int
) -> torch.Tensor:
    num_frames, height, width = size
    tracks = layout.stack_paths(scenes, num_frames)
    unit = min(height, width)

    def place(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    right = (torch.arange(width, device=device) + 0.5 - width / 2) / unit
    down = (torch.arange(height, device=device) + 0.5 - height / 2) / unit
    view = backdrop.View(
        across=(right * layout.FRAME_SLOPE)[None, None, None, :],
        below=((down + 0.5 - layout.HORIZON) * layout.FRAME_SLOPE)[None, None, :, None],
        pan=place(np.stack([track.pan for track in tracks]))[:, :, None, None],
        time=place(tracks[0].time)[None, :, None, None],
        pixel=layout.FRAME_SLOPE / unit,
    )
    lights = [_light(scene) for scene in scenes]
    ground = backdrop.ground_points(view)
    occlusion = _shadows(scenes, tracks, lights, ground, place)
    image = backdrop.paint(backdrop.backdrops(scenes, device), view, ground, occlusion)
    sprites, patch = _sprites(scenes, tracks, lights, size, place)
    _lay_over(image, sprites, patch, oversample)
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def _light(scene: Scene) -> np.ndarray:
    """Direction to the light: above, to one side, a little before the objects."""
    rng = np.random.default_rng((scene.seed, 3))
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 0.6)
    direction = np.array([side, 1.0, -rng.uniform(0.35, 0.55)])
    return direction / np.linalg.norm(direction)


def _shadows(scenes, tracks, lights, ground, place) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Share of light kept from each ground point [B, F, H, W]: ellipsoids stand for the solids."""
    x, z = ground
    clear = torch.ones_like(x)
    for index in range(2):
        has = [index < len(scene.objects) for scene in scenes]
        if not any(has):
            continue
        pick = [min(index, len(scene.objects) - 1) for scene in scenes]
        centre = place(np.stack([t.centre[i] for t, i in zip(tracks, pick, strict=True)]))
        radius = np.stack([t.radius[i] for t, i in zip(tracks, pick, strict=True)])
        axes = (
            np.stack([_shadow_axes(s, t, i) for s, t, i in zip(scenes, tracks, pick, strict=True)])
            * radius[..., None]
        )
        ax, ay, az = (place(axes[..., k])[:, :, None, None] for k in range(3))
        cx, cy, cz = (centre[..., k][:, :, None, None] for k in range(3))
        lx, ly, lz = (place(np.array([v[k] for v in lights]))[:, None, None, None] for k in range(3))
        ox, oy, oz = (x - cx) / ax, -cy / ay, (z - cz) / az
        dx, dy, dz = lx / ax, ly / ay, lz / az
        along = (ox * dx + oy * dy + oz * dz) / (dx * dx + dy * dy + dz * dz)
        missed = ((ox - along * dx) ** 2 + (oy - along * dy) ** 2 + (oz - along * dz) ** 2).sqrt()
        lift = (cy - ay).clamp(min=0) / 2.5
        blur = 0.16 + 0.22 * lift
        shade = torch.sigmoid((1 - missed) / blur * 2.2) * (1 - 0.35 * lift.clamp(max=1))
        clear = clear * (1 - shade * place(np.array(has, dtype=float))[:, None, None, None])
    return 1 - clear


def _shadow_axes(scene: Scene, track: layout.Paths, index: int) -> np.ndarray:
    """Half axes [F, 3] of the ellipsoid that stands for a unit solid in its shadow."""
    shape = scene.objects[index].shape
    if shape == "ring":
        turn = track.yaw[index]
        wide, deep = np.abs(np.cos(turn)), np.abs(np.sin(turn))
        return np.stack([0.3 + 0.7 * wide, np.full_like(wide, 1.02), 0.3 + 0.7 * deep], -1)
    half = {"ball": 1.0, "cube": 0.98, "cylinder": 0.82, "cone": 0.88, "diamond": 0.72}[shape]
    return np.tile(np.array([half, layout.FOOT[shape], half]), (len(track.time), 1))


def _sprites(scenes, tracks, lights, size, place) -> tuple[_Sprites, int]:  # type: ignore[no-untyped-def]
    num_frames, height, width = size
    unit = min(height, width)
    flat = [(b, o) for b, scene in enumerate(scenes) for o in range(len(scene.objects))]
    centre = np.stack([tracks[b].centre[o] for b, o in flat])
    radius = np.stack([tracks[b].radius[o] for b, o in flat])
    pan = np.stack([tracks[b].pan for b, _ in flat])
    turn = layout.rotation(
        np.stack([tracks[b].yaw[o] for b, o in flat]), np.stack([tracks[b].roll[o] for b, o in flat])
    )
    boxes = np.concatenate([layout.frame_boxes(s, t) for s, t in zip(scenes, tracks, strict=True)]) * unit
    boxes += np.array([width, height, width, height]) / 2
    patch = int(np.ceil((boxes[..., 2:] - boxes[..., :2]).max())) + 5
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    corner = np.clip(np.floor(middle - patch / 2), -patch, [width, height])

    camera = np.array([0.0, layout.CAMERA_HEIGHT, -layout.CAMERA_DISTANCE])
    inverse = np.swapaxes(turn, -1, -2)
    local = np.einsum("sfij,sfj->sfi", inverse, camera - centre) / radius[..., None]
    basis = _ray_basis(pan, unit, (height, width))
    basis = inverse @ basis / radius[..., None, None]
    light = np.stack([lights[b] for b, _ in flat])
    toward = (camera - centre) / np.linalg.norm(camera - centre, axis=-1, keepdims=True)
    half = light[:, None] + toward
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    depth = [tracks[b].centre[:, :, 2] for b, _ in flat]
    layer = [np.zeros(num_frames) if len(d) == 1 else (d[o] <= d[1 - o]) & ((d[o] < d[1 - o]) | (o == 0))
             for d, (_, o) in zip(depth, flat, strict=True)]  # fmt: skip
    solids = [scenes[b].objects[o] for b, o in flat]

    def spread(values: list) -> torch.Tensor:
        array = np.array(values, dtype=float)
        return place(np.repeat(array, num_frames, axis=0))

    rows = np.array([[b * num_frames + f for f in range(num_frames)] for b, _ in flat]).ravel()
    sprites = _Sprites(
        rows=place(rows).long(),
        layer=place(np.stack(layer).ravel()).long(),
        corner=place(corner.reshape(-1, 2)),
        origin=place(local.reshape(-1, 3)),
        basis=place(basis.reshape(-1, 3, 3)),
        light=place(np.einsum("sfij,sj->sfi", inverse, light).reshape(-1, 3)),
        half=place(np.einsum("sfij,sfj->sfi", inverse, half).reshape(-1, 3)),
        up=place(inverse[..., 1].reshape(-1, 3)),
        albedo=spread([ALBEDO[s.colour] for s in solids]),
        tint=spread([backdrop.PALETTES[scenes[b].background].light for b, _ in flat]),
        texture=spread([TEXTURE_DEPTH[s.texture] for s in solids]),
        checked=spread([s.texture == "checked" for s in solids]) > 0,
        shape=spread([SHAPES.index(s.shape) for s in solids]).long(),
    )
    return sprites, patch


def _ray_basis(pan: np.ndarray, unit: int, frame: tuple[int, int]) -> np.ndarray:
    """Matrices [S, F, 3, 3] from pixel coordinates (x, y, 1) to ray directions in the world."""
    height, width = frame
    scale = layout.FRAME_SLOPE / unit
    x0, y0 = -width / 2 * scale, -height / 2 * scale + (0.5 - layout.HORIZON) * layout.FRAME_SLOPE
    camera = np.array([[scale, 0, x0], [0, -scale, -y0], [0, 0, 1.0]])
    return layout.rotation(pan, np.zeros_like(pan)) @ camera


def _lay_over(image: torch.Tensor, sprites: _Sprites, patch: int, oversample: int) -> None:
    """Draw the sprites into images [B, 3, F, H, W], in place, far layer first."""
    batch, _, num_frames, height, width = image.shape
    canvas = torch.nn.functional.pad(image, (patch, patch, patch, patch))
    flat = canvas.permute(0, 2, 3, 4, 1).reshape(batch * num_frames, -1, 3)
    span = torch.arange(patch, device=image.device)
    row_length = width + 2 * patch
    start = (sprites.corner[:, 1].long() + patch) * row_length + sprites.corner[:, 0].long() + patch
    index = start[:, None] + (span[:, None] * row_length + span[None, :]).reshape(1, -1)
    for layer in (0, 1):
        for number in range(len(SHAPES)):
            chosen = ((sprites.layer == layer) & (sprites.shape == number)).nonzero()[:, 0]
            if len(chosen) == 0:
                continue
            colour = _draw(sprites, chosen, number, patch, oversample)
            rows, columns = sprites.rows[chosen][:, None], index[chosen]
            under = flat[rows, columns]
            flat[rows, columns] = colour[..., :3] + under * (1 - colour[..., 3:])
    canvas = flat.view(batch, num_frames, height + 2 * patch, row_length, 3)
    image.copy_(canvas[:, :, patch:-patch, patch:-patch].permute(0, 4, 1, 2, 3))


def _draw(sprites: _Sprites, chosen: torch.Tensor, number: int, patch: int, oversample: int) -> torch.Tensor:
    """Premultiplied colour and coverage [S, patch², 4] of the chosen sprites, all of one shape."""
    shape = SHAPES[number]
    steps = (torch.arange(patch * oversample, device=chosen.device) + 0.5) / oversample
    x = (sprites.corner[chosen, 0, None] + steps)[:, None, :]
    y = (sprites.corner[chosen, 1, None] + steps)[:, :, None]
    basis = sprites.basis[chosen][:, :, :, None, None]
    dx, dy, dz = (basis[:, k, 0] * x + (basis[:, k, 1] * y + basis[:, k, 2]) for k in range(3))
    hits = INTERSECT[shape](sprites.origin[chosen], (dx, dy, dz))

    def against(vectors: torch.Tensor) -> torch.Tensor:
        v = vectors[chosen][:, :, None, None]
        return hits.normal[0] * v[:, 0] + hits.normal[1] * v[:, 1] + hits.normal[2] * v[:, 2]

    facing = against(sprites.light)
    diffuse = (0.5 + 0.5 * facing).clamp(0, 1) ** 1.6
    sky = 0.5 + 0.5 * against(sprites.up)
    shade = 0.22 + 0.16 * sky + 0.72 * diffuse
    depth = sprites.texture[chosen]
    if bool((depth > 0).any()):
        striped, checked = pattern(shape, hits.point, checked=False), pattern(shape, hits.point, checked=True)
        light = torch.where(sprites.checked[chosen][:, None, None], checked, striped)
        shade = shade * (1 - depth[:, None, None] * (1 - light))
    gleam = GLEAM[shape] * against(sprites.half).clamp(0, 1) ** 36 * (facing > 0)
    mask = hits.mask.to(shade.dtype)
    parts = []
    for k in range(3):
        albedo, tint = sprites.albedo[chosen, k, None, None], sprites.tint[chosen, k, None, None]
        parts.append((albedo * shade + gleam).clamp(max=1) * tint * mask)
    full = torch.stack([*parts, mask], 1).nan_to_num()
    pooled = torch.nn.functional.avg_pool2d(full, oversample)
    return pooled.flatten(2).transpose(1, 2)
