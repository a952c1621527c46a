"""Stored: the samples of a signal as a file keeps them, and the file that codecs write them to."""

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.grid.box import Box
from lgsirens.lazy import VALUES_AT_ONCE, LazyValues, regions
from lgsirens.signal import UNSIGNED_TYPES, Array, Signal, array_type, integer_limits, to_sample_type
from lgsirens.system.console import Progress

_BAND_BYTES = 1 << 20


class Stored:
    """A signal in the sample type of a file, converted by bands: a large signal has room for one copy at most.

    Args:
        path: the name for messages.
        signal: values `[*shape, C]`.
        target: the sample type; None for that of the values.
        progress: told of each of `frames`.
        at_once: of a signal that is read by region, how many values are read at once.
    """

    def __init__(
        self, path: Path, signal: Signal, target: str | None, progress: Progress, at_once: int = VALUES_AT_ONCE
    ) -> None:
        self.path, self.signal, self._progress, self._at_once = path, signal, progress, at_once
        self.target = None if str(signal.values.dtype) == target == signal.dtype else target
        self._scale, self._offset = _mapping(signal, target)

    def whole(self) -> Array:
        """All samples `[*shape, C]`."""
        values = self.signal.values
        if self.target is None:
            return np.ascontiguousarray(values)
        samples = np.empty(values.shape, self.dtype)
        start = 0
        for band in self.bands():
            samples[start : start + len(band)] = band
            start += len(band)
        return samples

    @property
    def by_region(self) -> bool:
        """Whether the signal is not in memory, so that it is to be written part by part."""
        return isinstance(self.signal.values, LazyValues)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the arrays of samples."""
        return self.signal.values.dtype if self.target is None else array_type(self.target)

    def bands(self) -> Iterator[Array]:
        """Samples `[n, ..., C]`, band after band along the first axis, each of about a megabyte, or of one row."""
        values = self.signal.values
        return self.blocks(max(1, _BAND_BYTES * len(values) // values.nbytes))

    def blocks(self, length: int) -> Iterator[Array]:
        """Samples `[length, ..., C]` or fewer, one block after the other along the first axis."""
        for values in self._read():
            for start in range(0, len(values), length):
                yield self._converted(values[start : start + length])

    def parts(self, chunks: Sequence[int], first: int = 0, step: int = 1) -> Iterator[tuple[Box, Array]]:
        """Boxes of whole chunks `[*chunk]`, row after row of them, with their samples; those at the edges are cut.

        Args:
            first: the first box.
            step: from one box to the next.
        """
        at_once = max(self._at_once, math.prod(chunks) * self.signal.channels)
        for box in itertools.islice(regions(self.signal.values, at_once, chunks), first, None, step):
            yield box, self._converted(self.signal.read(box))

    def _read(self) -> Iterator[Array]:
        """Values as they are, so many at once as may be, and of whole chunks where that is enough for one."""
        values = self.signal.values
        if not isinstance(values, LazyValues):
            yield values
            return
        rows, chunk = max(1, self._at_once * len(values) // values.size), (values.chunks or (1,))[0]
        step = max(rows - rows % chunk, min(rows, chunk))
        for start in range(0, len(values), step):
            yield values[start : start + step]

    def _converted(self, values: Array) -> Array:
        if self.target is None:
            return np.ascontiguousarray(values)
        samples = np.empty(values.shape, self.dtype)
        height = max(1, _BAND_BYTES * len(values) // values.nbytes)  # what lies between has eight bytes a value
        for start in range(0, len(values), height):
            band = values[start : start + height].astype(np.float64) * self._scale + self._offset
            samples[start : start + height] = to_sample_type(band, self.target)
        return samples

    def frames(self) -> Iterator[Array]:
        """One frame `[H, W, C]` after the other."""
        self._progress.start(len(self.signal.values))
        for block in self.blocks(1):
            yield block[0]
            self._progress.advance()


def _mapping(signal: Signal, target: str | None) -> tuple[float, float]:
    """Factor and summand from values to stored numbers; numbers stay as they are wherever the type can hold them."""
    lo, hi = signal.value_range
    if target is not None and target.startswith("uint") and signal.dtype in UNSIGNED_TYPES:
        return integer_limits(target)[1] / integer_limits(signal.dtype)[1], 0.0
    if target == "uint8" and signal.dtype != "uint8":
        return 255 / (hi - lo), -lo * 255 / (hi - lo)
    if target == "int24" and signal.dtype == "int32":
        return 2.0**-8, 0.0
    if target == "int24" and signal.dtype.startswith("float"):
        return 2.0**23, 0.0
    return 1.0, 0.0


class _Swallowing(io.FileIO):
    """A file that goes on after a write that failed, without a descriptor: codecs that write to it themselves miss
    a full disk, and those that are told of one print the error or lose it."""

    error: OSError | None = None

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return len(data)


@contextmanager
def open_for_writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for a codec; what could not be written is raised in the end (OSError)."""
    raw = _Swallowing(path, "wb+")
    try:
        with io.BufferedRandom(raw) as file:
            yield file
    finally:
        if raw.error is not None:
            raise raw.error
