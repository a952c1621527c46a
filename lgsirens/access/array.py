"""A representation as an array by NumPy's rules, decoded where it is read."""

import math
import operator
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from types import EllipsisType
from typing import Any

import numpy as np

from lgsirens.access.blocks import Blocks, block_steps
from lgsirens.access.overview import overview_means, suits_overview
from lgsirens.errors import ConfigError
from lgsirens.grid.box import Box, bounding_box, box_size, grown, slices
from lgsirens.grid.coordinates import Scale, as_scales, fine_box, finer
from lgsirens.lazy import BlockCache
from lgsirens.representation.canvas import reach_of
from lgsirens.representation.decode import chunk_shape, decode
from lgsirens.representation.file import load
from lgsirens.representation.representation import Representation
from lgsirens.representation.sources import PathLike
from lgsirens.signal import Array, array_type, to_sample_type
from lgsirens.system.console import times
from lgsirens.system.pytorch import as_it_starts

CACHE_BYTES = 128 << 20
_DECODED_AT_ONCE = 1 << 24
_COARSEST_SIDE = 256


def open_array(source: PathLike | Representation, cache_bytes: int = CACHE_BYTES, device: str = "auto") -> "LazyArray":
    """A representation as a lazy array: only what is read is decoded, and only its rows are read.

    Args:
        source: a file, a URL, or what was loaded already.
        cache_bytes: how many bytes of decoded blocks are kept.
        device: where to evaluate, as for `decode`.

    Raises:
        SignalError, FileFormatError, RunError: as `load`.
        ConfigError: the cache is no whole number from 0 on.
    """
    if type(cache_bytes) is not int or cache_bytes < 0:
        raise ConfigError(f"{cache_bytes!r}: must be a whole number of bytes, 0 or more", "cache_bytes")
    representation = source if isinstance(source, Representation) else load(source)
    scales = (Fraction(1),) * representation.lattice.dimensions
    return LazyArray(representation, scales, False, BlockCache(cache_bytes), device)


class LazyArray:
    """The window of a representation at one scale, `[*shape, C]`, as an array that cannot be written. For several
    threads; a copy in another process has a cache of its own.

    Attributes:
        representation: what is decoded.
        scales: fine samples per sample along each axis.
        dtype: the signal's sample type; float32 of `float`.
        shape: the window's, and the channels.
        chunks: a shape in which it reads well, of whole partitions where they fit.
    """

    def __init__(
        self,
        representation: Representation,
        scales: tuple[Fraction, ...],
        floats: bool,
        cache: BlockCache,
        device: str,
    ) -> None:
        self.representation, self.scales = representation, scales
        self._floats, self._cache, self._device = floats, cache, device
        tile, known = representation.lattice.tile, representation.signal
        averages = suits_overview(representation, scales)
        steps = None if averages else block_steps(tile, scales)
        self._in_parts = steps is not None and any(step < size for step, size in zip(steps, tile, strict=True))
        values_of = partial(overview_means, representation, scales) if averages else self._decoded
        window, key = representation.window, str(scales)
        self._blocks = Blocks(window, scales, steps, tile, known.channels, values_of, cache, key)
        self.dtype = np.dtype(np.float32) if floats else array_type(known.dtype)
        self.shape = (*self._blocks.shape, known.channels)
        self.chunks = chunk_shape(tile, scales, self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it, decoded."""
        return self.size * self.dtype.itemsize

    @property
    def float(self) -> "LazyArray":
        """The values as they decode, in the units of the value range, not rounded."""
        return LazyArray(self.representation, self.scales, True, self._cache, self._device)

    def at(self, scale: Scale) -> "LazyArray":
        """The same at another scale, fine samples per sample of the signal; below 1 each is the mean of its area.

        Raises:
            ConfigError: the scale is not positive, or leaves no sample.
        """
        scales = as_scales(self.representation.window, scale)
        return LazyArray(self.representation, scales, self._floats, self._cache, self._device)

    @property
    def levels(self) -> list["LazyArray"]:
        """From coarse to fine, each about twice as fine as the one before it, the last at scale 1. Those of one value a
        partition and below come from the overview, if the file has one."""
        return [self.at(scales) for scales in reversed([*_pyramid(self.representation)])]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Samples by any index that NumPy takes; raises what NumPy raises."""
        like = np.broadcast_to(np.uint8(0), self.shape)[index]
        parts = index if isinstance(index, tuple) else (index,)
        with as_it_starts():
            found = self._sliced(parts) if all(map(_is_basic, parts)) else self._gathered(index)
        return found.reshape(like.shape) if isinstance(like, np.ndarray) else found.reshape(())[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a lazy array is decoded anew; it cannot be had without a copy")
        return np.asarray(self[...], dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return np.asarray(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return np.empty(0).__dlpack_device__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _copied, (self.representation, self.scales, self._floats, self._cache.limit, self._device)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """What tells it from others, so that dask knows the same array again."""
        known = self.representation
        content = known.lineage, known.window, known.ids.tobytes(), known.rows.crc32().tobytes()
        return type(self).__name__, *content, str(self.scales), str(self.dtype)

    def __repr__(self) -> str:
        scale = " by ".join(map(str, sorted(set(self.scales))))
        return f"LazyArray({self.representation.signal.kind} {times(self.shape)}, {self.dtype}, scale {scale})"

    def _decoded(self, boxes: list[Box]) -> list[Array]:
        """Boxes of whole partitions that lie apart in one decode of what has a say there: rows are read at once."""
        whole, scales = self.representation, self.scales
        if len(boxes) == 1 or self._in_parts:
            return [np.asarray(decode(whole, box, scales, device=self._device).values) for box in boxes]
        around = bounding_box(boxes)
        if box_size(fine_box(around, scales)) > _DECODED_AT_ONCE:
            half = len(boxes) // 2
            return self._decoded(boxes[:half]) + self._decoded(boxes[half:])
        each = finer(scales)
        reach = reach_of(whole, None, tuple(s * m for s, m in zip(scales, each, strict=True)))
        # Below scale 1 an area reaches beyond its box by less than its size.
        margin = tuple(r + (m if m > 1 else 0) for r, m in zip(reach, each, strict=True))
        places = [whole.lattice.meeting(grown(box, margin)) for box in boxes]
        if not sum(map(len, places)):
            places = [np.arange(1)]  # a decode needs one
        part = whole.select(np.unique(np.concatenate(places)))
        values = decode(part, around, scales, device=self._device).values
        origin = fine_box(around, scales)
        return [values[slices(fine_box(box, scales), origin)] for box in boxes]

    def _converted(self, values: Array) -> Array:
        return values if self._floats else to_sample_type(values, self.representation.signal.dtype)

    def _sliced(self, parts: tuple[Any, ...]) -> Array:
        """By whole numbers, slices, an ellipsis and new axes, the axes of the array as they are."""
        given = [part for part in parts if part is not None]
        if Ellipsis not in given:
            given.append(Ellipsis)
        at = given.index(Ellipsis)
        given[at : at + 1] = [slice(None)] * (self.ndim - (len(given) - 1))
        wanted = [_range(part, size) for part, size in zip(given, self.shape, strict=True)]
        turned = tuple(slice(None, None, -1 if numbers.step < 0 else 1) for numbers in wanted)
        ascending = [numbers[way] for numbers, way in zip(wanted, turned, strict=True)]
        out = np.empty([len(numbers) for numbers in ascending], self.dtype)
        if out.size:
            *axes, channels = ascending
            self._blocks.read(axes, slice(channels.start, channels.stop, channels.step), out, self._converted)
        return out[turned]

    def _gathered(self, index: Any) -> Array:
        """By arrays of numbers or of booleans: the place of every sample, then the samples."""
        axes = np.ogrid[tuple(slice(size) for size in self.shape)]
        *places, channels = (np.broadcast_to(axis, self.shape)[index].ravel() for axis in axes)
        return self._converted(self._blocks.gather(places)[np.arange(len(channels)), channels])


def _copied(
    representation: Representation, scales: tuple[Fraction, ...], floats: bool, cache_bytes: int, device: str
) -> LazyArray:
    return LazyArray(representation, scales, floats, BlockCache(cache_bytes), device)


def _is_basic(part: Any) -> bool:
    """Whether NumPy takes a part of an index for a place or slice, not for an array of places."""
    if part is None or isinstance(part, slice | EllipsisType):
        return True
    return isinstance(part, int | np.integer) and not isinstance(part, bool)


def _range(part: Any, size: int) -> range:
    if isinstance(part, slice):
        return range(*part.indices(size))
    number = operator.index(part) % size
    return range(number, number + 1)


def _pyramid(representation: Representation) -> Iterator[tuple[Fraction, ...]]:
    """The scales of the levels, from 1 on down, until a level fits a thumbnail."""
    window, tile = representation.window, representation.lattice.tile
    within = [(2**n,) * len(tile) for n in range(32) if n == 0 or 2**n < min(tile)]
    beyond = [tuple(size * 2**n for size in tile) for n in range(32)]
    last = (Fraction(1),) * len(tile)
    for factors in within + beyond:
        scales = tuple(Fraction(1, factor) for factor in factors)
        sides = fine_box(window, scales)
        # An axis that no sample would be left along stays as it was.
        last = tuple(old if low == high else new for old, new, (low, high) in zip(last, scales, sides, strict=True))
        yield last
        if max(high - low for low, high in sides) <= _COARSEST_SIDE:
            return
