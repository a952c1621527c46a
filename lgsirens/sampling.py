"""Which samples a step sees, in blocks that bound the working memory."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lgsirens.lattice import Frame, Lattice, axis_coordinates, block_shape, mesh, split
from lgsirens.region import box_of_shape
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
    """

    rows: slice
    x: Tensor
    x_local: Tensor | None
    target: Tensor
    weight: Tensor | None


class AllSamples:
    """Every sample in every step (the published recipe for images and audio).

    Args:
        signal: the samples of the extent, whose first lies at position 0.
        lattice: the P partitions.
        frame: positions to coordinates.
        samples_per_block: bound on B * N.
        device: where blocks are needed.
    """

    def __init__(
        self, signal: Signal, lattice: Lattice, frame: Frame, samples_per_block: int, device: torch.device
    ) -> None:
        extent = box_of_shape(signal.shape)
        windows = lattice.windows(extent)
        self._sizes = tuple(window.shape[1] for window in windows)
        shape = (len(lattice), *self._sizes)
        samples, mask = split(signal.values, lattice, extent)
        self.count = int(mask.sum()) * signal.channels
        self._samples = torch.from_numpy(samples.reshape(*shape, signal.channels)).to(device)
        self._mask = None if mask.all() else torch.from_numpy(mask.reshape(shape)).to(device)
        shared, local = axis_coordinates(frame, lattice, np.arange(len(lattice)), windows)
        self._shared = [axis.to(device) for axis in shared]
        self._local = None if local is None else [axis.to(device) for axis in local]
        self._range = signal.value_range
        self._shape = block_shape(self._sizes, samples_per_block)
        self._rows = max(1, samples_per_block // math.prod(self._shape))

    def blocks(self) -> Iterator[Block]:
        """All samples, each once."""
        corners = [range(0, size, step) for size, step in zip(self._sizes, self._shape, strict=True)]
        for start in range(0, len(self._samples), self._rows):
            rows = slice(start, min(start + self._rows, len(self._samples)))
            for corner in itertools.product(*corners):
                yield self._block(rows, tuple(slice(c, c + n) for c, n in zip(corner, self._shape, strict=True)))

    def _block(self, rows: slice, box: tuple[slice, ...]) -> Block:
        def coordinates(axes: list[Tensor]) -> Tensor:
            return mesh([axis[rows, part] for axis, part in zip(axes, box, strict=True)])

        lowest, highest = self._range
        samples = self._samples[(rows, *box)]
        target = samples.reshape(len(samples), -1, samples.shape[-1]).float()
        weight = None if self._mask is None else self._mask[(rows, *box)].reshape(len(samples), -1, 1).float()
        return Block(
            rows,
            coordinates(self._shared),
            None if self._local is None else coordinates(self._local),
            (target - lowest) * (2 / (highest - lowest)) - 1,
            weight,
        )
