"""Samples that are read by region, where they are asked for: an array may be larger than memory."""

import itertools
import math
import mmap
import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import LgsirensError, SignalError
from lgsirens.grid.box import Box, box_shape, format_box, intersect, slices

Array = NDArray[Any]

CACHE_BYTES = 256 << 20  # a band of partitions across a film
VALUES_AT_ONCE = 1 << 20
_IN_MEMORY = ("torch", "pandas")


class BlockCache:
    """Blocks that were used last, of any arrays, of so many bytes in all; for several threads."""

    def __init__(self, limit: int) -> None:
        self.limit, self._bytes = limit, 0
        self._kept: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, limit: int) -> None:
        """Keep at most so many bytes from now on."""
        with self._lock:
            self.limit = min(self.limit, limit)
            self._forget()

    def get(self, key: Hashable) -> Array | None:
        """The block of a key, if it is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, block: Array) -> None:
        """Keep a block; those that were not used for longest go."""
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes += block.nbytes - (0 if old is None else old.nbytes)
            self._kept[key] = block
            self._forget()

    def _forget(self) -> None:
        while self._bytes > self.limit:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class LazyValues:
    """An array that is read where it is indexed, by whole numbers, slices and an ellipsis, as NumPy's; `np.asarray`
    reads all of it. What is read is in the machine's byte order, and finite.

    Of a source in chunks (Zarr, HDF5, dask, tiles of a file) whole chunks are read, and those used last are kept.

    Args:
        source: anything with `shape`, `dtype`, and `[slices]` that give arrays; `chunks`, if it has them.
        name: of the source, for messages.
        channel_axis: add an axis of length 1 at the end.
        keeps: whether chunks are kept; else just what is asked for is read.

    Attributes:
        chunks: the shape in which it reads well, None if it does in any.
        cache: of chunks.
    """

    def __init__(self, source: Any, name: str = "array", channel_axis: bool = False, keeps: bool = True) -> None:
        self._source, self._name, self._adds_axis, self._keeps = source, name, channel_axis, keeps
        kept = np.dtype(source.dtype)
        self.dtype: np.dtype[Any] = np.dtype(np.float32) if kept.kind == "b" else kept.newbyteorder("=")
        self.shape = (*map(int, source.shape), *((1,) if channel_axis else ()))
        self.chunks = _chunks(source, self.shape, self.dtype.itemsize)
        self.cache = BlockCache(CACHE_BYTES)

    def keep(self, limit: int) -> None:
        """Keep chunks of at most so many bytes."""
        self.cache.keep(limit)
        if isinstance(self._source, Converted):
            self._source.values.keep(limit)

    def with_channel_axis(self) -> "LazyValues":
        """The same with an axis of length 1 at its end."""
        return LazyValues(self._source, self._name, True, self._keeps)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> Array:
        """The samples of an index, a copy.

        Raises:
            IndexError, TypeError: as NumPy; an index is none of whole numbers, slices and an ellipsis.
            SignalError: the source cannot be read there, or holds NaN or infinity there.
        """
        asked = [*_whole_index(index, self.ndim)]
        ranges = [_range(part, size) for part, size in zip(asked, self.shape, strict=True)]
        box = tuple((min(numbers), max(numbers) + 1) if numbers else (0, 0) for numbers in ranges)
        inside = tuple(
            slice(numbers.start - low if numbers.step < 0 else 0, None, numbers.step) if isinstance(part, slice) else 0
            for part, numbers, (low, _) in zip(asked, ranges, box, strict=True)
        )
        found = self._read(box) if all(map(len, ranges)) else np.empty(box_shape(box), self.dtype)
        return np.asarray(found[inside])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a lazy array cannot be had without a copy")
        values = np.empty(self.shape, self.dtype)
        for box in regions(self):
            part = tuple(slice(*ends) for ends in box)
            values[part] = self[part]
        return values.astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyValues({self._name}, shape {self.shape}, {self.dtype})"

    def _read(self, box: Box) -> Array:
        """A box that is not empty, in as many axes as the array has."""
        if self.chunks is None or not self._keeps:
            return self._taken(box)
        values = np.empty(box_shape(box), self.dtype)
        ends = zip(box, self.chunks, strict=True)
        for number in itertools.product(*(range(low // step, -(-high // step)) for (low, high), step in ends)):
            sides = zip(number, self.chunks, self.shape, strict=True)
            chunk = tuple((n * step, min((n + 1) * step, size)) for n, step, size in sides)
            block = self.cache.get(number)
            if block is None:
                block = self._taken(chunk)
                self.cache.put(number, block)
            common = intersect(box, chunk)
            values[slices(common, box)] = block[slices(common, chunk)]
        return values

    def _taken(self, box: Box) -> Array:
        """A box out of the source itself, checked."""
        part = tuple(slice(*ends) for ends in box)
        try:
            values = np.array(self._source[part[:-1] if self._adds_axis else part], self.dtype)
        except (LgsirensError, MemoryError):
            raise
        except Exception as error:  # whatever a source raises
            reason = " ".join(str(error).split()) or type(error).__name__
            what = f"{self._name}: samples {format_box(box)} cannot be read: {reason}"
            raise SignalError(f"{what}; check what they come from") from error
        values = values[..., None] if self._adds_axis else values
        if values.shape != box_shape(box):
            raise SignalError(f"{self._name}: gives {values.shape} for samples {format_box(box)}; check its shape")
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            count = int(values.size - finite.sum())
            what = f"{self._name}: {count} of the samples {format_box(box)} are NaN or infinite"
            raise SignalError(f"{what}; replace them with finite values first")
        _forget_pages(self._source)
        return values


class Converted:
    """A source whose samples are converted as they are read, each `[..., S]` by itself.

    Args:
        values: what is converted.
        convert: samples `[..., S]` to others `[..., C]`.
    """

    def __init__(self, values: LazyValues, convert: Callable[[Array], Array]) -> None:
        self.values, self._convert = values, convert
        like = convert(np.zeros((*(1 for _ in values.shape[:-1]), values.shape[-1]), values.dtype))
        self.dtype, self.shape = like.dtype, (*values.shape[:-1], like.shape[-1])
        self.chunks = values.chunks and (*values.chunks[:-1], like.shape[-1])

    def __getitem__(self, part: tuple[slice, ...]) -> Array:
        return self._convert(self.values[part[:-1]])[..., part[-1]]


class _Part:
    """A box of an array that is read where it is indexed."""

    def __init__(self, values: LazyValues, box: Box) -> None:
        self._values, self._box = values, box
        self.dtype, self.shape = values.dtype, (*box_shape(box), values.shape[-1])

    def __getitem__(self, part: tuple[slice, ...]) -> Array:
        *inside, channels = part
        at = [slice(each.start + low, each.stop + low) for each, (low, _) in zip(inside, self._box, strict=True)]
        return self._values[(*at, channels)]


def part_of(values: Array | LazyValues, box: Box) -> Array | LazyValues:
    """A box of an array `[*shape, C]`, with all channels: a view, or one that is read where it is indexed."""
    if isinstance(values, LazyValues):
        return LazyValues(_Part(values, box), keeps=False)
    return values[tuple(slice(*ends) for ends in box)]


def is_lazy(given: Any) -> bool:
    """Whether this is an array that is not in memory."""
    if isinstance(given, np.memmap):
        return True
    if isinstance(given, np.ndarray | np.generic) or type(given).__module__.partition(".")[0] in _IN_MEMORY:
        return False
    return all(hasattr(given, name) for name in ("shape", "dtype", "__getitem__"))


def extremes(values: Array | LazyValues) -> tuple[float, float]:
    """The lowest and the highest value, read by regions."""
    found = [(part.min(), part.max()) for part in map(_reader(values), regions(values))]
    lowest, highest = zip(*found, strict=True)
    return float(min(lowest)), float(max(highest))


def regions(values: Array | LazyValues, limit: int | None = None, chunks: Sequence[int] | None = None) -> Iterator[Box]:
    """Boxes that follow each other and cover an array `[*shape, C]` but for its last axis, each of about `limit`
    values at most (None: VALUES_AT_ONCE): along its first axis, or by its own or other chunks."""
    return blocks(values.shape, limit or VALUES_AT_ONCE, chunks or getattr(values, "chunks", None))


def blocks(shape: Sequence[int], limit: int, chunks: Sequence[int] | None = None) -> Iterator[Box]:
    """The same for a shape `[*shape, C]`."""
    *shape, channels = shape
    most = max(1, limit // channels)
    chunks = chunks or (1,) * len(shape)
    for outer in _tiled([(0, size) for size in shape], _grown(chunks, shape, most)):
        yield from _tiled(outer, _grown((1,) * len(shape), box_shape(outer), most))


def _reader(values: Array | LazyValues) -> Callable[[Box], Array]:
    return lambda box: np.asarray(values[tuple(slice(*ends) for ends in box)])


def _grown(chunks: Sequence[int], shape: Sequence[int], most: int) -> list[int]:
    """As many whole chunks side by side as `most` samples hold, at least one; the last axes first."""
    steps = [min(chunk, size) for chunk, size in zip(chunks, shape, strict=False)]
    for axis in reversed(range(len(steps))):
        steps[axis] = min(shape[axis], steps[axis] * max(1, most // math.prod(steps)))
        if steps[axis] < shape[axis]:
            break
    return steps


def _tiled(box: Sequence[tuple[int, int]], steps: Sequence[int]) -> Iterator[Box]:
    sides = (
        [(at, min(at + step, high)) for at in range(low, high, step)]
        for (low, high), step in zip(box, steps, strict=True)
    )
    return itertools.product(*sides)


def _chunks(source: Any, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """The shape of a source's chunks; None if it has none, or such that none could be kept."""
    try:
        given = [max(part) if isinstance(part, Sequence) else operator.index(part) for part in source.chunks]
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return None
    given += [1] * (len(shape) - len(given))
    if len(given) != len(shape) or min(given) < 1:
        return None
    chunks = tuple(map(min, given, shape))
    return chunks if math.prod(chunks) * itemsize <= CACHE_BYTES else None


def _whole_index(index: Any, rank: int) -> Iterator[Any]:
    """One part for each axis."""
    parts = index if isinstance(index, tuple) else (index,)
    given = len(parts) - sum(isinstance(part, EllipsisType) for part in parts)
    if given > rank or len(parts) - given > 1:
        raise IndexError(f"{len(parts)} indices for an array of {rank} axes")
    if given == len(parts):
        parts = (*parts, ...)
    for part in parts:
        yield from (slice(None),) * (rank - given) if isinstance(part, EllipsisType) else (part,)


def _range(part: Any, size: int) -> range:
    if isinstance(part, slice):
        return range(*part.indices(size))
    number = operator.index(part)
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of bounds for an axis of {size}")
    return range(number % size, number % size + 1)


def _forget_pages(source: Any) -> None:
    """Let go of what was read of a memory-mapped file, which would count as memory of this process; not where a page
    may have been changed without the file."""
    if not isinstance(source, np.memmap) or source.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    base: Any = source
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
