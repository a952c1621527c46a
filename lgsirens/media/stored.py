"""Stored: the samples of a signal as a file keeps them, and the file that codecs write them to."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

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
    """

    def __init__(self, path: Path, signal: Signal, target: str | None, progress: Progress) -> None:
        self.path, self.signal, self._progress = path, signal, progress
        self.target = None if str(signal.values.dtype) == target == signal.dtype else target
        self._scale, self._offset = _mapping(signal, target)

    def whole(self) -> Array:
        """All samples `[*shape, C]`."""
        values = self.signal.values
        if self.target is None:
            return np.ascontiguousarray(values)
        samples = np.empty(values.shape, array_type(self.target))
        height = max(1, _BAND_BYTES // values[:1].nbytes)
        for number, band in enumerate(self.blocks(height)):
            samples[number * height : (number + 1) * height] = band
        return samples

    def blocks(self, length: int) -> Iterator[Array]:
        """Samples `[length, ..., C]`, one block after the other along the first axis; the last one may be shorter."""
        for start in range(0, len(self.signal.values), length):
            block = self.signal.values[start : start + length]
            if self.target is None:
                yield np.ascontiguousarray(block)
            else:
                yield to_sample_type(block.astype(np.float64) * self._scale + self._offset, self.target)

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
