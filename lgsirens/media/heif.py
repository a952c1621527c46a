"""HEIC pictures <-> `Signal`, of 8, 10 and 12 bits, by pillow-heif."""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lgsirens.errors import SignalError, require
from lgsirens.media import image
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import Signal, integer_limits
from lgsirens.system.console import note

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_SRGB = 1, 13


def read_heif(request: Request, file: BinaryIO) -> Signal:
    """Read the main picture: libheif joins tiles, crops and turns as the file says, so EXIF turns no more.

    Raises:
        SignalError: too large, or of a codec or a kind of HEIF that libheif does not know.
        Exception: of any type, for damaged files.
    """
    try:
        return _read(request, file)
    except (SyntaxError, ValueError) as error:
        file.seek(0)
        if isinstance(error, SyntaxError) or b"moov" in file.read():
            what = f"is a sequence alone, or of a codec that is not supported ({error})"
            raise SignalError(f"{request.path}: {what}; convert it to PNG or MP4") from error
        raise


def _read(request: Request, file: BinaryIO) -> Signal:
    path = request.path
    pictures = require("pillow_heif", f"{path}: HEIC", "heif").open_heif(file, False, hdr_to_16bit=False)
    found = pictures[pictures.primary_index]
    image.check_size(request, found.size[0], found.size[1], 4)
    if len(pictures) > 1:
        note("%s: holds %d pictures, the main one is read", path, len(pictures))
    if found.info["depth_images"] or found.info.get("aux"):
        note("%s: its maps of depth or gain are left out", path)
    profile, nclx = found.info.get("icc_profile"), found.info.get("nclx_profile")
    info = {"aspect": found.info.get("pixel_aspect_ratio", (1, 1))[::-1]}  # of densities, not of sides
    if nclx and not profile:
        info["colour"] = image.declared_colour(nclx["color_primaries"], nclx["transfer_characteristics"])
    if found.info["bit_depth"] == 8:
        picture = found.to_pillow()
        picture.info |= info
        return image.decoded(request, picture)
    if found.premultiplied_alpha:
        raise SignalError(f"{path}: premultiplied alpha of more than 8 bits is not supported; convert it to PNG")
    samples = np.array(found)
    samples = samples.reshape(*samples.shape[:2], -1)
    return image.upright(request, samples, 1, profile, info, f"uint{found.info['bit_depth']}")


def save_heif(path: Path, stored: Stored) -> None:
    """Write `[H, W, C]` of 8, 10 or 12 bits without loss, as RGB and not as YCbCr."""
    samples, signal = stored.whole(), stored.signal
    height, width, channels = samples.shape
    bits = integer_limits(stored.target or signal.dtype)[1].bit_length()
    primaries, transfer = signal.colour or _SRGB
    down, across = signal.spacing or (1, 1)
    with open_for_writing(path) as file:
        require("pillow_heif", f"{path}: HEIC", "heif").encode(
            _MODES[channels] + (";16" if bits > 8 else ""),
            (width, height),
            (samples << (16 - bits) if bits > 8 else samples).tobytes(),
            file,
            quality=-1,
            chroma=444,
            bit_depth=bits,
            matrix_coefficients=0 if channels > 2 else 6,
            pixel_aspect_ratio=Fraction(across / down).limit_denominator(1_000_000).as_integer_ratio(),
            color_primaries=primaries,
            transfer_characteristics=transfer,
        )
