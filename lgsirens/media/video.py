"""Films by FFmpeg <-> `Signal` `[T, H, W, C]`.

Everything streams: one frame is decoded, reduced and stored before the next one comes, so a long film is never held
at full size. A first pass reads the timestamps only; it says which frames there should be, and at which times.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.errors import ConfigError, SignalError, require
from lgsirens.lazy import LazyValues
from lgsirens.media import image
from lgsirens.media.frames import bounds, conversion, gathered, packed, unpacked
from lgsirens.media.geometry import cropping, side_data, upright
from lgsirens.media.request import Request
from lgsirens.media.seeking import Seeking, can_seek
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.media.timetable import ASPECT_TAG, RATE_TAG, Timetable, tagged, timetable
from lgsirens.signal import Array, Signal
from lgsirens.system.console import note

_DEFAULT_RATE = Fraction(25)
# As ITU-T H.273 numbers them.
_BT709, _UNSPECIFIED, _RESERVED = 1, 2, (0, 3)
_MATRICES = (*range(8), 9)  # that FFmpeg converts; of those that are not stated it takes BT.601
_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 of constant luminance", 14: "ICtCp"}
_LIMITED = 1
_UNALIGNED = 1  # a flag of decoders
_LEFT_OUT = re.compile("MASTERING|LIGHT|AMBIENT|HDR|DOVI|ICC|STEREO|SPHERICAL")  # of side data
_MOST_CHANNELS = 4
_ATTACHED_PICTURE = 0x400  # a cover, as a disposition


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
        stream = _video_stream(path, container)
        if stream.codec_context is None:
            raise SignalError(f"{path}: its video codec is unknown, or the file is cut off; convert it to MP4")
        _say_what_is_left_out(path, container, stream)
        image.check_size(request, stream.codec_context.width, stream.codec_context.height, _MOST_CHANNELS)
        table = timetable(path, file, container, stream)
        crop = cropping(av, path, stream)
    container, stream = _begun(av, path)  # a second time, because not every container can be rewound
    with container:
        packets = (packet for packet in container.demux(stream) if packet.size or packet.dts is None)
        frames = chain.from_iterable(packet.decode() for packet in packets)  # an empty one would end the decoding
        first = next(frames, None)
        if first is None:
            raise SignalError(f"{path}: none of its frames can be decoded; get or save the file again")
        table = table.begun(path, first.pts)
        grid, rate = table.regular(path, stream.time_base)
        wanted = grid[slice(*bounds(path, request.frames, len(grid)))]
        data = side_data(first)
        if left := [name.lower().replace("_", " ") for name in data if _LEFT_OUT.match(name)]:
            note("%s: its %s is left out", path, ", ".join(left))
        turn = upright(path, data.get("DISPLAYMATRIX"))
        shown = partial(_shown, path, request.max_side, crop, turn)
        like = shown(first)
        values: Array | LazyValues
        if request.is_large((len(wanted), *like.shape), like.dtype) and can_seek(table):
            times = [time for index in wanted if (time := table.times[index]) is not None]
            source = Seeking(path, partial(_begun, av, path), table.keys, times, shown, like)
            values = LazyValues(source, str(path))
        else:
            request.check_bytes(len(wanted) * like.nbytes)
            found = _decoded(request, chain([first], frames), table, set(wanted.tolist()), shown)
            values = gathered(path, found, wanted, request.progress)
        signal = request.signal(values, "video", rate)
        aspect = tagged(stream, ASPECT_TAG) or stream.sample_aspect_ratio or Fraction(1)
        spacing = None if aspect == 1 else (1.0, 1.0, float(1 / aspect if turn[0] else aspect))
        return replace(signal, spacing=spacing, colour=_colour(stream.codec_context))


def _opened(av: Any, path: Path) -> Any:
    # A scheme and a list of protocols, because FFmpeg takes a name such as "concat:a" or a playlist for an address.
    return av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"}, metadata_errors="replace")


def _begun(av: Any, path: Path) -> tuple[Any, Any]:
    """An open film before its first frame, and the stream to decode."""
    container = _opened(av, path)
    stream = _video_stream(path, container)
    stream.thread_type = "AUTO"
    stream.codec_context.flags |= _UNALIGNED  # else the codec's own cropping is rounded at the left edge
    return container, stream


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


def _decoded(
    request: Request,
    frames: Iterable[Any],
    table: Timetable,
    wanted: set[int],
    shown: Callable[[Any], Array],
) -> Iterator[tuple[int, Array]]:
    """The wanted frames as they are shown, with their indices in the timetable."""
    path, times, index = request.path, table.times, 0
    for frame in frames:
        expected = times[index] if index < len(times) else None
        if expected is not None and frame.pts is not None and frame.pts < expected:
            continue  # shown by no player
        damaged = frame.is_corrupt and frame.pts not in table.joints
        if damaged or index >= len(times) or (None not in (expected, frame.pts) and frame.pts != expected):
            raise SignalError(f"{path}: frame {index} cannot be decoded; get or save the file again")
        if index in wanted:
            yield index, shown(frame)
        index += 1
    if index < len(times):
        raise SignalError(f"{path}: {index} of {len(times)} frames can be decoded; get or save the file again")


def _shown(
    path: Path, max_side: int | None, crop: tuple[slice, slice] | None, turn: tuple[bool, int, int], frame: Any
) -> Array:
    """A frame cropped, upright and reduced, `[H, W, C]`."""
    if (matrix := int(frame.colorspace)) not in _MATRICES:
        name = _OTHER_MATRICES.get(matrix, f"matrix {matrix} of ITU-T H.273")
        raise SignalError(f"{path}: its colours are stored as {name}, which is not read; convert it to BT.709")
    transposed, rows, columns = turn
    samples = unpacked(frame, max_side, crop)
    return (samples.swapaxes(0, 1) if transposed else samples)[::rows, ::columns]


def _colour(context: Any) -> tuple[int, int] | None:
    """Primaries and transfer characteristics of a stream; None if they are those of BT.709 or sRGB, or not stated."""
    primaries, transfer = (
        number if number not in _RESERVED and number < 256 else _UNSPECIFIED
        for number in map(int, (context.color_primaries, context.color_trc))
    )
    return image.declared_colour(primaries, transfer)


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
    signal, aspect = stored.signal, Fraction(1)
    known, (primaries, transfer) = signal.sampling_rate, signal.colour or (_BT709, _BT709)
    rate = (known or _DEFAULT_RATE).limit_denominator(1_000_000)  # containers hold two numbers of 31 bits
    if rate != known:
        note("%s: the frame rate is %s; written with %s frames/s", stored.path, known or "unknown", rate)
    alike = {"fflags": "bitexact"}  # else Matroska numbers its tracks at random
    with open_for_writing(target) as file, av.open(file, "w", format=container, options=alike) as film:
        stream = film.add_stream(codec, rate=rate, options=options)
        context, stream.pix_fmt = stream.codec_context, pixels
        context.time_base = 1 / rate
        stream.metadata[RATE_TAG] = f"{rate.numerator}/{rate.denominator}"
        if signal.spacing is not None:
            aspect = Fraction(signal.spacing[2] / signal.spacing[1]).limit_denominator(1000)
            context.sample_aspect_ratio = aspect
            if container == "matroska":  # PyAV does not give it to the container, FFV1 has it in each frame
                stream.metadata[ASPECT_TAG] = f"{aspect.numerator}/{aspect.denominator}"
        if pixels.startswith("yuv"):
            context.colorspace, context.color_range = _BT709, _LIMITED
        if pixels.startswith("yuv") or signal.colour:
            context.color_primaries, context.color_trc = primaries, transfer
        for number, samples in enumerate(frames):
            frame = packed(av, samples)
            frame.pts, frame.time_base = number, 1 / rate
            if number == 0:
                stream.height, stream.width = samples.shape[:2]
                graph = conversion(av, frame, pixels, aspect)
            graph.push(frame)
            film.mux(stream.encode(graph.pull()))
        film.mux(stream.encode(None))
