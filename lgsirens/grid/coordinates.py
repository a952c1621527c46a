"""From positions to what the networks see; resolutions, rational along each dimension, and the fine samples of a box.

Fine sample j at scale s lies at position `(j + 0.5) / s - 0.5`; scale 1 gives the samples' own positions.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, RegionError
from lgsirens.grid.box import Box, box_shape
from lgsirens.grid.lattice import Lattice

Positions = TypeVar("Positions", NDArray[np.float64], Tensor)
Scale = int | float | str | Fraction | Sequence[int | float | str | Fraction]

_SCALE = re.compile(r"[+-]?(\d{1,18}/\d{1,18}|(\d{1,18}\.?\d{0,18}|\.\d{1,18})(e[+-]?\d{1,2})?)", re.IGNORECASE)
_LARGEST_DENOMINATOR = 1_000_000
_LARGEST_SIDE = 1 << 31


# Beyond this many samples an axis keeps the step of a signal of this length: float32 could not tell them apart.
LONGEST_AXIS = 2_500_000

COORDINATES = ("signal", "tile")


@dataclass(frozen=True)
class Coordinates:
    """The fixed map from positions to what the networks see, set once, when the first signal is encoded.

    Attributes:
        kind: "signal", the paper's, one affine map for all partitions; or "tile", each partition's own.
        size: shape of the first signal.
        shared_scale: along each axis the coordinate of the first signal's last sample (its first has minus that); of
            "tile" that of the tile's end.
        local_scale: along each axis the scale of the own tile's coordinates that local networks see; None if they see
            what the shared network sees, which is the signal's.
    """

    kind: str
    size: tuple[int, ...]
    shared_scale: tuple[float, ...]
    local_scale: tuple[float, ...] | None = None

    def windows_in(self, extent: Box) -> Box | None:
        """What windows of partitions lie in: with the signal's coordinates the extent; with those of tiles every window
        is the tile and its halo, wherever that lies, so that all of them see the same."""
        return extent if self.kind == "signal" else None

    def of_signal(self, axis: int, position: Positions) -> Positions:
        """The signal's coordinate of positions along one axis; an axis of one sample has it at 0."""
        scale, size = self.shared_scale[axis], min(self.size[axis], LONGEST_AXIS)
        if size > 1:
            return scale * (2 * position / (size - 1) - 1)
        longest = min(max(self.size), LONGEST_AXIS)
        return position * (2 * scale / (longest - 1) if longest > 1 else scale)

    def seen(self, axis: int, tile: int, position: Positions, offset: Positions) -> tuple[Positions, Positions | None]:
        """What the shared network sees along one axis, and what the local ones see instead (None: the same).

        Args:
            tile: samples of a tile along the axis.
            position: absolute.
            offset: the same, counted from the first sample of the partition's tile.
        """
        # From -1 at the tile's beginning, half a sample before its first one, to 1 at its end.
        in_tile = (offset - (tile - 1) / 2) / (tile / 2)
        shared = in_tile * self.shared_scale[axis] if self.kind == "tile" else self.of_signal(axis, position)
        return shared, None if self.local_scale is None else in_tile * self.local_scale[axis]


def axis_coordinates(
    coordinates: Coordinates,
    lattice: Lattice,
    places: NDArray[Any],
    positions: list[NDArray[Any]],
    offsets: list[NDArray[Any]] | None = None,
) -> tuple[list[Tensor], list[Tensor] | None]:
    """Network coordinates along each axis, computed in float64 and rounded once.

    Args:
        places: `[B]`, the partition of each row.
        positions: per axis `[B, m_d]`, positions of B partitions.
        offsets: the same, counted from the first samples of the tiles; None where positions are whole numbers.

    Returns:
        per axis `[B, m_d]` float32: what the shared network sees, and what the local networks see instead (None if
        they see the same).
    """
    shared, local = [], []
    origins = lattice.ids[places].astype(np.int64) * lattice.tile
    for axis, position in enumerate(positions):
        offset = position - origins[:, axis, None] if offsets is None else offsets[axis]
        exact = [torch.from_numpy(numbers.astype(np.float64)) for numbers in (position, offset)]
        outer, inner = coordinates.seen(axis, lattice.tile[axis], *exact)
        shared.append(outer.float())
        if inner is not None:
            local.append(inner.float())
    return shared, (local or None)


def mesh(axes: list[Tensor]) -> Tensor:
    """Coordinates per axis `[B, m_d]` to all their combinations `[B, N, D]`, N = product of m_d in C order."""
    sizes = [axis.shape[1] for axis in axes]
    columns = [
        axis.view(-1, *(size if d == k else 1 for k, size in enumerate(sizes))).expand(-1, *sizes)
        for d, axis in enumerate(axes)
    ]
    # Laid out as the models use it, one contiguous line of N per dimension.
    return torch.stack(columns, dim=1).view(len(axes[0]), len(axes), math.prod(sizes)).mT


def as_scales(box: Box, scale: Scale, size: Sequence[int] | None = None) -> tuple[Fraction, ...]:
    """The scale along each dimension for decoding `box`, given as a scale or as the size of the result.

    Raises:
        ConfigError: the scale is not positive, leaves no sample, or is given beside a size.
        RegionError: a size of wrong dimension.
    """
    if size is not None:
        if not (isinstance(scale, int) and scale == 1):
            raise ConfigError("and size exclude each other; give one of them", "scale")
        whole = isinstance(size, list | tuple) and all(type(n) is int and 0 < n < _LARGEST_SIDE for n in size)
        if not whole or len(size) != len(box):
            given = ",".join(map(str, size)) if isinstance(size, list | tuple) else size
            raise RegionError(f"size {given}: give {len(box)} positive whole numbers, rows first")
        return tuple(Fraction(n, high - low) for n, (low, high) in zip(size, box, strict=True))
    parts: Sequence[Any] = scale if isinstance(scale, list | tuple) else str(scale).split(",")
    scales = tuple(_as_fraction(part) for part in parts)
    if len(scales) == 1:
        scales *= len(box)
    if len(scales) != len(box):
        raise ConfigError(
            f"scale {scale} has {len(scales)} entries; give one, or one for each of {len(box)} dimensions"
        )
    fine = box_shape(fine_box(box, scales))
    if min(fine) < 1:
        raise ConfigError(f"scale {scale} leaves no sample of this region; give a larger scale or region")
    if max(fine) >= _LARGEST_SIDE:
        raise ConfigError(f"scale {scale} asks for {max(fine)} samples along one side; give a smaller scale")
    return scales


def fine_box(box: Box, scales: tuple[Fraction, ...]) -> Box:
    """The fine samples whose positions lie in `[a - 0.5, b - 0.5)` of each range `a:b`."""
    return tuple((_first_fine(a, s), _first_fine(b, s)) for (a, b), s in zip(box, scales, strict=True))


def finer(scales: tuple[Fraction, ...]) -> tuple[int, ...]:
    """Of how many samples along each axis those of a scale below 1 are the mean, so that these lie no further apart
    than the signal's own."""
    return tuple(math.ceil(1 / scale) for scale in scales)


def covered(fine: Box, scales: tuple[Fraction, ...]) -> Box:
    """The smallest box of positions with all samples that fine ones lie next to, the inverse of `fine_box`."""
    return tuple(
        ((2 * a + 1) * s.denominator // (2 * s.numerator), (2 * b - 1) * s.denominator // (2 * s.numerator) + 1)
        for (a, b), s in zip(fine, scales, strict=True)
    )


def fine_positions(first: NDArray[Any], size: int, scale: Fraction) -> NDArray[np.float64]:
    """Positions `[..., size]` of the fine samples from `first` `[...]` on."""
    return np.asarray((first[..., None] + np.arange(size) + 0.5) * scale.denominator / scale.numerator - 0.5)


def fine_offsets(first: NDArray[Any], size: int, scale: Fraction, origin: NDArray[Any]) -> NDArray[np.float64]:
    """`fine_positions` counted from positions `origin` `[...]`, rounded once: the same wherever the origin lies, if its
    fine samples lie alike around it."""
    doubled = 2 * (first[..., None] + np.arange(size)) + 1
    numerator = doubled * scale.denominator - (2 * origin[..., None] + 1) * scale.numerator
    return np.asarray(numerator / (2 * scale.numerator))


def _first_fine(position: int, scale: Fraction) -> int:
    """The first fine sample j with `(j + 0.5) / s >= position`, position counted in tile borders."""
    # ceil(position * scale - 1/2) in whole numbers: of all that a decode does in Python this was the slowest.
    return -((scale.denominator - 2 * position * scale.numerator) // (2 * scale.denominator))


def _as_fraction(value: Any) -> Fraction:
    text = str(value).strip()
    try:
        # An exponent of nine digits would keep Fraction busy for ever.
        scale = Fraction(text).limit_denominator(_LARGEST_DENOMINATOR) if _SCALE.fullmatch(text) else None
    except ZeroDivisionError:
        scale = None
    if scale is None:
        raise ConfigError(f"scale {value!r} is no number; give one such as 2, 1.5 or 3/2")
    if scale <= 0:
        raise ConfigError(f"scale {value} is not positive; give a number above 0")
    return scale
