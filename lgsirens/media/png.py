"""PNG pictures <-> `Signal`: 16 bits with colour or alpha by PyAV, because Pillow reduces them to 8 without a word."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lgsirens.errors import require
from lgsirens.media import image
from lgsirens.media.frames import packed, unpacked
from lgsirens.media.request import Request
from lgsirens.media.stored import open_for_writing
from lgsirens.signal import Array, Signal

_PIXELS = {2: "ya16be", 3: "rgb48be", 4: "rgba64be"}  # of FFmpeg, by the number of channels


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
            return _read_deep(request, picture, file)
        if depth < 8 and colour == 0 and transparent:  # Pillow scales the samples only
            picture.info["transparency"] = min(255, picture.info["transparency"] * (255 // (2**depth - 1)))
        return image.decoded(request, picture)


def _read_deep(request: Request, picture: Image.Image, file: BinaryIO) -> Signal:
    av = require("av", f"{request.path}: 16-bit PNG with colour or alpha", "png16")
    file.seek(0)
    codec = av.CodecContext.create("png", "r")
    frame = (codec.decode(av.Packet(_needed(file.read()))) + codec.decode(None))[0]
    turned = image.orientation(picture.getexif)
    return image.upright(request, unpacked(frame, None), turned, picture.info.get("icc_profile"))


def _needed(data: bytes) -> bytes:
    """The chunks of the samples, because FFmpeg refuses pictures for damage in the others.

    Raises:
        ValueError: chunks are cut off or altered, or the data end early: FFmpeg decodes all of that silently.
    """
    width, height, colour = struct.unpack_from(">IIxB", data, 16)
    offset, name, needed = 8, b"", [data[:8]]
    inflater, missing = zlib.decompressobj(), height * (1 + 2 * width * (1 + (colour & 2) + (colour >> 2)))
    while name != b"IEND":
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        chunk, name, offset = data[offset:end], data[offset + 4 : offset + 8], end
        if int.from_bytes(chunk[-4:], "big") != zlib.crc32(chunk[4:-4]) or end > len(data):
            raise ValueError(f"chunk {name!r} is cut off or altered")
        if name == b"IDAT":
            missing -= len(inflater.decompress(chunk[8:-4]))
        if name in (b"IHDR", b"tRNS", b"IDAT", b"IEND"):
            needed.append(chunk)
    if missing > 0:
        raise ValueError("truncated picture data")
    return b"".join(needed)


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
    frame = packed(av, samples).reformat(format=codec.pix_fmt)  # the other order of bytes
    with open_for_writing(path) as file:
        for packet in [*codec.encode(frame), *codec.encode(None)]:
            file.write(packet)
