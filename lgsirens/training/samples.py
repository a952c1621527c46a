"""Which samples a step sees, in blocks that bound the working memory."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lgsirens.grid.box import box_of_shape
from lgsirens.grid.lattice import block_shape, even_shape
from lgsirens.nn.kernels.block import Block, Rows
from lgsirens.training.windows import Windows, to_network


@dataclass(frozen=True)
class Draw:
    """What one step sees: blocks, and how many numbers (samples times channels) of them count.

    Attributes:
        count: in the loss; at least 1.
        own: `[P]`, in the PSNR, which is of what will be decoded: halos left out.
        number: of places in each window, whether there are samples or not.
        fraction: of all samples, each at most once; 0 where one may come twice.
    """

    count: int
    own: Tensor
    number: int
    blocks: Iterable[Block]
    fraction: float

    @property
    def complete(self) -> bool:
        """Whether it is all samples, so that its error can be compared with that of another such step."""
        return self.fraction == 1


class Samples(Protocol):
    """A source of steps.

    Attributes:
        complete: there are draws of all samples.
    """

    complete: bool

    def draw(self, step: int | None = None, awake: Tensor | None = None) -> Draw:
        """What a step sees.

        Args:
            step: which one, counted from 0; before that are draws that no step sees. None: all samples, where there
                are such draws.
            awake: `[P]` bool, rows without which a complete draw may do.
        """
        ...


_DOUBLING_STEPS = 60
_MULTIPLE = 64  # a fused kernel takes as long for a part of so many samples as for all of them


class AllSamples:
    """Every sample in every step (the published recipe for images and audio).

    Args:
        windows: what to see.
        samples_per_block: bound on B * N.
        columns: bound on N.
    """

    complete = True

    def __init__(self, windows: Windows, samples_per_block: int, columns: int) -> None:
        signal, shape = windows.positioned.signal, (windows.rows, *windows.sizes)
        known = torch.empty(shape, dtype=torch.bool, device=windows.device)
        # In float32 from here on: to convert them in every step takes longer than a fused kernel takes for them.
        self._samples = torch.empty(*shape, signal.channels, dtype=torch.float32, device=windows.device)
        for part in _cuts(windows.rows, max(1, samples_per_block // math.prod(windows.sizes))):
            self._samples[part], known[part] = windows.read(np.arange(part.start, part.stop))
        self._windows, self._known = windows, None if known.all() else known
        everywhere, known = (slice(None),) * len(windows.sizes), known.flatten(1)
        # Of several signals that of each: rows do not depend on how many stand beside theirs.
        self._count = max(1, int(known.sum()) * signal.channels // windows.signals)
        self._own = windows.owned(slice(None), everywhere, known).sum(dim=1) * signal.channels
        cut = block_shape if windows.alike == 1 else even_shape
        sides = cut(windows.sizes, columns)
        rows = max(1, samples_per_block // math.prod(sides))
        self._cuts = [_cuts(*cut) for cut in zip(shape, (rows, *sides), strict=True)]

    def draw(self, step: int | None = None, awake: Tensor | None = None) -> Draw:
        rows: Sequence[Rows] = self._cuts[0]
        if awake is not None and not awake.all():
            rows = awake.nonzero()[:, 0].split(self._cuts[0][0].stop)  # type: ignore[no-untyped-call]
        blocks = itertools.starmap(self._block, itertools.product(rows, *self._cuts[1:]))
        return Draw(self._count, self._own, math.prod(self._windows.sizes), blocks, 1.0)

    def _block(self, rows: Rows, *box: slice) -> Block:
        known = None if self._known is None else self._known[(rows, *box)].flatten(1)
        return self._windows.block(rows, box, self._samples[(rows, *box)].flatten(1, -2), known)


@dataclass(frozen=True)
class GrowingNumber:
    """How many samples of a window each step sees: twice as many every 60 steps, until they are all, rounded up to
    a multiple of 64.

    A coarse gradient is good enough at first; later its noise is lowered, as by a decay of the rate (Smith et al.
    2018, arXiv:1711.00489).

    Attributes:
        first: in step 0.
        all: in the window.
        overhead: of a step, what does not depend on its samples, as a part of one that sees all of them.
    """

    first: int
    all: int
    overhead: float = 0.0

    def __call__(self, step: int) -> int:
        """
        >>> [GrowingNumber(128, 1024)(step) for step in (0, 60, 90, 1000)]
        [128, 256, 384, 1024]
        """
        doublings = min(step / _DOUBLING_STEPS, math.log2(self.all / min(self.first, self.all)))
        return min(self.all, math.ceil(self.first * 2**doublings / _MULTIPLE - 1e-6) * _MULTIPLE)

    def work(self, steps: int) -> float:
        """What so many steps take, in steps that see a whole window, about.

        >>> round(GrowingNumber(128, 1024, 0.04).work(180)), round(GrowingNumber(128, 1024, 0.04).work(300))
        (88, 213)
        """
        growing = self._seen_by_step
        return growing[min(steps, len(growing) - 1)] + max(0, steps - len(growing) + 1) + self.overhead * steps

    @cached_property
    def _seen_by_step(self) -> list[float]:
        """Of how many whole windows the samples have been seen, until each step sees all."""
        growing = itertools.takewhile(lambda number: number < self.all, map(self, itertools.count()))
        return list(itertools.accumulate((number / self.all for number in growing), initial=0.0))


class StratifiedSamples(AllSamples):
    """With tile coordinates: in each step samples at the same places in every window, one out of each of so many equal
    parts of it, which varies less than free draws do.

    The stream that draws them is keyed by seed and step, so that no draw depends on which partitions there are, on the
    device, or on where a run was resumed.

    Args:
        windows: what to draw from.
        samples_per_block: bound on B * N.
        columns: bound on N.
        number: of each window's samples by step, at least 1; all of them from their number on.
        seed: of the stream.
        complete: whether a draw may be of all samples.
    """

    def __init__(
        self,
        windows: Windows,
        samples_per_block: int,
        columns: int,
        number: Callable[[int], int],
        seed: int,
        complete: bool,
    ) -> None:
        super().__init__(windows, samples_per_block, columns)
        self.complete, self._number, self._seed = complete, number, seed
        self._limit, self._columns, self._size = samples_per_block, columns, math.prod(windows.sizes)

    def draw(self, step: int | None = None, awake: Tensor | None = None) -> Draw:
        number = self._size if step is None else self._number(step)
        if step is None or number >= self._size:
            return super().draw(step, awake)
        edges = np.arange(number + 1) * self._size // number
        counter = np.array([0, step % 2**64, 0, 0], dtype=np.uint64)
        stream = np.random.Generator(np.random.Philox(key=[self._seed, 1], counter=counter))
        picks = torch.from_numpy(stream.integers(edges[:-1], edges[1:])).to(self._samples.device)
        columns = min(number, self._columns)
        rows = _cuts(len(self._samples), max(1, self._limit // columns))
        known = torch.ones(1, number, dtype=torch.bool, device=picks.device)
        if self._known is not None:
            known = self._known.flatten(1).index_select(1, picks)
        places = _along_axes(picks[None], self._windows.sizes)
        partitions, channels = len(self._samples), self._samples.shape[-1]
        own = self._windows.owned(slice(None), places, known).sum(dim=1).expand(partitions) * channels
        count = int(known.sum()) * (partitions // len(known)) * channels // self._windows.signals

        def picked(rows: slice, part: slice) -> Block:
            there = None if self._known is None else known[rows, part]
            samples = self._samples[rows].flatten(1, -2).index_select(1, picks[part])
            return self._windows.block(rows, [axis[:, part] for axis in places], samples, there)

        blocks = itertools.starmap(picked, itertools.product(rows, _cuts(number, columns)))
        return Draw(max(1, count), own, number, blocks, number / self._size)


class RandomSamples:
    """In each step `int(fraction * samples / P)` samples of each partition's window, drawn with replacement (the
    published recipe for video). Beside the signal itself one number a partition is kept, so memory follows the
    fraction.

    Args:
        windows: what to draw from.
        samples_per_block: bound on B * N.
        fraction: of the samples that the partitions own, above 0 and at most 1.
        generator: on the device.
    """

    complete = False

    def __init__(self, windows: Windows, samples_per_block: int, fraction: float, generator: torch.Generator) -> None:
        signal, lattice, device = windows.positioned.signal, windows.lattice, windows.device
        self._values = torch.from_numpy(signal.read(box_of_shape(signal.shape)).reshape(-1, signal.channels)).to(device)
        self._known = None if signal.mask is None else torch.from_numpy(signal.mask.reshape(-1)).to(device)
        self._positions = [torch.from_numpy(axis).to(device) for axis in windows.positions]
        self._windows, self._generator = windows, generator
        owned = lattice.samples_within(windows.positioned.extent) / len(lattice)
        self._each = max(1, int(fraction * owned))
        columns = min(self._each, samples_per_block)
        self._cuts = _cuts(len(lattice), max(1, samples_per_block // columns)), _cuts(self._each, columns)

    def draw(self, step: int | None = None, awake: Tensor | None = None) -> Draw:
        # How many lie inside is known only once all are drawn. To keep them would take memory that grows with the
        # signal, so each block draws its own again.
        again = self._generator.clone_state()
        partitions, channels = len(self._windows.lattice), self._values.shape[1]
        count, own = (torch.zeros(n, dtype=torch.int64, device=self._values.device) for n in (1, partitions))
        for rows, places in self._places(self._generator):
            _, inside = self._find(rows, places)
            count += inside.sum()
            own[rows] += self._windows.owned(rows, places, inside).sum(dim=1)
        whole = int(count) == partitions * self._each
        blocks = (self._block(rows, places, whole) for rows, places in self._places(again))
        return Draw(max(1, int(count)) * channels, own * channels, self._each, blocks, 0.0)

    def _places(self, generator: torch.Generator) -> Iterator[tuple[slice, list[Tensor]]]:
        """Per block its rows, and where in their windows the samples drawn are, along each axis `[B, N]`. A CPU draws
        number after number, so that they do not depend on how they are cut into blocks."""
        sizes = self._windows.sizes
        for rows, columns in itertools.product(*self._cuts):
            size = (rows.stop - rows.start, columns.stop - columns.start)
            picks = torch.randint(math.prod(sizes), size, generator=generator, device=self._values.device)
            yield rows, _along_axes(picks, sizes)

    def _block(self, rows: slice, places: list[Tensor], whole: bool) -> Block:
        flat, inside = self._find(rows, places)
        target = to_network(self._values[flat], self._windows.positioned.signal.value_range)
        return self._windows.block(rows, places, target, None if whole else inside)

    def _find(self, rows: slice, places: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Where in the samples the places of windows are, and whether they are there; else the nearest stands there."""
        shape = rows.stop - rows.start, places[0].shape[1]
        flat = torch.zeros(shape, dtype=torch.int64, device=self._values.device)
        inside = torch.ones_like(flat, dtype=torch.bool)
        for place, positions, (low, high) in zip(places, self._positions, self._windows.positioned.box, strict=True):
            position = positions[rows].gather(1, place)
            inside &= (position >= low) & (position < high)
            flat = flat * (high - low) + (position - low).clamp(0, high - low - 1)
        return flat, inside if self._known is None else inside & self._known[flat]


def _cuts(size: int, step: int) -> list[slice]:
    """`size` things in slices of `step`, the last one shorter."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


class CachedSharedFeatures:
    """Samples whose blocks carry what a shared network that does not move contributes at each depth.

    That is L numbers a sample and depth: computed once where all of it fits into memory, else with each draw.

    Args:
        samples: whose blocks to complete.
        shared_features: from coordinates `[B, N, D]` to `[B, L, N]`, as the model has it.
        limit: bytes that kept blocks may take.
    """

    def __init__(
        self, samples: Samples, shared_features: Callable[[Tensor], Iterator[Tensor | None]], limit: int
    ) -> None:
        self.complete, self._may_keep = samples.complete, True
        self._samples, self._shared_features, self._limit = samples, shared_features, limit
        self._kept: Draw | None = None

    def draw(self, step: int | None = None, awake: Tensor | None = None) -> Draw:
        draw, blocks, size = self._samples.draw(step), [], 0
        if draw.complete and self._kept is not None:
            return self._kept
        completed = map(self._completed, draw.blocks)
        if draw.complete and self._may_keep:
            for block in completed:
                blocks.append(block)
                size += block.nbytes
                if size > self._limit:
                    self._may_keep = False  # or every draw would fill the memory up to here, for nothing
                    break
            else:
                self._kept = replace(draw, blocks=blocks)
                return self._kept
        return replace(draw, blocks=itertools.chain(blocks, completed))

    @torch.no_grad()
    def _completed(self, block: Block) -> Block:
        return replace(block, shared_features=list(self._shared_features(block.x)))


def _along_axes(places: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Flat places as places along each axis; `torch.unravel_index` imports a computer algebra system for that."""
    axes: list[Tensor] = []
    for size in reversed(sizes):
        axes.insert(0, places % size)
        places = places // size
    return axes
