"""Attention mass as bytes for a browser: one byte a place, on the display scale of every picture of mass."""

from __future__ import annotations

import base64

import numpy as np

GAMMA = 0.5
"""Display exponent: faint mass stays visible."""


def encode_mass(values: np.ndarray, top: np.ndarray | float = 1.0) -> str:
    """Return non-negative values as base64 bytes; `top` and above are the brightest."""
    lifted = np.clip(values / np.maximum(top, 1e-12), 0, 1) ** GAMMA
    return base64.b64encode(np.rint(lifted * 255).astype(np.uint8).tobytes()).decode("ascii")


def encode_difference(values: np.ndarray, top: float) -> str:
    """Return signed values as base64 bytes, 128 for none."""
    scaled = np.clip(values / max(top, 1e-12), -1, 1)
    lifted = 128 + 127 * np.sign(scaled) * np.abs(scaled) ** GAMMA
    return base64.b64encode(np.rint(lifted).astype(np.uint8).tobytes()).decode("ascii")
