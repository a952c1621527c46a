"""Below scale 1 a decode is a mean over areas, not a choice of samples."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.errors import ConfigError
from tests.small import representation
from tests.strategies import coordinates_of

SCALES = st.sampled_from([Fraction(n) for n in ("1/2", "2/3", "1/3", "1/4", "3/7", "1/9", "1/20", "1/100")])


def mean_over_areas(inr, scales):
    """By the definition: what is evaluated between the samples, each one added where its position falls."""
    each = [math.ceil(1 / scale) for scale in scales]
    finer = inr.decode(scale=[scale * n for scale, n in zip(scales, each, strict=True)], blend=0, full=True)
    values, present = finer.values.astype(np.float64), finer.present.astype(np.float64)
    values = values * present[..., None]
    for axis, (scale, n, (low, high)) in enumerate(zip(scales, each, inr.extent, strict=True)):
        first, stop = (math.ceil(end * scale - Fraction(1, 2)) for end in (low, high))
        begins = math.ceil(low * scale * n - Fraction(1, 2))
        places = [(begins + k) // n - first for k in range(values.shape[axis])]
        matrix = np.array([[place == out for place in places] for out in range(stop - first)], dtype=np.float64)
        values, present = (np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis) for array in (values, present))
    return np.where(present[..., None] > 0, values / np.maximum(present, 1)[..., None], inr.signal.blank), present > 0


@pytest.mark.parametrize("shape", [(50,), (23, 19), (7, 9, 8)])
@given(data=st.data())
def test_a_decode_below_scale_1_is_the_mean_of_what_lies_in_each_area(shape, data):
    coordinates = data.draw(coordinates_of(shape))
    start = [data.draw(st.integers(-9, 9)) for _ in shape]
    inr = representation(shape, 2, "lg", [5] * len(shape), 1, coordinates=coordinates, start=start)
    ids = [tuple(i) for i in inr.ids.tolist()]
    dropped = data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=len(ids) - 1))
    inr = inr.crop(drop_partitions=dropped) if dropped else inr
    scales = [data.draw(SCALES | st.just(Fraction(2))) for _ in shape]
    try:
        decoded = inr.decode(scale=scales, full=True, blend=0)
    except ConfigError:  # the scale leaves no sample
        return
    expected, present = mean_over_areas(inr, scales)
    np.testing.assert_array_equal(decoded.present, present)
    np.testing.assert_allclose(decoded.values, expected, rtol=0, atol=2e-3)


def test_a_quarter_of_a_picture_is_the_mean_of_16_samples_each():
    inr = representation((64, 96), 3, "lg", (16, 16), 2)
    expected = inr.decode().values.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(inr.decode(scale=0.25).values, expected, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(inr.decode(size=(16, 24)).values, inr.decode(scale="1/4").values)
