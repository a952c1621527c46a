"""What the laws are tried on: coordinates of both kinds; and which samples a law is about where partitions blend."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lgsirens.grid.box import Box, box_shape, grown, intersect, is_empty, slices
from lgsirens.grid.coordinates import Coordinates, fine_box
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS
from tests.small import KIND_OF_RANK

seeds = st.integers(0, 2**32 - 1)


def coordinates_of(shape: Sequence[int]) -> st.SearchStrategy[Coordinates]:
    """Coordinates that the first signal, of this shape, may have set."""
    size, axes = tuple(shape), len(shape)
    published = (KINDS[KIND_OF_RANK[axes]].coordinate_scale,) * axes
    scales = st.tuples(*[st.floats(0.05, 8.0)] * axes)
    of_signal = st.sampled_from([None, (0.5,) * axes]).map(lambda own: Coordinates("signal", size, published, own))
    return of_signal | st.builds(Coordinates, st.just("tile"), st.just(size), scales, scales)


def halos(axes: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(0, 2)] * axes)


def blend_of(inr: Representation, scale: Fraction | int) -> tuple[int, ...]:
    """Within how many samples of a border neighbours blend by default: where what is evaluated is not the samples."""
    blends = inr.coordinates.kind == "tile" and scale * math.ceil(1 / Fraction(scale)) != 1
    return tuple(min(halo, tile // 2) if blends else 0 for halo, tile in zip(inr.lattice.halo, inr.tile, strict=True))


def reach_of(inr: Representation, scale: Fraction | int) -> tuple[int, ...]:
    """Within how many samples of a border neighbours have a say: below scale 1 also those in the area of a mean."""
    each = math.ceil(1 / Fraction(scale))
    area = math.ceil(Fraction(each - 1, 2 * each) / Fraction(scale))
    return tuple(area + blend for blend in blend_of(inr, scale))


def area_of(inr: Representation, region: Box, scale: Fraction | int) -> Box:
    """The samples of the extent next to which a decode of a region evaluates."""
    each, half, box = math.ceil(1 / Fraction(scale)), Fraction(1, 2), []
    for (low, high), (first, last) in zip(region, inr.extent, strict=True):
        fine = [math.ceil(end * scale - half) for end in (low, high)]
        positions = [(k + half) / (scale * each) - half for k in range(fine[0] * each, fine[1] * each)]
        owned = [math.floor(position + half) for position in positions]
        box.append((max(owned[0], first), min(owned[-1], last - 1) + 1))
    return tuple(box)


def beyond(inr: Representation, places: Iterable[int], box: Box, scale: Fraction | int) -> NDArray[np.bool_]:
    """The samples of a decoded box on which none of some partitions has a say."""
    scales = (Fraction(scale),) * len(box)
    fine = fine_box(box, scales)
    far = np.ones(box_shape(fine), dtype=bool)
    for place in places:
        near = intersect(fine_box(grown(inr.lattice.box(place), reach_of(inr, scale)), scales), fine)
        if not is_empty(near):
            far[slices(near, fine)] = False
    return far
