"""What comes out of a fit: rows and a shared network as a representation, and how good that is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.grid.box import Box, intersect, is_empty, slices
from lgsirens.grid.lattice import Lattice, bounding_extent, dense_parts
from lgsirens.monitoring.log import FitState
from lgsirens.representation.decode import decode
from lgsirens.representation.representation import FitRecord, Representation, SignalInfo, first_encoding
from lgsirens.representation.rows import Rows
from lgsirens.signal import Signal
from lgsirens.training.config import Plan
from lgsirens.training.windows import PositionedSignal

_VALUES_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit has found.

    Attributes:
        rows: `[P, K]`.
        shared: the shared network's tensors.
        errors: `[P]`, sums of squared errors, in the signal's units.
        means: `[P, C]`, of what partitions decode to.
        state: how it ended.
    """

    rows: Rows
    shared: dict[str, Tensor]
    errors: NDArray[np.float64]
    means: NDArray[np.float32]
    state: FitState


def as_representation(
    planned: Plan,
    signal: Signal,
    lattice: Lattice,
    rows: Rows,
    shared: dict[str, Tensor],
    record: FitRecord,
    config: dict[str, Any],
) -> Representation:
    """Rows of the partitions of a lattice, all of a plan's or some, as a representation without origin."""
    where = lattice, planned.coordinates, planned.extent
    return first_encoding("encode", planned.model, *where, SignalInfo.of(signal), rows, shared, record, config)


def measure(
    representation: Representation,
    given: PositionedSignal,
    places: NDArray[np.int64],
    device: torch.device,
    kernel: str,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """How good partitions are that were fitted to a signal, which is read and decoded part by part.

    Args:
        places: `[n]`, sorted, of the partitions to measure.

    Returns:
        Sums of their squared errors `[n]`, in the signal's units, where it has samples; and the means of what they
        decode to `[n, C]`.
    """
    lattice = representation.lattice
    at_once = max(1, _VALUES_AT_ONCE // (int(np.prod(lattice.tile)) * given.signal.channels))
    errors, means = [], []
    for start in range(0, len(places), at_once):
        for part in dense_parts(lattice, places[start : start + at_once]):
            box = bounding_extent(lattice.select(part), representation.extent)
            decoded = np.asarray(decode(representation.select(part), box, device=device, kernel=kernel).values)
            difference = _difference(decoded, box, given)
            for place in part:
                own = slices(intersect(lattice.box(int(place)), box), box)
                errors.append(np.square(difference[own]).sum())
                means.append(decoded[own].mean(axis=tuple(range(lattice.dimensions)), dtype=np.float64))
    return np.array(errors, dtype=np.float64), np.array(means, dtype=np.float32).reshape(len(places), -1)


def _difference(decoded: NDArray[np.float32], box: Box, given: PositionedSignal) -> NDArray[np.float64]:
    """By how much what a box decodes to is beside a signal; 0 where that has no samples."""
    common = intersect(box, given.box)
    if is_empty(common):
        return np.zeros(decoded.shape)
    there = np.clip(decoded[slices(common, box)].astype(np.float64), *given.signal.value_range)
    there -= given.read(common)
    there[~given.signal.present[slices(common, given.box)]] = 0
    if common == box:
        return there
    difference = np.zeros(decoded.shape)
    difference[slices(common, box)] = there
    return difference
