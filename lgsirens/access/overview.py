"""Levels of one value a partition and below, out of the means that a file keeps: no row is read."""

from fractions import Fraction

import numpy as np

from lgsirens.grid.box import Box, box_shape
from lgsirens.grid.coordinates import fine_box
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array


def suits_overview(representation: Representation, scales: tuple[Fraction, ...]) -> bool:
    """Whether each sample at these scales is the mean of whole partitions, and these are known."""
    whole = [(1 / (scale * size)).denominator == 1 for scale, size in zip(scales, representation.tile, strict=True)]
    return representation.overview is not None and all(whole)


def overview_means(representation: Representation, scales: tuple[Fraction, ...], boxes: list[Box]) -> list[Array]:
    """Values `[*fine, C]` at scales that suit the overview, of boxes of samples; blank where no partition is."""
    return [_means(representation, scales, box) for box in boxes]


def _means(representation: Representation, scales: tuple[Fraction, ...], box: Box) -> Array:
    assert representation.overview is not None
    together = [int(1 / (scale * size)) for scale, size in zip(scales, representation.tile, strict=True)]
    fine = fine_box(box, scales)
    places = representation.ids // together - np.array([low for low, _ in fine])
    inside = ((places >= 0) & (places < box_shape(fine))).all(axis=1)
    where = tuple(places[inside].T)
    samples = representation.lattice.samples_of_each(representation.extent)[inside].astype(np.float64)
    weights = np.zeros(box_shape(fine))
    np.add.at(weights, where, samples)
    sums = np.zeros((*box_shape(fine), representation.model.channels))
    np.add.at(sums, where, samples[:, None] * representation.overview[inside])
    means = sums / np.maximum(weights, 1)[..., None]
    return np.where(weights[..., None] > 0, means, representation.signal.blank).astype(np.float32)
