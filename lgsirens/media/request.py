"""What the reader of a format is asked for, and the signal that it answers with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import SignalError
from lgsirens.lazy import LazyValues
from lgsirens.media.frames import Frames
from lgsirens.signal import Array, Signal
from lgsirens.system.console import Progress
from lgsirens.system.hardware import format_bytes

DEFAULT_LIMIT = 1 << 30
_LARGEST_RATIO = 1000  # of what reading takes to the bytes of the file, where neither is asked about

SMALL_BYTES = 64 << 20  # of samples that are read whole


@dataclass(frozen=True)
class Request:
    """A file to read, and how; the attributes are the arguments of `files.read`.

    Attributes:
        read: reads another file, for formats that consist of several.
        dataset: the array that is named, of several in the file.
        stays: whether the file is there as long as the signal is.
        max_memory: bytes that reading may take, however small the file is.
    """

    path: Path
    kind: str | None
    value_range: tuple[float, float] | None
    frames: Frames
    max_side: int | None
    progress: Progress
    read: Callable[[Path], Signal]
    dataset: str | None = None
    stays: bool = True
    max_memory: int = DEFAULT_LIMIT

    def is_large(self, shape: Sequence[int], dtype: Any) -> bool:
        """Whether so many samples stay in the file, to be read by region."""
        return self.stays and math.prod(shape) * np.dtype(dtype).itemsize > SMALL_BYTES

    def signal(
        self,
        values: Array | LazyValues,
        kind: str | None,
        sampling_rate: Fraction | int | None = None,
        dtype: str | None = None,
    ) -> Signal:
        """`Signal.from_array` with the value range asked for, and with errors that name the file or the option."""
        try:
            return Signal.from_array(values, kind, self.value_range, sampling_rate, dtype)
        except SignalError as error:
            if (error.option is not None and self.value_range is not None) or str(error).startswith(f"{self.path}: "):
                raise
            raise SignalError(f"{self.path}: {error}") from error

    def check(self, kinds: tuple[str, ...]) -> None:
        """Raise SignalError if a file of these kinds is no answer."""
        if self.kind not in (None, *kinds):
            raise SignalError(f"{self.path}: is of kind {kinds[0]}, not {self.kind!r}; give its own kind, or none")
        possible = (self.kind,) if self.kind else kinds
        option = "frames" if self.frames is not None else "max_side" if self.max_side is not None else None
        if option and "video" not in possible:
            raise SignalError(f"{self.path}: {option} is for films, this is of kind {possible[0]}; leave it out")

    def check_bytes(self, count: int) -> None:
        """Raise SignalError if so many bytes are more than may be taken, and far more than a file of this size says."""
        size = self.path.stat().st_size
        if count > max(self.max_memory, _LARGEST_RATIO * size):
            what = f"{format_bytes(size)} that take {format_bytes(count)} to read"
            raise SignalError(f"{self.path}: is {what}; give max_memory if it is no trap")
