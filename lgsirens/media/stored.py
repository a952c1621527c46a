"""Stored: the samples of a signal as a file keeps them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lgsirens.media.frames import Progress
from lgsirens.signal import Array, Signal, to_sample_type

log = logging.getLogger("lgsirens")

_BAND_BYTES = 1 << 20


class Stored:
    """A signal in the sample type of a file, converted by bands: a large signal has room for one copy at most.

    Args:
        path: the name for messages.
        signal: values `[*shape, C]`.
        target: the sample type; None for that of the values.
        deeper: what keeps 16-bit integers, and what keeps all other types, for the line that says what is lost.
        progress: told after each of `frames`.
    """

    def __init__(
        self, path: Path, signal: Signal, target: str | None, deeper: tuple[str, str], progress: Progress | None
    ) -> None:
        self.path, self.signal, self._progress = path, signal, progress
        self._target = None if str(signal.values.dtype) == target == signal.dtype else target
        self._mapping = (1.0, 0.0) if self._target is None else _mapping(path, signal, self._target, deeper)

    def _band(self, start: int, stop: int) -> Array:
        values = self.signal.values[start:stop]
        if self._target is None:
            return np.ascontiguousarray(values)
        scale, offset = self._mapping
        return to_sample_type(values.astype(np.float64) * scale + offset, self._target)

    def whole(self) -> Array:
        """All samples `[*shape, C]`."""
        values = self.signal.values
        if self._target is None:
            return np.ascontiguousarray(values)
        samples = np.empty(values.shape, self._target)
        height = max(1, _BAND_BYTES // values[:1].nbytes)
        for top in range(0, len(values), height):
            samples[top : top + height] = self._band(top, top + height)
        return samples

    def frames(self) -> Iterator[Array]:
        """One frame `[H, W, C]` after the other."""
        count = len(self.signal.values)
        for index in range(count):
            yield self._band(index, index + 1)[0]
            if self._progress is not None:
                self._progress(index + 1, count)


def _mapping(path: Path, signal: Signal, target: str, deeper: tuple[str, str]) -> tuple[float, float]:
    """Factor and summand from values to stored numbers; other numbers than the signal's own only for 8 bits."""
    lo, hi = signal.value_range
    if target != "uint8" or signal.dtype == "uint8":
        return 1.0, 0.0
    if signal.dtype == "uint16":
        log.warning("%s: 16-bit samples are written with 8 bits; %s them", path, deeper[0])
        return 1 / 257, 0.0
    log.warning("%s: %s samples in [%g, %g] are written as 0 to 255; %s them", path, signal.dtype, lo, hi, deeper[1])
    return 255 / (hi - lo), -lo * 255 / (hi - lo)
