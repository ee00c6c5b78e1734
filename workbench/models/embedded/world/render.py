"""Render scenes to clips: a painted backdrop, soft cast shadows, and shaded solids met by analytic rays.

Objects are drawn in square patches that just hold them, oversampled for clean edges, and laid over the
backdrop from far to near. Batched over scenes, frames and pixels; python loops only over shapes and layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from workbench.errors import InputError
from workbench.models.embedded.world import backdrop, layout
from workbench.models.embedded.world.scene import Scene
from workbench.models.embedded.world.sprites import covering, lay_over, make_sprites, shaded
from workbench.models.embedded.world.stage import Stage, ground_shadows, set_stage

RAY_BUDGET = {"cpu": 3_000_000, "cuda": 60_000_000}
"""Rays cast at once: bounds memory, and keeps the CPU in its cache."""


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
    size, device = (num_frames, height, width), torch.device(device)
    clips = []
    for stage in _stages(scenes, size, device, oversample):
        image = _backdrop(stage)
        sprites = make_sprites(stage)
        lay_over(image, sprites, shaded(sprites, oversample))
        clips.append((image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 4, 1))
    return torch.cat(clips).contiguous()


def object_masks(
    scenes: Sequence[Scene],
    *,
    num_frames: int = 17,
    height: int = 128,
    width: int = 128,
    device: torch.device | str = "cpu",
    oversample: int = 2,
) -> torch.Tensor:
    """Return the visible share of every pixel that each object covers: float [B, 2, F, H, W].

    Where the second object hides the first, the first mask is 0. Without a second object its mask is 0.
    """
    size, device = (num_frames, height, width), torch.device(device)
    masks = []
    for stage in _stages(scenes, size, device, oversample):
        image = torch.zeros(len(stage.scenes), 3, *size, device=device)
        sprites = make_sprites(stage)
        lay_over(image, sprites, covering(sprites, oversample))
        masks.append(image[:, :2])
    return torch.cat(masks)


def _stages(
    scenes: Sequence[Scene], size: tuple[int, int, int], device: torch.device, oversample: int
) -> Iterator[Stage]:
    """Split scenes into stages whose rays fit the budget."""
    rays = 0.4 * size[0] * size[1] * size[2] * oversample**2
    share = max(1, int(RAY_BUDGET.get(device.type, RAY_BUDGET["cpu"]) / rays))
    for start in range(0, len(scenes), share):
        yield set_stage(list(scenes[start : start + share]), size, device)


def _backdrop(stage: Stage) -> torch.Tensor:
    """Ground, sky and shadows [B, 3, F, H, W]."""
    device, unit = stage.device, stage.unit
    right = (torch.arange(stage.width, device=device) + 0.5 - stage.width / 2) / unit
    down = (torch.arange(stage.height, device=device) + 0.5 - stage.height / 2) / unit
    view = backdrop.View(
        across=(right * layout.FRAME_SLOPE)[None, None, None, :],
        below=((down + 0.5 - layout.HORIZON) * layout.FRAME_SLOPE)[None, None, :, None],
        pan=torch.stack([stage.place(track.pan) for track in stage.tracks])[:, :, None, None],
        time=stage.place(stage.tracks[0].time)[None, :, None, None],
        pixel=layout.FRAME_SLOPE / unit,
    )
    ground = backdrop.ground_points(view)
    return backdrop.paint(
        backdrop.backdrops(stage.scenes, device), view, ground, ground_shadows(stage, ground)
    )
