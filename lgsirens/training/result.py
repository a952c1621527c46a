"""What comes out of a fit: rows and a shared network as a representation, and how good that is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.grid.lattice import Lattice
from lgsirens.monitoring.log import FitState
from lgsirens.representation.representation import FitRecord, Representation, SignalInfo, first_encoding
from lgsirens.representation.rows import Rows
from lgsirens.signal import Signal
from lgsirens.training.config import Plan


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
