"""How near a representation is to a signal, partition by partition."""

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.grid.box import Box, intersect, is_empty, shifted, slices
from lgsirens.grid.lattice import bounding_extent, dense_parts
from lgsirens.representation.decode import decode
from lgsirens.representation.representation import Representation
from lgsirens.signal import Signal

_VALUES_AT_ONCE = 1 << 22


def measure(
    representation: Representation,
    signal: Signal,
    box: Box,
    places: NDArray[np.int64],
    device: torch.device | str,
    kernel: str,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """How near partitions are to a signal, which is read and decoded part by part.

    Args:
        box: where the signal lies; what its mask leaves out does not count.
        places: `[n]`, sorted, of the partitions to measure.

    Returns:
        Sums of their squared errors `[n]`, in the signal's units, where it has samples; and the means of what they
        decode to `[n, C]`.
    """
    lattice = representation.lattice
    at_once = max(1, _VALUES_AT_ONCE // (int(np.prod(lattice.tile)) * signal.channels))
    errors, means = [], []
    for start in range(0, len(places), at_once):
        for part in dense_parts(lattice, places[start : start + at_once]):
            around = bounding_extent(lattice.select(part), representation.extent)
            decoded = np.asarray(decode(representation.select(part), around, device=device, kernel=kernel).values)
            difference = _difference(decoded, around, signal, box)
            for place in part:
                own = slices(intersect(lattice.box(int(place)), around), around)
                errors.append(np.square(difference[own]).sum())
                means.append(decoded[own].mean(axis=tuple(range(lattice.dimensions)), dtype=np.float64))
    return np.array(errors, dtype=np.float64), np.array(means, dtype=np.float32).reshape(len(places), -1)


def _difference(decoded: NDArray[np.float32], around: Box, signal: Signal, box: Box) -> NDArray[np.float64]:
    """By how much what a box, `around`, decodes to is beside a signal; 0 where that has no samples."""
    common = intersect(around, box)
    if is_empty(common):
        return np.zeros(decoded.shape)
    there = np.clip(decoded[slices(common, around)].astype(np.float64), *signal.value_range)
    there -= signal.read(shifted(common, [-start for start, _ in box]))
    if signal.mask is not None:
        there[~signal.mask[slices(common, box)]] = 0
    if common == around:
        return there
    difference = np.zeros(decoded.shape)
    difference[slices(common, around)] = there
    return difference
