"""How much memory work is estimated to need, from shapes alone.

Counted are tensors: weights, activations, frames. The factors were counted with torch's own allocations on
the real architectures at full size, as `tests/models/test_memory.py` does again.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from workbench.models.facts import ModelFacts
from workbench.models.footprint import Footprint
from workbench.types import ClipSize

Offload = Literal["none", "model", "group"]
LARGE_ENCODER = 1_000_000_000
"""Parameters from which a text encoder is loaded for encoding alone, and freed after."""

TILE_SIDE = 256
GROUPS_AT_ONCE = 3
FORWARD_WIDTHS = 4.3
FORWARD_LEAST = 22.5
TRAINING_WIDTHS = 122.0
TRAINING_FEED_FORWARD = 8.75
TRAINED_BYTES = 20


class Free(NamedTuple):
    """Free memory in bytes: of the device that computes, and of the machine."""

    device: float
    host: float


def forward_bytes(facts: ModelFacts, size: ClipSize, *, bytes_each: int) -> float:
    """Return the peak of activations in one forward pass without gradient, batch 1, in bytes.

    The feed-forward (two tensors of its width) or else the rotary embedding in float32 is widest.
    """
    widths = bytes_each * (2 * facts.ffn_dim / facts.dim + FORWARD_WIDTHS)
    return facts.token_grid(size).num_tokens * facts.dim * max(widths, FORWARD_LEAST)


def decode_peak(footprint: Footprint, size: ClipSize, *, tiling: bool) -> float:
    """Return the peak of decoding a clip in float32, the frames included, in bytes."""
    height, width = (min(side, TILE_SIDE) if tiling else side for side in (size.height, size.width))
    frames = 3 * size.frames * size.height * size.width * 4
    return footprint.decode_bytes * height * width + (3 if tiling else 1) * frames


def encoder_bytes_each(footprint: Footprint, bytes_each: int) -> int:
    """Return the bytes of one parameter of the text encoder: a large one is loaded in bfloat16 everywhere."""
    return 2 if footprint.text_encoder > LARGE_ENCODER else bytes_each


def needs(
    footprint: Footprint,
    facts: ModelFacts,
    size: ClipSize,
    *,
    bytes_each: int,
    offload: Offload,
    tiling: bool,
    passing_text: bool,
) -> Free:
    """Return the estimated peaks (device, host) of making one clip, in bytes, without `RESERVE`."""
    forward = forward_bytes(facts, size, bytes_each=bytes_each)
    decoding = 4 * footprint.vae + decode_peak(footprint, size, tiling=tiling)
    one = bytes_each * footprint.transformer
    transformers = one * facts.num_transformers
    text = encoder_bytes_each(footprint, bytes_each) * footprint.text_encoder
    codec = 4 * footprint.vae
    resident = 0 if passing_text else text
    if offload == "none":
        return Free(
            transformers + resident + max(codec + forward, decoding),
            max(transformers + resident + codec, text),
        )
    waiting = transformers + codec + text
    if offload == "model":
        return Free(max(one + forward, decoding, resident), waiting)
    blocks = GROUPS_AT_ONCE * one / facts.num_blocks
    return Free(resident + max(blocks + codec + forward, decoding), waiting)


def training_bytes(facts: ModelFacts, size: ClipSize, *, num_trained: int, bytes_each: int = 2) -> float:
    """Return the peak of one update with gradient checkpointing beyond the frozen weights, in bytes.

    Batch 1. The input of every block is kept, one block is recomputed with all that its gradient needs, and
    every trained number has weight, gradient, two moments and an average in float32.

    Args:
        facts: of the model.
        size: of the clips learnt from.
        num_trained: parameters that are trained.
        bytes_each: of an activation.
    """
    one_block = TRAINING_WIDTHS + TRAINING_FEED_FORWARD * facts.ffn_dim / facts.dim
    widths = (one_block + 2 * facts.num_blocks) * bytes_each / 2
    return facts.token_grid(size).num_tokens * facts.dim * widths + TRAINED_BYTES * num_trained
