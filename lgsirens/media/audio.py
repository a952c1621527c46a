"""Sounds by libsndfile <-> `Signal`: WAV and FLAC, and to read also Ogg, MP3, AIFF, AU and CAF.

Samples keep the numbers of the file: 24-bit sound comes as 24-bit integers, not scaled to [-1, 1]. libsndfile reads
a file that was cut off as a shorter one without a word, so the sizes that a header announces are checked here.
soundfile is given file objects, never names: it takes some names for a format, and hides why a write has failed.
"""

import errno
import io
import mmap
import os
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.errors import SignalError, require
from lgsirens.lazy import LazyValues
from lgsirens.media.ending import ogg_pages
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.media.unchanged import UnchangedFile
from lgsirens.signal import Array, Signal, array_type
from lgsirens.system.console import note

_BLOCK = 1 << 16  # samples that are converted at once
_BYTES = 8  # of memory for each number: its block, and all of them in one
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
_ENDLESS = "%s: its header does not say how long it is; it is read to its end"
_BEGINNINGS = {b"fL": rb"fLaC\0\0\0\x22", b"ID": rb"ID3[\2-\4]\0.[\0-\x7f]{4}", b"FO": rb"FORM.{4}AIF[FC]"}
_BEGINNINGS |= {b"RI": rb"RIF[FX].{4}WAVE[ -~]{4}", b"RF": rb"RF64.{4}WAVEds64", b"ca": rb"caff\0\x01\0\0desc"}
_BEGINNINGS[b".s"] = rb"\.snd\0\0.{6}\0\0\0"
_BEGINNING, _SEARCHED = 64, 1 << 24  # bytes of a beginning at most, and those that are searched at once
_CHUNK = re.compile(rb"[ -~]{4}.{4}", re.DOTALL)
_LAYOUT = re.compile(r"(?:Channel Mask +|Layout) : (0x\w+|.+)")  # in libsndfile's log
_USUAL_LAYOUTS = {1: ("0x4", "mono"), 2: ("0x3", "stereo", "stereo (L, R)")}
# In its errors; the last ones are those of FLAC and Speex in Ogg.
_NOT_KNOWN = re.compile("unimplemented|unsupported|not supported|'fmt ' chunk|flac decoder|Unspecified internal error")


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
    sources = _sources(path, file)
    if sources == [file] and (long := _long(request)) is not None:
        sound, dtype, rate = long
        return request.signal(LazyValues(sound, str(path)), "audio", rate, dtype)
    parts = [_decoded(request, source) for source in sources]
    if len(parts) > 1:
        note("%s: is %d sounds joined; they follow one another", path, len(parts))
    values, dtype, rate = parts[0]
    if any((values.shape[1], dtype, rate) != (more.shape[1], *form) for more, *form in parts):
        raise SignalError(f"{path}: joins sounds that differ in channels, sample type or rate; split it")
    _say_wide(path, dtype)
    return request.signal(np.concatenate([part[0] for part in parts]), "audio", rate, dtype)


class _Sound:
    """Samples `[S, C]` of an open sound whose coding tells where each of them lies."""

    def __init__(self, file: UnchangedFile, sound: Any, dtype: str) -> None:
        self._file, self._sound, self._type = file, sound, dtype
        self.shape, self.dtype = (sound.frames, sound.channels), array_type(dtype)
        self.chunks = (_BLOCK, sound.channels)

    def __getitem__(self, chunk: tuple[slice, ...]) -> Array:
        start, stop = chunk[0].start, chunk[0].stop
        with self._file.reading():
            self._sound.seek(start)
            values = next(_blocks(self._sound, self._type, stop - start), np.empty((0, self.shape[1])))
        if len(values) < stop - start:
            found = f"{start + len(values)} of {self.shape[0]} samples are there"
            raise SignalError(f"{self._file.path}: is cut short: {found}; get or save the file again")
        return values


def _long(request: Request) -> tuple[_Sound, str, int] | None:
    """A long sound, to be read by region, its sample type and its rate; None: it is short, or its coding lossy."""
    soundfile, kept = require("soundfile", f"{request.path}: sound", "audio"), UnchangedFile(request.path)
    try:
        with kept.reading() as file:
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError:
        return None
    dtype = _TYPES.get(sound.subtype)
    if dtype is None or not 0 < sound.frames < _UNKNOWN:
        return None
    if not request.is_large((sound.frames, sound.channels), array_type(dtype)):
        return None
    _say_layout_of(request.path, sound)
    _say_wide(request.path, dtype)
    return _Sound(kept, sound, dtype), dtype, sound.samplerate


def _say_wide(path: Path, dtype: str) -> None:
    if dtype == "int32":
        note("%s: holds 32-bit integers; networks compute in float32, which keeps the upper 24 bits", path)


def _sources(path: Path, file: BinaryIO) -> list[BinaryIO]:
    """The file, or copies: of each sound where several are joined, or with the length that the header lacks."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        bounds = [0, *_joints(content), len(content)]
        parts = [content[start:stop] for start, stop in pairwise(bounds)] if len(bounds) > 2 else [content]
        mended = [_mended(path, part) or part for part in parts]
        return [file if part is content else io.BytesIO(part) for part in mended]


def _mended(path: Path, content: mmap.mmap | bytes) -> bytearray | None:
    """A copy with the length that the header lacks, None if there is no need (raises SignalError: cut short)."""
    found, size = _announced(content), len(content)
    if found is None:
        return None
    start, length, place, form, overhead = found
    if length <= size - start if length > 0 else start == size or _CHUNK.match(content, start):
        if content[:4] == b"OggS" and not ogg_pages(content)[1]:
            note("%s: its last page does not say that it is the last; it may be cut short", path)
        return None  # also if it has no samples
    # Close to 2^32 or to 2^31: what programs write that cannot go back to the header.
    if 0 < length <= 0x7FFE_0000 or 0x8000_0000 < length <= 0xFFFF_0000:
        what = f"{size} of {start + length} bytes"
        raise SignalError(f"{path}: is cut short: {what} are there; get or save the file again")
    note(_ENDLESS, path)
    if length > 0 and form[1] == "I":
        return None  # libsndfile does so itself
    copy = bytearray(content)
    struct.pack_into(form, copy, place, size - start + overhead)
    return copy


def _joints(content: mmap.mmap) -> list[int]:
    """Where sounds begin that are joined to the first one."""
    if content[:4] == b"OggS":
        return ogg_pages(content)[2]
    pattern, found = _BEGINNINGS.get(content[:2]), set[int]()
    if pattern is None:
        return []
    for start in range(0, len(content), _SEARCHED):
        part = content[start : start + _SEARCHED + _BEGINNING]
        found |= {start + place.start() for place in re.finditer(pattern, part, re.DOTALL)}
        if hasattr(mmap, "MADV_DONTNEED"):
            content.madvise(mmap.MADV_DONTNEED)  # a long sound would count as memory of this process
    return sorted(found - {0})


def _announced(content: mmap.mmap | bytes) -> tuple[int, int, int, str, int] | None:
    """Where the samples of a WAV, AIFF, AU or CAF file begin and how many bytes of them its header announces, if any.

    Then where, in which form and with how many other bytes it does so. Of Ogg all bytes up to the end of its last
    page. None for other formats (libsndfile finds their ends itself) and where the header is damaged (it says so).
    """
    if content[:4] == b"OggS":
        return 0, ogg_pages(content)[0], 0, "", 0
    if content[:4] == b".snd" and len(content) >= 12:
        start, length = struct.unpack_from(">II", content, 4)
        return start, length, 8, ">I", 0
    form = {b"RIFF": "<I", b"RF64": "<I", b"RIFX": ">I", b"FORM": ">I", b"caff": ">q"}.get(content[:4])
    place, sized, block = (8 if form == ">q" else 12) + 4, None, 1
    while form and place + struct.calcsize(form) <= len(content):
        name, (length,) = content[place - 4 : place], struct.unpack_from(form, content, place)
        start = place + struct.calcsize(form)
        if name in (b"data", b"SSND"):
            overhead = 8 if name == b"SSND" else 4 if form == ">q" else 0
            place, form, length = sized or (place, form, length)
            return start + overhead, length - overhead - length % block, place, form, overhead
        if name == b"fmt " and content[start : start + 1] in (b"\1", b"\3", b"\xfe"):  # whole numbers and floats
            block = struct.unpack_from(f"{form[0]}H", content, start + 12)[0] or 1
        if name == b"ds64" and start + 16 <= len(content):
            sized = start + 8, "<Q", struct.unpack_from("<Q", content, start + 8)[0]
        place = start + max(length, 0) + length % 2 * (form != ">q") + 4
    return None


def _decoded(request: Request, source: BinaryIO) -> tuple[Array, str, int]:
    """Samples `[S, C]`, their type in the file, and the sampling rate."""
    path = request.path
    soundfile = require("soundfile", f"{path}: sound", "audio")
    source.seek(0)
    handle: Any = source
    if not isinstance(source, io.BytesIO):
        handle = source.fileno()
        os.lseek(handle, 0, os.SEEK_SET)
    try:
        with soundfile.SoundFile(handle, closefd=False) as sound:
            if sound.frames >= _UNKNOWN:  # soundfile fails to read what libsndfile cannot seek in
                note(_ENDLESS, path)
                return _decoded_by_ffmpeg(path, source)
            dtype = _TYPES.get(sound.subtype, "float32")
            request.check_bytes(sound.frames * sound.channels * _BYTES)
            blocks, announced, rate = list(_blocks(sound, dtype)), sound.frames, sound.samplerate
            estimated, form = sound.subtype not in _TYPES, sound.format
            _say_layout_of(path, sound)
    except soundfile.LibsndfileError as error:
        if _NOT_KNOWN.search(str(error)):
            return _decoded_by_ffmpeg(path, source)
        raise
    found = sum(map(len, blocks))
    if not announced:
        raise SignalError(f"{path}: holds no samples; name another sound")
    if found < announced and not (estimated and found):
        raise SignalError(f"{path}: is cut short: {found} of {announced} samples are there; get or save the file again")
    if found < announced and form == "MP3":  # no reason to refuse; the others have all bytes that they announce
        note("%s: %d of the %d samples that it announces are there; it may be cut short", path, found, announced)
    return np.concatenate(blocks), dtype, rate


def _say_layout_of(path: Path, sound: Any) -> None:
    known = sound.format in ("FLAC", "OGG") and sound.channels > 2
    _say_layout(path, sound.channels, *([sound.format] if known else _LAYOUT.findall(sound.extra_info))[:1])


def _say_layout(path: Path, channels: int, name: str = "0x0") -> None:
    """Say that a layout of loudspeakers is left out, if it is stated and not the usual one of so many channels."""
    if name not in ("0x0", f"{channels} channels", *_USUAL_LAYOUTS.get(channels, ())):
        note("%s: where its channels are heard is left out; they keep their order", path)


def _decoded_by_ffmpeg(path: Path, source: BinaryIO) -> tuple[Array, str, int]:
    """The same for codings that libsndfile does not know, as FLAC of 32 bits and WAV that holds AAC."""
    av = require("av", f"{path}: its coding", "video")
    source.seek(0)
    with av.open(source) as container:
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise SignalError(f"{path}: its coding is not known; convert it to WAV or FLAC")
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        rate, announced = stream.rate, (container.format.name == "flac" and stream.duration) or 0
        planar, channels = stream.format.is_planar, stream.channels
        _say_layout(path, channels, stream.layout.name)
        values = np.hstack([frame.to_ndarray() for frame in container.decode(stream)])
    values = values.T if planar else values.reshape(-1, channels)
    if len(values) < announced:
        what = f"{len(values)} of {announced} samples"
        raise SignalError(f"{path}: is cut short: {what} are there; get or save the file again")
    if values.dtype == np.int32 and not (values & 0xFF).any():
        return values >> _LOWER_BITS, "int24", rate
    return values, str(values.dtype), rate


def _blocks(sound: Any, dtype: str, length: int = _BLOCK) -> Iterator[Array]:
    exchanged = _EXCHANGED.get(dtype, dtype)
    while len(block := sound.read(length, dtype=exchanged, always_2d=True)):
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

    def blocks() -> Iterator[Array]:
        for block in stored.blocks(_BLOCK):
            yield block.astype(exchanged) << _LOWER_BITS if dtype in _EXCHANGED else block

    with open_for_writing(target) as file:
        with soundfile.SoundFile(file, "w", rate, values.shape[-1], subtype, format=container) as sound:
            for block in blocks():
                sound.write(block)
        _forget_date(file)
        # What fails in a call back from libsndfile is not told, a header that no memory was left for neither.
        file.seek(0)
        with soundfile.SoundFile(file) as sound:
            for block in blocks():
                if sound.read(len(block), exchanged.name, always_2d=True).tobytes() != block.tobytes():
                    raise OSError(errno.EIO, "it reads back otherwise than it was written")


def _forget_date(file: BinaryIO) -> None:
    """Clear the date in the PEAK chunk of a float WAV: the same samples shall give the same bytes."""
    file.seek(0)
    place = file.read(256).find(b"PEAK")
    if place >= 0:
        file.seek(place + 12)  # name, size, version
        file.write(bytes(4))
