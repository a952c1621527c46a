"""Boxes of positions: half-open integer ranges, one per dimension, always absolute.

A position may be negative after an extension; a negative number never means "from the end".
"""

import math
import operator
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import RegionError
from lgsirens.system.console import counted

Box = tuple[tuple[int, int], ...]
Region = str | Sequence[slice | tuple[int, int]]

LARGEST_POSITION = 1 << 31

_END = r"([+-]?\d{1,18}(?:(?:\.\d{1,18})?s)?)?"  # a position, or a time in seconds
_RANGE = re.compile(rf"\s*{_END}:{_END}\s*")


def as_region(region: Region, extent: Box, rate: Fraction | None = None, name: str = "region") -> Box:
    """A region such as `"100:300, 50:"` as a box: `start:stop` per dimension, rows first.

    >>> as_region("2:8, :-1", ((0, 10), (-5, 5)))
    ((2, 8), (-5, -1))
    >>> as_region("1.5s:", ((0, 8000),), rate=Fraction(2000))
    ((3000, 8000),)

    Args:
        region: text, or a slice or pair for each dimension; an end left out is the border of `extent`. Along the first
            dimension an end may be a time in seconds if there is a sampling rate.
        extent: the box that the region must lie in.
        rate: samples per second along the first dimension.
        name: what the ranges are, for messages.

    Raises:
        RegionError: no such ranges, another number of them than dimensions, an empty region, or one outside `extent`.
    """
    try:
        parts = region.split(",") if isinstance(region, str) else region
        ranges = [_ends(part, rate if axis == 0 else None) for axis, part in enumerate(parts)]
    except (TypeError, ValueError) as error:
        raise RegionError(f"{name} {region!r}: {error}; give start:stop, such as 100:300, per dimension") from None
    if len(ranges) != len(extent):
        given, wanted = counted(len(ranges), "range"), counted(len(extent), "dimension")
        raise RegionError(f"{name} {region!r} has {given}, the signal {wanted}; give start:stop for each")
    box = tuple(
        (low if start is None else start, high if stop is None else stop)
        for (start, stop), (low, high) in zip(ranges, extent, strict=True)
    )
    if is_empty(box) or not contains(extent, box):
        within = format_box(extent)
        raise RegionError(f"{name} {format_box(box)} is empty or outside what is encoded; choose one within {within}")
    return box


def _ends(part: str | slice | tuple[int, int], rate: Fraction | None) -> tuple[int | None, ...]:
    if isinstance(part, str):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part.strip()!r} is no range of whole numbers")
        return tuple(_position(end, rate) for end in match.groups())
    if isinstance(part, slice) and part.step not in (None, 1):
        raise ValueError("a step is not possible")
    start, stop = (part.start, part.stop) if isinstance(part, slice) else part
    return tuple(None if end is None else operator.index(end) for end in (start, stop))


def _position(end: str | None, rate: Fraction | None) -> int | None:
    if end is None or not end.endswith("s"):
        return None if end is None else int(end)
    if rate is None:
        raise ValueError("times need a sampling rate, which there is not")
    return round(Fraction(end[:-1]) * rate)


def format_box(box: Box) -> str:
    """`start:stop` per dimension, as `as_region` reads it."""
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


def boxes_of(mask: NDArray[np.bool_], first: Sequence[int]) -> list[Box]:
    """Disjoint boxes that together are where a mask, whose first sample lies at `first`, is true.

    >>> boxes_of(np.array([[True, True], [True, False]]), (0, 5))
    [((0, 1), (5, 7)), ((1, 2), (5, 6))]
    """
    if not mask.ndim:
        return [()] if mask else []
    changes = (mask[1:] != mask[:-1]).any(axis=tuple(range(1, mask.ndim)))
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(mask)]
    rest = [boxes_of(mask[start], first[1:]) for start in edges[:-1]]
    runs = [(first[0] + start, first[0] + stop) for start, stop in pairwise(edges)]
    return [(run, *box) for run, boxes in zip(runs, rest, strict=True) for box in boxes]


def shifted(box: Box, offset: Sequence[int]) -> Box:
    """The box further on along each axis."""
    return tuple((low + by, high + by) for (low, high), by in zip(box, offset, strict=True))


def grown(box: Box, margin: tuple[int, ...]) -> Box:
    """The box with a margin along each axis."""
    return tuple((low - more, high + more) for (low, high), more in zip(box, margin, strict=True))
