"""Animated pictures that Pillow reads (GIF, PNG, WebP, AVIF) -> `Signal` `[T, H, W, C]`."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import SignalError, require
from lgsirens.media import image
from lgsirens.media.frames import PACKED, bounds, gathered, packed, reduced, unpacked
from lgsirens.media.request import Request
from lgsirens.signal import Array, Signal
from lgsirens.system.console import note


def read(request: Request, file: BinaryIO, name: str) -> Signal:
    """Read the frames of an animation, of the format that Pillow calls `name`, as a film."""
    if name == "GIF" and not file.read().rstrip(b"\0").endswith(b";"):
        raise ValueError("its end is missing")  # which Pillow takes for the end of the animation
    file.seek(0)
    with image.opened(request, file, name) as picture:
        return film(request, picture)


def film(request: Request, picture: Any) -> Signal:
    """The frames of an open animation, composed as a player shows them, at regular times.

    Raises:
        SignalError: a single picture, or `frames` beyond the end.
        Exception: of any type, for damaged files.
    """
    path, info = request.path, picture.info
    first = int(bool(getattr(picture, "default_image", False)))  # of PNG: it is no part of the animation
    if getattr(picture, "n_frames", 1) - first < 2:
        request.check(("image",))
    modes: set[str] = set()
    starts, durations = list[float](), list[float]()
    for number in range(first, picture.n_frames):
        picture.seek(number)
        picture.load()
        modes.add(picture.mode + "A" * ("transparency" in picture.info))
        starts.append(picture.info.get("timestamp", sum(durations)))
        durations.append(picture.info.get("duration", 0))
    target = ("L" if modes <= {"1", "L", "LA", "1A"} else "RGB") + "A" * any(mode[1:].endswith("A") for mode in modes)
    colours = image.profile_of(path, info["icc_profile"], target) if info.get("icc_profile") else None
    if colours is not None:
        note(image.CONVERTED, path)
    turned, _ = image.exif(picture)
    source, rate = _regular(path, np.array(starts, float), durations, 10 if picture.format == "GIF" else 1)
    start, stop = bounds(path, request.frames, len(source))
    wanted = source[start:stop]
    image.check_size(request, picture.width, picture.height, len(target))
    request.check_bytes(len(wanted) * picture.width * picture.height * len(target))

    def frames() -> Iterator[tuple[int, Array]]:
        for index in np.unique(wanted).tolist():
            picture.seek(first + index)
            frame = picture.convert(target)
            samples = np.asarray(frame if colours is None else colours.convert(frame))
            samples = image.turned_upright(samples.reshape(frame.height, frame.width, -1), turned)
            yield index, shrunk(path, samples, request.max_side)

    signal = request.signal(gathered(path, frames(), wanted, request.progress), "video", rate)
    return replace(signal, colour=info.get("colour"))


def _regular(
    path: Path, starts: NDArray[np.float64], durations: list[float], tick: int
) -> tuple[NDArray[np.int64], Fraction | None]:
    """The frames that are shown at regular times, and how many of them a second.

    Args:
        starts: milliseconds at which frames begin.
        durations: for how many they stay.
        tick: to how many the format rounds.
    """
    frames = np.arange(len(starts))
    if not starts[-1]:
        return frames, None
    if durations[-1] > max(durations[:-1]):
        note("%s: its last frame stays for %g s, which is left out", path, durations[-1] / 1000)
    # Periods in which no frame begins further from its time than by rounding, and the simplest rate among them.
    low = (1000 * frames[1:] / (starts[1:] + tick)).max()
    high = (1000 * frames[1:] / np.maximum(starts[1:] - tick, 1e-9)).min()
    if len(set(np.diff(starts))) == 1:
        return frames, Fraction(1000 / starts[1]).limit_denominator(1001)
    if low <= high:
        return frames, next(Fraction(ceil(low * d), d) for d in count(1) if ceil(low * d) <= high * d)
    rate = Fraction(1000 * frames[-1] / starts[-1]).limit_denominator(1001)
    note("%s: its frame rate varies; resampled to the average, %.3f frames/s", path, rate)
    return np.searchsorted((starts[1:] + starts[:-1]) / 2, frames * (starts[-1] / frames[-1])), rate


def shrunk(path: Path, samples: Array, max_side: int | None) -> Array:
    """A picture `[H, W, C]` with no side above `max_side`, as frames of films are reduced."""
    height, width = samples.shape[:2]
    if reduced(width, height, max_side) == (width, height):
        return samples
    if str(samples.dtype) not in PACKED:
        raise SignalError(f"{path}: {samples.dtype} pictures cannot be reduced; leave out max_side")
    return unpacked(packed(require("av", f"{path}: max_side", "video"), samples), max_side)
