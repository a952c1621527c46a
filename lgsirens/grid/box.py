"""Boxes of positions: half-open integer ranges, one per dimension, always absolute.

A position may be negative after an extension; a negative number never means "from the end".
"""

import math
import operator
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from lgsirens.errors import RegionError
from lgsirens.system.console import counted

Box = tuple[tuple[int, int], ...]
Region = str | Sequence[slice | tuple[int, int]]

LARGEST_POSITION = 1 << 31

_TIME = re.compile(r"([+-]?\d{1,18}(?:\.\d{1,18})?)s(?![\w.])")
_RANGE = re.compile(r"([+-]?\d{1,18})?:([+-]?\d{1,18})?")


def parse_region(text: str, extent: Box, rate: Fraction | None = None, name: str = "region") -> Box:
    """Read a region such as `"100:300, 50:"`: `start:stop` per dimension, rows first.

    Along the first dimension an end may be a time, such as `1.5s`, if there is a sampling rate.

    Args:
        text: one range per dimension; an empty end means the border of `extent`.
        extent: the box that the region must lie in.
        rate: samples per second along the first dimension.
        name: what the ranges are, for messages.

    Raises:
        RegionError: malformed text, wrong number of dimensions, an empty region, or one outside `extent`.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(extent):
        raise RegionError(
            f"{name} {text!r} has {counted(len(parts), 'range')}, the signal {counted(len(extent), 'dimension')}; "
            f"give start:stop for each, within {format_box(extent)}"
        )
    bounds = []
    for axis, (part, (low, high)) in enumerate(zip(parts, extent, strict=True)):
        if "s" in part and axis == 0:
            part = _times_to_positions(part, rate, text)
        match = _RANGE.fullmatch(part)
        if match is None:
            raise RegionError(f"{name} {text!r}: {part!r} is not start:stop with whole numbers, such as 100:300")
        start, stop = match.groups()
        bounds.append((low if start is None else int(start), high if stop is None else int(stop)))
    return check_region(tuple(bounds), extent, name)


def _times_to_positions(part: str, rate: Fraction | None, text: str) -> str:
    if rate is None:
        raise RegionError(f"region {text!r}: times need a sampling rate, this signal has none; give sample numbers")
    return _TIME.sub(lambda time: str(round(Fraction(time.group(1)) * rate)), part)


def check_region(region: Box, extent: Box, name: str = "region") -> Box:
    """Return `region` if it is not empty and lies in `extent`, else raise RegionError naming the range."""
    if len(region) != len(extent):
        raise RegionError(
            f"{name} {format_box(region)} has {counted(len(region), 'dimension')}, the signal has {len(extent)}"
        )
    for start, stop in region:
        if start >= stop:
            raise RegionError(f"{name} {format_box(region)} is empty: {start}:{stop} must have start < stop")
    if not contains(extent, region):
        raise RegionError(
            f"{name} {format_box(region)} is outside what is encoded; choose one within {format_box(extent)}"
        )
    return region


def as_region(region: Region, extent: Box, rate: Fraction | None = None, name: str = "region") -> Box:
    """A region given as text, slices or pairs, checked against `extent` (raises as `parse_region`)."""
    if isinstance(region, str):
        return parse_region(region, extent, rate, name)
    try:
        ends = [(part.start, part.stop, part.step) if isinstance(part, slice) else (*part, None) for part in region]
        if len(ends) != len(extent):
            raise RegionError(
                f"{name} {region!r} has {counted(len(ends), 'range')}, the signal {counted(len(extent), 'dimension')}"
            )
        if any(step not in (None, 1) for _, _, step in ends):
            raise RegionError(f"{name} {region!r}: a step is not possible; decode the range and subsample it")
        bounds = tuple(
            (low if start is None else operator.index(start), high if stop is None else operator.index(stop))
            for (start, stop, _), (low, high) in zip(ends, extent, strict=True)
        )
    except (TypeError, ValueError):
        raise RegionError(f'{name} {region!r}: give "start:stop" per dimension, or a slice or pair for each') from None
    return check_region(bounds, extent, name)


def format_box(box: Box) -> str:
    """`start:stop` per dimension, as `parse_region` reads it."""
    return ",".join(f"{start}:{stop}" for start, stop in box)


def box_shape(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


def box_size(box: Box) -> int:
    return math.prod(box_shape(box))


def box_of_shape(shape: Sequence[int]) -> Box:
    return tuple((0, size) for size in shape)


def contains(outer: Box, inner: Box) -> bool:
    return all(o[0] <= i[0] and i[1] <= o[1] for o, i in zip(outer, inner, strict=True))


def is_empty(box: Box) -> bool:
    return any(start >= stop for start, stop in box)


def intersect(a: Box, b: Box) -> Box:
    """The common box; empty ranges (start >= stop) where there is none."""
    return tuple((max(x[0], y[0]), min(x[1], y[1])) for x, y in zip(a, b, strict=True))


def slices(box: Box, origin: Box) -> tuple[slice, ...]:
    """Where `box` lies in an array whose first sample is that of `origin`."""
    return tuple(slice(start - first, stop - first) for (start, stop), (first, _) in zip(box, origin, strict=True))


def bounding_box(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all `boxes` (at least one)."""
    ranges = zip(*boxes, strict=True)
    return tuple((min(r[0] for r in axis), max(r[1] for r in axis)) for axis in ranges)


def grown(box: Box, margin: tuple[int, ...]) -> Box:
    """The box with a margin along each axis."""
    return tuple((low - more, high + more) for (low, high), more in zip(box, margin, strict=True))
