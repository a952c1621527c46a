"""A window at one scale, decoded in blocks along the borders of partitions, of which the last ones are kept."""

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgsirens.grid.box import Box, box_shape, boxes_of, slices
from lgsirens.grid.coordinates import fine_box
from lgsirens.grid.lattice import block_shape
from lgsirens.lazy import BlockCache
from lgsirens.signal import Array

_LARGEST_BLOCK = 1 << 16  # samples; larger partitions are cut
_SMALLEST_SIDE = 8  # samples along an axis whose scale is below 1; smaller partitions go together
_DECODED_AT_ONCE = 1 << 22

Decode = Callable[[list[Box]], list[Array]]
Number = tuple[int, ...]  # of a block along each axis


class _Hit(NamedTuple):
    """What is wanted of one block along one axis: the block's number, where in it, where in the result."""

    number: int
    inside: slice
    outside: tuple[int, int]


class Blocks:
    """Float values of a window at one scale.

    Args:
        window: in samples of the signal.
        scales: fine samples per sample.
        steps: samples of the signal in a block along each axis, counted from the beginning of each tile; None: the
            window is one block.
        tile: samples of a partition along each axis.
        channels: C.
        decode: boxes of samples of the signal to the values `[*fine, C]` of their fine samples.
        cache: shared with others; `key` tells these blocks from theirs.
    """

    def __init__(
        self,
        window: Box,
        scales: tuple[Fraction, ...],
        steps: tuple[int, ...] | None,
        tile: tuple[int, ...],
        channels: int,
        decode: Decode,
        cache: BlockCache,
        key: Hashable,
    ) -> None:
        self._decode, self._cache, self._key = decode, cache, key
        self.shape = box_shape(fine_box(window, scales))
        axes = zip(window, scales, steps or (None,) * len(tile), tile, strict=True)
        self._borders, self._edges = zip(*(_cut(*axis) for axis in axes), strict=True)
        largest = math.prod(int(np.diff(edges).max()) for edges in self._edges)
        self._channels, self._at_once = channels, max(1, _DECODED_AT_ONCE // largest)

    def read(self, wanted: Sequence[range], channels: slice, out: Array, convert: Callable[[Array], Array]) -> None:
        """Fill `out` with the fine samples of ascending ranges along each axis, counted from the window's first."""
        hits = [self._hits(axis, numbers) for axis, numbers in enumerate(wanted)]
        for part in self._parts(hits):
            ready = self._blocks([*itertools.product(*([hit.number for hit in axis] for axis in part))])
            box = tuple((axis[0].outside[0], axis[-1].outside[1]) for axis in part)
            values = np.empty((*box_shape(box), out.shape[-1]), dtype=np.float32)
            for chosen in itertools.product(*part):
                block = ready[tuple(hit.number for hit in chosen)]
                target = slices(tuple(hit.outside for hit in chosen), box)
                values[target] = block[(*(hit.inside for hit in chosen), channels)]
            out[tuple(slice(*ends) for ends in box)] = convert(values)

    def gather(self, places: Sequence[NDArray[np.int64]]) -> Array:
        """Values `[n, C]` of fine samples `[n]` along each axis, in any order."""
        numbers = [
            np.searchsorted(edges, place, side="right") - 1 for edges, place in zip(self._edges, places, strict=True)
        ]
        found, which = np.unique(np.stack(numbers, axis=1), axis=0, return_inverse=True)
        members = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which, minlength=len(found)))[:-1])
        names, out = [tuple(name) for name in found.tolist()], np.empty((len(places[0]), self._channels), np.float32)
        for start in range(0, len(names), self._at_once):
            ready = self._blocks(names[start : start + self._at_once])
            for name, own in zip(ready, members[start:], strict=False):
                inside = tuple(p[own] - e[n] for p, e, n in zip(places, self._edges, name, strict=True))
                out[own] = ready[name][inside]
        return out

    def _hits(self, axis: int, wanted: range) -> list[_Hit]:
        edges = self._edges[axis]
        before = (-(-(edges - wanted.start) // wanted.step)).clip(0, len(wanted))  # how many of them lie before an edge
        hits = []
        for number in np.flatnonzero(np.diff(before)).tolist():
            first, last = int(before[number]), int(before[number + 1])
            start = wanted[first] - int(edges[number])
            inside = slice(start, wanted[last - 1] - int(edges[number]) + 1, wanted.step)
            hits.append(_Hit(number, inside, (first, last)))
        return hits

    def _parts(self, hits: list[list[_Hit]]) -> Iterator[tuple[list[_Hit], ...]]:
        """Cut until what is decoded for a part is of bounded size."""
        lengths = block_shape([len(axis) for axis in hits], self._at_once)
        pieces = [
            [axis[i : i + length] for i in range(0, len(axis), length)]
            for axis, length in zip(hits, lengths, strict=True)
        ]
        return itertools.product(*pieces)

    def _blocks(self, numbers: list[Number]) -> dict[Number, Array]:
        """Blocks by their numbers, in that order; those that are not kept are decoded, in few boxes."""
        ready = {number: self._cache.get((self._key, number)) for number in numbers}
        lacking = [number for number, block in ready.items() if block is None]
        if lacking:
            first = np.min(lacking, axis=0)
            mask = np.zeros(np.max(lacking, axis=0) + 1 - first, dtype=bool)
            mask[tuple((np.array(lacking) - first).T)] = True
            boxes = boxes_of(mask, first.tolist())
            for box, values in zip(boxes, self._decode([_between(self._borders, box) for box in boxes]), strict=True):
                origin = _between(self._edges, box)
                for number in itertools.product(*(range(*ends) for ends in box)):
                    own = _between(self._edges, tuple((n, n + 1) for n in number))
                    block = ready[number] = np.ascontiguousarray(values[slices(own, origin)])
                    self._cache.put((self._key, number), block)
        return {number: block for number, block in ready.items() if block is not None}


def block_steps(tile: Sequence[int], scales: Sequence[Fraction]) -> tuple[int, ...]:
    """Samples of the signal in a block along each axis: a part of a partition, one, or several where each has but few
    fine samples."""
    fine = [max(1, math.ceil(size * scale)) for size, scale in zip(tile, scales, strict=True)]
    steps = []
    for size, scale, whole, part in zip(tile, scales, fine, block_shape(fine, _LARGEST_BLOCK), strict=True):
        together = math.ceil(_SMALLEST_SIDE / (size * scale)) if scale < 1 else 1
        steps.append(size * together if part == whole else max(1, math.floor(part / scale)))
    return tuple(steps)


def _cut(
    window: tuple[int, int], scale: Fraction, step: int | None, tile: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The borders of blocks along an axis, in samples of the signal, and those in fine samples from the window on."""
    low, high = window
    inner = np.empty(0, np.int64)
    if step is not None:
        whole = max(step, tile)
        starts = np.arange(low // whole * whole, high, whole)
        inner = (starts[:, None] + np.arange(0, whole, step)).ravel()
    borders = np.concatenate([[low], inner[(low < inner) & (inner < high)], [high]])
    doubled = scale.denominator - 2 * borders * scale.numerator
    edges, kept = np.unique(-(doubled // (2 * scale.denominator)), return_index=True)
    return borders[kept], edges - edges[0]


def _between(ends: Sequence[NDArray[np.int64]], box: Box) -> Box:
    return tuple((int(axis[low]), int(axis[high])) for axis, (low, high) in zip(ends, box, strict=True))
