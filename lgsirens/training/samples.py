"""Which samples a step sees, in blocks that bound the working memory."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.grid.box import Box, box_of_shape
from lgsirens.grid.coordinates import Coordinates, axis_coordinates, mesh
from lgsirens.grid.lattice import Lattice, block_shape, split
from lgsirens.signal import Signal


@dataclass(frozen=True)
class Block:
    """Samples of some partitions.

    Attributes:
        rows: B consecutive partitions.
        x: `[B, N, D]` coordinates of the signal.
        x_local: `[B, N, D]`, what local networks see instead, or None.
        target: `[B, N, C]` in [-1, 1].
        weight: `[B, N, 1]`, 0 where there is no sample; None if all are there.
        own: `[B, N, 1]`, 1 where the partition owns the sample and 0 in its halo; None if `weight` says it all.
        shared_features: what a shared network that does not move contributes at each depth, if that is known already.
    """

    rows: slice
    x: Tensor
    x_local: Tensor | None
    target: Tensor
    weight: Tensor | None
    own: Tensor | None
    shared_features: list[Tensor | None] | None = None


@dataclass(frozen=True)
class Draw:
    """What one step sees: blocks, and how many numbers (samples times channels) of them count.

    Attributes:
        count: in the loss.
        own: in the PSNR, which is of what will be decoded: halos left out.
    """

    count: int
    own: int
    blocks: Iterator[Block]


class Samples(Protocol):
    """A source of steps.

    Attributes:
        complete: every draw is of all samples, so that the errors of two steps can be compared.
    """

    complete: bool

    def draw(self) -> Draw:
        """The samples of the next step."""
        ...


@dataclass(frozen=True)
class Placed:
    """Samples at their positions.

    Attributes:
        signal: the samples of `box`; those that its mask leaves out are not known and carry no loss.
        box: positions.
        extent: what the windows of partitions lie in.
    """

    signal: Signal
    box: Box
    extent: Box

    @classmethod
    def first(cls, signal: Signal) -> "Placed":
        """A first signal: all of it, from position 0; what it lacks is encoded as the values that stand there."""
        box = box_of_shape(signal.shape)
        return cls(replace(signal, mask=None), box, box)


class AllSamples:
    """Every sample in every step (the published recipe for images and audio).

    Args:
        placed: the samples.
        lattice: the P partitions.
        coordinates: of positions.
        samples_per_block: bound on B * N.
        device: where blocks are needed.
    """

    complete = True

    def __init__(
        self, placed: Placed, lattice: Lattice, coordinates: Coordinates, samples_per_block: int, device: torch.device
    ) -> None:
        signal, windows = placed.signal, lattice.windows(placed.extent)
        self._sizes = tuple(window.shape[1] for window in windows)
        shape = (len(lattice), *self._sizes)
        samples, mask = split(signal.values, lattice, placed.extent, placed.box, signal.mask)
        self._count = self._own_count = int(mask.sum()) * signal.channels
        self._own = _Owned(lattice, windows, device) if any(lattice.halo) else None
        if self._own is not None:
            owned = self._own.of_box(slice(None), (slice(None),) * len(windows))[..., 0].cpu().numpy() > 0
            self._own_count = int((owned & mask).sum()) * signal.channels
        self._samples = torch.from_numpy(samples.reshape(*shape, signal.channels)).to(device)
        self._mask = None if mask.all() else torch.from_numpy(mask.reshape(shape)).to(device)
        self._coordinates = _WindowCoordinates(coordinates, lattice, windows, device)
        self._range = signal.value_range
        self._shape = block_shape(self._sizes, samples_per_block)
        self._rows = max(1, samples_per_block // math.prod(self._shape))

    def draw(self) -> Draw:
        return Draw(self._count, self._own_count, self._blocks())

    def _blocks(self) -> Iterator[Block]:
        corners = [range(0, size, step) for size, step in zip(self._sizes, self._shape, strict=True)]
        for start in range(0, len(self._samples), self._rows):
            rows = slice(start, min(start + self._rows, len(self._samples)))
            for corner in itertools.product(*corners):
                yield self._block(rows, tuple(slice(c, c + n) for c, n in zip(corner, self._shape, strict=True)))

    def _block(self, rows: slice, box: tuple[slice, ...]) -> Block:
        samples = self._samples[(rows, *box)]
        weight = None if self._mask is None else self._mask[(rows, *box)].reshape(len(samples), -1, 1).float()
        x, x_local = self._coordinates.of_box(rows, box)
        target = to_network(samples.reshape(len(samples), -1, samples.shape[-1]), self._range)
        return Block(rows, x, x_local, target, weight, None if self._own is None else self._own.of_box(rows, box))


class RandomSamples:
    """In each step `int(fraction * samples / P)` samples of each partition's window, drawn with replacement (the
    published recipe for video). Nothing but the signal itself is kept, so memory follows the fraction.

    Args:
        placed, lattice, coordinates, samples_per_block, device: as for `AllSamples`.
        fraction: of the samples that the partitions own, above 0 and at most 1.
        generator: on the device.
    """

    complete = False

    def __init__(
        self,
        placed: Placed,
        lattice: Lattice,
        coordinates: Coordinates,
        samples_per_block: int,
        device: torch.device,
        fraction: float,
        generator: torch.Generator,
    ) -> None:
        signal, windows = placed.signal, lattice.windows(placed.extent)
        self._sizes = tuple(window.shape[1] for window in windows)
        self._values = torch.from_numpy(signal.values.reshape(-1, signal.channels)).to(device)
        self._known = None if signal.mask is None else torch.from_numpy(signal.mask.reshape(-1)).to(device)
        self._box, self._range = placed.box, signal.value_range
        self._windows = [torch.from_numpy(window).to(device) for window in windows]
        self._coordinates = _WindowCoordinates(coordinates, lattice, windows, device)
        self._each = max(1, int(fraction * lattice.samples_within(placed.extent) / len(lattice)))
        self._columns = min(self._each, samples_per_block)
        self._rows = max(1, samples_per_block // self._columns)
        self._generator = generator
        self._own = _Owned(lattice, windows, device) if any(lattice.halo) else None

    def draw(self) -> Draw:
        # How many lie inside is known only once all are drawn. To keep them would take memory that grows with the
        # signal, so each block draws its own again.
        again = self._generator.clone_state()
        sums = torch.zeros(2, dtype=torch.int64, device=self._values.device)
        for rows, places in self._places(self._generator):
            _, inside = self._find(rows, places)
            owned = inside if self._own is None else inside & (self._own.of_places(rows, places)[..., 0] > 0)
            sums += torch.stack([inside.sum(), owned.sum()])
        count, own = sums.tolist()
        whole, channels = count == len(self._windows[0]) * self._each, self._values.shape[1]
        blocks = (self._block(rows, places, whole) for rows, places in self._places(again))
        return Draw(max(1, count) * channels, max(1, own) * channels, blocks)

    def _places(self, generator: torch.Generator) -> Iterator[tuple[slice, list[Tensor]]]:
        """Per block its rows, and where in their windows the samples drawn are, `[B, N]` along each axis. A CPU draws
        number after number, so that they do not depend on how they are cut into blocks."""
        partitions, device = len(self._windows[0]), self._values.device
        for start in range(0, partitions, self._rows):
            rows = slice(start, min(start + self._rows, partitions))
            for column in range(0, self._each, self._columns):
                size = (rows.stop - start, min(self._columns, self._each - column))
                picks = torch.randint(math.prod(self._sizes), size, generator=generator, device=device)
                yield rows, self._unravel(picks)

    def _block(self, rows: slice, places: list[Tensor], whole: bool) -> Block:
        flat, inside = self._find(rows, places)
        x, x_local = self._coordinates.of_places(rows, places)
        weight = None if whole else inside[..., None].float()
        own = None if self._own is None else self._own.of_places(rows, places)
        return Block(rows, x, x_local, to_network(self._values[flat], self._range), weight, own)

    def _find(self, rows: slice, places: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Where in the samples the places of windows are, and whether they are there; else the nearest stands there."""
        flat = torch.zeros_like(places[0])
        inside = torch.ones_like(flat, dtype=torch.bool)
        for place, window, (low, high) in zip(places, self._windows, self._box, strict=True):
            position = window[rows].gather(1, place)
            inside &= (position >= low) & (position < high)
            flat = flat * (high - low) + (position - low).clamp(0, high - low - 1)
        return flat, inside if self._known is None else inside & self._known[flat]

    def _unravel(self, picks: Tensor) -> list[Tensor]:
        """Numbers of samples in a window to their places along each axis."""
        places = []
        for size in reversed(self._sizes):
            places.append(picks % size)
            picks = picks // size
        return places[::-1]


class Centred:
    """Samples whose local networks see coordinates counted from a centre of each partition.

    Args:
        samples: whose local networks see the signal's coordinates.
        centres: `[P, D]`.
    """

    def __init__(self, samples: Samples, centres: Tensor) -> None:
        self.complete, self._samples, self._centres = samples.complete, samples, centres

    def draw(self) -> Draw:
        draw = self._samples.draw()
        return replace(draw, blocks=map(self._moved, draw.blocks))

    def _moved(self, block: Block) -> Block:
        return replace(block, x_local=(block.x.mT - self._centres[block.rows][..., None]).mT)


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
        self.complete = samples.complete
        self._samples, self._shared_features, self._limit = samples, shared_features, limit
        self._kept: tuple[Draw, list[Block]] | None = None
        self._may_keep = samples.complete

    def draw(self) -> Draw:
        if self._kept is not None:
            draw, blocks = self._kept
            return replace(draw, blocks=iter(blocks))
        draw = self._samples.draw()
        completed = map(self._completed, draw.blocks)
        if not self._may_keep:
            return replace(draw, blocks=completed)
        blocks, size = [], 0
        for block in completed:
            blocks.append(block)
            tensors = (block.x, block.x_local, block.target, block.weight, block.own, *(block.shared_features or ()))
            size += sum(tensor.nbytes for tensor in tensors if tensor is not None)
            if size > self._limit:
                self._may_keep = False
                return replace(draw, blocks=itertools.chain(blocks, completed))
        self._kept = draw, blocks
        return replace(draw, blocks=iter(blocks))

    @torch.no_grad()
    def _completed(self, block: Block) -> Block:
        return replace(block, shared_features=list(self._shared_features(block.x)))


def to_network(samples: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Samples of any type to float32, the value range to [-1, 1]; rounded once, since ranges may lie far from 0."""
    lowest, highest = value_range
    return ((samples.double() - lowest) * (2 / (highest - lowest)) - 1).float()


class _Owned:
    """Which samples of its window a partition owns, kept per axis `[P, W_d]`."""

    def __init__(self, lattice: Lattice, windows: list[NDArray[np.int64]], device: torch.device) -> None:
        ids = lattice.ids.astype(np.int64)
        owned = [w // t == ids[:, d, None] for d, (w, t) in enumerate(zip(windows, lattice.tile, strict=True))]
        self._axes = [torch.from_numpy(axis.astype(np.float32)).to(device) for axis in owned]

    def of_box(self, rows: slice, box: tuple[slice, ...]) -> Tensor:
        """`[B, N, 1]` of a box of each window."""
        axes = [axis[rows, part] for axis, part in zip(self._axes, box, strict=True)]
        return mesh(axes).prod(dim=-1, keepdim=True)

    def of_places(self, rows: slice, places: list[Tensor]) -> Tensor:
        """`[B, N, 1]` of single samples."""
        owned = torch.ones_like(places[0], dtype=torch.float32)
        for axis, at in zip(self._axes, places, strict=True):
            owned = owned * axis[rows].gather(1, at)
        return owned[..., None]


class _WindowCoordinates:
    """Network coordinates of the samples of each partition's window, kept per axis `[P, W_d]`."""

    def __init__(
        self, coordinates: Coordinates, lattice: Lattice, windows: list[NDArray[np.int64]], device: torch.device
    ) -> None:
        shared, local = axis_coordinates(coordinates, lattice, np.arange(len(lattice)), windows)
        self._shared = [axis.to(device) for axis in shared]
        self._local = None if local is None else [axis.to(device) for axis in local]

    def of_box(self, rows: slice, box: tuple[slice, ...]) -> tuple[Tensor, Tensor | None]:
        """`[B, N, D]` of a box of each window: the signal's coordinates, and the local ones."""

        def combine(axes: list[Tensor]) -> Tensor:
            return mesh([axis[rows, part] for axis, part in zip(axes, box, strict=True)])

        return combine(self._shared), None if self._local is None else combine(self._local)

    def of_places(self, rows: slice, places: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """`[B, N, D]` of single samples, given by their places `[B, N]` along each axis of the window."""

        def combine(axes: list[Tensor]) -> Tensor:
            return torch.stack([axis[rows].gather(1, at) for axis, at in zip(axes, places, strict=True)], dim=1).mT

        return combine(self._shared), None if self._local is None else combine(self._local)
