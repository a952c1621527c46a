"""Where a decode is put together out of the blocks that partitions are cut into, and how neighbours blend."""

import itertools
import math
import operator
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import ConfigError
from lgsirens.grid.box import Box, box_shape, intersect, slices
from lgsirens.grid.coordinates import fine_box, fine_positions
from lgsirens.grid.lattice import Lattice
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array


class Span(NamedTuple):
    """A block along one axis, in fine samples.

    Attributes:
        start: its first one.
        low, high: what is wanted of it.
        phase: where it begins in its tile, in whole numbers: blocks of the same see the same tile coordinates.
        weight: `[high - low]`, how much their partition has a say there; None: all.
    """

    start: int
    low: int
    high: int
    phase: int
    weight: NDArray[np.float32] | None


class Block(NamedTuple):
    """One block: the place of its partition, the number of its row among those at hand, its spans."""

    place: int
    row: int
    spans: tuple[Span, ...]

    @property
    def start(self) -> tuple[int, ...]:
        return tuple(span.start for span in self.spans)

    @property
    def phase(self) -> tuple[int, ...]:
        return tuple(span.phase for span in self.spans)


class Canvas:
    """The fine samples of a box, painted block by block.

    Args:
        reach: how far partitions reach beyond their borders, in samples.
        block: fine samples of a block along each dimension; blocks are counted from where their partition begins.
    """

    def __init__(
        self,
        representation: Representation,
        box: Box,
        scales: tuple[Fraction, ...],
        reach: tuple[int, ...],
        block: tuple[int, ...],
    ) -> None:
        self._lattice, self._scales, self._reach, self._block = representation.lattice, scales, reach, block
        self._fine = fine_box(box, scales)
        self._blank, shape = representation.signal.blank, box_shape(self._fine)
        self._mask = _mask(self._lattice, box, scales)
        start = 0.0 if any(reach) else self._blank
        self._values = np.full((*shape, representation.model.channels), start, dtype=np.float32)
        self._weights = np.zeros(shape, dtype=np.float32) if any(reach) else None
        self._spans: dict[tuple[int, int], list[Span]] = {}

    def blocks(self, places: NDArray[np.int64]) -> Iterator[Block]:
        """All blocks of partitions that meet the box."""
        for row, place in enumerate(places.tolist()):
            for spans in itertools.product(*self._spans_of(place)):
                yield Block(place, row, spans)

    def samples(self, places: Iterable[int]) -> int:
        """How many fine samples partitions paint."""
        return sum(math.prod(sum(s.high - s.low for s in axis) for axis in self._spans_of(place)) for place in places)

    def paint(self, block: Block, samples: Array) -> int:
        """Add what is wanted of an evaluated block `[*block, C]`; returns the number of its samples."""
        spans = block.spans
        part = samples[tuple([slice(span.low - span.start, span.high - span.start) for span in spans])]
        target = tuple(
            [slice(span.low - low, span.high - low) for span, (low, _) in zip(spans, self._fine, strict=True)]
        )
        if self._weights is None:
            self._values[target] = part
        else:
            ones = [np.ones(span.high - span.low, np.float32) if span.weight is None else span.weight for span in spans]
            weight = reduce(np.multiply.outer, ones)
            self._values[target] += part * weight[..., None]
            self._weights[target] += weight
        return math.prod(part.shape[:-1])

    def finished(self) -> tuple[Array, NDArray[np.bool_] | None]:
        """The values, and the mask of what is present (None: all of it)."""
        if self._weights is not None:
            self._values /= np.where(self._weights > 0, self._weights, 1)[..., None]
            if self._mask is not None:
                self._values[~self._mask] = self._blank
        return self._values, self._mask

    def _spans_of(self, place: int) -> list[list[Span]]:
        found = []
        for axis, number in enumerate(self._lattice.ids[place].tolist()):
            if (axis, number) not in self._spans:
                self._spans[axis, number] = list(self._cut(axis, number))
            found.append(self._spans[axis, number])
        return found

    def _cut(self, axis: int, number: int) -> Iterator[Span]:
        """The blocks of all partitions of one number along an axis."""
        tile, reach, scale, size = self._lattice.tile[axis], self._reach[axis], self._scales[axis], self._block[axis]
        low, high = number * tile, (number + 1) * tile
        ((first, last),) = fine_box(((low - reach, high + reach),), (scale,))
        bottom, top = self._fine[axis]
        for start in range(first + max(0, bottom - first) // size * size, min(last, top), size):
            begin, end = max(start, first, bottom), min(start + size, last, top)
            phase = (2 * start + 1) * scale.denominator - (2 * low + 1) * scale.numerator
            weight = None
            if reach:
                position = fine_positions(np.array(begin), end - begin, scale)
                inside = np.minimum(position - (low - 0.5), (high - 0.5) - position)
                weight = np.clip(0.5 + inside / (2 * reach), 0, 1).astype(np.float32)
            yield Span(start, begin, end, phase, weight)


def reach_of(representation: Representation, width: int | None, scales: tuple[Fraction, ...]) -> tuple[int, ...]:
    """How far partitions reach beyond their borders along each axis, in samples, for `--blend width`.

    Along an axis that the first signal filled with one partition the reach is at most half of it.

    Raises:
        ConfigError: the width is no whole number from 0 to half a partition.
    """
    lattice = representation.lattice
    if width is None:
        tiled = representation.coordinates.kind == "tile"
        axes = zip(lattice.halo, lattice.tile, scales, strict=True)
        return tuple(min(halo, tile // 2) if tiled and scale != 1 else 0 for halo, tile, scale in axes)
    try:
        width = operator.index(width)
    except TypeError:
        width = -1
    if width < 0:
        raise ConfigError("give a whole number of samples, 0 or more", "blend")
    reach = []
    for tile, size in zip(lattice.tile, representation.coordinates.size, strict=True):
        if 2 * width > tile and size > tile:
            raise ConfigError(f"blend {width}: partitions are {tile} samples wide; give at most {tile // 2}")
        reach.append(min(width, tile // 2))
    return tuple(reach)


def _mask(lattice: Lattice, box: Box, scales: tuple[Fraction, ...]) -> NDArray[np.bool_] | None:
    """The fine samples of a box that partitions own; None: all of them."""
    places, fine = lattice.meeting(box), fine_box(box, scales)
    if len(places) == math.prod(-(-high // t) - low // t for (low, high), t in zip(box, lattice.tile, strict=True)):
        return None
    mask = np.zeros(box_shape(fine), dtype=bool)
    for place in places:
        mask[slices(intersect(fine_box(lattice.box(place), scales), fine), fine)] = True
    return mask
