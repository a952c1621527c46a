"""PNG pictures <-> `Signal`: 16 bits with colour or alpha by PyAV, because Pillow reduces them to 8 without a word."""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.errors import SignalError, require
from lgsirens.media import animation, image
from lgsirens.media.frames import packed, unpacked
from lgsirens.media.icc import declared
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import Array, Signal
from lgsirens.system.console import note

Chunks = list[tuple[bytes, memoryview]]  # names, and views of the whole chunks

_PIXELS = {2: "ya16be", 3: "rgb48be", 4: "rgba64be"}  # of FFmpeg, by the number of channels
_SAMPLES = (b"IHDR", b"tRNS", b"IDAT", b"IEND")
_PICTURE = (*_SAMPLES, b"PLTE", b"eXIf")
_ANIMATION = (*_PICTURE, b"acTL", b"fcTL", b"fdAT")
# The texts in which Pillow looks for an orientation. Of all others it would refuse those above 1 MiB.
_EXIF_TEXT = re.compile(rb"[tz]TXtRaw profile type exif\0\0?(.*)|iTXtXML:com\.adobe\.xmp\0\0", re.DOTALL)
_MOST_TEXT, _LARGEST_PROFILE = 1 << 20, 1 << 26
_SRGB_GAMMA, _SAME_GAMMA = 45455, 0.05  # what gAMA says for the curve of sRGB, and libpng's tolerance
_LENGTHS = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"pHYs": 9}
_LEFT_OUT = {b"mdcv": "mastering display metadata", b"clli": "content light level"}  # whose spelling has changed
_SRGB_CHROMATICITIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def needs_av(dtype: str, channels: int) -> bool:
    """Whether writing needs PyAV."""
    return dtype == "uint16" and channels > 1


def read_png(request: Request, file: BinaryIO) -> Signal:
    """Read a picture of 8 or 16 bits, of an animation the default one."""
    chunks = list(_chunks(memoryview(file.read())))
    image.say_first_of(request.path, sum(name == b"fcTL" for name, _ in chunks))
    depth, colour = chunks[0][1][16:18]  # of IHDR, always the first chunk: Pillow tells neither
    with _opened(request, chunks, _PICTURE) as picture:
        picture.info |= _declared(request.path, chunks)
        transparent = "transparency" in picture.info
        if depth == 16 and (picture.mode not in image.DEEP or transparent):
            return _read_deep(request, picture, chunks)
        if depth < 8 and colour == 0 and transparent:  # Pillow scales the samples only
            picture.info["transparency"] = min(255, picture.info["transparency"] * (255 // (2**depth - 1)))
        return image.decoded(request, picture)


def read_animation(request: Request, file: BinaryIO) -> Signal:
    """Read the frames of an animation of 8 bits as a film."""
    chunks = list(_chunks(memoryview(file.read())))
    if chunks[0][1][16] == 16:
        raise SignalError(f"{request.path}: animations of 16 bits are not supported; save their frames as pictures")
    with _opened(request, chunks, _ANIMATION) as picture:
        picture.info |= _declared(request.path, chunks)
        return animation.film(request, picture)


def _opened(request: Request, chunks: Chunks, names: tuple[bytes, ...]) -> AbstractContextManager[Any]:
    """The picture of these chunks alone: Pillow and FFmpeg refuse pictures for damage in others, or for their size."""
    return image.opened(request, io.BytesIO(_joined(chunks, names)), "PNG")


def _joined(chunks: Chunks, names: tuple[bytes, ...]) -> bytes:
    needed = (chunk for name, chunk in chunks if name in names or (b"eXIf" in names and _has_exif(chunk)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(needed)


def _has_exif(chunk: memoryview) -> bool:
    """Whether this is text with EXIF data, or XMP, that Pillow reads."""
    found, inflater = _EXIF_TEXT.match(chunk, 4), zlib.decompressobj()
    if found and bytes(chunk[4:5]) == b"z":
        inflater.decompress(found[1][:-4], _MOST_TEXT)
    return found is not None and len(chunk) < _MOST_TEXT and not inflater.unconsumed_tail


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks, but for damaged ones that the samples do not need.

    Raises:
        ValueError: chunks of samples are altered, or the end is missing.
    """
    offset, name = 8, b""
    while name != b"IEND":
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        chunk, name, offset = data[offset:end], bytes(data[offset + 4 : offset + 8]), end
        intact = int.from_bytes(chunk[-4:], "big") == zlib.crc32(chunk[4:-4])
        if end > len(data) or not (intact or (name[:1].islower() and name not in _ANIMATION)):
            raise ValueError(f"chunk {name!r} is cut off or altered")
        if intact:
            yield name, chunk


def _declared(path: Path, chunks: Chunks) -> dict[str, Any]:
    """Colour, from what the specification ranks highest: cICP, iCCP, sRGB, then gAMA with cHRM; and densities."""
    if left := [_LEFT_OUT[name.lower()] for name, _ in chunks if name.lower() in _LEFT_OUT]:
        note("%s: its %s is left out", path, ", ".join(left))
    told = {name: bytes(chunk[8:-4]) for name, chunk in chunks if name in (*_LENGTHS, b"iCCP", b"sRGB")}
    known = {name: body for name, body in told.items() if len(body) == _LENGTHS.get(name, len(body))}
    found: dict[str, Any] = {"aspect": struct.unpack_from(">II", known.get(b"pHYs", bytes(8)))}
    if b"cICP" in known:
        found["colour"] = image.declared_colour(*known[b"cICP"][:2])
        if known[b"cICP"][3:] == b"\0":
            note("%s: its narrow range of values is not widened", path)
    elif b"iCCP" in known:
        _, _, profile = known[b"iCCP"].partition(b"\0")
        found["icc_profile"] = profile[1:]  # if it stays so, no one can read it, and that is said
        with suppress(zlib.error):
            found["icc_profile"] = zlib.decompressobj().decompress(profile[1:], _LARGEST_PROFILE)
    elif b"sRGB" not in known and (b"gAMA" in known or b"cHRM" in known):
        gamma = int.from_bytes(known.get(b"gAMA", b"")) or _SRGB_GAMMA
        power = None if abs(gamma / _SRGB_GAMMA - 1) < _SAME_GAMMA else 100_000 / gamma
        chromaticities = struct.unpack(">8I", known.get(b"cHRM", _SRGB_CHROMATICITIES))
        try:
            found["icc_profile"] = declared(np.divide(chromaticities, 100_000), power)
        except (ArithmeticError, np.linalg.LinAlgError):
            note("%s: its primaries (cHRM) are impossible and ignored", path)
    return found


def _read_deep(request: Request, picture: Any, chunks: Chunks) -> Signal:
    av = require("av", f"{request.path}: 16-bit PNG with colour or alpha", "png16")
    _check_length(chunks)
    codec = av.CodecContext.create("png", "r")
    frame = (codec.decode(av.Packet(_joined(chunks, _SAMPLES))) + codec.decode(None))[0]
    turned, picture.info["exif_density"] = image.exif(picture)
    return image.upright(request, unpacked(frame, None), turned, picture.info.get("icc_profile"), picture.info)


def _check_length(chunks: Chunks) -> None:
    """Raise ValueError if samples of 16 bits end early: FFmpeg takes the rest for black."""
    width, height, colour = struct.unpack_from(">IIxB", chunks[0][1], 8)
    inflater, missing = zlib.decompressobj(), height * (1 + 2 * width * (1 + (colour & 2) + (colour >> 2)))
    for body in (chunk[8:-4] for name, chunk in chunks if name == b"IDAT"):
        missing -= len(inflater.decompress(body, max(missing, 1)))  # which may unfold to far more
    if missing > 0:
        raise ValueError("truncated picture data")


def write_png(path: Path, stored: Stored) -> None:
    """Write a picture of 8 or 16 bits; row by row if it is read by region."""
    signal = stored.signal
    if not stored.by_region:
        save_png(path, stored.whole(), signal)
        return
    height, width, channels = signal.values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * stored.dtype.itemsize, colour, 0, 0, 0)
    above = np.zeros((1, width * channels * stored.dtype.itemsize), np.uint8)
    deflater = zlib.compressobj()
    with open_for_writing(path) as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _described(signal))
        for band in stored.bands():
            rows = band.astype(band.dtype.newbyteorder(">")).view(np.uint8).reshape(len(band), -1)
            packed = deflater.compress(_filtered(rows, above, channels * stored.dtype.itemsize).tobytes())
            above = rows[-1:]
            if packed:
                file.write(_chunk(b"IDAT", packed))
        file.write(_chunk(b"IDAT", deflater.flush()) + _chunk(b"IEND", b""))


def _filtered(rows: Array, above: Array, step: int) -> Array:
    """Rows of bytes `[n, bytes]` less what Paeth's filter foresees, each after the number of that filter.

    Args:
        above: the row before the first one.
        step: bytes of a pixel.
    """
    here, over = np.pad(rows, ((0, 0), (step, 0))), np.pad(np.concatenate([above, rows[:-1]]), ((0, 0), (step, 0)))
    left, up, corner = (part.astype(np.int16) for part in (here[:, :-step], over[:, step:], over[:, :-step]))
    far = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
    foreseen = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], up, corner))
    return np.pad(rows - foreseen.astype(np.uint8), ((0, 0), (1, 0)), constant_values=4)


def save_png(path: Path, samples: Array, signal: Signal) -> None:
    """Write `[H, W, C]` uint8 or uint16 with the colour and the spacing of the signal that they are of."""
    file = io.BytesIO()
    _encode(path, file, samples)
    data = _joined(list(_chunks(file.getbuffer())), _SAMPLES)  # FFmpeg states a spacing of its own
    with open_for_writing(path) as whole:
        for part in (data[:33], _described(signal), data[33:]):  # after IHDR
            whole.write(part)


def _described(signal: Signal) -> bytes:
    """Chunks with the colour and the spacing of a signal, where it has them."""
    chunks = b""
    if signal.colour is not None:
        chunks += _chunk(b"cICP", bytes((*signal.colour, 0, 1)))
    if signal.spacing is not None:
        ratio = Fraction(signal.spacing[-2] / signal.spacing[-1]).limit_denominator(1_000_000)
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *ratio.as_integer_ratio(), 0))
    return chunks


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _encode(path: Path, file: BinaryIO, samples: Array) -> None:
    height, width, channels = samples.shape
    if not needs_av(str(samples.dtype), channels):
        image.encode(file, samples, "PNG")
        return
    av = require("av", f"{path}: 16-bit PNG with colour or alpha", "png16")
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, _PIXELS[channels]
    codec.time_base, codec.sample_aspect_ratio = Fraction(1), Fraction(1)
    codec.options = {"pred": "mixed"}
    frame = packed(av, samples).reformat(format=codec.pix_fmt)  # the other order of bytes
    for packet in [*codec.encode(frame), *codec.encode(None)]:
        file.write(packet)
