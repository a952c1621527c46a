"""How near a representation is to a signal, partition by partition."""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.grid.box import Box, box_shape, intersect, is_empty, shifted, slices
from lgsirens.grid.lattice import bounding_extent, dense_parts
from lgsirens.lazy import blocks
from lgsirens.representation.decode import chunk_shape, decode
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
    lattice, axes = representation.lattice, tuple(range(representation.lattice.dimensions))
    errors, sums = np.zeros(len(places)), np.zeros((len(places), signal.channels))
    for part, around in _boxes(representation, places, signal.channels):
        some = representation.select(part)
        decoded = np.asarray(decode(some, around, device=device, kernel=kernel).values)
        difference = _difference(decoded, around, signal, box)
        for number, place in zip(np.searchsorted(places, part), part, strict=True):
            own = slices(intersect(lattice.box(int(place)), around), around)
            errors[number] += np.square(difference[own]).sum()
            sums[number] += decoded[own].sum(axis=axes, dtype=np.float64)
    samples = lattice.select(places).samples_of_each(representation.extent)
    return errors, (sums / samples[:, None]).astype(np.float32)


def _boxes(
    representation: Representation, places: NDArray[np.int64], channels: int
) -> Iterator[tuple[NDArray[np.int64], Box]]:
    """Some partitions at a time, and the box that they fill; one that is large, piece by piece."""
    lattice = representation.lattice
    at_once = _VALUES_AT_ONCE // (math.prod(lattice.tile) * channels)
    for start in range(0, len(places), max(1, at_once)):
        for part in dense_parts(lattice, places[start : start + max(1, at_once)]):
            around = bounding_extent(lattice.select(part), representation.extent)
            if at_once:
                yield part, around
                continue
            shape = *box_shape(around), channels
            chunks = chunk_shape(lattice.tile, (Fraction(1),) * lattice.dimensions, shape)
            for piece in blocks(shape, _VALUES_AT_ONCE, chunks):  # of whole blocks of a decode
                yield part, shifted(piece, [first for first, _ in around])


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
