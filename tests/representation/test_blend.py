"""Blending across borders: the stated weights, no sample beyond its reach, nothing at width 0."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.errors import ConfigError
from lgsirens.grid.box import grown, intersect, is_empty, slices
from lgsirens.grid.coordinates import Coordinates, axis_coordinates, mesh
from lgsirens.representation.evaluate import network_of
from tests.small import representation
from tests.strategies import coordinates_of, halos, seeds

SCALES = st.sampled_from([Fraction(1), Fraction(2), Fraction(3, 2), Fraction(4, 3)])


@st.composite
def problems(draw):
    """A representation of several partitions and a width that fits them."""
    dimensions = draw(st.integers(1, 3))
    tile = tuple(draw(st.integers(2, 6)) for _ in range(dimensions))
    shape = tuple(draw(st.integers(size, 3 * size)) for size in tile)
    start = tuple(draw(st.integers(-9, 9)) for _ in tile)
    more = {"halo": draw(halos(dimensions)), "coordinates": draw(coordinates_of(shape))}
    inr = representation(shape, draw(st.integers(1, 3)), "lg", tile, draw(seeds), start=start, **more)
    return inr, draw(st.integers(1, min(tile) // 2))


def predictions(inr, positions):
    """What each partition's network says at positions `[..., D]`: `[P, M, C]`, in the value range, clipped."""
    grid = [np.tile(axis, (len(inr.lattice), 1)) for axis in positions]
    offsets = [axis - tile * inr.ids[:, d, None] for d, (axis, tile) in enumerate(zip(grid, inr.tile, strict=True))]
    places = np.arange(len(inr.ids))
    shared, local = axis_coordinates(inr.coordinates, inr.lattice, places, grid, offsets)
    rows = inr.rows.read(np.arange(len(inr.lattice)))
    with torch.inference_mode():
        y = network_of(inr)(mesh(shared), rows, None if local is None else mesh(local)).clamp(-1, 1)
    low, high = inr.signal.value_range
    return ((y + 1) * ((high - low) / 2) + low).numpy()


def expected(inr, width, scale):
    """Every sample of the extent by the definition: products of ramps over the partitions that are there."""
    axes = []
    for low, high in inr.extent:
        first, last = math.ceil(low * scale - Fraction(1, 2)), math.ceil(high * scale - Fraction(1, 2))
        axes.append(np.array([float((j + Fraction(1, 2)) / scale - Fraction(1, 2)) for j in range(first, last)]))
    said = predictions(inr, axes)
    total, weights = 0.0, 0.0
    for place in range(len(inr.lattice)):
        weight = 1.0
        for axis, (low, high) in zip(axes, inr.lattice.box(place), strict=True):
            inside = np.minimum(axis - (low - 0.5), (high - 0.5) - axis)
            weight = np.multiply.outer(weight, np.clip(0.5 + inside / (2 * width), 0, 1))
        total = total + said[place] * weight.reshape(-1, 1)
        weights = weights + weight.reshape(-1, 1)
    return (total / weights).reshape(*map(len, axes), -1)


@settings(max_examples=40)
@given(problems(), SCALES)
def test_predictions_are_cross_faded_by_distance(problem, scale):
    inr, width = problem
    try:
        decoded = inr.decode(scale=scale, blend=width)
    except ConfigError:  # the scale leaves no sample
        return
    np.testing.assert_allclose(decoded.values, expected(inr, width, scale), rtol=1e-4, atol=0.02)


@given(problems(), SCALES)
def test_width_0_is_the_plain_decode_and_samples_beyond_the_width_are_too(problem, scale):
    inr, width = problem
    try:
        plain, blended = (inr.decode(scale=scale, blend=reach) for reach in (0, width))
    except ConfigError:
        return
    if inr.coordinates.kind == "signal" or scale == 1:
        assert np.array_equal(inr.decode(scale=scale).values, plain.values)
    far = np.ones(plain.shape, dtype=bool)
    for axis, ((low, _), tile) in enumerate(zip(inr.extent, inr.lattice.tile, strict=True)):
        first = math.ceil(low * scale - Fraction(1, 2))
        position = (np.arange(first, first + plain.shape[axis]) + 0.5) / float(scale) - 0.5
        beyond = np.abs((position + 0.5 + tile / 2) % tile - tile / 2) >= width
        far &= beyond.reshape([-1 if d == axis else 1 for d in range(far.ndim)])
    # another call shape, so the last bits may differ
    np.testing.assert_allclose(blended.values[far], plain.values[far], rtol=1e-5, atol=1e-3)


@given(problems(), st.data())
def test_by_default_tile_coordinates_blend_within_the_halo_where_the_scale_is_not_1(problem, data):
    inr, width = problem
    axes = inr.lattice.dimensions
    scale = data.draw(st.sampled_from([1, 2, Fraction(3, 2)]))
    plain = replace(inr, halo=(width,) * axes, coordinates=Coordinates("signal", inr.coordinates.size, (1.0,) * axes))
    assert np.array_equal(plain.decode(scale=scale).values, plain.decode(scale=scale, blend=0).values)
    tiled = replace(plain, coordinates=Coordinates("tile", inr.coordinates.size, (1.0,) * axes, (1.0,) * axes))
    expected = tiled.decode(scale=scale, blend=0 if scale == 1 else width)
    assert np.array_equal(tiled.decode(scale=scale).values, expected.values)
    along = replace(tiled, halo=(0,) * (axes - 1) + (width,))
    last = (1,) * (axes - 1) + (scale,)
    assert np.array_equal(tiled.decode(scale=last).values, along.decode(scale=last).values)


@settings(max_examples=40)
@given(problems(), st.data())
def test_law_3_holds_beyond_the_width_of_a_removed_partition(problem, data):
    inr, width = problem
    place = data.draw(st.integers(0, len(inr.lattice) - 1))
    if len(inr.lattice) == 1:
        return
    name = tuple(int(k) for k in inr.lattice.ids[place])
    cut = inr.crop(drop_partitions=[name])
    whole, part = inr.decode(blend=width, full=True), cut.decode(blend=width, full=True)
    same = part.present.copy()
    reach = intersect(grown(inr.lattice.box(place), (width,) * len(name)), cut.extent)
    if not is_empty(reach):
        same[slices(reach, cut.extent)] = False
    assert np.array_equal(part.values[same], whole.values[slices(cut.extent, inr.extent)][same])
    assert (part.values[~part.present] == inr.signal.blank).all()


@settings(max_examples=40)
@given(problems(), SCALES, st.data())
def test_law_7_a_region_reads_its_neighbours_within_the_width_and_no_other(tmp_path_factory, problem, scale, data):
    inr, width = problem
    region = []
    for low, high in inr.extent:
        start = data.draw(st.integers(low, high - 1))
        region.append((start, data.draw(st.integers(start + 1, high))))
    path = tmp_path_factory.mktemp("blend") / "a.safetensors"
    inr.save(path)
    loaded = lg.load(path)
    before = loaded.rows.source.bytes_read
    try:
        part = loaded.decode(region, scale=scale, blend=width)
    except ConfigError:
        return
    asked = loaded.rows.source.bytes_read - before
    reached = inr.lattice.meeting(grown(tuple(region), (width,) * len(region)))
    assert asked == 4 * inr.parameters["per_partition"] * len(reached)
    whole = inr.decode(scale=scale, blend=width, full=True)
    cut = tuple(
        slice(*(math.ceil(end * scale - Fraction(1, 2)) - math.ceil(low * scale - Fraction(1, 2)) for end in ends))
        for ends, (low, _) in zip(region, inr.extent, strict=True)
    )
    assert np.array_equal(part.values, whole.values[cut])


@pytest.mark.parametrize(("width", "reason"), [(-1, "whole number"), (1.5, "whole number"), (5, "at most 4")])
def test_widths_that_cannot_be_are_refused(width, reason):
    with pytest.raises(ConfigError, match=reason):
        representation((20, 20), 1, "lg", (8, 8)).decode(blend=width)


def test_blending_lowers_the_jump_across_borders():
    inr = representation((32, 32), 1, "lg", (8, 8), 1)
    jumps = [lg.representation.metrics.border_jump(inr.decode(blend=width), (8, 8)) for width in (0, 1, 2, 4)]
    assert all(more < less for less, more in itertools.pairwise(jumps))
