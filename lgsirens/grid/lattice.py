"""The lattice of partitions, and the cutting of a signal into partitions and back.

Shape letters: P partitions, N samples in a partition's window, D coordinate dimensions, C channels, m positions of one
axis. Partition k owns the samples `k*T .. (k+1)*T - 1` of each dimension, that is positions [k*T - 0.5, (k+1)*T - 0.5).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgsirens.grid.box import Box, box_shape, intersect, is_empty, slices

Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Lattice:
    """Equal tiles over all positions, and the ids of those that are present.

    Attributes:
        tile: T, samples per dimension of one partition.
        halo: extra samples on each side of a partition that its local network also trains on.
        ids: `[P, D]` int32, unique, in C order.
    """

    tile: tuple[int, ...]
    halo: tuple[int, ...]
    ids: Ids

    @classmethod
    def covering(cls, extent: Box, tile: tuple[int, ...], halo: tuple[int, ...] | None = None) -> "Lattice":
        """The lattice with every tile that meets `extent`."""
        return cls(tile, halo or (0,) * len(tile), tiles_meeting(extent, tile))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> int:
        return len(self.tile)

    def box(self, partition: int) -> Box:
        """The samples that one partition (by its place in `ids`) owns."""
        return tuple(
            (int(k) * size, (int(k) + 1) * size) for k, size in zip(self.ids[partition], self.tile, strict=True)
        )

    def find(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Places in `self.ids` of the given ids `[n, D]`; -1 where an id is not present."""
        if not len(ids):
            return np.zeros(0, dtype=np.int64)
        # Only the stretch of ids with the first coordinates asked for matters, however many others there are.
        first = np.searchsorted(self.ids[:, 0], ids[:, 0].min())
        stop = np.searchsorted(self.ids[:, 0], ids[:, 0].max(), side="right")
        if first == stop:
            return np.full(len(ids), -1)
        own = self.ids[first:stop]
        low = [int(own[:, axis].min()) - 1 for axis in range(self.dimensions)]
        high = [int(own[:, axis].max()) + 1 for axis in range(self.dimensions)]
        if math.prod(b - a + 1 for a, b in zip(low, high, strict=True)) >= 1 << 63:  # no integer numbers them all
            table = {tuple(name): place for place, name in enumerate(self.ids.tolist())}
            return np.array([table.get(tuple(name), -1) for name in ids.tolist()], dtype=np.int64)
        keys, wanted = _sort_keys(own, low, high), _sort_keys(np.clip(ids, low, high), low, high)
        place = np.searchsorted(keys, wanted)
        found = np.take(keys, place, mode="clip") == wanted
        return np.where(found, place + first, -1)

    def meeting(self, region: Box) -> NDArray[np.int64]:
        """Places of the partitions that own at least one sample of `region`, in order."""
        held = bounding_extent(self, region)
        if is_empty(held):
            return np.zeros(0, dtype=np.int64)
        tiles = math.prod(-(-stop // t) - start // t for (start, stop), t in zip(held, self.tile, strict=True))
        if tiles > 4 * len(self):  # far more room than partitions
            return np.flatnonzero(self.samples_of_each(held))
        place = self.find(tiles_meeting(held, self.tile))
        return place[place >= 0]

    def samples_of_each(self, region: Box) -> NDArray[np.int64]:
        """How many samples of `region` each partition owns, `[P]`."""
        low = np.maximum(self.ids.astype(np.int64) * self.tile, [start for start, _ in region])
        high = np.minimum((self.ids.astype(np.int64) + 1) * self.tile, [stop for _, stop in region])
        return np.asarray(np.maximum(high - low, 0).prod(axis=1))

    def samples_within(self, region: Box) -> int:
        """How many samples of `region` some partition owns."""
        return int(self.samples_of_each(region).sum())

    def select(self, places: NDArray[Any]) -> "Lattice":
        """The lattice with only the partitions at `places` (sorted)."""
        return Lattice(self.tile, self.halo, np.ascontiguousarray(self.ids[places]))

    def windows(self, extent: Box | None) -> list[NDArray[np.int64]]:
        """Positions `[P, W_d]` of each axis on which each partition trains.

        Without a halo that is the tile itself, which may reach beyond the extent; with one it is
        `min(T + 2*halo, size)` samples, shifted inside the extent at its borders. Without an extent it is the tile and
        its halo, `T + 2*halo` samples wherever they lie.
        """
        windows = []
        for axis, (tile, halo) in enumerate(zip(self.tile, self.halo, strict=True)):
            start, width = self.ids[:, axis].astype(np.int64) * tile - halo, tile + 2 * halo
            if extent is not None and halo > 0:
                low, high = extent[axis]
                width = min(width, high - low)
                start = np.clip(start, low, high - width)
            windows.append(start[:, None] + np.arange(width))
        return windows


def tiles_meeting(region: Box, tile: tuple[int, ...]) -> Ids:
    """Ids `[n, D]` int32 of all tiles that own a sample of `region`, in C order."""
    axes = [np.arange(start // size, -(-stop // size)) for (start, stop), size in zip(region, tile, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid.reshape(-1, len(tile)).astype(np.int32)


def bounding_extent(lattice: Lattice, extent: Box) -> Box:
    """The box of what a lattice holds of `extent`: the bounding box of its tiles, cut at the old extent."""
    low, high = lattice.ids.min(axis=0).astype(np.int64), lattice.ids.max(axis=0).astype(np.int64) + 1
    tiles = tuple((int(a) * t, int(b) * t) for a, b, t in zip(low, high, lattice.tile, strict=True))
    return intersect(tiles, extent)


def dense_parts(lattice: Lattice, places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut places (sorted) into such that at most half of the bounding box of each is not theirs.

    >>> wide = Lattice.covering(((0, 8), (0, 40)), (4, 4))
    >>> [part.tolist() for part in dense_parts(wide, np.array([0, 1, 9, 10, 11]))]
    [[0, 1], [9], [10, 11]]
    """
    ids = lattice.ids[places].astype(np.int64)
    if len(places) > 1 and math.prod((ids.max(axis=0) - ids.min(axis=0) + 1).tolist()) > 2 * len(places):
        for half in np.array_split(places, 2):
            yield from dense_parts(lattice, half)
    else:
        yield places


def split(
    values: NDArray[Any],
    lattice: Lattice,
    extent: Box | None,
    box: Box | None = None,
    known: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Cut samples into the windows of the partitions.

    Args:
        values: `[*shape, C]`, the samples of `box`.
        lattice: P partitions that meet the extent.
        extent: what windows lie in; None: anywhere.
        box: a part of the extent; the extent when None.
        known: `[*shape]`, false where `values` has no sample after all.

    Returns:
        samples `[P, N, C]` in the type of `values`, and a mask `[P, N]` that is false where a window has no sample
        (the nearest one stands there and carries no loss).
    """
    windows, box = lattice.windows(extent), extent if box is None else box
    assert box is not None
    inside = [(w >= low) & (w < high) for w, (low, high) in zip(windows, box, strict=True)]
    index = [np.clip(w, low, high - 1) - low for w, (low, high) in zip(windows, box, strict=True)]
    places = tuple(_along(i, axis, len(index)) for axis, i in enumerate(index))
    samples = values[places]
    mask = np.ones((len(lattice), *(w.shape[1] for w in windows)), dtype=bool)
    for axis, flags in enumerate(inside):
        mask &= _along(flags, axis, len(inside))
    if known is not None:
        mask &= known[places]
    return samples.reshape(len(lattice), -1, values.shape[-1]), mask.reshape(len(lattice), -1)


def join(samples: NDArray[Any], lattice: Lattice, extent: Box) -> NDArray[Any]:
    """The inverse of `split`: each partition writes the samples that it owns; `[P, N, C]` to `[*shape, C]`."""
    windows = lattice.windows(extent)
    out = np.zeros((*box_shape(extent), samples.shape[-1]), dtype=samples.dtype)
    blocks = samples.reshape(len(lattice), *(w.shape[1] for w in windows), samples.shape[-1])
    for partition in range(len(lattice)):
        own = intersect(lattice.box(partition), extent)
        window = tuple((int(w[partition, 0]), int(w[partition, -1]) + 1) for w in windows)
        out[slices(own, extent)] = blocks[partition][slices(own, window)]
    return out


def block_shape(sizes: Sequence[int], limit: int) -> tuple[int, ...]:
    """The box, at most `limit` samples large, that a window of the given sizes is cut into: its longest side halved
    until it fits."""
    shape = list(sizes)
    while math.prod(shape) > limit and max(shape) > 1:
        axis = shape.index(max(shape))
        shape[axis] = -(-shape[axis] // 2)
    return tuple(shape)


def even_shape(sizes: Sequence[int], limit: int) -> tuple[int, ...]:
    """The same of pieces as even as can be: a cut more along the longest side until they fit."""
    pieces, shape = [1] * len(sizes), list(sizes)
    while math.prod(shape) > limit and max(shape) > 1:
        axis = shape.index(max(shape))
        pieces[axis] += 1
        shape[axis] = -(-sizes[axis] // pieces[axis])
    return tuple(shape)


def _along(values: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    """`[P, m]` shaped to broadcast along one of `dimensions` axes after the first."""
    return values.reshape(len(values), *(-1 if d == axis else 1 for d in range(dimensions)))


def _sort_keys(ids: NDArray[Any], low: list[int], high: list[int]) -> NDArray[np.int64]:
    """One integer per id, ordered as the ids within `low` to `high` are in C order."""
    spans = [b - a + 1 for a, b in zip(low, high, strict=True)]
    strides = [math.prod(spans[axis + 1 :]) for axis in range(len(spans))]
    return (ids.astype(np.int64) - low) @ np.array(strides, dtype=np.int64)
