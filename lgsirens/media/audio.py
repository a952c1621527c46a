"""Sounds by libsndfile <-> `Signal`: WAV and FLAC, and to read also Ogg, MP3, AIFF, AU and CAF.

Samples keep the numbers of the file: 24-bit sound comes as 24-bit integers, not scaled to [-1, 1]. libsndfile reads
a file that was cut off as a shorter one without a word, so the sizes that a header announces are checked here.
soundfile is given file objects, never names: it takes some names for a format, and hides why a write has failed.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.errors import SignalError, require
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import Array, Signal
from lgsirens.system.console import note

_BLOCK = 1 << 16  # samples that are converted at once
_USUAL_RATE = 44100
_UNKNOWN = 1 << 62  # a FLAC stream that does not know its length announces about 2^63 samples
_WAV_LIMIT = (1 << 32) - (1 << 16)  # bytes of samples; the sizes in a WAV header have 32 bits

# libsndfile's name of each sample type that a format keeps exactly.
# 8-bit samples of WAV are unsigned with silence at 128. Here they are int8 with silence at 0, as everywhere else.
_PCM = {"int16": "PCM_16", "int24": "PCM_24"}
SUBTYPES = {
    "WAV": {"int8": "PCM_U8", **_PCM, "int32": "PCM_32", "float32": "FLOAT", "float64": "DOUBLE"},
    "FLAC": {"int8": "PCM_S8", **_PCM},
}
# Sample type by libsndfile's subtype, for those that decode to integers; the lossy ones decode to float32.
_TYPES = {
    **{subtype: dtype for subtypes in SUBTYPES.values() for dtype, subtype in subtypes.items()},
    **{"ULAW": "int16", "ALAW": "int16"},
    **{"ALAC_16": "int16", "ALAC_20": "int24", "ALAC_24": "int24", "ALAC_32": "int32"},
}
# libsndfile exchanges 8 and 24-bit samples in the upper bits of the next wider type.
_EXCHANGED = {"int8": "int16", "int24": "int32"}
_LOWER_BITS = 8


# Reading


def read_sound(request: Request, file: BinaryIO) -> Signal:
    """Read a sound: `[S, C]` in the sample type of the file, with its sampling rate.

    8-bit samples come as int8, 24-bit samples as 24-bit numbers in int32 (dtype "int24"), lossy formats as float32.

    Raises:
        SignalError: cut short, no samples, NaN or infinite samples, too many channels.
        MissingDependencyError: soundfile is missing.
        Exception: of any type, for damaged files.
    """
    path = request.path
    _check_complete(path, file)
    values, dtype, rate = _decode(path, file)
    if dtype == "int32":
        note("%s: holds 32-bit integers; networks compute in float32, which keeps the upper 24 bits", path)
    return request.signal(values, "audio", rate, dtype)


def _check_complete(path: Path, file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    end = _announced_end(file)
    if end is None or end <= size:
        return
    announced = end - file.tell()
    # Close to 2^32 or to 2^31: what programs write that cannot go back to the header.
    if announced > 0xFFFF_0000 or 0x7FFE_0000 < announced <= 0x8000_0000:
        note("%s: its header does not say how long it is; it is read to its end", path)
        return
    raise SignalError(f"{path}: is cut short: {size} of {end} bytes are there; get or save the file again")


def _announced_end(file: BinaryIO) -> int | None:
    """Where the samples end by the header of a WAV, AIFF or AU file; leaves the file at their beginning.

    None for other formats (libsndfile finds their ends itself) and where the header is damaged (it says so).
    """
    start = file.read(12)
    if start[:4] == b".snd" and len(start) == 12:
        offset, length = struct.unpack(">II", start[4:])
        return file.seek(offset) + int(length)
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(start[:4])
    long_length = None
    while order and len(header := file.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", header)
        if name in (b"data", b"SSND"):
            return file.tell() + int(length if long_length is None else long_length)
        body = file.tell()
        if name == b"ds64" and len(sizes := file.read(16)) == 16:
            long_length = struct.unpack("<8xQ", sizes)[0]
        file.seek(body + length + length % 2)
    return None


def _decode(path: Path, file: BinaryIO) -> tuple[Array, str, int]:
    """Samples `[S, C]`, their type in the file, and the sampling rate."""
    soundfile = require("soundfile", f"{path}: sound", "audio")
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # libsndfile knows the descriptor only
    with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
        if sound.frames >= _UNKNOWN:  # soundfile fails to read what libsndfile cannot seek in
            raise SignalError(f"{path}: its header does not say how long it is; convert it with sox or ffmpeg")
        dtype = _TYPES.get(sound.subtype, "float32")
        blocks = list(_blocks(sound, dtype))
        announced, rate, lossy = sound.frames, sound.samplerate, sound.format in ("MP3", "OGG")
    found = sum(map(len, blocks))
    if not announced:
        raise SignalError(f"{path}: holds no samples; name another sound")
    if found < announced and not (lossy and found):
        raise SignalError(f"{path}: is cut short: {found} of {announced} samples are there; get or save the file again")
    if found < announced:  # such a length may be an estimate: no reason to refuse
        note("%s: %d of the %d samples that it announces are there; it may be cut short", path, found, announced)
    return np.concatenate(blocks), dtype, rate


def _blocks(sound: Any, dtype: str) -> Iterator[Array]:
    exchanged = _EXCHANGED.get(dtype, dtype)
    while len(block := sound.read(_BLOCK, dtype=exchanged, always_2d=True)):
        if exchanged != dtype:
            block >>= _LOWER_BITS
        yield block.astype(np.int8) if dtype == "int8" else block


# Writing


def save_sound(target: Path, stored: Stored, container: str) -> None:
    """Write a sound in a format that libsndfile calls `container` (raises OSError; an error of libsndfile)."""
    soundfile = require("soundfile", f"{stored.path}: sound", "audio")
    values = stored.signal.values
    dtype = stored.target or stored.signal.dtype
    exchanged = np.dtype(_EXCHANGED.get(dtype, dtype))
    subtype = SUBTYPES[container][dtype]
    if container == "WAV" and values.size * exchanged.itemsize > _WAV_LIMIT:
        container = "RF64"
    known = stored.signal.sampling_rate
    rate = max(1, round(known or _USUAL_RATE))
    if rate != known:
        stated = f"{float(known):.6g}" if known else "unknown"
        note("%s: the sampling rate is %s; %d samples per second are written", stored.path, stated, rate)
    with open_for_writing(target) as file:
        with soundfile.SoundFile(file, "w", rate, values.shape[-1], subtype, format=container) as sound:
            for block in stored.blocks(_BLOCK):
                sound.write(block.astype(exchanged) << _LOWER_BITS if dtype in _EXCHANGED else block)
        _forget_date(file)


def _forget_date(file: BinaryIO) -> None:
    """Clear the date in the PEAK chunk of a float WAV: the same samples shall give the same bytes."""
    file.seek(0)
    place = file.read(256).find(b"PEAK")
    if place >= 0:
        file.seek(place + 12)  # name, size, version
        file.write(bytes(4))
