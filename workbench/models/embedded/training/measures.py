"""Measures of the codec on true clips: PSNR by frame and inside the objects, crispness, motion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from workbench.models.embedded.training.pool import ClipPool, box_mask, to_pixels
from workbench.models.embedded.whole_clip import WholeClip

STILL = 1e-5
"""Mean squared frame difference below which a clip counts as still, values in 0 to 1."""


@dataclass(frozen=True)
class CodecMeasures:
    """How close reconstructions are to the truth.

    Attributes:
        psnr: Mean over clips of the PSNR of the whole clip, dB.
        box_psnr: Mean over clips of the PSNR inside the objects' boxes, dB.
        psnr_by_frame: Mean over clips of the PSNR of every frame, dB.
        box_psnr_by_frame: The same inside the boxes.
        crispness: Gradient energy of the reconstruction over that of the truth, mean over clips.
        crispness_by_frame: The same for every frame.
        box_crispness: Crispness inside the objects' boxes.
        motion: Energy of the frame differences over that of the truth, in clips in which something moves.
        clips: Number of clips.
    """

    psnr: float
    box_psnr: float
    psnr_by_frame: list[float]
    box_psnr_by_frame: list[float]
    crispness: float
    crispness_by_frame: list[float]
    box_crispness: float
    motion: float
    clips: int

    def as_dict(self) -> dict[str, Any]:
        """Return the measures as JSON data, rounded to four places."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@torch.no_grad()
def reconstruct(codec: WholeClip, frames: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
    """Return the reconstruction of bytes [B, F, H, W, 3] as bytes, through the posterior's mean."""
    moments = codec.encode(to_pixels(frames).to(dtype))
    decoded = codec.decode(moments[..., : moments.shape[-1] // 2]).float().clamp(-1, 1)
    return decoded.add(1).mul(127.5).round().to(torch.uint8)


@torch.no_grad()
def measure_codec(
    codec: WholeClip, pool: ClipPool, *, dtype: torch.dtype = torch.float32, batch: int = 16
) -> CodecMeasures:
    """Measure a codec on every clip of a pool (held-out clips, as a rule)."""
    rows: list[dict[str, torch.Tensor]] = []
    for start in range(0, len(pool), batch):
        truth = pool.frames[start : start + batch]
        rows.append(
            compare_clips(
                reconstruct(codec, truth, dtype=dtype), truth, boxes=pool.boxes[start : start + batch]
            )
        )
    joined = {key: torch.cat([row[key] for row in rows]).nanmean(0) for key in rows[0]}
    return CodecMeasures(
        psnr=joined["psnr"].item(),
        box_psnr=joined["box_psnr"].item(),
        psnr_by_frame=joined["psnr_by_frame"].tolist(),
        box_psnr_by_frame=joined["box_psnr_by_frame"].tolist(),
        crispness=joined["crispness"].item(),
        crispness_by_frame=joined["crispness_by_frame"].tolist(),
        box_crispness=joined["box_crispness"].item(),
        motion=joined["motion"].item(),
        clips=len(pool),
    )


def compare_clips(clip: torch.Tensor, truth: torch.Tensor, *, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compare bytes [B, F, H, W, 3] with the truth; every value has one row per clip."""
    ours, true = clip.float() / 255, truth.float() / 255
    inside = box_mask(boxes[:, :, : truth.shape[1]], *truth.shape[2:4]).float()
    error = (ours - true).square().mean(-1)
    ours_energy, true_energy = _gradient_energy(ours), _gradient_energy(true)
    inner = inside[:, :, 1:, 1:]
    true_motion = _motion_energy(true)
    return {
        "psnr": _decibel(error.mean((1, 2, 3))),
        "box_psnr": _decibel((error * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)),
        "psnr_by_frame": _decibel(error.mean((2, 3))),
        "box_psnr_by_frame": _decibel((error * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)),
        "crispness": ours_energy.mean((1, 2, 3)) / true_energy.mean((1, 2, 3)).clamp(min=1e-8),
        "crispness_by_frame": ours_energy.mean((2, 3)) / true_energy.mean((2, 3)).clamp(min=1e-8),
        "box_crispness": (ours_energy * inner).sum((1, 2, 3))
        / (true_energy * inner).sum((1, 2, 3)).clamp(min=1e-8),
        "motion": torch.where(true_motion > STILL, _motion_energy(ours) / true_motion, torch.nan),
    }


def _gradient_energy(clip: torch.Tensor) -> torch.Tensor:
    """Squared spatial differences, summed over colours, [B, F, H - 1, W - 1]."""
    right = (clip[:, :, 1:, 1:] - clip[:, :, 1:, :-1]).square().sum(-1)
    down = (clip[:, :, 1:, 1:] - clip[:, :, :-1, 1:]).square().sum(-1)
    return right + down


def _motion_energy(clip: torch.Tensor) -> torch.Tensor:
    if clip.shape[1] == 1:
        return torch.ones(clip.shape[0], device=clip.device)
    return (clip[:, 1:] - clip[:, :-1]).square().mean((1, 2, 3, 4))


def _decibel(error: torch.Tensor) -> torch.Tensor:
    return -10 * torch.log10(error.clamp(min=1e-7))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [round(item, 4) for item in value]
    return round(value, 4) if isinstance(value, float) else value
