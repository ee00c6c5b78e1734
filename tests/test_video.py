"""MP4 files: every frame a key frame, colours right, the same bytes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workbench.errors import InputError
from workbench.video import Frames, read_mp4, write_mp4


def clip() -> Frames:
    rows, columns = np.mgrid[0:48, 0:64]
    frames = [np.stack([columns * 2 + index, rows * 4, np.full_like(rows, 90)], -1) for index in range(9)]
    images = np.stack(frames).clip(0, 255).astype(np.uint8)
    images[:, 8:24, 8:24] = (220, 30, 30)
    return images


def test_frames_and_colours_come_back(tmp_path: Path) -> None:
    frames = clip()
    write_mp4(tmp_path / "a.mp4", frames, fps=8)
    again = read_mp4(tmp_path / "a.mp4")
    assert again.shape == frames.shape and np.abs(again.astype(int) - frames).mean() < 3
    assert np.abs(again[4, 16, 16].astype(int) - (220, 30, 30)).max() < 6
    write_mp4(tmp_path / "b.mp4", frames, fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_every_frame_is_a_key_frame(tmp_path: Path) -> None:
    import av

    write_mp4(tmp_path / "a.mp4", clip(), fps=8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert len(packets) == 9 and all(packet.is_keyframe for packet in packets)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((3, 15, 16, 3), np.uint8), "even height and width"),
        (np.zeros((0, 16, 16, 3), np.uint8), "must be uint8"),
        (np.zeros((3, 16, 16, 3), np.float32), "must be uint8"),
        (np.zeros((3, 16, 16), np.uint8), "must be uint8"),
    ],
)
def test_frames_that_are_no_clip(tmp_path: Path, frames: Frames, words: str) -> None:
    with pytest.raises(InputError, match=words):
        write_mp4(tmp_path / "a.mp4", frames, fps=8)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_clip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Clip 'none\.mp4' does not exist"):
        read_mp4(tmp_path / "none.mp4")
    for data in (b"", b"junk" * 100):
        (tmp_path / "bad.mp4").write_bytes(data)
        with pytest.raises(InputError, match="is not a video that can be read"):
            read_mp4(tmp_path / "bad.mp4")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot write 'a\.mp4'"):
        write_mp4(tmp_path / "none" / "a.mp4", clip(), fps=8)
