"""Paint ground and sky, with soft, large features that a codec and a panning camera can follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.models.embedded.world.layout import CAMERA_DISTANCE, CAMERA_HEIGHT
from workbench.models.embedded.world.scene import Background, Scene


@dataclass(frozen=True)
class Palette:
    """Colours (RGB, 0 to 1) and amounts of one background."""

    zenith: tuple[float, float, float]
    haze: tuple[float, float, float]
    far: tuple[float, float, float]
    near: tuple[float, float, float]
    hill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hill_height: float = 0.0
    dapple: float = 0.0
    tiles: float = 0.0
    waves: float = 0.0
    clouds: float = 0.0
    disc: tuple[float, float, float] = (0.0, 0.0, 0.0)
    disc_size: float = 0.0
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shadow: float = 0.5


PALETTES: dict[Background, Palette] = {
    "studio": Palette(
        zenith=(0.70, 0.71, 0.73), haze=(0.83, 0.83, 0.83), far=(0.82, 0.82, 0.82), near=(0.66, 0.66, 0.67)
    ),
    "desert": Palette(
        zenith=(0.62, 0.75, 0.87), haze=(0.90, 0.89, 0.83), far=(0.87, 0.77, 0.58), near=(0.75, 0.61, 0.40),
        hill=(0.80, 0.68, 0.52), hill_height=0.085, dapple=0.05, light=(1.02, 1.0, 0.96),
    ),
    "meadow": Palette(
        zenith=(0.56, 0.74, 0.88), haze=(0.86, 0.92, 0.91), far=(0.57, 0.66, 0.42), near=(0.36, 0.47, 0.25),
        hill=(0.42, 0.55, 0.46), hill_height=0.10, dapple=0.09,
    ),
    "tiles": Palette(
        zenith=(0.58, 0.63, 0.70), haze=(0.74, 0.76, 0.79), far=(0.66, 0.67, 0.70), near=(0.58, 0.60, 0.64),
        tiles=0.17,
    ),
    "sunset": Palette(
        zenith=(0.38, 0.34, 0.50), haze=(0.95, 0.70, 0.52), far=(0.46, 0.36, 0.39), near=(0.33, 0.27, 0.33),
        hill=(0.36, 0.27, 0.36), hill_height=0.10, dapple=0.06, disc=(1.0, 0.90, 0.68), disc_size=0.055,
        light=(1.0, 0.94, 0.88),
    ),
    "night": Palette(
        zenith=(0.05, 0.07, 0.15), haze=(0.15, 0.20, 0.31), far=(0.15, 0.18, 0.25), near=(0.10, 0.12, 0.17),
        hill=(0.08, 0.10, 0.17), hill_height=0.11, dapple=0.10, disc=(0.93, 0.93, 0.86), disc_size=0.045,
        light=(0.80, 0.82, 0.88), shadow=0.55,
    ),
    "clouds": Palette(
        zenith=(0.36, 0.57, 0.83), haze=(0.66, 0.80, 0.92), far=(0.90, 0.92, 0.95), near=(0.78, 0.83, 0.90),
        clouds=0.95, dapple=0.03,
    ),
    "sea": Palette(
        zenith=(0.66, 0.79, 0.89), haze=(0.93, 0.94, 0.92), far=(0.42, 0.60, 0.68), near=(0.17, 0.36, 0.47),
        waves=0.16, shadow=0.4,
    ),
}  # fmt: skip

NUM_CLOUDS = 5
AMOUNTS = ("hill_height", "dapple", "tiles", "waves", "clouds", "disc_size", "shadow")
TINTS = ("zenith", "haze", "far", "near", "hill", "disc", "light")


@dataclass(frozen=True)
class Backdrop:
    """Parameters of B backdrops as tensors: tints [B, 3], amounts [B], draws [B, 40] uniform in 0 to 1."""

    tints: dict[str, torch.Tensor]
    amounts: dict[str, torch.Tensor]
    draws: torch.Tensor


def backdrops(scenes: list[Scene], device: torch.device) -> Backdrop:
    """Collect the parameters of several scenes, with their small seeded shifts of tint."""
    draws = np.stack([np.random.default_rng((scene.seed, 2)).random(40) for scene in scenes])
    palettes = [PALETTES[scene.background] for scene in scenes]
    gain = 1 + 0.05 * (draws[:, 36:39] - 0.5) + 0.10 * (draws[:, 39:] - 0.5)
    tints = {
        name: np.array([getattr(p, name) for p in palettes]) * (1 if name in ("light", "disc") else gain)
        for name in TINTS
    }
    amounts = {name: np.array([getattr(p, name) for p in palettes]) for name in AMOUNTS}

    def place(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    return Backdrop(
        {name: place(array) for name, array in tints.items()},
        {name: place(array) for name, array in amounts.items()},
        place(draws),
    )


@dataclass(frozen=True)
class View:
    """Where each pixel looks, relative to an unturned camera.

    Attributes:
        across: [1, 1, 1, W] right, per unit of depth.
        below: [1, 1, H, 1] down from the horizon, per unit of depth.
        pan: [B, F, 1, 1] turn of the camera, radians.
        time: [1, F, 1, 1] in clips.
        pixel: Slope of one pixel.
    """

    across: torch.Tensor
    below: torch.Tensor
    pan: torch.Tensor
    time: torch.Tensor
    pixel: float


def ground_points(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """World (x, z) [B, F, H, W] where each pixel meets the ground; above the horizon, a far point."""
    depth = CAMERA_HEIGHT / view.below.clamp(min=0.02)
    right = view.across * depth
    cos, sin = torch.cos(view.pan), torch.sin(view.pan)
    return cos * right + sin * depth, cos * depth - sin * right - CAMERA_DISTANCE


def _column(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def _mix(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Blend tints [B, 3] or images [B, 3, F, H, W] by a share [B, F, H, W]."""
    first, second = (t[:, :, None, None, None] if t.ndim == 2 else t for t in (first, second))
    return first + (second - first) * share[:, None]


def paint(
    scene: Backdrop, view: View, ground: tuple[torch.Tensor, torch.Tensor], occlusion: torch.Tensor
) -> torch.Tensor:
    """Paint backdrops.

    Args:
        scene: Parameters of B backdrops.
        view: Pixel directions.
        ground: `ground_points(view)`.
        occlusion: [B, F, H, W] share of light that the objects keep from the ground.

    Returns:
        [B, 3, F, H, W], 0 to 1.
    """
    size = torch.broadcast_shapes(view.across.shape, view.below.shape, view.pan.shape, view.time.shape)
    azimuth = (torch.atan(view.across) + view.pan).expand(scene.draws.shape[0], *size[1:])
    sky = _sky(scene, view, azimuth)
    floor = _floor(scene, view, ground)
    floor = floor * (1 - _column(scene.amounts["shadow"]) * occlusion)[:, None]
    edge = torch.sigmoid(view.below / (0.35 * view.pixel))
    soft = torch.sigmoid((view.below - 0.02) / 0.06)
    has_edge = _column(
        (scene.amounts["dapple"] + scene.amounts["tiles"] + scene.amounts["waves"] > 0).float()
    )
    return sky + (floor - sky) * (edge * has_edge + soft * (1 - has_edge))[:, None]


def _sky(scene: Backdrop, view: View, azimuth: torch.Tensor) -> torch.Tensor:
    height = -view.below
    share = (height / 0.30).clamp(0, 1.2).expand_as(azimuth)
    colour = _mix(scene.tints["haze"], scene.tints["zenith"], 1 - (1 - share.clamp(max=1)) ** 1.5)
    if bool((scene.amounts["disc_size"] > 0).any()):
        colour = _disc(scene, azimuth, height, colour)
    if bool((scene.amounts["clouds"] > 0).any()):
        colour = _mix(
            colour, torch.full_like(scene.tints["haze"], 0.97), _clouds(scene, view, azimuth, height)
        )
    if bool((scene.amounts["hill_height"] > 0).any()):
        d = scene.draws
        ridge = 0.5 + 0.0 * azimuth
        for index, (frequency, weight) in enumerate(((7.0, 0.26), (12.5, 0.18), (21.0, 0.08))):
            pace = frequency * (0.85 + 0.3 * d[:, index])
            ridge = ridge + weight * torch.sin(
                _column(pace) * azimuth + 2 * torch.pi * _column(d[:, 3 + index])
            )
        ridge = ridge.clamp(min=0) * _column(scene.amounts["hill_height"])
        hill = torch.sigmoid((ridge - height) / (0.45 * view.pixel)) * (
            _column(scene.amounts["hill_height"]) > 0
        )
        haze = _mix(
            scene.tints["hill"], scene.tints["haze"], (0.28 - height * 2).clamp(0, 0.3).expand_as(azimuth)
        )
        colour = colour + (haze - colour) * hill[:, None]
    return colour


def _disc(scene: Backdrop, azimuth: torch.Tensor, height: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    middle, lift = _column(scene.draws[:, 6] - 0.5) * 0.5, 0.13 + 0.05 * _column(scene.draws[:, 7])
    away = ((azimuth - middle) ** 2 + (height - lift) ** 2).sqrt()
    size = _column(scene.amounts["disc_size"])
    present = size > 0
    inside = torch.sigmoid((size - away) / 0.004) * present
    glow = 0.35 * torch.exp(-((away / 0.16) ** 2)) * present
    return _mix(colour, scene.tints["disc"], torch.maximum(inside, glow))


def _clouds(scene: Backdrop, view: View, azimuth: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    drift = 0.16 + 0.08 * _column(scene.draws[:, 8])
    direction = torch.where(_column(scene.draws[:, 9]) > 0.5, 1.0, -1.0)
    total = torch.zeros_like(azimuth)
    spacing = 0.34
    for index in range(NUM_CLOUDS):
        place = spacing * (index - NUM_CLOUDS / 2 + 0.6 * _column(scene.draws[:, 10 + index]))
        moved = azimuth - place - direction * drift * (view.time - 0.5)
        span = NUM_CLOUDS * spacing
        moved = torch.remainder(moved + span / 2, span) - span / 2
        lift = 0.10 + 0.13 * _column(scene.draws[:, 15 + index])
        for shift, rise, wide, tall in (
            (0.0, 0.012, 0.055, 0.032),
            (0.06, 0.0, 0.05, 0.022),
            (-0.065, -0.002, 0.05, 0.02),
        ):
            total = total + torch.exp(-(((moved - shift) / wide) ** 2) - ((height - lift - rise) / tall) ** 2)
    return torch.sigmoid((total - 0.55) * 7) * _column(scene.amounts["clouds"])


def _floor(scene: Backdrop, view: View, ground: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    x, z = ground
    d = scene.draws
    share = ((view.below / 0.55).clamp(0, 1) ** 0.8).expand_as(x)
    colour = _mix(scene.tints["far"], scene.tints["near"], share)
    fade = torch.exp(-(z + CAMERA_DISTANCE).clamp(max=400) / 22) * 1.6
    light = torch.ones_like(x)
    amounts = scene.amounts
    if bool((amounts["dapple"] > 0).any()):
        first = torch.sin(0.95 * x + 0.5 * z + 6.3 * _column(d[:, 20])) * torch.sin(
            0.8 * z - 0.3 * x + 6.3 * _column(d[:, 21])
        )
        second = torch.sin(1.7 * x - 0.9 * z + 6.3 * _column(d[:, 22]))
        light = light + _column(amounts["dapple"]) * fade * (first + 0.4 * second)
    if bool((amounts["tiles"] > 0).any()):
        turn = 0.25 + 0.5 * _column(d[:, 23])
        along, aside = torch.cos(turn) * x + torch.sin(turn) * z, torch.cos(turn) * z - torch.sin(turn) * x
        squares = torch.tanh(
            7
            * torch.sin(1.15 * along + 6.3 * _column(d[:, 24]))
            * torch.sin(1.15 * aside + 6.3 * _column(d[:, 25]))
        )
        light = light + _column(amounts["tiles"]) * (fade * 1.25).clamp(max=1) * squares
    if bool((amounts["waves"] > 0).any()):
        beat = 2 * torch.pi * view.time
        swell = torch.sin(
            1.25 * z
            + 0.35 * x
            + 0.9 * beat
            + 6.3 * _column(d[:, 26])
            + 0.8 * torch.sin(0.7 * x + 6.3 * _column(d[:, 27]))
        )
        cross = torch.sin(0.8 * z - 1.1 * x + 0.6 * beat + 6.3 * _column(d[:, 28]))
        light = light + _column(amounts["waves"]) * fade.clamp(max=1) * (swell + 0.6 * cross)
    return colour * light[:, None]
