"""The windows that partitions train on: a signal at its positions, and blocks of its samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.grid.box import Box, box_of_shape, shifted, slices
from lgsirens.grid.coordinates import Coordinates, axis_coordinates, mesh
from lgsirens.grid.lattice import Lattice, dense_parts, split
from lgsirens.nn.kernels.block import Block, Rows
from lgsirens.signal import Signal


@dataclass(frozen=True)
class PositionedSignal:
    """A signal at its positions.

    Attributes:
        signal: the samples of `box`; those that its mask leaves out are not known and carry no loss.
        box: positions.
        extent: what the windows of partitions lie in.
    """

    signal: Signal
    box: Box
    extent: Box

    @classmethod
    def first(cls, signal: Signal) -> "PositionedSignal":
        """A first signal: all of it, from position 0; what it lacks is encoded as the values that stand there."""
        box = box_of_shape(signal.shape)
        return cls(replace(signal, mask=None), box, box)

    def read(self, box: Box) -> NDArray[Any]:
        """Samples `[*box_shape(box), C]` of positions inside `self.box`; no others are read, as `Signal.read`."""
        return self.signal.read(shifted(box, [-start for start, _ in self.box]))


# Some samples of windows: a box of each, or along each axis the places, `[B, N]` or `[1, N]`, of single ones.
Places = tuple[slice, ...] | list[Tensor]


class Windows:
    """The samples that partitions train on. What is known of them is kept axis by axis `[P, W_d]`: a window has the
    product of its axes in samples, but only their sum in coordinates.

    Args:
        positioned: the samples.
        lattice: the P partitions.
        coordinates: of positions.
        device: where blocks are needed.
        centres: `[P, D]` on the device, coordinates of the signal from which local networks count theirs; None where
            `coordinates` say what they see.
        fitted: partitions of the whole fit, where those of the lattice are one rank's; None: P.
        beside: further signals of the same shape, all with tile coordinates. Their windows stand after those of the
            first, P for each.

    Attributes:
        signals: how many.
        rows: P times as many.
        tiled: whether all partitions see the same coordinates.
        fitted: partitions of the whole fit.
        alike: how many of them see the same: all, or one.
    """

    def __init__(
        self,
        positioned: PositionedSignal,
        lattice: Lattice,
        coordinates: Coordinates,
        device: torch.device,
        centres: Tensor | None = None,
        fitted: int | None = None,
        beside: Sequence[PositionedSignal] = (),
    ) -> None:
        self.positioned, self.lattice, self.device = positioned, lattice, device
        self._beside, self.signals = beside, 1 + len(beside)
        self.rows = self.signals * len(lattice)
        self.extent = coordinates.windows_in(positioned.extent)
        self.tiled = coordinates.kind == "tile"
        self.fitted = fitted or len(lattice)
        self.alike = self.fitted if self.tiled else 1
        self.positions = lattice.windows(self.extent)
        self.sizes = tuple(axis.shape[1] for axis in self.positions)
        places = np.arange(1 if self.tiled else len(lattice))
        positions, ids = [axis[: len(places)] for axis in self.positions], lattice.ids[places].astype(np.int64)
        x, x_local = axis_coordinates(coordinates, lattice, places, positions)
        owned = [p // t == ids[:, d, None] for d, (p, t) in enumerate(zip(positions, lattice.tile, strict=True))]
        self._x, self._x_local = ([axis.to(device) for axis in axes or ()] for axes in (x, x_local))
        if centres is not None:
            self._x_local = [axis - centre[:, None] for axis, centre in zip(self._x, centres.T, strict=True)]
        # Without a halo a window is what its partition owns.
        self._owned = [torch.from_numpy(axis).to(device).float() for axis in owned if any(lattice.halo)]

    def read(self, places: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Samples of the windows of some partitions, `[n, *sizes, C]` in [-1, 1], and which of them are there,
        `[n, *sizes]`. Of the signal little more is read than that."""
        parts = []
        for number, positioned in enumerate((self.positioned, *self._beside)):
            own = places[places // len(self.lattice) == number] % len(self.lattice)
            dense = dense_parts(self.lattice, own) if len(own) else ()
            parts += [self._read(positioned, self.lattice.select(part)) for part in dense]
        samples, known = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return samples, known

    def _read(self, positioned: PositionedSignal, part: Lattice) -> tuple[Tensor, Tensor]:
        signal, box = positioned.signal, positioned.box
        around = _around(part.windows(self.extent), box)
        mask = None if signal.mask is None else signal.mask[slices(around, box)]
        cut, there = split(positioned.read(around), part, self.extent, around, mask)
        shape = len(part), *self.sizes
        samples = to_network(torch.from_numpy(cut).view(*shape, signal.channels), signal.value_range)
        return samples.to(self.device), torch.from_numpy(there).view(shape).to(self.device)

    def block(self, rows: Rows, places: Places, target: Tensor, known: Tensor | None) -> Block:
        """A block of samples `[B, N, C]`, in [-1, 1]; `known` `[B, N]`, which of them are there, None if all are."""
        weight = None if known is None else known[..., None].float()
        x_local = _at(self._x_local, rows, places) if self._x_local else None
        own = self._own(rows, places)
        return Block(rows, _at(self._x, rows, places), x_local, target, weight, own, fitted=self.fitted)

    def owned(self, rows: Rows, places: Places, known: Tensor) -> Tensor:
        """Which of samples, `known` `[B, N]`, their partition owns, `[B, N]`."""
        own = self._own(rows, places)
        return known if own is None else known & (own[..., 0] > 0)

    def _own(self, rows: Rows, places: Places) -> Tensor | None:
        """`[B, N, 1]` or `[1, N, 1]`, 1 where the partition owns the sample, 0 in its halo; None without halos."""
        return _at(self._owned, rows, places).prod(dim=-1, keepdim=True) if self._owned else None


def _around(windows: list[NDArray[np.int64]], box: Box) -> Box:
    """The samples of a box that windows meet; where there are none, the nearest."""
    found = []
    for axis, (first, last) in zip(windows, box, strict=True):
        start = min(max(int(axis.min()), first), last - 1)
        found.append((start, max(start + 1, min(int(axis.max()) + 1, last))))
    return tuple(found)


def _at(axes: list[Tensor], rows: Rows, places: Places) -> Tensor:
    """`[B, N, D]`, or `[1, N, D]` of what all share, at some samples of windows, of values kept along each axis."""
    rows = slice(0, 1) if len(axes[0]) == 1 else rows
    if isinstance(places, tuple):
        return mesh([axis[rows, part] for axis, part in zip(axes, places, strict=True)])
    return torch.stack([axis[rows].gather(1, at) for axis, at in zip(axes, places, strict=True)], dim=1).mT


def to_network(samples: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Samples of any type to float32, the value range to [-1, 1]; rounded once, since ranges may lie far from 0.

    >>> to_network(torch.tensor([0, 51, 255], dtype=torch.uint8), (0.0, 255.0))
    tensor([-1.0000, -0.6000,  1.0000])
    """
    lowest, highest = value_range
    return ((samples.double() - lowest) * (2 / (highest - lowest)) - 1).float()
