"""Which samples a step sees, in blocks that bound the working memory."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.grid.box import Box, box_of_shape, slices
from lgsirens.grid.coordinates import Coordinates, axis_coordinates, mesh
from lgsirens.grid.lattice import Lattice, block_shape, split
from lgsirens.nn.kernels.block import Block
from lgsirens.signal import Array, Signal


@dataclass(frozen=True)
class Draw:
    """What one step sees: blocks, and how many numbers (samples times channels) of them count.

    Attributes:
        count: in the loss; at least 1.
        own: `[P]`, in the PSNR, which is of what will be decoded: halos left out.
    """

    count: int
    own: Tensor
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
class PositionedSignal:
    """A signal at its positions.

    Attributes:
        signal: the samples of `box`; those that its mask leaves out are not known and carry no loss.
        box: positions.
        extent: all positions that are encoded.
    """

    signal: Signal
    box: Box
    extent: Box

    @classmethod
    def first(cls, signal: Signal) -> "PositionedSignal":
        """A first signal: all of it, from position 0; what it lacks is encoded as the values that stand there."""
        box = box_of_shape(signal.shape)
        return cls(replace(signal, mask=None), box, box)

    def read(self, box: Box) -> tuple[Array, NDArray[np.bool_] | None]:
        """Samples `[*box_shape(box), C]` of a box of positions in the signal's, and which of them are known
        `[*box_shape(box)]`; None if all are.

        >>> sound = Signal.from_array(np.arange(8, dtype=np.float32), "audio")
        >>> values, known = PositionedSignal(sound, ((-4, 4),), ((-4, 20),)).read(((-1, 2),))
        >>> values.ravel().tolist(), known
        ([3.0, 4.0, 5.0], None)
        """
        where = slices(box, self.box)
        mask = self.signal.mask
        return self.signal.read(tuple((axis.start, axis.stop) for axis in where)), None if mask is None else mask[where]


def samples_of(
    positioned: PositionedSignal,
    lattice: Lattice,
    coordinates: Coordinates,
    samples_per_block: int,
    device: torch.device,
    sample_frac: float | None,
    generator: torch.Generator,
) -> Samples:
    """All samples in every step, or where a fraction is given, that many at random."""
    if sample_frac is None:
        return AllSamples(positioned, lattice, coordinates, samples_per_block, device)
    return RandomSamples(positioned, lattice, coordinates, samples_per_block, device, sample_frac, generator)


class AllSamples:
    """Every sample in every step (the published recipe for images and audio).

    Args:
        positioned: the samples.
        lattice: the P partitions.
        coordinates: of positions.
        samples_per_block: bound on B * N.
        device: where blocks are needed.
    """

    complete = True

    def __init__(
        self,
        positioned: PositionedSignal,
        lattice: Lattice,
        coordinates: Coordinates,
        samples_per_block: int,
        device: torch.device,
    ) -> None:
        values, known = positioned.read(positioned.box)
        self._windows = windows = _Windows(positioned, lattice, coordinates, device)
        samples, mask = split(values, lattice, windows.extent, positioned.box, known)
        shape, channels = (len(lattice), *windows.sizes), values.shape[-1]
        self._samples = torch.from_numpy(samples.reshape(*shape, channels)).to(device)
        self._mask = None if mask.all() else torch.from_numpy(mask.reshape(shape)).to(device)
        self._count = max(1, int(mask.sum()) * channels)
        owned = torch.from_numpy(mask).to(device)
        if any(lattice.halo):
            owned = owned & (windows.own(slice(None), (slice(None),) * len(windows.sizes))[..., 0] > 0)
        self._own = owned.sum(dim=1) * channels
        self._range = positioned.signal.value_range
        self._shape = block_shape(windows.sizes, samples_per_block // windows.rows_at_least(samples_per_block))
        self._rows = max(1, samples_per_block // math.prod(self._shape))

    def draw(self) -> Draw:
        return Draw(self._count, self._own, self._blocks())

    def _blocks(self) -> Iterator[Block]:
        corners = [range(0, size, step) for size, step in zip(self._windows.sizes, self._shape, strict=True)]
        for start in range(0, len(self._samples), self._rows):
            rows = slice(start, min(start + self._rows, len(self._samples)))
            for corner in itertools.product(*corners):
                yield self._block(rows, tuple(slice(c, c + n) for c, n in zip(corner, self._shape, strict=True)))

    def _block(self, rows: slice, box: tuple[slice, ...]) -> Block:
        samples = self._samples[(rows, *box)].flatten(1, -2)
        weight = None if self._mask is None else self._mask[(rows, *box)].flatten(1)[..., None].float()
        return self._windows.block(rows, box, to_network(samples, self._range), weight)


class RandomSamples:
    """In each step `int(fraction * samples / P)` samples of each partition's window, drawn with replacement (the
    published recipe for video). Beside the signal itself one number a partition is kept, so memory follows the
    fraction.

    Args:
        positioned, lattice, coordinates, samples_per_block, device: as for `AllSamples`.
        fraction: of the samples that the partitions own, above 0 and at most 1.
        generator: on the device.
    """

    complete = False

    def __init__(
        self,
        positioned: PositionedSignal,
        lattice: Lattice,
        coordinates: Coordinates,
        samples_per_block: int,
        device: torch.device,
        fraction: float,
        generator: torch.Generator,
    ) -> None:
        values, known = positioned.read(positioned.box)
        self._values = torch.from_numpy(values.reshape(-1, values.shape[-1])).to(device)
        self._known = None if known is None else torch.from_numpy(known.reshape(-1)).to(device)
        self._box, self._range = positioned.box, positioned.signal.value_range
        self._windows, self._halo = _Windows(positioned, lattice, coordinates, device), any(lattice.halo)
        self._positions = [torch.from_numpy(axis).to(device) for axis in lattice.windows(self._windows.extent)]
        self._each = max(1, int(fraction * lattice.samples_within(positioned.extent) / len(lattice)))
        self._columns = min(self._each, samples_per_block // self._windows.rows_at_least(samples_per_block))
        self._rows = max(1, samples_per_block // self._columns)
        self._generator = generator

    def draw(self) -> Draw:
        # How many lie inside is known only once all are drawn. To keep them would take memory that grows with the
        # signal, so each block draws its own again.
        again = self._generator.clone_state()
        partitions, channels, device = len(self._positions[0]), self._values.shape[1], self._values.device
        count = torch.zeros((), dtype=torch.int64, device=device)
        own = torch.zeros(partitions, dtype=torch.int64, device=device)
        for rows, places in self._places(self._generator):
            _, inside = self._find(rows, places)
            count += inside.sum()
            own[rows] += (inside & (self._windows.own(rows, places)[..., 0] > 0) if self._halo else inside).sum(dim=1)
        whole = int(count) == partitions * self._each
        blocks = (self._block(rows, places, whole) for rows, places in self._places(again))
        return Draw(max(1, int(count)) * channels, own * channels, blocks)

    def _places(self, generator: torch.Generator) -> Iterator[tuple[slice, list[Tensor]]]:
        """Per block its rows, and where in their windows the samples drawn are, along each axis `[B, N]`, or `[1, N]`
        if they are the same for all partitions. A CPU draws number after number, so that they do not depend on how they
        are cut into blocks."""
        partitions, sizes = len(self._positions[0]), self._windows.sizes
        each_row = [slice(start, min(start + self._rows, partitions)) for start in range(0, partitions, self._rows)]
        draw = partial(torch.randint, math.prod(sizes), generator=generator, device=self._values.device)
        columns = [min(self._columns, self._each - column) for column in range(0, self._each, self._columns)]
        if self._windows.shared:
            for size in columns:
                places = list(torch.unravel_index(draw(size=(1, size)), sizes))
                yield from ((rows, places) for rows in each_row)
        else:
            for rows in each_row:
                for size in columns:
                    yield rows, list(torch.unravel_index(draw(size=(rows.stop - rows.start, size)), sizes))

    def _block(self, rows: slice, places: list[Tensor], whole: bool) -> Block:
        flat, inside = self._find(rows, places)
        weight = None if whole else inside[..., None].float()
        return self._windows.block(rows, places, to_network(self._values[flat], self._range), weight)

    def _find(self, rows: slice, places: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Where in the samples the places of windows are, and whether they are there; else the nearest stands there."""
        shape = rows.stop - rows.start, places[0].shape[1]
        flat = torch.zeros(shape, dtype=torch.int64, device=self._values.device)
        inside = torch.ones_like(flat, dtype=torch.bool)
        for place, positions, (low, high) in zip(places, self._positions, self._box, strict=True):
            position = positions[rows].gather(1, place.expand(shape))
            inside &= (position >= low) & (position < high)
            flat = flat * (high - low) + (position - low).clamp(0, high - low - 1)
        return flat, inside if self._known is None else inside & self._known[flat]


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
        self.complete, self._may_keep = samples.complete, samples.complete
        self._samples, self._shared_features, self._limit = samples, shared_features, limit
        self._kept: tuple[Draw, list[Block]] | None = None

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
            size += block.nbytes
            if size > self._limit:
                self._may_keep = False  # or every draw would fill the memory up to here, for nothing
                return replace(draw, blocks=itertools.chain(blocks, completed))
        self._kept = draw, blocks
        return replace(draw, blocks=iter(blocks))

    @torch.no_grad()
    def _completed(self, block: Block) -> Block:
        return replace(block, shared_features=list(self._shared_features(block.x)))


def to_network(samples: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Samples of any type to float32, the value range to [-1, 1]; rounded once, since ranges may lie far from 0.

    >>> to_network(torch.tensor([0, 51, 255], dtype=torch.uint8), (0.0, 255.0))
    tensor([-1.0000, -0.6000,  1.0000])
    """
    lowest, highest = value_range
    return ((samples.double() - lowest) * (2 / (highest - lowest)) - 1).float()


# Some samples of windows: a box of each, or along each axis the places `[B, N]` or `[1, N]` of single ones.
_Places = tuple[slice, ...] | list[Tensor]


# With fewer samples of a row in a block matrix products are too narrow to be fast.
_LEAST_COLUMNS = 64


class _Windows:
    """What is known of the samples that partitions train on, kept axis by axis `[P, W_d]`: a window has the product
    of its axes in samples, but only their sum in coordinates. Where all see the same (`shared`) it is kept once,
    `[1, W_d]`."""

    def __init__(
        self, positioned: PositionedSignal, lattice: Lattice, coordinates: Coordinates, device: torch.device
    ) -> None:
        self.extent, self.shared = coordinates.windows_in(positioned.extent), coordinates.kind == "tile"
        positions = lattice.windows(self.extent)
        self.sizes, self._partitions = tuple(axis.shape[1] for axis in positions), len(lattice)
        if self.shared:
            lattice, positions = lattice.select(np.arange(1)), [axis[:1] for axis in positions]
        x, x_local = axis_coordinates(coordinates, lattice, np.arange(len(lattice)), positions)
        ids = lattice.ids.astype(np.int64)
        owned = [p // t == ids[:, d, None] for d, (p, t) in enumerate(zip(positions, lattice.tile, strict=True))]
        self._x = [axis.to(device) for axis in x]
        self._x_local = None if x_local is None else [axis.to(device) for axis in x_local]
        self._owned = [torch.from_numpy(axis).to(device).float() for axis in owned]
        self._halo = any(lattice.halo)

    def rows_at_least(self, samples_per_block: int) -> int:
        """How many rows a block has if there are so many: the shared network is evaluated once a block."""
        return min(self._partitions, max(1, samples_per_block // _LEAST_COLUMNS)) if self.shared else 1

    def block(self, rows: slice, places: _Places, target: Tensor, weight: Tensor | None) -> Block:
        x_local = None if self._x_local is None else _at(self._x_local, rows, places)
        own = self.own(rows, places) if self._halo else None
        return Block(rows, _at(self._x, rows, places), x_local, target, weight, own)

    def own(self, rows: slice, places: _Places) -> Tensor:
        """`[B, N, 1]`, 1 where the partition owns the sample and 0 in its halo."""
        return _at(self._owned, rows, places).prod(dim=-1, keepdim=True)


def _at(axes: list[Tensor], rows: slice, places: _Places) -> Tensor:
    """`[B, N, D]`, or `[1, N, D]` of what is kept once, at some samples of windows, of values kept along each axis."""
    rows = slice(0, 1) if len(axes[0]) == 1 else rows
    if isinstance(places, tuple):
        return mesh([axis[rows, part] for axis, part in zip(axes, places, strict=True)])
    return torch.stack([axis[rows].gather(1, at) for axis, at in zip(axes, places, strict=True)], dim=1).mT
