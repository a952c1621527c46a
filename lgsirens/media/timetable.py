"""Timetables of films: which frames there should be, and at which times, from timestamps alone."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import SignalError
from lgsirens.media.ending import is_whole
from lgsirens.system.console import counted, note

RATE_TAG, ASPECT_TAG = "LGSIRENS_FRAME_RATE", "LGSIRENS_SAMPLE_ASPECT_RATIO"  # fractions, in files of ours
_COARSE_CLOCK = Fraction(1, 1000)  # of Matroska: it rounds the rate of 60000/1001 away
_BROADCAST = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Timetable:
    """What a film says of its frames, in presentation order.

    Attributes:
        times: presentation times of the stored frames in the stream's units; all None if the file has not all.
        shown: for each frame that is shown the index of the stored one; an empty packet shows the last one again.
        clock: when each one is shown, counted on where films are joined; empty if the file has not all times.
        keys: presentation times of the frames that need no other, as far as they are known, as they are stored.
        rates: frames per second that the file states, the likeliest first.
        joints: times of the last two frames of joined MPEG streams, if FFmpeg takes them for damaged.
    """

    times: Sequence[int | None]
    shown: NDArray[np.int64]
    clock: NDArray[np.float64]
    keys: Sequence[int]
    rates: Sequence[Fraction]
    joints: frozenset[int | None]

    def begun(self, path: Path, first: int | None) -> "Timetable":
        """Without the frames before the first key frame that the decoder, which begins at the time `first`, lacks."""
        if not self.clock.size or first is None or not self.keys:
            return self
        lost = next(index for index, time in enumerate(self.times) if time >= min(first, self.keys[0]))  # type: ignore[operator]
        if lost:
            what = counted(lost, "frame")
            note("%s: %s before its first key frame cannot be decoded; left out", path, what)
        kept = self.shown >= lost
        return replace(self, times=self.times[lost:], shown=self.shown[kept] - lost, clock=self.clock[kept])

    def regular(self, path: Path, time_base: Fraction) -> tuple[NDArray[np.int64], Fraction | None]:
        """Times on a grid: those of the file if a rate that it states fits them, else the nearest at its average rate.

        Returns:
            For each frame of the signal the index of the stored frame that it shows, and frames per second.
        """
        count, rates, ticks = len(self.shown), self.rates, self.clock - self.clock[:1]
        if not ticks.size or ticks[0] == ticks[-1]:
            return self.shown, rates[0] if rates else None
        average = Fraction(count - 1, int(ticks[-1])) / time_base
        for rate in (*rates, average.limit_denominator(1001) or average):
            grid = np.arange(count) / float(rate * time_base)
            if np.abs(ticks - grid).max() <= max(1.0, 0.5 * grid[1]):
                return self.shown, rate
        note("%s: its frame rate varies; resampled to the average, %.3f frames/s", path, rate)
        grid = np.arange(count) * (ticks[-1] / (count - 1))
        return self.shown[np.searchsorted((ticks[1:] + ticks[:-1]) / 2, grid)], rate


def timetable(path: Path, file: BinaryIO, container: Any, stream: Any) -> Timetable:
    """Read all timestamps of a stream (raises SignalError: no frames, or fewer than the file says)."""
    parts: list[list[Any]] = [[]]
    tail: list[Any] = []  # the last two packets
    joints: set[int | None] = set()
    keys: list[int] = []
    latest = None
    stored = damaged = end = 0
    for packet in container.demux(stream):
        stored += packet.dts is not None or packet.size > 0  # the last packet is an empty one
        damaged += _is_damaged(stream, packet)
        end = max(end, (packet.pos or 0) + packet.size)
        if packet.is_discard or (packet.size == 0 and packet.pts is None):
            continue
        if packet.is_keyframe and packet.size and packet.pts is not None:
            keys.append(packet.pts)
            if latest is not None and packet.pts < latest:  # within one film none is shown before what precedes it
                parts.append([])
                joints |= {last.pts for last in tail if last.is_corrupt}
                damaged -= sum(last.is_corrupt for last in tail)
                latest = None
        parts[-1].append((packet.pts, packet.size > 0))
        tail = [*tail[-1:], packet]
        latest = max((time for time in (latest, packet.pts) if time is not None), default=None)
    rates, timed = _candidate_rates(stream), all(time is not None for part in parts for time, _ in part)
    ordered = [entry for part in parts for entry in (sorted(part) if timed else part) if timed or entry[1]]
    whole = is_whole(path, file, container.format.name, end)
    clock = _joined(parts if timed else [], round(1 / (rates[0] * stream.time_base)) if rates else 1)
    stated = stream.frames if "mp4" in container.format.name else 0  # of AVI it is a guess
    early = whole is False or (clock and whole is None and _ends_early(stream, clock, rates))
    if stored < stated or damaged or early:
        there = f", {stored - damaged} of {stated} frames are there" if stated else ""
        raise SignalError(f"{path}: is cut off or damaged{there}; get or save the file again")
    times, shown = [time if timed else None for time, new in ordered if new], np.cumsum([new for _, new in ordered]) - 1
    if not times:
        raise SignalError(f"{path}: holds no frames; name another film")
    if len(parts) > 1:
        note("%s: is %d films joined; they follow one another", path, len(parts))
    return Timetable(times, np.maximum(shown, 0), np.array(clock, np.float64), keys, rates, frozenset(joints))


def _joined(parts: Sequence[Sequence[tuple[int, bool]]], step: int) -> list[int]:
    """Sorted times; each part is shifted to begin a step after the end of the one before."""
    clock: list[int] = []
    for part in map(sorted, parts):
        shift = clock[-1] + step - part[0][0] if clock else 0
        clock += [time + shift for time, _ in part]
    return clock


def _ends_early(stream: Any, times: Sequence[int], rates: Sequence[Fraction]) -> bool:
    """Whether the timestamps end before the duration that the file states: Matroska counts no frames."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found:
        stated = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    else:
        stated = 0 if stream.container.streams.audio else (stream.container.duration or 0) / 1e6
    longest = float(max(np.diff(times), default=0) * stream.time_base) or (1 / float(rates[0]) if rates else stated)
    late = stated - times[-1] * float(stream.time_base)
    return "matroska" in stream.container.format.name and late > 1.5 * longest + 0.002


def _is_damaged(stream: Any, packet: Any) -> bool:
    """Whether a packet is damaged, as far as it tells; FFmpeg shows FFV1 slices with a wrong checksum silently."""
    if packet.is_corrupt or stream.codec_context.name != "ffv1" or RATE_TAG not in stream.metadata:
        return bool(packet.is_corrupt)
    data = bytes(packet)  # of ours: each slice ends with its size (3 bytes), a zero and the checksum (4 bytes)
    while data:
        size = 8 + int.from_bytes(data[-8:-5], "big")
        # The checksum takes bits from the other end than that of zlib and starts from 0; of an intact slice it is 0.
        if size > len(data) or zlib.crc32(data[-size:].translate(_MIRRORED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return True
        data = data[:-size]
    return False


def tagged(stream: Any, tag: str) -> Fraction | None:
    """The fraction that a tag of ours holds, None if there is none."""
    found = re.fullmatch(r"([1-9]\d{0,9})/([1-9]\d{0,9})", stream.metadata.get(tag, ""))
    return Fraction(int(found[1]), int(found[2])) if found else None


def _candidate_rates(stream: Any) -> list[Fraction]:
    """Frames per second that the file states, the likeliest first."""
    rates = [rate for rate in (stream.average_rate, stream.base_rate, stream.guessed_rate) if rate]
    exact, near = tagged(stream, RATE_TAG), []
    if stream.time_base == _COARSE_CLOCK:
        near = [rate for rate in _BROADCAST if rates and abs(rates[0] / rate - 1) < Fraction(1, 10**5)]
    return [*([exact] if exact else []), *near, *rates]
