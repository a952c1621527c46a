"""Films by FFmpeg <-> `Signal` `[T, H, W, C]`.

Everything streams: one frame is decoded, reduced and stored before the next one comes, so a long film is never held
at full size. A first pass reads the timestamps only; it says which frames there should be, and at which times.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import ConfigError, SignalError, require
from lgsirens.media.frames import bounds, gathered, interpolation, packed, unpacked
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import Array, Signal
from lgsirens.system.console import note

_DEFAULT_RATE = Fraction(25)

_COARSE_CLOCK = Fraction(1, 1000)  # of Matroska: it rounds the rate of 60000/1001 away
_RATE_TAG = "LGSIRENS_FRAME_RATE"
_BROADCAST = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
_BT709, _LIMITED = 1, 1
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ATTACHED_PICTURE = 0x400  # a cover, as a disposition


class _Timetable(NamedTuple):
    """What a film says of its frames before any is decoded.

    Attributes:
        times: presentation times in presentation order, in the stream's units; all None if the file has not all.
        source: for each frame of the signal, the index of the stored frame that it shows.
        rate: frames per second, None if the file does not say.
    """

    times: Sequence[int | None]
    source: NDArray[np.int64]
    rate: Fraction | None


def read_film(request: Request, file: BinaryIO) -> Signal:
    """Read the first video stream: upright frames `[T, H, W, C]` uint8 or uint16, and frames per second.

    Raises:
        SignalError: no video stream, no frames, fewer than it says, damaged, or `frames` beyond its end.
        MissingDependencyError: PyAV is missing.
        Exception: of FFmpeg, for damaged files.
    """
    path = request.path
    av = require("av", f"{path}: film", "video")
    with _opened(av, path) as container:
        table = _timetable(path, container, _video_stream(path, container))
    start, stop = bounds(path, request.frames, len(table.source))
    wanted = table.source[start:stop]
    with _opened(av, path) as container:  # a second time, because not every container can be rewound
        found = _decoded(request, container, table.times, set(wanted.tolist()))
        return request.signal(gathered(path, found, wanted, request.progress), "video", table.rate)


def _opened(av: Any, path: Path) -> Any:
    # A scheme and a list of protocols, because FFmpeg takes a name such as "concat:a" or a playlist for an address.
    return av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"}, metadata_errors="replace")


def _video_stream(path: Path, container: Any) -> Any:
    films = [stream for stream in container.streams.video if not int(stream.disposition) & _ATTACHED_PICTURE]
    if not films:
        hint = ", only sound; save its sound as .wav or .flac" if container.streams.audio else "; name a film"
        raise SignalError(f"{path}: holds no video stream{hint}")
    return films[0]


def _say_what_is_left_out(path: Path, container: Any, stream: Any) -> None:
    if "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")) and not any(
        part.is_alpha for part in stream.format.components
    ):
        note("%s: its alpha channel is left out", path)  # FFmpeg's own decoders of VP8 and VP9 do not know it
    if container.streams.audio:
        note("%s: its sound track is left out", path)
    if len(container.streams.video) > 1:
        note("%s: holds %d video streams, the first is read", path, len(container.streams.video))


def _timetable(path: Path, container: Any, stream: Any) -> _Timetable:
    if stream.codec_context is None:
        raise SignalError(f"{path}: its video codec is unknown, or the file is cut off; convert it to MP4")
    _say_what_is_left_out(path, container, stream)
    times: list[int | None] = []
    stored = damaged = 0
    for packet in container.demux(stream):
        stored += packet.dts is not None or packet.size > 0  # the last packet is an empty one
        damaged += _is_damaged(stream, packet)
        if packet.size > 0 and not packet.is_discard:
            times.append(packet.pts)
    known = sorted(time for time in times if time is not None)
    complete, rates = 0 < len(times) == len(known), _candidate_rates(stream)
    stated = stream.frames if "mp4" in container.format.name else 0  # of AVI it is a guess
    if stored < stated or damaged or (complete and _ends_early(container, stream, known, rates)):
        whole = f", {stored - damaged} of {stated} frames are there" if stated else ""
        raise SignalError(f"{path}: is cut off or damaged{whole}; get or save the file again")
    if not times:
        raise SignalError(f"{path}: holds no frames; name another film")
    if complete and known[0] < known[-1]:
        return _regular(path, stream, known, rates)
    return _Timetable(known if complete else [None] * len(times), np.arange(len(times)), rates[0] if rates else None)


def _ends_early(container: Any, stream: Any, times: list[int], rates: list[Fraction]) -> bool:
    """Whether the timestamps end before the duration that the file states: Matroska counts no frames."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found:
        stated = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    else:
        stated = 0 if container.streams.audio else (container.duration or 0) / 1e6
    longest = float(max(np.diff(times), default=0) * stream.time_base) or (1 / float(rates[0]) if rates else stated)
    late = stated - times[-1] * float(stream.time_base)
    return "matroska" in container.format.name and late > 1.5 * longest + 0.002


def _is_damaged(stream: Any, packet: Any) -> bool:
    """Whether a packet is damaged, as far as it tells; FFmpeg shows FFV1 slices with a wrong checksum silently."""
    if packet.is_corrupt or stream.codec_context.name != "ffv1" or _RATE_TAG not in stream.metadata:
        return bool(packet.is_corrupt)
    data = bytes(packet)  # of ours: each slice ends with its size (3 bytes), a zero and the checksum (4 bytes)
    while data:
        size = 8 + int.from_bytes(data[-8:-5], "big")
        # The checksum takes bits from the other end than that of zlib and starts from 0; of an intact slice it is 0.
        if size > len(data) or zlib.crc32(data[-size:].translate(_MIRRORED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return True
        data = data[:-size]
    return False


def _candidate_rates(stream: Any) -> list[Fraction]:
    """Frames per second that the file states, the likeliest first."""
    rates = [rate for rate in (stream.average_rate, stream.base_rate, stream.guessed_rate) if rate]
    tag = re.fullmatch(r"(\d{1,10})/([1-9]\d{0,9})", stream.metadata.get(_RATE_TAG, ""))
    near: list[Fraction] = []
    if stream.time_base == _COARSE_CLOCK:
        near = [rate for rate in _BROADCAST if rates and abs(rates[0] / rate - 1) < Fraction(1, 10**5)]
    return [*([Fraction(int(tag[1]), int(tag[2]))] if tag and int(tag[1]) else []), *near, *rates]


def _regular(path: Path, stream: Any, times: list[int], rates: list[Fraction]) -> _Timetable:
    """Times on a grid: those of the file if a rate that it states fits them, else the nearest at its average rate."""
    ticks = np.array(times, np.float64) - times[0]
    for rate in rates:
        grid = np.arange(len(times)) / float(rate * stream.time_base)
        if np.abs(ticks - grid).max() <= max(1.0, 0.5 * grid[1]):
            return _Timetable(times, np.arange(len(times)), rate)
    average = Fraction(len(times) - 1, times[-1] - times[0]) / stream.time_base
    rate = average.limit_denominator(1001) or average
    note("%s: its frame rate varies; resampled to the average, %.3f frames/s", path, rate)
    grid = np.arange(len(times)) * (ticks[-1] / (len(times) - 1))
    return _Timetable(times, np.searchsorted((ticks[1:] + ticks[:-1]) / 2, grid), rate)


def _decoded(
    request: Request, container: Any, times: Sequence[int | None], wanted: set[int]
) -> Iterator[tuple[int, Array]]:
    """The wanted frames, upright and reduced, with their indices in the timetable."""
    path, stream = request.path, _video_stream(request.path, container)
    stream.thread_type = "AUTO"
    index = turns = 0
    for frame in container.decode(stream):
        expected = times[index] if index < len(times) else None
        if expected is not None and frame.pts is not None and frame.pts < expected:
            continue  # shown by no player
        if frame.is_corrupt or index >= len(times) or (None not in (expected, frame.pts) and frame.pts != expected):
            raise SignalError(f"{path}: frame {index} cannot be decoded; get or save the file again")
        if index == 0:
            turns = _quarter_turns(path, frame.rotation)
        if index in wanted:
            yield index, np.rot90(unpacked(frame, request.max_side), turns)
        index += 1
    if index < len(times):
        raise SignalError(f"{path}: {index} of {len(times)} frames can be decoded; get or save the file again")


def _quarter_turns(path: Path, degrees: int) -> int:
    turns, rest = divmod(degrees, 90)
    if rest:
        note("%s: its rotation of %d degrees is not applied", path, degrees)
    return 0 if rest else turns


# Writing


def save_mp4(target: Path, stored: Stored, crf: int = 18) -> None:
    """Write frames `[H, W, C]` uint8, gray or RGB, as H.264.

    Args:
        crf: 0 (largest) to 51.

    Raises:
        ConfigError: no such `crf`.
        OSError: the disk is full.
        Exception: of FFmpeg.
    """
    if not 0 <= crf <= 51:
        raise ConfigError(f"{crf}: must be within 0 (largest file) and 51; 18 is the default", "crf")
    height, width = stored.signal.shape[1:]
    down, right = height % 2, width % 2
    if down or right:
        note(
            "%s: H.264 needs even sizes: %dx%d is written as %dx%d; the repeated last row or column is no part "
            "of the signal (.mkv needs none)",
            *(stored.path, width, height, width + right, height + down),
        )
    if stored.signal.channels == 1:
        note("%s: H.264 holds gray as colour; .mkv keeps one channel", stored.path)
    frames = (np.pad(samples, ((0, down), (0, right), (0, 0)), "edge") for samples in stored.frames())
    _encode(target, stored, frames, "mp4", "libx264", "yuv420p", crf=str(crf))


def save_mkv(target: Path, stored: Stored) -> None:
    """Write frames `[H, W, C]` uint8 or uint16, gray, RGB or RGBA, as FFV1, which keeps every bit; see `save_mp4`."""
    pixels = _FFV1[stored.target or stored.signal.dtype][stored.signal.channels]
    _encode(target, stored, stored.frames(), "matroska", "ffv1", pixels, level="3", slicecrc="1")


# 8-bit planar colour (gbrp) fails.
_FFV1 = {
    "uint8": {1: "gray", 3: "bgr0", 4: "bgra"},
    "uint16": {1: "gray16le", 3: "gbrp16le", 4: "gbrap16le"},
}


def _encode(
    target: Path, stored: Stored, frames: Iterable[Array], container: str, codec: str, pixels: str, **options: str
) -> None:
    av = require("av", f"{stored.path}: film", "video")
    known = stored.signal.sampling_rate
    rate = (known or _DEFAULT_RATE).limit_denominator(1_000_000)  # containers hold two numbers of 31 bits
    if rate != known:
        note("%s: the frame rate is %s; written with %s frames/s", stored.path, known or "unknown", rate)
    with open_for_writing(target) as file, av.open(file, "w", format=container) as film:
        stream = film.add_stream(codec, rate=rate, options=options)
        context, stream.pix_fmt = stream.codec_context, pixels
        context.time_base = 1 / rate
        stream.metadata[_RATE_TAG] = f"{rate.numerator}/{rate.denominator}"
        if pixels.startswith("yuv"):
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
        for number, samples in enumerate(frames):
            if number == 0:
                stream.height, stream.width = samples.shape[:2]
            frame = packed(av, samples).reformat(
                format=pixels, dst_colorspace=_BT709, interpolation=interpolation("BICUBIC")
            )
            frame.pts, frame.time_base = number, 1 / rate
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
