"""AVIF pictures -> `Signal`, of 8 bits: Pillow would reduce deeper ones without a word."""

import re
from typing import BinaryIO

from lgsirens.errors import SignalError
from lgsirens.media import image
from lgsirens.media.request import Request
from lgsirens.signal import Signal

# A box that configures a codec: version 1, profile and level, then a byte with two bits of depth. It is looked for in
# the whole file, for it lies at several depths of boxes; among compressed data five given bytes come once in 10^12.
_DEPTH = re.compile(rb"av1C\x81.(.)", re.DOTALL)


def read_avif(request: Request, file: BinaryIO) -> Signal:
    """Read a picture of 8 bits, or the first one of a sequence (raises SignalError if there are more bits)."""
    if any(flags[0] & 0x40 for flags in _DEPTH.findall(file.read())):
        raise SignalError(
            f"{request.path}: has more than 8 bits a sample, AVIF is read with 8; convert it to 16-bit PNG"
        )
    file.seek(0)
    return image.read(request, file, "AVIF")
