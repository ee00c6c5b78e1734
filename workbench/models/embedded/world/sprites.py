"""Draw solids as sprites: square patches that just hold them, shaded by analytic rays and laid over images.

A sprite is one object in one frame; S counts sprites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from workbench.models.embedded.world import backdrop, layout
from workbench.models.embedded.world.scene import SHAPES, Colour, Shape, Texture
from workbench.models.embedded.world.solids import INTERSECT, Hits, pattern
from workbench.models.embedded.world.stage import Stage

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


@dataclass(frozen=True)
class Sprites:
    """S objects in one frame each: where they are and how they look (first axis S), patches of one size."""

    patch: int
    rows: torch.Tensor
    slot: torch.Tensor
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


def make_sprites(stage: Stage) -> Sprites:
    """Turn every object of every frame into a sprite."""
    scenes, tracks, place, unit = stage.scenes, stage.tracks, stage.place, stage.unit
    num_frames, height, width = stage.num_frames, stage.height, stage.width
    flat = [(b, o) for b, scene in enumerate(scenes) for o in range(len(scene.objects))]
    centre = np.stack([tracks[b].centre[o] for b, o in flat])
    radius = np.stack([tracks[b].radius[o] for b, o in flat])
    pan = np.stack([tracks[b].pan for b, _ in flat])
    turn = layout.rotation(
        np.stack([tracks[b].yaw[o] for b, o in flat]), np.stack([tracks[b].roll[o] for b, o in flat])
    )
    boxes = np.empty((*radius.shape, 4))
    shapes = np.array([scenes[b].objects[o].shape for b, o in flat])
    for shape in SHAPES:
        alike = shapes == shape
        if alike.any():
            boxes[alike] = layout.solid_boxes(shape, centre[alike], radius[alike], turn[alike], pan[alike])
    boxes *= unit
    boxes += np.array([width, height, width, height]) / 2
    patch = int(np.ceil((boxes[..., 2:] - boxes[..., :2]).max())) + 5
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    corner = np.clip(np.floor(middle - patch / 2), -patch, [width, height])

    camera = np.array([0.0, layout.CAMERA_HEIGHT, -layout.CAMERA_DISTANCE])
    inverse = np.swapaxes(turn, -1, -2)
    local = np.einsum("sfij,sfj->sfi", inverse, camera - centre) / radius[..., None]
    basis = _ray_basis(pan, unit, (height, width))
    basis = inverse @ basis / radius[..., None, None]
    light = np.stack([stage.lights[b] for b, _ in flat])
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
    return Sprites(
        patch=patch,
        rows=place(rows).long(),
        slot=spread([o for _, o in flat]).long(),
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


def _ray_basis(pan: np.ndarray, unit: int, frame: tuple[int, int]) -> np.ndarray:
    """Matrices [S, F, 3, 3] from pixel coordinates (x, y, 1) to ray directions in the world."""
    height, width = frame
    scale = layout.FRAME_SLOPE / unit
    x0, y0 = -width / 2 * scale, -height / 2 * scale + (0.5 - layout.HORIZON) * layout.FRAME_SLOPE
    camera = np.array([[scale, 0, x0], [0, -scale, -y0], [0, 0, 1.0]])
    return layout.rotation(pan, np.zeros_like(pan)) @ camera


def lay_over(
    image: torch.Tensor, sprites: Sprites, draw: Callable[[torch.Tensor, Shape], torch.Tensor]
) -> None:
    """Lay sprites over images [B, 3, F, H, W], in place, far layer first.

    `draw` takes the numbers of some sprites and their shape, and returns their premultiplied colour and
    coverage [S, patch², 4].
    """
    batch, _, num_frames, height, width = image.shape
    patch = sprites.patch
    canvas = torch.nn.functional.pad(image, (patch, patch, patch, patch))
    flat = canvas.permute(0, 2, 3, 4, 1).reshape(batch * num_frames, -1, 3)
    span = torch.arange(patch, device=image.device)
    row_length = width + 2 * patch
    start = (sprites.corner[:, 1].long() + patch) * row_length + sprites.corner[:, 0].long() + patch
    index = start[:, None] + (span[:, None] * row_length + span[None, :]).reshape(1, -1)
    for layer in (0, 1):
        for number, shape in enumerate(SHAPES):
            chosen = ((sprites.layer == layer) & (sprites.shape == number)).nonzero()[:, 0]
            if len(chosen) == 0:
                continue
            colour = draw(chosen, shape)
            rows, columns = sprites.rows[chosen][:, None], index[chosen]
            under = flat[rows, columns]
            flat[rows, columns] = colour[..., :3] + under * (1 - colour[..., 3:])
    canvas = flat.view(batch, num_frames, height + 2 * patch, row_length, 3)
    image.copy_(canvas[:, :, patch:-patch, patch:-patch].permute(0, 4, 1, 2, 3))


def shaded(sprites: Sprites, oversample: int) -> Callable[[torch.Tensor, Shape], torch.Tensor]:
    """Return a `draw` for `lay_over` that shows the solids as they look."""

    def draw(chosen: torch.Tensor, shape: Shape) -> torch.Tensor:
        hits = _cast(sprites, chosen, shape, oversample)
        mask = hits.mask.float()
        colour = _shade(sprites, chosen, shape, hits)
        full = torch.stack([*(part * mask for part in colour), mask], 1).nan_to_num()
        return torch.nn.functional.avg_pool2d(full, oversample).flatten(2).transpose(1, 2)

    return draw


def covering(sprites: Sprites, oversample: int) -> Callable[[torch.Tensor, Shape], torch.Tensor]:
    """Return a `draw` for `lay_over` that shows which object is where: first red, second green."""

    def draw(chosen: torch.Tensor, shape: Shape) -> torch.Tensor:
        mask = _cast(sprites, chosen, shape, oversample).mask.float()
        cover = torch.nn.functional.avg_pool2d(mask[:, None], oversample).flatten(1)
        second = sprites.slot[chosen][:, None]
        return torch.stack([cover * (1 - second), cover * second, torch.zeros_like(cover), cover], -1)

    return draw


def _cast(sprites: Sprites, chosen: torch.Tensor, shape: Shape, oversample: int) -> Hits:
    steps = (torch.arange(sprites.patch * oversample, device=chosen.device) + 0.5) / oversample
    x = (sprites.corner[chosen, 0, None] + steps)[:, None, :]
    y = (sprites.corner[chosen, 1, None] + steps)[:, :, None]
    basis = sprites.basis[chosen][:, :, :, None, None]
    dx, dy, dz = (basis[:, k, 0] * x + (basis[:, k, 1] * y + basis[:, k, 2]) for k in range(3))
    return INTERSECT[shape](sprites.origin[chosen], (dx, dy, dz))


def _shade(sprites: Sprites, chosen: torch.Tensor, shape: Shape, hits: Hits) -> list[torch.Tensor]:
    """Red, green and blue [S, h, w] of the hit points."""

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
    colour = []
    for k in range(3):
        albedo, tint = sprites.albedo[chosen, k, None, None], sprites.tint[chosen, k, None, None]
        colour.append((albedo * shade + gleam).clamp(max=1) * tint)
    return colour
