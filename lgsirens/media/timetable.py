"""Timetables of films: which frames there should be, and at which times, from timestamps alone."""

import math
import os
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
from lgsirens.system.console import counted, note

RATE_TAG, ASPECT_TAG = "LGSIRENS_FRAME_RATE", "LGSIRENS_SAMPLE_ASPECT_RATIO"  # fractions, in files of ours
_COARSE_CLOCK = Fraction(1, 1000)  # of Matroska: it rounds the rate of 60000/1001 away
_BROADCAST = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Timetable:
    """What a film says of its frames, in presentation order.

    Attributes:
        times: presentation times in the stream's units; all None if the file has not all.
        clock: the same, counted on where films are joined; empty if the file has not all.
        key: presentation time of the first frame that needs no other, None if that is not known.
        rates: frames per second that the file states, the likeliest first.
        joints: times of the last two frames of joined MPEG streams, if FFmpeg takes them for damaged.
    """

    times: Sequence[int | None]
    clock: Sequence[int]
    key: int | None
    rates: Sequence[Fraction]
    joints: frozenset[int | None]

    def begun(self, path: Path, first: int | None) -> "Timetable":
        """Without the frames before the first key frame that the decoder, which begins at the time `first`, lacks."""
        if not self.clock or first is None or self.key is None:
            return self
        lost = next(index for index, time in enumerate(self.times) if time >= min(first, self.key))  # type: ignore[operator]
        if lost:
            what = counted(lost, "frame")
            note("%s: %s before its first key frame cannot be decoded; left out", path, what)
        return replace(self, times=self.times[lost:], clock=self.clock[lost:])

    def regular(self, path: Path, time_base: Fraction) -> tuple[NDArray[np.int64], Fraction | None]:
        """Times on a grid: those of the file if a rate that it states fits them, else the nearest at its average rate.

        Returns:
            For each frame of the signal the index of the stored frame that it shows, and frames per second.
        """
        count, rates = len(self.times), self.rates
        ticks = np.array(self.clock, np.float64)
        if not self.clock or ticks[0] == ticks[-1]:
            return np.arange(count), rates[0] if rates else None
        ticks -= ticks[0]
        average = Fraction(count - 1, self.clock[-1] - self.clock[0]) / time_base
        for rate in (*rates, average.limit_denominator(1001) or average):
            grid = np.arange(count) / float(rate * time_base)
            if np.abs(ticks - grid).max() <= max(1.0, 0.5 * grid[1]):
                return np.arange(count), rate
        note("%s: its frame rate varies; resampled to the average, %.3f frames/s", path, rate)
        grid = np.arange(count) * (ticks[-1] / (count - 1))
        return np.searchsorted((ticks[1:] + ticks[:-1]) / 2, grid), rate


def timetable(path: Path, file: BinaryIO, container: Any, stream: Any) -> Timetable:
    """Read all timestamps of a stream (raises SignalError: no frames, or fewer than the file says)."""
    parts: list[list[Any]] = [[]]
    tail: list[Any] = []  # the last two packets
    joints: set[int | None] = set()
    key = latest = None
    stored = damaged = 0
    for packet in container.demux(stream):
        stored += packet.dts is not None or packet.size > 0  # the last packet is an empty one
        damaged += _is_damaged(stream, packet)
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.is_keyframe and packet.pts is not None:
            key = packet.pts if key is None else key
            if latest is not None and packet.pts < latest:  # within one film none is shown before what precedes it
                parts.append([])
                joints |= {last.pts for last in tail if last.is_corrupt}
                damaged -= sum(last.is_corrupt for last in tail)
                latest = None
        parts[-1].append(packet.pts)
        tail = [*tail[-1:], packet]
        latest = max((time for time in (latest, packet.pts) if time is not None), default=None)
    rates, times = _candidate_rates(stream), [time for part in parts for time in part]
    whole = _has_all_bytes(path, file)
    clock = [] if None in times else _joined(parts, round(1 / (rates[0] * stream.time_base)) if rates else 1)
    stated = stream.frames if "mp4" in container.format.name else 0  # of AVI it is a guess
    if stored < stated or damaged or (clock and not whole and _ends_early(stream, clock, rates)):
        there = f", {stored - damaged} of {stated} frames are there" if stated else ""
        raise SignalError(f"{path}: is cut off or damaged{there}; get or save the file again")
    if not times:
        raise SignalError(f"{path}: holds no frames; name another film")
    if len(parts) > 1:
        note("%s: is %d films joined; they follow one another", path, len(parts))
    ordered = [time for part in parts for time in sorted(part)] if clock else [None] * len(times)
    return Timetable(ordered, clock, key, rates, frozenset(joints))


def _joined(parts: Sequence[Sequence[int]], step: int) -> list[int]:
    """Sorted times; each part is shifted to begin a step after the end of the one before."""
    clock: list[int] = []
    for part in map(sorted, parts):
        shift = clock[-1] + step - part[0] if clock else 0
        clock += [time + shift for time in part]
    return clock


def _has_all_bytes(path: Path, file: BinaryIO) -> bool:
    """Whether a Matroska file is as long as it says: then it is not cut off, however long its last frame is shown."""
    head = file.read(256)
    place = head.find(b"\x18\x53\x80\x67") + 4  # the segment: its size follows, in as many bytes as it has zeros
    if place < 4 or not head[place:]:
        return False
    length = 9 - head[place].bit_length()
    size, unknown = int.from_bytes(head[place : place + length]) - (1 << 7 * length), (1 << 7 * length) - 1
    end = file.seek(place + length + size) if size != unknown else math.inf
    if file.read(4) == head[:4]:
        raise SignalError(f"{path}: is several films joined; join them with mkvmerge")
    return end <= file.seek(0, os.SEEK_END)


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
