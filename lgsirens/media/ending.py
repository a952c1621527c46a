"""Ends of films and sounds: whether all bytes are there, as far as the container tells; FFmpeg does not check it."""

import mmap
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from lgsirens.errors import SignalError

# Marks in headers, and where the size of the file follows.
_SIZES = {"asf": (bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), "<40xQ"), "flv": (b"filesize\0", ">9xd")}


def is_whole(path: Path, file: BinaryIO, container: str, last: int) -> bool | None:
    """Whether a film, of which the last packet ends at the byte `last`, has all its bytes; None if nothing tells.

    Raises:
        SignalError: it is several films, of which FFmpeg would read the first.
    """
    name, end = container.partition(",")[0], None
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        size = len(content)
        if name == "ogg":
            stated, ended, joints = ogg_pages(content)
            end = joints[0] if joints else stated if ended else size + 1
        elif name == "yuv4mpegpipe":
            end = size + (last != size)
        elif name == "mpegts":
            end = size + min(-size % packet for packet in (188, 192, 204))
        elif name in ("matroska", "mov"):
            end = _segment_end(content) if name == "matroska" else _second_film(content)
        elif name in _SIZES and (place := content.find(_SIZES[name][0], 0, 4096)) >= 0:
            end = int(struct.unpack_from(_SIZES[name][1], content, place)[0]) or None  # 0: not known
        if end is None or (name == "matroska" and end > size):  # without its index it can have all frames
            return None
        if end < size and (name == "mov" or content.find(content[:4], end, end + 4) >= 0):
            raise SignalError(f"{path}: is several films joined; join them with ffmpeg or mkvmerge")
        return end <= size


def ogg_pages(content: mmap.mmap | bytes) -> tuple[int, bool, list[int]]:
    """Where the last page of an Ogg file ends, whether each stream has a last page, and where others are joined."""
    pages = list(re.finditer(rb"OggS\0([\0-\7])", content))  # 2: the first page of a stream, 4: the last one
    first, last = ([page[1][0] & flag for page in pages] for flag in (2, 4))
    place = pages[-1].start() + 27
    count = content[place - 1] if place <= len(content) else 0
    joints = [page.start() for page, pair in zip(pages[1:], pairwise(first), strict=True) if pair == (0, 2)]
    return place + count + sum(content[place : place + count]), sum(last) >= 2 * sum(first), joints


def _segment_end(content: mmap.mmap) -> int | None:
    """Where a Matroska file says that it ends."""
    place = content.find(b"\x18\x53\x80\x67", 0, 256) + 4  # its size follows, in as many bytes as it has zeros
    if place < 4 or place >= len(content):
        return None
    length = 9 - content[place].bit_length()
    size, unknown = int.from_bytes(content[place : place + length]) - (1 << 7 * length), (1 << 7 * length) - 1
    return None if size == unknown else place + length + size


def _second_film(content: mmap.mmap) -> int | None:
    """Where the outermost boxes of an ISO file begin anew."""
    place = 0
    while place + 16 <= len(content):
        size, name, long = struct.unpack_from(">I4sQ", content, place)
        if place and name == b"ftyp":
            return place
        place += (long if size == 1 else size) or len(content)  # 0: to the end of the file
    return None
