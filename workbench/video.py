"""Write and read clips as MP4: H.264, yuv420p, every frame a key frame, so that players can seek to any of
them.

Knows frames and files, nothing of models.
"""

from __future__ import annotations

import os
import secrets
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError
from workbench.workspace import sync

Frames = NDArray[np.uint8]
QUALITY = 12
"""Constant rate factor of x264: 0 is lossless, 18 is about where eyes stop seeing a difference."""


def write_mp4(path: Path, frames: Frames, *, fps: int) -> None:
    """Write a clip, atomically; the same frames give the same bytes.

    Args:
        path: the file; its folder exists.
        frames: uint8 RGB, [F, H, W, 3], height and width even.
        fps: frames a second.

    Raises:
        InputError: frames of another form, or the place cannot be written.
    """
    import av

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(
            f"A clip must be uint8 [frames, height, width, 3], got {frames.dtype} {frames.shape}."
        )
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise InputError(f"A clip must have an even height and width for H.264, got {height}×{width}.")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp.mp4")
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream: Any = container.add_stream("libx264", rate=Fraction(fps))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": str(QUALITY), "preset": "medium", "x264-params": "keyint=1:threads=1"}
            _tag_colours(stream.codec_context)
            for image in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                container.mux(stream.encode(_to_yuv(frame)))
            container.mux(stream.encode())
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"Cannot write {path.name!r} ({error.strerror or error}); free some space or choose another "
            "place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_mp4(path: Path) -> Frames:
    """Read all frames of a clip as uint8 RGB, [F, H, W, 3].

    Raises:
        InputError: missing, or no video.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            images = [_to_rgb(frame) for frame in container.decode(video=0)]
    except FileNotFoundError:
        raise InputError(f"Clip {path.name!r} does not exist; check the path.") from None
    except (FFmpegError, OSError, IndexError, ValueError):
        raise InputError(f"Clip {path.name!r} is not a video that can be read.") from None
    if not images:
        raise InputError(f"Clip {path.name!r} holds no frames.")
    return np.stack(images)


def _tag_colours(codec: Any) -> None:
    """Say in the file what `_to_yuv` does: BT.709, limited range."""
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    codec.color_range = ColorRange.MPEG
    codec.colorspace = Colorspace.ITU709
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709


def _to_yuv(frame: Any) -> Any:
    from av.video.reformatter import ColorRange, Colorspace

    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def _to_rgb(frame: Any) -> Frames:
    from av.video.reformatter import Colorspace

    images: Frames = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709).to_ndarray()
    return images
