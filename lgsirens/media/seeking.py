"""Films by region: a frame is decoded from the nearest key frame before it, its neighbours from where that has led."""

import bisect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lgsirens.errors import SignalError
from lgsirens.media.timetable import Timetable
from lgsirens.media.unchanged import UnchangedFile
from lgsirens.signal import Array


def can_seek(table: Timetable) -> bool:
    """Whether each frame has a time of its own, by which it can be found."""
    return None not in table.times and len(set(table.times)) == len(table.times) and not table.joints


class Seeking:
    """The frames `[T, H, W, C]` of a film, decoded one by one.

    Args:
        begin: opens the film before its first frame.
        keys: presentation times of key frames.
        times: of each frame.
        shown: a decoded frame as samples `[H, W, C]`, such as `like`.
    """

    def __init__(
        self,
        path: Path,
        begin: Callable[[], tuple[Any, Any]],
        keys: Sequence[int],
        times: Sequence[int],
        shown: Callable[[Any], Array],
        like: Array,
    ) -> None:
        self._file, self._begin, self._shown = UnchangedFile(path), begin, shown
        self._keys, self._times = sorted(keys), times
        self.dtype, self.shape, self.chunks = like.dtype, (len(times), *like.shape), (1, *like.shape)
        self._container, self._stream = begin()
        self._frames, self._last = self._decoded(), -(1 << 63)

    def __getitem__(self, chunk: tuple[slice, ...]) -> Array:
        index = chunk[0].start
        with self._file.reading():
            frame = self._found(self._times[index])
        if frame is None or frame.is_corrupt:
            raise SignalError(f"{self._file.path}: frame {index} cannot be decoded; get or save the file again")
        samples = self._shown(frame)
        if samples.shape != self.shape[1:] or samples.dtype != self.dtype:
            raise SignalError(f"{self._file.path}: frame {index} is {samples.shape}, others {self.shape[1:]}; cut it")
        return samples[None]

    def _found(self, time: int) -> Any:
        """The frame of a time; None if there is none."""
        place = bisect.bisect_right(self._keys, time)
        ahead = self._last < time and (not place or self._keys[place - 1] <= self._last)
        while not ahead and place > 0:
            place -= 1
            self._container.seek(self._keys[place], stream=self._stream)
            self._frames, self._last = self._decoded(), -(1 << 63)
            # What is stored after a key frame and shown before it may need others, and not every file is sought well.
            first = self._until(self._keys[place])
            if first is not None and self._last == self._keys[place]:
                if self._last == time:
                    return first
                ahead = True
        if not ahead:
            self._container.close()
            self._container, self._stream = self._begin()
            self._frames = self._decoded()
        frame = self._until(time)
        return frame if self._last == time else None

    def _until(self, time: int) -> Any:
        """The first frame at or after a time."""
        for frame in self._frames:
            if frame.pts is not None and frame.pts >= time:
                self._last = frame.pts
                return frame
        return None

    def _decoded(self) -> Iterator[Any]:
        packets = (packet for packet in self._container.demux(self._stream) if packet.size or packet.dts is None)
        for packet in packets:
            yield from packet.decode()
