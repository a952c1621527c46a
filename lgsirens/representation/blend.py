"""Cross-fading beside inner borders: within W samples of one, both neighbours' predictions count, by their distance.

Along each axis a partition weighs 1 inside, 1/2 on its border and 0 at W samples beyond it, linearly; the weight of a
sample is the product over the axes, so at corners up to 2^D partitions blend. Where neighbours are missing the weights
of those that are there are scaled to a sum of 1.
"""

import operator
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import ConfigError
from lgsirens.grid.box import Box
from lgsirens.grid.coordinates import fine_positions
from lgsirens.representation.representation import Representation


def check_blend(representation: Representation, width: int) -> tuple[int, ...]:
    """How far partitions reach beyond their borders along each axis, in samples, for `--blend width`.

    Along an axis that the first signal filled with one partition the reach is at most half of it.

    Raises:
        ConfigError: the width is no whole number from 0 to half a partition.
    """
    try:
        width = operator.index(width)
    except TypeError:
        width = -1
    if width < 0:
        raise ConfigError("blend: give a whole number of samples, 0 or more")
    reach = []
    for tile, size in zip(representation.lattice.tile, representation.frame.size, strict=True):
        if 2 * width > tile and size > tile:
            raise ConfigError(f"blend {width}: partitions are {tile} samples wide; give at most {tile // 2}")
        reach.append(min(width, tile // 2))
    return tuple(reach)


def grown(box: Box, reach: tuple[int, ...]) -> Box:
    """The box with what partitions reach beyond it."""
    return tuple((low - more, high + more) for (low, high), more in zip(box, reach, strict=True))


def weights(tile: Box, reach: tuple[int, ...], fine: Box, scales: tuple[Fraction, ...]) -> NDArray[np.float32]:
    """Weights of the fine samples `[*shape]` of `fine` for the partition that owns `tile`."""
    axes: list[NDArray[Any]] = []
    for (low, high), width, (start, stop), scale in zip(tile, reach, fine, scales, strict=True):
        position = fine_positions(np.array(start), stop - start, scale)
        inside = np.minimum(position - (low - 0.5), (high - 0.5) - position)
        axes.append(np.clip(0.5 + inside / (2 * width), 0, 1) if width else np.ones(stop - start))
    return reduce(np.multiply.outer, axes).astype(np.float32)
