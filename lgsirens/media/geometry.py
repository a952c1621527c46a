"""Where the picture lies in the frames of a film: what is cropped, turned and mirrored to show it."""

import io
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.system.console import note


def cropping(av: Any, path: Path, stream: Any) -> tuple[slice, slice] | None:
    """Rows and columns that the container keeps of each frame, None for all of them.

    FFmpeg tells them only to those who write MP4: their header is what is looked at.
    """
    for container in ("mov", "mp4"):
        with suppress(ValueError, av.FFmpegError), io.BytesIO() as written:  # it may not know the codec
            with av.open(written, "w", format=container, options={"movflags": "empty_moov", "strict": "-2"}) as film:
                film.add_stream_from_template(stream, opaque=True)
                film.start_encoding()
                found = re.search(rb"\0\0\0\x28clap(.{32})", written.getvalue(), re.DOTALL)
            if found is None:
                return None
            numbers = struct.unpack(">4IiIiI", found[1])
            width, height, right, down = (top / bottom for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))
            left = round((stream.codec_context.width - width) / 2 + right)
            above = round((stream.codec_context.height - height) / 2 + down)
            return slice(above, above + round(height)), slice(left, left + round(width))
    with path.open("rb") as file:
        header = file.read(1 << 16).partition(b"\x1f\x43\xb6\x75")[0]  # up to the first frames
    if "matroska" in stream.container.format.name and re.search(rb"\x54[\xaa\xbb\xcc\xdd][\x81\x82]", header):
        note("%s: Matroska crops its frames; with the codec %s that is left out", path, stream.codec_context.name)
    return None


def side_data(frame: Any) -> dict[str, bytes]:
    """What comes with a frame, by FFmpeg's names; DISPLAYMATRIX maps its columns and rows to those shown."""
    with suppress(ValueError):
        return {data.type.name: bytes(data) for data in frame.side_data}
    angle = np.deg2rad(frame.rotation)  # PyAV stumbles over a kind that it does not know
    c, s = np.rint(65536 * np.array([np.cos(angle), np.sin(angle)]))
    return {"DISPLAYMATRIX": np.array([c, -s, 0, s, c, 0, 0, 0, 1 << 30], np.int32).tobytes()}


def upright(path: Path, matrix: bytes | None) -> tuple[bool, int, int]:
    """What a display matrix asks for: whether rows and columns change places, then steps along them, 1 or -1.

    What is beyond quarter turns and mirroring is said, not applied.
    """
    if matrix is None:
        return False, 1, 1
    given = np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2] / 65536
    nearest = np.rint(given / (np.abs(given).max() or 1)).astype(int)
    known = sorted(np.abs(nearest).tolist()) == [[0, 1], [1, 0]]
    if not known or np.abs(given - nearest).max() > 1e-3:
        note("%s: it is to be turned or scaled by more than quarter turns and mirroring; that is not applied", path)
    columns, rows = nearest.sum(axis=0).tolist() if known else (1, 1)
    return known and bool(nearest[0, 1]), rows, columns
