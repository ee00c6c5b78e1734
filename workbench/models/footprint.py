"""How many parameters each part of a model has, and what decoding needs. Knows no files."""

from __future__ import annotations

from typing import NamedTuple

from workbench.errors import InputError

CAUSAL_DECODE_BYTES = 204.0
RESIDUAL_DECODE_BYTES = 338.0


class Footprint(NamedTuple):
    """Sizes from which memory follows.

    Attributes:
        transformer: parameters of one transformer.
        text_encoder: its parameters.
        vae: parameters of the codec.
        decode_bytes: peak of decoding a clip in float32, in bytes per pixel of one frame; the codec works
            frame by frame, so the length of a clip does not matter.
    """

    transformer: int
    text_encoder: int
    vae: int
    decode_bytes: float


def decode_bytes(codec: dict[str, object], *, what: str) -> float:
    """Return `Footprint.decode_bytes` of a codec's configuration.

    The widest tensors have `base_dim` channels at full resolution (residual codecs: at that of the patches).
    The factors were counted on the published codecs, as `tests/models/test_memory.py` does again.

    Raises:
        InputError: the configuration has no plain numbers where they belong.
    """
    base, patch = codec.get("base_dim", 96), codec.get("patch_size") or 1
    widest = codec.get("decoder_base_dim") or base
    if not isinstance(widest, int) or not isinstance(patch, int):
        raise InputError(f"{what} has no whole number for base_dim or patch_size; fetch the model again.")
    if codec.get("is_residual"):
        return RESIDUAL_DECODE_BYTES * widest / patch**2
    return CAUSAL_DECODE_BYTES * widest / patch**2
