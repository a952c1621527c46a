"""Sound files: WAV and FLAC, and to read also Ogg, MP3, AIFF, AU and CAF <-> `Signal`. Used by `media.py` only.

Samples keep the numbers of the file: 24-bit sound comes as 24-bit integers, not scaled to [-1, 1]. libsndfile reads
a file that was cut off as a shorter one without a word, so the sizes that a header announces are checked here.
soundfile is given file objects, never names: it takes some names for a format, and hides why a write has failed.
"""

import importlib
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.signal import KINDS, Array, Signal, to_sample_type

log = logging.getLogger("lgsirens")

_SOUNDS = "WAV, FLAC, Ogg, MP3, AIFF, AU or CAF"
_BLOCK = 1 << 16  # samples that are converted at once
_USUAL_RATE = 44100
_UNKNOWN = 1 << 62  # a FLAC stream that does not know its length announces about 2^63 samples
_WAV_LIMIT = (1 << 32) - (1 << 16)  # bytes of samples; the sizes in a WAV header have 32 bits


@dataclass(frozen=True)
class SoundFormat:
    """What a file format can hold.

    Attributes:
        name: its name, for messages and for libsndfile.
        channels: most channels.
        highest_rate: most samples per second.
        fine_rate: above this many samples per second, only multiples of ten.
        subtypes: libsndfile's name of each sample type that the format keeps exactly.
    """

    name: str
    channels: int
    highest_rate: int
    fine_rate: int
    subtypes: dict[str, str]

    def holds_rate(self, rate: int) -> bool:
        return rate <= self.highest_rate and (rate <= self.fine_rate or rate % 10 == 0)

    def stored_type(self, dtype: str) -> str | None:
        """The type in which samples of type `dtype` are written; None if there is no such type."""
        stored: str | None = dtype
        while stored is not None and stored not in self.subtypes:
            stored = _STAND_INS.get(stored)
        return stored


# 8-bit samples of WAV are unsigned with silence at 128. Here they are int8 with silence at 0, as everywhere else.
FORMATS = {
    ".wav": SoundFormat(
        "WAV",
        KINDS["audio"].max_channels,
        2**31 - 1,
        2**31 - 1,
        {
            "int8": "PCM_U8",
            "int16": "PCM_16",
            "int24": "PCM_24",
            "int32": "PCM_32",
            "float32": "FLOAT",
            "float64": "DOUBLE",
        },
    ),
    ".flac": SoundFormat("FLAC", 8, 655_350, 65_535, {"int8": "PCM_S8", "int16": "PCM_16", "int24": "PCM_24"}),
}

# What is written instead of a type that a format does not have; the first three hold the same numbers.
_STAND_INS = {
    "uint8": "int16",
    "uint16": "int24",
    "float16": "float32",
    "int32": "int24",
    "float32": "int24",
    "float64": "int24",
}
_GAINS = {("int32", "int24"): 2.0**-8, **{(f"float{bits}", "int24"): 2.0**23 for bits in (16, 32, 64)}}

# Sample type by libsndfile's subtype, for those that decode to integers; the lossy ones decode to float32.
_SUBTYPES = {
    "PCM_S8": "int8",
    "PCM_U8": "int8",
    "PCM_16": "int16",
    "PCM_24": "int24",
    "PCM_32": "int32",
    "DOUBLE": "float64",
    "ULAW": "int16",
    "ALAW": "int16",
    "ALAC_16": "int16",
    "ALAC_20": "int24",
    "ALAC_24": "int24",
    "ALAC_32": "int32",
}
# libsndfile exchanges 8 and 24-bit samples in the upper bits of the next wider type.
_EXCHANGED = {"int8": "int16", "int24": "int32"}
_LOWER_BITS = 8


def looks_like_sound(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 12 bytes, better 4 KiB) is a sound that `read_sound` knows."""
    start = head[:4]
    if start in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if start == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    if start == b"OggS":
        return b"\x80theora" not in head  # a film
    if start in (b"fLaC", b".snd", b"caff"):
        return True
    return head[:3] == b"ID3" or _is_mpeg_frame(head)


def _is_mpeg_frame(head: bytes) -> bool:
    """A header of MPEG audio, layer II or III; that of layer I would also be the first bytes of UTF-16 text."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer, bit_rate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer in (1, 2) and bit_rate != 15 and rate != 3


def package_for_sound(dtype: str, channels: int) -> str:
    """Name of the optional package that reading and writing need."""
    return "soundfile"


def _soundfile(path: Path) -> Any:
    try:
        return importlib.import_module("soundfile")
    except (ImportError, OSError) as error:  # OSError: the package is there, but not the C library that it wraps
        raise MissingDependencyError(f"{path}: sound needs soundfile: pip install 'lgsirens[audio]'") from error


class _Quiet:
    """A file whose errors wait in `error`: one raised within libsndfile's callbacks is printed and lost."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # damaged files point before their beginning
            return self._file.tell()

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            return b""

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            return 0


# Reading


def read_sound(path: Path) -> Signal:
    """Read a sound: `[S, C]` in the sample type of the file, range -peak to peak, with its sampling rate.

    8-bit samples come as int8, 24-bit samples as 24-bit numbers in int32 (dtype "int24"), lossy formats as float32.

    Raises:
        SignalError: no sound, damaged or cut short, no samples, NaN or infinite samples, too many channels.
        MissingDependencyError: soundfile is missing.
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as file:
        if not looks_like_sound(file.read(4096)):
            raise SignalError(f"{path}: its content is no {_SOUNDS} sound; convert it to .wav or .flac")
        _check_complete(path, file)
        values, dtype, rate = _decode(path, file)
    if dtype == "int32":
        log.warning("%s: holds 32-bit integers; networks compute in float32, which keeps the upper 24 bits", path)
    try:
        return Signal.from_array(values, "audio", sampling_rate=rate, dtype=dtype)
    except SignalError as error:
        raise SignalError(f"{path}: {error}") from error


def _check_complete(path: Path, file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    end = _announced_end(file)
    if end is None or end <= size:
        return
    if _is_placeholder(end - file.tell()):
        log.warning("%s: its header does not say how long it is; it is read to its end", path)
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


def _is_placeholder(length: int) -> bool:
    """Whether a length is what programs write that cannot go back to the header: close to 2^32 or to 2^31."""
    return length > 0xFFFF_0000 or 0x7FFE_0000 < length <= 0x8000_0000


def _decode(path: Path, file: BinaryIO) -> tuple[Array, str, int]:
    """Samples `[S, C]`, their type in the file, and the sampling rate."""
    soundfile = _soundfile(path)
    file.seek(0)
    quiet = _Quiet(file)
    try:
        with soundfile.SoundFile(quiet) as sound:
            if sound.frames >= _UNKNOWN:  # soundfile fails to read what libsndfile cannot seek in
                raise SignalError(f"{path}: its header does not say how long it is; convert it with sox or ffmpeg")
            dtype = _SUBTYPES.get(sound.subtype, "float32")
            blocks = list(_blocks(sound, dtype))
            announced, rate, lossy = sound.frames, sound.samplerate, sound.format in ("MP3", "OGG")
    except SignalError:
        raise
    except Exception as error:  # errors of any type for damaged files
        raise quiet.error or SignalError(
            f"{path}: cannot be read, it is damaged: {_reason(error)}; get or save the file again"
        ) from error
    if quiet.error is not None:
        raise quiet.error
    if not blocks and not announced:
        raise SignalError(f"{path}: holds no samples, nothing can be encoded; get or save the file again")
    found = sum(map(len, blocks))
    if found < announced:
        _say_short(path, found, announced, lossy and found > 0)
    return np.concatenate(blocks), dtype, rate


def _blocks(sound: Any, dtype: str) -> Iterator[Array]:
    exchanged = _EXCHANGED.get(dtype, dtype)
    while len(block := sound.read(_BLOCK, dtype=exchanged, always_2d=True)):
        if exchanged != dtype:
            block >>= _LOWER_BITS
        yield block.astype(np.int8) if dtype == "int8" else block


def _say_short(path: Path, found: int, announced: int, lossy: bool) -> None:
    there = f"{found} of the {announced} samples that its header announces are there"
    if not lossy:
        raise SignalError(f"{path}: is cut short: {there}; get or save the file again")
    log.warning("%s: %s; it may be cut short", path, there)  # such a length may be an estimate: no reason to refuse


def _reason(error: Exception) -> str:
    """libsndfile's own words, where they are its; soundfile adds the address of the file object."""
    text = " ".join(str(getattr(error, "error_string", error)).split())
    return text.removeprefix("Error : ").rstrip(".") or type(error).__name__


# Writing


def check_sound(path: Path, channels: int, dtype: str) -> None:
    """Check, before any long work, that a sound file of this suffix can hold such samples (raises SignalError)."""
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise SignalError(f"{path}: the suffix names no sound that can be written; choose {', '.join(FORMATS)}")
    if channels > form.channels:
        raise SignalError(
            f"{path}: {form.name} holds at most {form.channels} channels, the sound has {channels}; choose .wav or .npy"
        )
    if form.stored_type(dtype) is None:
        raise SignalError(f"{path}: {form.name} cannot hold samples of type {dtype}; choose .npy")


def save_sound(path: Path, signal: Signal, name: Path | None = None) -> None:
    """Write a sound in the format that the suffix names, exactly to `path`, which is overwritten.

    Args:
        signal: values `[S, C]` in the units of its `dtype`; integers are rounded half to even and clipped.
        name: what messages call the file, if `path` is a temporary one.

    Raises:
        SignalError: the format cannot hold the signal.
        MissingDependencyError: soundfile is missing.
        OSError: the file cannot be written.
    """
    name = name or path
    check_sound(name, signal.channels, signal.dtype)
    form = FORMATS[name.suffix.lower()]
    target = form.stored_type(signal.dtype)
    assert target is not None  # checked above
    rate = _whole_rate(name, signal.sampling_rate)
    if not form.holds_rate(rate):
        raise SignalError(f"{name}: {form.name} cannot hold {rate} samples per second; choose .wav or .npy")
    _say_converted(name, signal, target)
    _encode(path, name, signal, form, target, rate)


def _whole_rate(name: Path, rate: Fraction | None) -> int:
    if rate is None:
        log.warning("%s: the sampling rate is not known; %d samples per second are written", name, _USUAL_RATE)
        return _USUAL_RATE
    whole = max(1, round(rate))
    if whole != rate:
        log.warning("%s: the sampling rate of %.6g per second is written as %d", name, float(rate), whole)
    return whole


def _say_converted(name: Path, signal: Signal, target: str) -> None:
    if target == signal.dtype:
        return
    notes = ""
    if signal.dtype.startswith("float") and not target.startswith("float") and max(map(abs, signal.value_range)) > 1:
        notes += ", those beyond [-1, 1] are cut"
    if (signal.dtype, target) in _GAINS:
        notes += "; .wav keeps them"
    log.warning("%s: %s samples are written as %s%s", name, signal.dtype, target, notes)


def _encode(path: Path, name: Path, signal: Signal, form: SoundFormat, target: str, rate: int) -> None:
    soundfile = _soundfile(name)
    width = np.dtype(_EXCHANGED.get(target, target)).itemsize
    container = "RF64" if form.name == "WAV" and signal.values.size * width > _WAV_LIMIT else form.name
    options = {"subtype": form.subtypes[target], "format": container}
    with path.open("w+b") as file:
        quiet = _Quiet(file)
        try:
            with soundfile.SoundFile(quiet, "w", rate, signal.channels, **options) as sound:
                for start in range(0, len(signal.values), _BLOCK):
                    sound.write(_exchanged(signal.values[start : start + _BLOCK], signal.dtype, target))
        except Exception as error:  # of any type: soundfile asserts that all has been written
            raise quiet.error or SignalError(
                f"{name}: cannot be encoded as {form.name}: {_reason(error)}; choose .npy"
            ) from error
        if quiet.error is not None:
            raise quiet.error
        _forget_date(file)


def _exchanged(values: Array, dtype: str, target: str) -> Array:
    """A block of samples as libsndfile takes them."""
    gain = _GAINS.get((dtype, target), 1.0)
    if gain != 1.0:
        values = values.astype(np.float64) * gain
    samples = to_sample_type(values, target)
    if target not in _EXCHANGED:
        return samples
    return samples.astype(_EXCHANGED[target]) << _LOWER_BITS


def _forget_date(file: BinaryIO) -> None:
    """Clear the date in the PEAK chunk of a float WAV: the same samples shall give the same bytes."""
    file.seek(0)
    place = file.read(256).find(b"PEAK")
    if place >= 0:
        file.seek(place + 12)  # name, size, version
        file.write(bytes(4))
