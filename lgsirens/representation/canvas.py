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
from lgsirens.grid.coordinates import covered, fine_box, fine_positions
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
    """The samples of a box at some scale, painted block by block; below scale 1 each is the mean of what its area holds
    of finer ones.

    Args:
        fine: the box, in samples of `scales`.
        scales: those of what is painted, 1 at least.
        fold: how many painted samples along each axis become one of `fine`.
        reach: how far partitions reach beyond their borders, in samples.
        block: painted samples of a block along each dimension; blocks are counted from where their partition begins.

    Attributes:
        box: the samples of the signal next to what is painted.
    """

    def __init__(
        self,
        representation: Representation,
        fine: Box,
        scales: tuple[Fraction, ...],
        fold: tuple[int, ...],
        reach: tuple[int, ...],
        block: tuple[int, ...],
    ) -> None:
        self._lattice, self._scales, self._reach, self._block = representation.lattice, scales, reach, block
        self._fine, self._fold, self._folds = fine, fold, max(fold) > 1
        finer = tuple((low * m, high * m) for (low, high), m in zip(fine, fold, strict=True))
        self._painted = intersect(finer, fine_box(representation.extent, scales))
        self.box = covered(self._painted, scales)
        self._blank, shape = representation.signal.blank, box_shape(fine)
        self._mask = self._owned()
        adds = self._folds or any(reach)
        kind = np.float64 if self._folds else np.float32  # means of many
        self._values = np.full((*shape, representation.model.channels), 0.0 if adds else self._blank, dtype=kind)
        self._weights = np.zeros(shape, dtype=kind) if adds else None
        self._spans: dict[tuple[int, int], list[Span]] = {}

    def blocks(self, places: NDArray[np.int64]) -> Iterator[Block]:
        """All blocks of partitions that meet the box."""
        for row, place in enumerate(places.tolist()):
            for spans in itertools.product(*self._spans_of(place)):
                yield Block(place, row, spans)

    def samples(self, places: Iterable[int]) -> int:
        """How many samples partitions paint."""
        return sum(math.prod(sum(s.high - s.low for s in axis) for axis in self._spans_of(place)) for place in places)

    def paint(self, block: Block, samples: Array) -> int:
        """Add what is wanted of an evaluated block `[*block, C]`; returns the number of its samples."""
        spans, fold = block.spans, self._fold
        part = samples[tuple([slice(span.low - span.start, span.high - span.start) for span in spans])]
        target = tuple(
            [
                slice(s.low // m - low, -(-s.high // m) - low)
                for s, m, (low, _) in zip(spans, fold, self._fine, strict=True)
            ]
        )
        if self._weights is None:
            self._values[target] = part
            return math.prod(part.shape[:-1])
        ones = [np.ones(span.high - span.low, np.float32) if span.weight is None else span.weight for span in spans]
        weighted = part * reduce(np.multiply.outer, ones)[..., None] if any(self._reach) else part
        if self._folds:
            for axis, (span, m) in enumerate(zip(spans, fold, strict=True)):
                weighted, ones[axis] = _folded(weighted, axis, span, m), _folded(ones[axis], 0, span, m)
        self._values[target] += weighted
        self._weights[target] += reduce(np.multiply.outer, ones)
        return math.prod(part.shape[:-1])

    def finished(self) -> tuple[Array, NDArray[np.bool_] | None]:
        """The values, and the mask of what is present (None: all of it)."""
        if self._weights is not None:
            self._values /= np.where(self._weights > 0, self._weights, 1)[..., None]
            if self._mask is not None:
                self._values[~self._mask] = self._blank
        return self._values.astype(np.float32, copy=False), self._mask

    def _owned(self) -> NDArray[np.bool_] | None:
        """The samples of which partitions own anything; None: all of them."""
        places, tile = self._lattice.meeting(self.box), self._lattice.tile
        if len(places) == math.prod(-(-high // t) - low // t for (low, high), t in zip(self.box, tile, strict=True)):
            return None
        mask = np.zeros(box_shape(self._fine), dtype=bool)
        for place in places:
            own = intersect(fine_box(self._lattice.box(place), self._scales), self._painted)
            folded = tuple((low // m, -(-high // m)) for (low, high), m in zip(own, self._fold, strict=True))
            mask[slices(folded, self._fine)] = True
        return mask

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
        bottom, top = self._painted[axis]
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


def _folded(values: Array, axis: int, span: Span, fold: int) -> Array:
    """Sums along an axis of those samples of a span that become one, `fold` of them where the span has them all."""
    if fold == 1:
        return values
    starts = [0, *range(-span.low % fold or fold, span.high - span.low, fold)]
    return np.asarray(np.add.reduceat(values, starts, axis, dtype=np.float64))
