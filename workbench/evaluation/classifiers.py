"""The fitted classifiers of the clip reader: single pixels, object crops, backdrops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file

WEIGHTS = Path(__file__).parent / "weights" / "reader.safetensors"
LEVELS = 32

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Reader:
    """Fitted weights, and the probabilities [LEVELS³, 9] of the colour classes for every quantised colour."""

    weights: Weights
    table: torch.Tensor


@lru_cache(maxsize=1)
def load_reader() -> Reader:
    """Load the shipped weights (`python -m workbench.evaluation.fit_reader` makes them)."""
    return make_reader(load_file(WEIGHTS))


def make_reader(weights: Weights) -> Reader:
    """Tabulate the pixel classifier of some weights."""
    axis = (torch.arange(LEVELS) + 0.5) / LEVELS
    colours = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return Reader(weights, pixel_logits(colours, weights).softmax(-1).detach())


def pixel_features(pixels: torch.Tensor) -> torch.Tensor:
    """Turn colours [..., 3] into what the pixel classifier sees [..., 7]: RGB, value, and RGB over value."""
    value = pixels.amax(-1, keepdim=True)
    return torch.cat([pixels, value, pixels / (value + 0.02)], -1)


def pixel_logits(pixels: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Classify colours [..., 3] into background and `COLOURS`: logits [..., 9]."""
    hidden = pixel_features(pixels)
    for layer in ("0", "1"):
        hidden = hidden @ weights[f"pixel.{layer}.weight"].float().T + weights[f"pixel.{layer}.bias"].float()
        hidden = torch.nn.functional.gelu(hidden)
    return hidden @ weights["pixel.2.weight"].float().T + weights["pixel.2.bias"].float()


def shape_logits(crops: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Classify crops [N, 3, CROP, CROP] into `SHAPES`: logits [N, 6]."""
    hidden = crops.flatten(1) @ weights["shape.0.weight"].float().T + weights["shape.0.bias"].float()
    hidden = torch.nn.functional.gelu(hidden)
    return hidden @ weights["shape.1.weight"].float().T + weights["shape.1.bias"].float()
