"""Frames of films and of folders: which are read, how they are reduced, and FFmpeg's frames as arrays `[H, W, C]`."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import ConfigError, SignalError
from lgsirens.signal import Array
from lgsirens.system.console import Progress

Frames = tuple[int | None, int | None] | None  # first frame and the one after the last; None for an open end

# Names of packed frames by sample type and number of channels.
PACKED = {
    "uint8": {1: "gray", 2: "ya8", 3: "rgb24", 4: "rgba"},
    "uint16": {1: "gray16le", 2: "ya16le", 3: "rgb48le", 4: "rgba64le"},
}


def check_options(frames: Frames, max_side: int | None) -> None:
    """Raise ConfigError for what no film can have."""
    if max_side is not None and max_side < 1:
        raise ConfigError(f"{max_side}: must be at least 1", "max_side")
    if frames is not None:
        start, stop = frames[0] or 0, frames[1]
        if start < 0 or (stop is not None and stop <= start):
            raise ConfigError(f"{start}:{stop}: hold no frame; give START:STOP with 0 <= START < STOP", "frames")


def bounds(path: Path, frames: Frames, count: int) -> tuple[int, int]:
    """First frame and the one after the last, of a film of `count` frames (raises SignalError if it is shorter)."""
    start, stop = frames or (0, count)
    start, stop = start or 0, count if stop is None else stop
    if start >= count or stop > count:
        raise SignalError(f"{path}: has {count} frames, not {start}:{stop}; choose frames within 0:{count}")
    return start, stop


def gathered(
    path: Path, found: Iterable[tuple[int, Array]], wanted: Array, progress: Progress, names: Sequence[Path] = ()
) -> Array:
    """Store frames that come with rising indices at all the places that want them; stop after the last one."""
    values: Array | None = None
    done = 0
    for index, samples in found:
        if values is None:
            values = np.empty((len(wanted), *samples.shape), samples.dtype)
            progress.start(len(wanted))
        if samples.shape != values.shape[1:] or samples.dtype != values.dtype:
            name, first = names[index] if names else path, _form(values[0])
            raise SignalError(f"{name}: frame {index} is {_form(samples)}, the first one is {first}; make all alike")
        while done < len(wanted) and wanted[done] == index:
            values[done] = samples
            done += 1
            progress.advance()
        if done == len(wanted):
            return values
    raise SignalError(f"{path}: frame {int(wanted[done])} cannot be decoded; get or save the file again")


def _form(samples: Array) -> str:
    height, width, channels = samples.shape
    return f"{width}x{height} with {channels} channels of {samples.dtype}"


def unpacked(frame: Any, max_side: int | None, crop: tuple[slice, slice] | None = None) -> Array:
    """Rows and columns of a frame `[H, W, C]` as gray or RGB, with alpha where it has it, of 8 or 16 bits; a view."""
    if crop is not None:
        import av

        return unpacked(packed(av, unpacked(frame, None)[crop]), max_side)
    parts = [part for part in frame.format.components if not part.is_alpha]
    alpha = len(frame.format.components) - len(parts)
    dtype = "uint16" if max(part.bits for part in parts) > 8 else "uint8"
    gray = len(parts) == 1 and not frame.format.has_palette
    channels = (1 if gray else 3) + alpha
    width, height = reduced(frame.width, frame.height, max_side)
    # Exact rounding and full chroma: the fast way is off by up to 3 levels and differs between processors.
    how = "AREA" if (width, height) != (frame.width, frame.height) else "BICUBIC"
    frame = frame.reformat(width, height, PACKED[dtype][channels], interpolation=interpolation(how))
    return _plane(frame, dtype)[:, : width * channels].reshape(height, width, channels)


def interpolation(name: str) -> int:
    """FFmpeg's flags of a kind of interpolation, without its short cuts."""
    from av.video.reformatter import Interpolation

    flags = (name, "FULL_CHR_H_INT", "FULL_CHR_H_INP", "ACCURATE_RND", "BITEXACT")
    return sum(int(Interpolation[flag]) for flag in flags)


def _plane(frame: Any, dtype: str) -> Array:
    """Plane of a packed frame `[H, row]`, rows with their padding."""
    plane, item = frame.planes[0], np.dtype(dtype).itemsize
    row = plane.line_size // item
    return np.frombuffer(plane, np.dtype(dtype).newbyteorder("<"))[: frame.height * row].reshape(frame.height, row)


def reduced(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Width and height with no side above `max_side`; larger frames keep their proportions."""
    side = max(width, height)
    if max_side is None or side <= max_side:
        return width, height
    return max(1, round(width * max_side / side)), max(1, round(height * max_side / side))


def packed(av: Any, samples: Array) -> Any:
    """A packed frame of gray or RGB with or without alpha; samples `[H, W, C]` uint8 or uint16."""
    height, width, channels = samples.shape
    dtype = str(samples.dtype)
    frame = av.VideoFrame(width, height, PACKED[dtype][channels])
    _plane(frame, dtype)[:, : width * channels] = samples.reshape(height, -1)
    return frame


def conversion(av: Any, frame: Any, pixels: str, aspect: Fraction) -> Any:
    """A graph of filters that gives frames such as this one another format, and pixels of this width over height.

    The matrix is that of BT.709; halved chroma lies where H.264 has it unless it is told, at the left of two pixels.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    place = "out_color_matrix=bt709:out_range=tv:out_h_chr_pos=0:out_v_chr_pos=128:" if pixels == "yuv420p" else ""
    scale = graph.add("scale", f"{place}flags={interpolation('BICUBIC')}")
    format, shape = graph.add("format", pixels), graph.add("setsar", f"{aspect.numerator}/{aspect.denominator}")
    graph.link_nodes(source, scale, format, shape, graph.add("buffersink")).configure()
    return graph
