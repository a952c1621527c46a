"""AVIF pictures -> `Signal`, of 8 bits: Pillow would reduce deeper ones without a word."""

import re
import struct
from typing import BinaryIO

from lgsirens.errors import SignalError
from lgsirens.media import image
from lgsirens.media.request import Request
from lgsirens.signal import Signal

_DEPTH = re.compile(rb"av1C\x81.(.)", re.DOTALL)  # version 1, profile and level, then a byte with two bits of depth


def read_avif(request: Request, file: BinaryIO) -> Signal:
    """Read a picture of 8 bits, or the first one of a sequence (raises SignalError if there are more bits)."""
    depths = {12 if flags[0] & 0x20 else 10 for flags in _DEPTH.findall(_descriptions(file)) if flags[0] & 0x40}
    if depths:
        raise SignalError(
            f"{request.path}: has {max(depths)} bits a sample, AVIF is read with 8; convert it to a 16-bit PNG"
        )
    file.seek(0)
    return image.read(request, file, "AVIF")


def _descriptions(file: BinaryIO) -> bytes:
    """The boxes that describe pictures and sequences."""
    found = b""
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        if size == 1:
            (size,) = struct.unpack(">8xQ", head + file.read(8))
            size -= 8
        body = size - 8 if size else -1  # 0: up to the end
        if name in (b"meta", b"moov"):
            found += file.read(body)
        elif body < 0:
            break
        else:
            file.seek(body, 1)
    return found
