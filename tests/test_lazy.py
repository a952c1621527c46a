"""Signals that are read by region: the same samples as whole ones, and no more of them than is asked for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lgsirens.lazy
from lgsirens.errors import SignalError
from lgsirens.grid.box import box_of_shape, box_size
from lgsirens.lazy import BlockCache, LazyValues, extremes, regions
from lgsirens.representation.metrics import psnr, slabs
from lgsirens.signal import Signal

shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=9)


class Counting:
    """An array outside of memory that counts how often each sample is read, and how many at once."""

    def __init__(self, values, chunks=None):
        self._values, self.shape, self.dtype = values, values.shape, values.dtype
        self.read, self.largest = np.zeros(values.shape, int), 0
        if chunks is not None:
            self.chunks = chunks

    def __getitem__(self, index):
        assert isinstance(index, tuple)
        assert all(isinstance(part, slice) and part.step is None for part in index)
        self.read[index] += 1
        self.largest = max(self.largest, self.read[index].size)
        return self._values[index]


def indices(shape):
    ends = st.none() | st.integers(-12, 12)
    steps = st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3])
    part = st.builds(slice, ends, ends, steps)
    parts = [part | st.integers(-size, size - 1) for size in shape]
    return st.integers(0, len(shape)).flatmap(lambda count: st.tuples(*parts[:count])) | st.tuples(
        st.just(...), parts[-1]
    )


@given(st.data())
def test_an_index_gives_what_numpy_gives(data):
    values = data.draw(hnp.arrays(st.sampled_from([np.uint8, ">i2", np.float32]), shapes, elements=st.integers(0, 99)))
    chunks = data.draw(st.none() | st.tuples(*(st.integers(1, 5) for _ in values.shape)))
    lazy = LazyValues(Counting(values, chunks))
    index = data.draw(indices(values.shape))
    found, expected = lazy[index], values[index]
    assert found.shape == expected.shape
    assert found.dtype == values.dtype.newbyteorder("=")
    assert np.array_equal(found, expected)
    assert np.array_equal(np.asarray(lazy), values)
    assert (lazy.ndim, lazy.size, lazy.nbytes, len(lazy)) == (values.ndim, values.size, values.nbytes, len(values))


@pytest.mark.parametrize("index", [(9,), (0, 0, 0, 0), (..., ...), ("a",), ([0, 1],)])
def test_an_index_that_is_none_is_refused(index):
    with pytest.raises((IndexError, TypeError)):
        LazyValues(Counting(np.zeros((4, 5, 2))))[index]


@given(st.data())
def test_regions_cover_every_sample_once_and_are_small(data):
    shape = (*data.draw(shapes), data.draw(st.integers(1, 3)))
    chunks = data.draw(st.none() | st.tuples(*(st.integers(1, 5) for _ in shape)))
    limit = data.draw(st.integers(1, 40))
    lazy, covered = LazyValues(Counting(np.zeros(shape), chunks)), np.zeros(shape[:-1], int)
    for box in regions(lazy, limit):
        covered[tuple(slice(*ends) for ends in box)] += 1
        assert box_size(box) * shape[-1] <= max(limit, shape[-1])
    assert (covered == 1).all()


def test_a_large_integer_picture_is_not_read_before_a_region_of_it_is():
    source = Counting(np.random.default_rng(0).integers(0, 255, (2000, 3000, 3)).astype(np.uint8))
    signal = Signal.from_array(source)
    assert (signal.kind, signal.shape, signal.channels, signal.dtype) == ("image", (2000, 3000), 3, "uint8")
    assert signal.value_range == (0, 255)
    assert not source.read.any()
    assert np.array_equal(signal.read(((10, 30), (100, 150))), source._values[10:30, 100:150])
    assert source.read.sum() == source.read[10:30, 100:150].size


@pytest.mark.parametrize("chunks", [None, (100, 128, 3)])
def test_a_pass_over_floats_reads_each_sample_once_in_small_parts(chunks, monkeypatch):
    monkeypatch.setattr(lgsirens.lazy, "CACHE_BYTES", 1 << 20)
    values = np.random.default_rng(0).normal(size=(1500, 1024, 3))
    source = Counting(values, chunks)
    signal = Signal.from_array(source)
    assert signal.value_range == (values.min(), values.max())
    assert source.largest < values.size / 4
    assert (source.read == 1).all()


def test_a_given_range_does_not_let_nan_through():
    values = np.zeros((40, 30))
    values[20, 5] = np.nan
    for options in ({}, {"value_range": (0, 1)}):
        with pytest.raises(SignalError, match="1 of the samples 0:40,0:30,0:1 are NaN or infinite"):
            Signal.from_array(Counting(values), **options)


def test_nan_that_comes_later_is_an_error_too():
    source = Counting(np.zeros((40, 30)))
    signal = Signal.from_array(source)
    source._values[20, 5] = np.inf
    assert not signal.read(((0, 20), (0, 30))).any()
    with pytest.raises(SignalError, match="NaN or infinite"):
        signal.read(((20, 21), (0, 30)))


@given(hnp.arrays(np.int16, st.integers(1, 500)))
def test_sounds_have_their_peak_for_range(values):
    assert Signal.from_array(Counting(values)).value_range == Signal.from_array(values).value_range


@given(
    hnp.arrays(
        st.sampled_from([np.bool_, np.uint8, np.int16, np.float32, np.float64, ">f4", ">u2"]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
        elements=st.integers(0, 1),
    )
)
def test_a_lazy_signal_is_what_the_array_is(values):
    whole, lazy = Signal.from_array(values), Signal.from_array(Counting(values))
    assert isinstance(lazy.values, LazyValues)
    for name in ("kind", "shape", "channels", "dtype", "value_range"):
        assert getattr(whole, name) == getattr(lazy, name)
    assert np.asarray(lazy.values).dtype == whole.values.dtype
    assert np.array_equal(np.asarray(lazy.values), whole.values)
    assert np.array_equal(lazy.read(box_of_shape(lazy.shape)), whole.values)
    assert psnr(whole, lazy) == math.inf


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((4, 4), np.int32), {}, "value_range"),
        (np.zeros((4, 4), complex), {}, "complex128"),
        (np.zeros((0, 4)), {}, "no samples"),
        (np.zeros((2, 2, 2, 2, 2)), {}, "rank 5"),
        (np.zeros((4, 4, 5)), {"kind": "image"}, "not 5"),
    ],
)
def test_what_is_no_signal_is_refused_before_it_is_read(values, options, message):
    source = Counting(values)
    with pytest.raises(SignalError, match=message):
        Signal.from_array(source, **options)
    assert not source.read.any()


class Broken(Counting):
    def __getitem__(self, index):
        raise OSError("the disk\nis gone")


class Short(Counting):
    def __getitem__(self, index):
        return super().__getitem__(index)[1:]


@pytest.mark.parametrize(("source", "message"), [(Broken, "the disk is gone"), (Short, "check its shape")])
def test_a_source_that_cannot_be_read_is_one_line(source, message):
    signal = Signal.from_array(source(np.zeros((4, 4), np.uint8)))
    with pytest.raises(SignalError, match=message) as caught:
        signal.read(((0, 2), (0, 2)))
    assert len(str(caught.value).splitlines()) == 1


def test_chunks_are_read_whole_and_kept_within_their_limit():
    source = Counting(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), (16, 16))
    signal = Signal.from_array(source)
    for row in range(0, 64, 4):
        assert np.array_equal(signal.read(((row, row + 4), (0, 64)))[..., 0], source._values[row : row + 4])
    assert (source.read == 1).all()
    assert source.largest == 256


def test_chunks_that_could_not_be_kept_are_not(monkeypatch):
    monkeypatch.setattr(lgsirens.lazy, "CACHE_BYTES", 100)
    source = Counting(np.zeros((64, 64), np.uint8), (32, 32))
    Signal.from_array(source).read(((0, 2), (0, 2)))
    assert source.read.sum() == 4


def test_a_cache_keeps_within_its_limit():
    cache = BlockCache(100)
    for number in range(10):
        cache.put(number, np.zeros(30, np.uint8))
    assert [number for number in range(10) if cache.get(number) is not None] == [7, 8, 9]


def test_a_memory_mapped_array_is_read_by_region(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (50, 60)).astype(np.uint8)
    np.save(tmp_path / "a.npy", values)
    signal = Signal.from_array(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert isinstance(signal.values, LazyValues)
    for box in slabs(signal):
        assert np.array_equal(signal.read(box)[..., 0], values[tuple(slice(*ends) for ends in box)])


def test_changed_pages_of_a_copy_on_write_map_stay(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((50, 60), np.uint8))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    mapped[3, 4] = 7
    signal = Signal.from_array(mapped)
    assert signal.read(((3, 4), (4, 5))) == signal.read(((3, 4), (4, 5))) == 7


@given(st.data())
def test_extremes_are_those_of_the_whole(data):
    values = data.draw(hnp.arrays(np.int16, shapes))
    assert extremes(LazyValues(Counting(values))) == extremes(values) == (values.min(), values.max())


def test_real_stores_are_sources():
    zarr, dask = pytest.importorskip("zarr"), pytest.importorskip("dask.array")
    values = np.random.default_rng(0).normal(size=(70, 50, 3)).astype(np.float32)
    stored = zarr.create_array({}, shape=values.shape, chunks=(32, 16, 3), dtype="float32")
    stored[:] = values
    for source in (stored, dask.from_array(values, chunks=(32, 16, 3))):
        signal = Signal.from_array(source)
        assert signal.values.chunks == (32, 16, 3)
        assert np.array_equal(np.asarray(signal.values), values)
        assert np.array_equal(signal.read(((5, 60), (7, 40))), values[5:60, 7:40])
