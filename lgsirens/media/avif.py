"""AVIF pictures -> `Signal`, of 8 bits: Pillow would reduce deeper ones without a word."""

import re
from collections.abc import Callable
from typing import Any, BinaryIO

from lgsirens.errors import SignalError
from lgsirens.media import image
from lgsirens.media.request import Request
from lgsirens.signal import Signal
from lgsirens.system.console import note

# Boxes that Pillow does not tell of: one that configures a codec (version 1, profile and level, then a byte with two
# bits of depth), one of colour, one of the aspect of pixels, and one that crops. They are looked for in the whole file,
# for they lie at several depths of boxes; among compressed data five given bytes come once in 10^12.
_DEPTH = re.compile(rb"av1C\x81.(.)", re.DOTALL)
_COLOUR = re.compile(rb"colrnclx(..)(..)", re.DOTALL)
_ASPECT = re.compile(rb"\0\0\0\x10pasp(....)(....)", re.DOTALL)
_CROPPED = b"\0\0\0\x28clap"


def read_avif(request: Request, file: BinaryIO, reads: Callable[[Request, Any], Signal] = image.decoded) -> Signal:
    """Read a picture of 8 bits, or the first one of a sequence (raises SignalError if there are more bits).

    Args:
        reads: the open picture.
    """
    data = file.read()
    if any(flags[0] & 0x40 for flags in _DEPTH.findall(data)):
        raise SignalError(
            f"{request.path}: has more than 8 bits a sample, AVIF is read with 8; convert it to 16-bit PNG"
        )
    if _CROPPED in data:
        note("%s: its clean aperture is not applied, the whole picture is read", request.path)
    file.seek(0)
    with image.opened(request, file, "AVIF") as picture:
        colour, aspect = _COLOUR.search(data), _ASPECT.search(data)
        if colour and "icc_profile" not in picture.info:
            picture.info["colour"] = image.declared_colour(*(int.from_bytes(number) for number in colour.groups()))
        if aspect:  # width and height of a pixel, where densities are told
            picture.info["aspect"] = [int.from_bytes(number) for number in aspect.groups()][::-1]
        return reads(request, picture)
