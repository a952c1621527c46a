"""PNG pictures <-> `Signal`: 16 bits with colour or alpha by PyAV, because Pillow reduces them to 8 without a word."""

import zlib
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from lgsirens.errors import require
from lgsirens.media import image
from lgsirens.media.request import Request
from lgsirens.media.stored import open_for_writing
from lgsirens.signal import Array, Signal

_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_PIXELS = {1: "gray16be", 2: "ya16be", 3: "rgb48be", 4: "rgba64be"}


def needs_av(dtype: str, channels: int) -> bool:
    """Whether writing needs PyAV."""
    return dtype == "uint16" and channels > 1


def read_png(request: Request, file: BinaryIO) -> Signal:
    """Read a picture of 8 or 16 bits."""
    file.seek(24)
    depth, colour = file.read(2)  # of IHDR, always the first chunk: Pillow tells neither
    file.seek(0)
    with image.opened(request.path, file, "PNG") as picture:
        transparent = "transparency" in picture.info
        if depth == 16 and (picture.mode not in image.DEEP or transparent):
            return _read_deep(request, file, picture.info.get("icc_profile"))
        if depth < 8 and colour == 0 and transparent:  # Pillow scales the samples only
            picture.info["transparency"] = min(255, picture.info["transparency"] * (255 // (2**depth - 1)))
        return image.decoded(request, picture)


def _read_deep(request: Request, file: BinaryIO, profile: bytes | None) -> Signal:
    av = require("av", f"{request.path}: 16-bit PNG with colour or alpha", "png16")
    file.seek(0)
    data = file.read()
    orientation, inflater, inflated, needed = 1, zlib.decompressobj(), 0, [data[:8]]
    for name, chunk in _chunks(data):
        if name == b"eXIf":
            orientation = image.orientation(partial(_parsed_exif, chunk[8:-4]))
        elif name == b"IDAT":
            inflated += len(inflater.decompress(chunk[8:-4]))
        if name in (b"IHDR", b"tRNS", b"IDAT", b"IEND"):  # FFmpeg refuses pictures for damage in the others
            needed.append(chunk)
    codec = av.CodecContext.create("png", "r")
    frame = (codec.decode(av.Packet(b"".join(needed))) + codec.decode(None))[0]
    channels = {name: count for count, name in _PIXELS.items()}[frame.format.name]
    rows = np.frombuffer(frame.planes[0], ">u2").reshape(-1, frame.planes[0].line_size // 2)
    if inflated < frame.height * (1 + 2 * frame.width * _CHANNELS[data[25]]):  # FFmpeg fills the rest silently
        raise ValueError("truncated picture data")
    samples = rows[: frame.height, : frame.width * channels].reshape(frame.height, frame.width, channels)
    return image.upright(request, samples.astype(np.uint16), orientation, profile)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk to the last chunk, because FFmpeg decodes cut and altered files silently."""
    offset, name = 8, b""
    while name != b"IEND":
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if end > len(data):
            raise ValueError("truncated PNG file")
        chunk, name, offset = data[offset:end], data[offset + 4 : offset + 8], end
        if int.from_bytes(chunk[-4:], "big") != zlib.crc32(chunk[4:-4]):
            raise ValueError(f"wrong checksum in chunk {name!r}")
        yield name, chunk


def _parsed_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


def save_png(path: Path, samples: Array) -> None:
    """Write `[H, W, C]` uint8 or uint16."""
    height, width, channels = samples.shape
    if not needs_av(str(samples.dtype), channels):
        image.save(path, samples, "PNG")
        return
    av = require("av", f"{path}: 16-bit PNG with colour or alpha", "png16")
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, _PIXELS[channels]
    codec.time_base, codec.sample_aspect_ratio = Fraction(1), Fraction(1)
    codec.options = {"pred": "mixed"}
    frame = av.VideoFrame(width, height, _PIXELS[channels])
    plane = frame.planes[0]
    rows = np.frombuffer(plane, ">u2")[: height * (plane.line_size // 2)].reshape(height, -1)
    rows[:, : width * channels] = samples.reshape(height, -1)
    with open_for_writing(path) as file:
        for packet in [*codec.encode(frame), *codec.encode(None)]:
            file.write(packet)
