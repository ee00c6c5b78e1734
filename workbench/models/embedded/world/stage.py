"""Set scenes up for rendering: paths, lights and the shadows that fall on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.models.embedded.world import layout
from workbench.models.embedded.world.scene import Scene


@dataclass(frozen=True)
class Stage:
    """B scenes in space and time, and the frame they are seen through."""

    scenes: list[Scene]
    tracks: list[layout.Paths]
    lights: list[np.ndarray]
    num_frames: int
    height: int
    width: int
    device: torch.device

    def place(self, array: np.ndarray) -> torch.Tensor:
        """Return an array as a float32 tensor on the device."""
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)

    @property
    def unit(self) -> int:
        """Pixels of the frame's shorter side."""
        return min(self.height, self.width)


def set_stage(scenes: list[Scene], size: tuple[int, int, int], device: torch.device) -> Stage:
    """Set scenes up for a size of (frames, height, width)."""
    tracks = [layout.paths(scene, size[0]) for scene in scenes]
    return Stage(scenes, tracks, [light_direction(scene) for scene in scenes], *size, device)


def light_direction(scene: Scene) -> np.ndarray:
    """Direction to the light: above, to one side, a little before the objects."""
    rng = np.random.default_rng((scene.seed, 3))
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 0.6)
    direction = np.array([side, 1.0, -rng.uniform(0.35, 0.55)])
    return direction / np.linalg.norm(direction)


def ground_shadows(stage: Stage, ground: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Share of light kept from each ground point [B, F, H, W]: ellipsoids stand for the solids."""
    x, z = ground
    scenes, tracks, place = stage.scenes, stage.tracks, stage.place
    clear = torch.ones_like(x)
    for index in range(2):
        has = [index < len(scene.objects) for scene in scenes]
        if not any(has):
            continue
        pick = [min(index, len(scene.objects) - 1) for scene in scenes]
        centre = place(np.stack([t.centre[i] for t, i in zip(tracks, pick, strict=True)]))
        radius = np.stack([t.radius[i] for t, i in zip(tracks, pick, strict=True)])
        axes = np.stack([_shadow_axes(s, t, i) for s, t, i in zip(scenes, tracks, pick, strict=True)])
        axes *= radius[..., None]
        ax, ay, az = (place(axes[..., k])[:, :, None, None] for k in range(3))
        cx, cy, cz = (centre[..., k][:, :, None, None] for k in range(3))
        lx, ly, lz = (place(np.array([v[k] for v in stage.lights]))[:, None, None, None] for k in range(3))
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
