"""What a fit starts from: the networks as SIREN draws them."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import ModelConfig, SirenPerPartition, build_model, initial_bounds


def initial_model(config: ModelConfig, lattice: Lattice, coordinates: str, seed: int) -> SirenPerPartition:
    """The model of P partitions before its first step.

    With `signal` coordinates all weights come from one stream of random numbers, in the order of the partitions. With
    `tile` coordinates every row has a stream of its own, keyed by seed and id: it begins alike whichever others are
    there, so that a signal may be fitted in pieces, one after the other or by many machines.
    """
    model = build_model(config, len(lattice), torch.Generator().manual_seed(seed))
    if coordinates == "tile":
        model.local.data = torch.from_numpy(_rows(model, lattice, seed))
    return model


def _rows(model: SirenPerPartition, lattice: Lattice, seed: int) -> NDArray[np.float32]:
    sizes = [math.prod(shape) for _, shape in model.layout]
    bounds = np.repeat(np.array(initial_bounds(model.layout, model.config.w0), dtype=np.float32), sizes)
    rows = np.empty((len(lattice), len(bounds)), dtype=np.float32)
    counters = np.zeros((len(lattice), 4), dtype=np.uint64)  # of blocks of numbers first, then the id
    counters[:, 1 : 1 + lattice.dimensions] = lattice.ids.astype(np.int64).view(np.uint64)
    for row, counter in zip(rows, counters, strict=True):
        np.random.Generator(np.random.Philox(key=seed, counter=counter)).random(dtype=np.float32, out=row)
    return (2 * rows - 1) * bounds
