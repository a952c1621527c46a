import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lgsirens.errors import SignalError
from lgsirens.signal import KINDS, SAMPLE_TYPES, Signal, to_sample_type
from lgsirens.training.encode import encode

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=6).filter(lambda shape: len(shape) < 4 or shape[-1] <= 4)
grids = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4)  # no audio


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((7,), "audio", (7, 1)),
        ((7, 5), "image", (7, 5, 1)),
        ((7, 5, 1), "image", (7, 5, 1)),
        ((7, 5, 4), "image", (7, 5, 4)),
        ((7, 5, 5), "volume", (7, 5, 5, 1)),
        ((7, 5, 6, 3), "video", (7, 5, 6, 3)),
    ],
)
def test_the_rank_settles_the_kind(shape, kind, expected):
    signal = Signal.from_array(np.zeros(shape, np.uint8))
    assert signal.kind == kind
    assert signal.values.shape == expected
    assert signal.shape == expected[:-1]
    assert signal.channels == expected[-1]


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 4), st.booleans(), st.data())
def test_a_named_kind_takes_its_rank_with_and_without_channels(name, channels, bare, data):
    shape = tuple(data.draw(st.integers(1, 5)) for _ in range(KINDS[name].dimensions))
    signal = Signal.from_array(np.zeros(shape if bare else (*shape, channels), np.int16), name, None, 8000.0)
    assert (signal.kind, signal.shape, signal.channels) == (name, shape, 1 if bare else channels)
    assert signal.sampling_rate == 8000.0
    assert signal.dtype == "int16"
    assert signal.present.shape == shape
    assert signal.present.all()


@given(hnp.arrays(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]), grids))
def test_the_range_of_narrow_integers_is_that_of_their_type(values):
    limits = np.iinfo(values.dtype)
    signal = Signal.from_array(values)
    assert signal.value_range == (limits.min, limits.max)
    assert np.array_equal(signal.values.ravel(), values.ravel())
    assert signal.dtype == signal.values.dtype.name == values.dtype.name


@given(hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]), grids, elements=st.floats(0, 1, width=16)))
def test_the_range_of_floats_that_fit_it_is_0_to_1(values):
    assert Signal.from_array(values).value_range == (0.0, 1.0)


@given(hnp.arrays(np.float32, grids, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_range_of_other_floats_holds_them_and_is_not_empty(values):
    low, high = Signal.from_array(values).value_range
    assert low < high
    assert low <= values.min()
    assert values.max() <= high
    if values.min() != values.max() and not (values.min() >= 0 and values.max() <= 1):
        assert (low, high) == (values.min(), values.max())


@given(
    hnp.arrays(st.sampled_from([np.int16, np.float32]), st.integers(1, 50), elements=st.integers(-(2**15), 2**15 - 1))
)
def test_the_range_of_audio_is_minus_peak_to_peak(values):
    low, high = Signal.from_array(values).value_range
    assert high == (np.abs(values.astype(float)).max() or 1.0)
    assert low == -high


def test_a_given_range_overrides_and_is_kept_as_floats():
    signal = Signal.from_array(np.zeros((4, 4), np.uint8), value_range=(-1, 4095))
    assert signal.value_range == (-1.0, 4095.0)
    assert [type(end) for end in signal.value_range] == [float, float]


def test_booleans_become_floats_from_0_to_1():
    signal = Signal.from_array(np.array([[True, False]]))
    assert signal.dtype == "float32"
    assert signal.values[..., 0].tolist() == [[1.0, 0.0]]
    assert signal.value_range == (0.0, 1.0)


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">i2", "<u2"])
def test_samples_in_another_byte_order_keep_their_values(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    signal = Signal.from_array(values)
    assert signal.values.dtype.isnative
    assert signal.values[..., 0].tolist() == values.tolist()
    assert signal.dtype == np.dtype(dtype).name


REFUSED = {
    "no samples": (np.zeros((0, 4)), {}, "has no samples"),
    "no channels": (np.zeros((4, 4, 0)), {}, "has no samples"),
    "a scalar": (np.float32(3), {}, "rank 0 is no signal"),
    "rank 5": (np.zeros((2, 2, 2, 2, 2)), {}, "rank 5 is no signal"),
    "a NaN": (np.array([[0.0, np.nan]]), {}, "1 samples are NaN or infinite"),
    "infinities": (np.array([[np.inf, -np.inf]]), {}, "2 samples are NaN or infinite"),
    "complex numbers": (np.zeros((4, 4), complex), {}, "complex128"),
    "text": (np.array([["a"]]), {}, "samples must be integers or floats"),
    "objects": (np.array([[None]]), {}, "samples must be integers or floats"),
    "dates": (np.zeros((4, 4), "datetime64[s]"), {}, "samples must be integers or floats"),
    "an unknown kind": (np.zeros((4, 4)), {"kind": "picture"}, "'picture' is unknown; choose one of image, audio"),
    "too low a rank": (np.zeros(4), {"kind": "image"}, "image has 2 dimensions"),
    "too high a rank": (np.zeros((4, 4, 4)), {"kind": "audio"}, "audio has 1 dimension and"),
    "too many channels": (np.zeros((4, 4, 5)), {"kind": "image"}, "not 5"),
    "too many channels of a film": (np.zeros((4, 4, 4, 5)), {}, "not 5"),
    "wide integers": (np.zeros((4, 4), np.int32), {}, "int32 rarely use"),
    "an empty range": (np.zeros((4, 4)), {"value_range": (1, 1)}, "value_range 1,1"),
    "a reversed range": (np.zeros((4, 4)), {"value_range": (2, 1)}, "value_range 2,1"),
    "a range of NaN": (np.zeros((4, 4)), {"value_range": (0, math.nan)}, "range"),
    "an infinite range": (np.zeros((4, 4)), {"value_range": (0, math.inf)}, "range"),
    "a range beyond float32": (np.zeros((4, 4)), {"value_range": (-1e39, 0)}, "range"),
    "samples beyond float32": (np.array([[0.0, 1e300]]), {}, "range"),
}


@pytest.mark.parametrize(("values", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_signal_is_refused_in_one_line(values, options, message):
    with pytest.raises(SignalError) as caught:
        Signal.from_array(values, **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
def test_wide_integers_are_taken_with_a_range(dtype):
    values = np.array([[0, 70_000]], dtype)
    signal = Signal.from_array(values, value_range=(0, 100_000))
    assert signal.dtype == dtype
    assert np.array_equal(signal.values[..., 0], values)


# Back to the sample type of a file


@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.int8, np.int16]), shapes))
def test_narrow_integers_survive_float32_and_back(values):
    back = to_sample_type(values.astype(np.float32), values.dtype.name)
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)


@given(st.integers(0, 254), st.sampled_from(["uint8", "int16", "int64"]), st.sampled_from([np.float32, np.float64]))
def test_halves_go_to_the_even_neighbour(number, dtype, source):
    (half,) = to_sample_type(np.array([number + 0.5], source), dtype)
    assert half == number + number % 2
    below, above = to_sample_type(np.array([number + 0.499, number + 0.501], source), dtype)
    assert (below, above) == (number, number + 1)


@pytest.mark.parametrize("source", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [name for name in SAMPLE_TYPES if "int" in name])
def test_values_beyond_an_integer_type_are_clipped_to_it(dtype, source):
    bits = int(dtype.lstrip("uint"))
    lowest, highest = (0, (1 << bits) - 1) if dtype[0] == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    values = np.array([-1e30, float(lowest) - 1, float(highest) + 1, 1e30], source)
    assert to_sample_type(values, dtype).tolist() == [lowest, lowest, highest, highest]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_not_rounded_to_integers(dtype):
    values = np.array([0.25, -1.5, 300.5], np.float32)
    found = to_sample_type(values, dtype)
    assert found.dtype == dtype
    assert found.tolist() == values.tolist()


def test_values_that_float32_cannot_tell_apart_are_refused_with_the_remedy():
    with pytest.raises(SignalError, match="subtract an offset"):
        Signal.from_array(1e9 + np.linspace(0, 1, 16).reshape(4, 4))
    assert Signal.from_array(1e3 + np.linspace(0, 1, 16).reshape(4, 4)).value_range == (1000.0, 1001.0)


@given(st.data())
def test_a_box_is_read_from_the_first_sample_on(data):
    values = data.draw(hnp.arrays(np.int16, shapes))
    signal = Signal.from_array(values)
    starts = [data.draw(st.integers(0, size - 1)) for size in signal.shape]
    box = tuple(
        (start, data.draw(st.integers(start + 1, size))) for start, size in zip(starts, signal.shape, strict=True)
    )
    read = signal.read(box)
    assert read.shape == (*(stop - start for start, stop in box), signal.channels)
    for index in np.ndindex(read.shape[:-1]):
        place = tuple(start + i for start, i in zip(starts, index, strict=True))
        assert np.array_equal(read[index], signal.values[place])


BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 32
TENSOR = torch.from_numpy(BASE.copy())


@pytest.mark.parametrize(
    "values",
    {
        "that takes a gradient": TENSOR.clone().requires_grad_(),
        "sparse": TENSOR.to_sparse(),
        "of bfloat16": TENSOR.bfloat16(),
        "of float8": (TENSOR > 0.25).to(torch.float8_e4m3fn),
        "lazily negated": torch._neg_view(-TENSOR),
        "big-endian": BASE.astype(">f4"),
        "turned": BASE[::-1, ::-1],
        "masked nowhere": np.ma.array(BASE),
        "nested lists": BASE.tolist(),
        "buffer": memoryview(BASE),
    }.items(),
    ids=lambda case: case[0],
)
def test_arrays_and_tensors_of_any_layout_are_read(values):
    name, values = values
    dense = values.to_dense() if isinstance(values, torch.Tensor) else np.asarray(values)
    exact = dense.detach().double().resolve_neg().numpy() if isinstance(dense, torch.Tensor) else dense
    signal = Signal.from_array(values)
    assert signal.values.dtype.isnative
    assert np.array_equal(signal.values[..., 0], exact), name


def test_a_read_only_array_stays_as_it_is():
    values = BASE.copy()
    values.flags.writeable = False
    signal = Signal.from_array(values)
    encode(signal, steps=1)
    assert np.array_equal(values, BASE)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ma.masked_equal(np.where(BASE == 0, 1e6, 0.5), 1e6), "masked array, 1 sample hidden"),
        (TENSOR.to(torch.complex64), "complex"),
        (TENSOR.to("meta"), "meta"),
        ([np.ma.array(BASE), np.ma.masked_less(BASE, 0.5)], "samples hidden"),
        ([[0.5, np.ma.masked], [0.5, 0.5]], "1 sample hidden"),
        ([TENSOR, TENSOR[:1]], "no array of samples"),
        (BASE.astype(object), "object"),
        (BASE.astype(np.complex64), "complex64"),
        (np.array([["a"]]), "convert it first"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_one_line(values, reason):
    with pytest.raises(SignalError, match=reason) as caught:
        Signal.from_array(values)
    assert "\n" not in str(caught.value)


def test_a_list_of_tensors_is_their_stack():
    signal = Signal.from_array([row.clone().requires_grad_().bfloat16() for row in TENSOR])
    assert np.array_equal(signal.values[..., 0], BASE.astype(np.float32))
