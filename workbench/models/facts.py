"""Facts of a model that follow from its configuration alone: shapes, sizes it accepts, sampling defaults.

Knows no weights and no pipeline.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.types import ClipSize, StrictModel, TokenGrid

PIPELINE_SIZE_MULTIPLE = 16
"""`WanPipeline` refuses a height or width that is not a multiple of this."""

Count = Annotated[int, Field(ge=1)]


class ModelFacts(StrictModel):
    """What the workbench needs to know of a model before its weights are loaded.

    Attributes:
        name: registry name, hub id or name of the folder.
        source: what `load_model` finds the model by: registry name, hub id or path of the folder.
        fingerprint: identifies the transformer's weights; empty where no weights were seen.
        text_tokens: `max_sequence_length` with which the pipeline is called.
        patch_size: latent pixels of one token (frames, height, width).
        vae_scale: pixels of one latent pixel (frames, space).
        rope_limit: largest number of tokens along one axis.
        num_transformers: 2 where early and late steps have a transformer each (Wan2.2 A14B), else 1.
    """

    name: str
    source: str = ""
    fingerprint: str = ""
    num_blocks: Count
    num_heads: Count
    head_dim: Count
    ffn_dim: Count
    text_tokens: Count = 512
    patch_size: tuple[Count, Count, Count] = (1, 2, 2)
    vae_scale: tuple[Count, Count] = (4, 8)
    rope_limit: Count = 1024
    num_transformers: Count = 1
    default_size: ClipSize = ClipSize(81, 480, 832)
    default_steps: Count = 50
    default_guidance: Annotated[float, Field(ge=0)] = 5.0
    fps: Count = 16

    @property
    def dim(self) -> int:
        """Width of the residual stream, heads x head dimension."""
        return self.num_heads * self.head_dim

    @property
    def multiples(self) -> tuple[int, int, int]:
        """Frames minus one, height and width must be multiples of these."""
        space = self.vae_scale[1]
        height, width = (math.lcm(PIPELINE_SIZE_MULTIPLE, space * patch) for patch in self.patch_size[1:])
        return self.vae_scale[0], height, width

    def token_grid(self, size: ClipSize) -> TokenGrid:
        """Return the latent tokens of a clip of `size` pixels.

        Raises:
            InputError: the model cannot make that size.
        """
        self.check_size(size)
        frames = (size.frames - 1) // self.vae_scale[0] + 1
        patch_frames, patch_height, patch_width = self.patch_size
        space = self.vae_scale[1]
        return TokenGrid(
            frames // patch_frames,
            size.height // (space * patch_height),
            size.width // (space * patch_width),
        )

    def check_size(self, size: ClipSize) -> None:
        """Refuse a clip size that the model cannot make, naming the nearest that it can.

        Raises:
            InputError: frames not 4k+1, a side that is no multiple, or too many tokens along an axis.
        """
        frame_step, height_step, width_step = self.multiples
        if size.frames < 1 or (size.frames - 1) % frame_step:
            raise InputError(
                f"Frames must be {frame_step}k+1 for {self.name}, got {size.frames}; "
                f"the nearest are {_nearest(size.frames, frame_step, offset=1)}."
            )
        for side, pixels, step in (("Height", size.height, height_step), ("Width", size.width, width_step)):
            if pixels < step or pixels % step:
                raise InputError(
                    f"{side} must be a multiple of {step} for {self.name}, got {pixels}; "
                    f"the nearest are {_nearest(pixels, step)}."
                )
        patch_frames, patch_height, patch_width = self.patch_size
        latent_frames = (size.frames - 1) // frame_step + 1
        if latent_frames % patch_frames:
            raise InputError(
                f"{size.frames} frames are {latent_frames} latent frames, which {self.name} cannot cut "
                f"into patches of {patch_frames}; choose another number of frames."
            )
        space = self.vae_scale[1]
        longest = max(
            latent_frames // patch_frames,
            size.height // (space * patch_height),
            size.width // (space * patch_width),
        )
        if longest > self.rope_limit:
            raise InputError(
                f"A clip of {size.frames} frames of {size.height}×{size.width} has {longest:,} tokens "
                f"along one axis, and {self.name} knows {self.rope_limit:,}; choose a smaller clip."
            )


def _nearest(value: int, step: int, *, offset: int = 0) -> str:
    smallest = offset if offset else step
    below = max((value - offset) // step * step + offset, smallest)
    above = below + step
    return f"{below} and {above}"
