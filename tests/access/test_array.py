"""A representation as an array: NumPy's rules, whatever the index; only what is asked for is read."""

import copy
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers

import lgsirens as lg
from lgsirens.access import array as array_module
from lgsirens.grid.coordinates import Coordinates
from lgsirens.signal import to_sample_type
from tests.small import overview_of, representation

PICTURE = representation((37, 50), 3, "lg", (8, 9), 1, start=(-5, 3))
SOUND = representation((300,), 2, "lg", (40,), 2, value_range=(-1.0, 1.0), dtype="int24")
VOLUME = representation((9, 10, 11), 1, "lg", (4, 5, 4), 3, dtype="float64", value_range=(0.0, 1.0))
ONE = representation((400, 300), 3, "mlp", None, 4)  # partitions larger than blocks
HOLED = PICTURE.crop("-5:20, 3:30", "8:32, 21:53").crop(drop_partitions=[(1, 2)])
KINDS = {"picture": PICTURE, "sound": SOUND, "volume": VOLUME, "one": ONE, "holed": HOLED}


def whole(inr, scale=1):
    """All of it, decoded at once."""
    return to_sample_type(inr.decode(scale=scale).values, inr.signal.dtype)


EXPECTED = {name: whole(inr) for name, inr in KINDS.items()}
ARRAYS = {name: lg.open(inr) for name, inr in KINDS.items()}
BLENDED = representation(
    *((37, 50), 3, "lg", (8, 9), 1), halo=(2, 1), coordinates=Coordinates("tile", (37, 50), (1.0, 1.0), (1.0, 1.0))
)
SCALED = {
    (name, scale): (whole(inr, scale), lg.open(inr).at(scale))
    for name, inr in {"picture": PICTURE, "blended": BLENDED, "holed": HOLED}.items()
    for scale in ("2", "3/2", "1/2", "2/7")
}


def same(found, expected):
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", KINDS)
def test_it_is_described_as_the_decoded_array_is(name):
    array, expected = ARRAYS[name], EXPECTED[name]
    for what in ("shape", "dtype", "ndim", "size", "nbytes"):
        assert getattr(array, what) == getattr(expected, what)
    assert len(array) == len(expected)
    same(np.asarray(array), expected)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_places_slices_ellipses_and_new_axes_are_numpys(name, data):
    array, expected = ARRAYS[name], EXPECTED[name]
    index = data.draw(numbers.basic_indices(expected.shape, allow_newaxis=True))
    same(array[index], expected[index])


@pytest.mark.parametrize("name", SCALED, ids="-".join)
@settings(max_examples=20)
@given(data=st.data())
def test_and_at_other_scales(name, data):
    expected, array = SCALED[name]
    assert array.shape == expected.shape
    index = data.draw(numbers.basic_indices(expected.shape) | numbers.arrays(bool, expected.shape[:1]))
    same(lg.open(array.representation).at(array.scales)[index], expected[index])  # nothing is kept


@pytest.mark.parametrize("name", ["picture", "sound", "holed"])
@given(data=st.data())
def test_arrays_of_places_are_numpys_too(name, data):
    array, expected = ARRAYS[name], EXPECTED[name]
    shape = expected.shape[: data.draw(st.integers(1, expected.ndim))]
    index = data.draw(
        numbers.integer_array_indices(shape, result_shape=numbers.array_shapes(min_side=0))
        | numbers.arrays(bool, shape)
        | st.tuples(*[st.slices(n) | st.lists(st.integers(-n, n - 1), max_size=1) for n in shape])
    )
    same(array[index], expected[index])


@pytest.mark.parametrize(
    "index",
    [
        *(37, -38, (0, 50), (0, 0, 3), (0, 0, 0, 0), (..., ...), "a", 1.5, slice(None, None, 0), slice("a", 2)),
        *([37], ([0, 1], [0, 1, 2]), np.zeros((3, 3), bool), None, True, np.int64(-1), (slice(5, 5), -1), []),
        np.array(2),
    ],
    ids=str,
)
def test_what_numpy_refuses_raises_the_same_error(index):
    def outcome(array):
        try:
            return array[index]
        except Exception as error:
            return type(error), str(error)

    found, expected = outcome(ARRAYS["picture"]), outcome(EXPECTED["picture"])
    if isinstance(expected, tuple):
        assert found == expected
    else:
        same(found, expected)


def test_it_goes_through_numpys_and_pytorchs_doors():
    array, expected = ARRAYS["picture"], EXPECTED["picture"]
    assert np.array_equal(np.from_dlpack(array), expected)
    assert torch.equal(torch.from_dlpack(array), torch.from_numpy(expected))
    assert np.array_equal(np.array(array, dtype=np.float64), expected.astype(np.float64))
    assert np.array_equal(np.stack([*array]), expected)
    assert np.mean(array) == np.mean(expected)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)
    with pytest.raises(TypeError):
        array[0] = 1


def test_float_has_the_values_that_decode_gives():
    same(np.asarray(lg.open(PICTURE).float), PICTURE.decode().values)
    assert lg.open(PICTURE).float.at(2).dtype == np.float32
    assert lg.open(SOUND).dtype == np.int32


def test_blocks_that_lie_apart_are_decoded_at_once(monkeypatch):
    asked = []
    real = array_module.decode
    monkeypatch.setattr(array_module, "decode", lambda inr, *a, **k: asked.append(len(inr.ids)) or real(inr, *a, **k))
    same(lg.open(PICTURE)[::16, ::18], EXPECTED["picture"][::16, ::18])
    assert asked == [9]
    monkeypatch.setattr(array_module, "_DECODED_AT_ONCE", 400)
    same(lg.open(PICTURE)[::16, ::18], EXPECTED["picture"][::16, ::18])
    assert len(asked) > 2


def rows_read(tmp_path, inr, read):
    """How many rows an array reads, given what is done with it."""
    inr.save(tmp_path / "a.safetensors", overwrite=True)
    array = lg.open(tmp_path / "a.safetensors")
    source = array.representation.rows.source
    before = source.bytes_read
    read(array)
    return (source.bytes_read - before) / (4 * inr.parameters["per_partition"])


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        (lambda a: a[:, :, :0], 0),
        (lambda a: (a.shape, a.chunks, a.levels), 0),
        (lambda a: a[0, 0], 1),
        (lambda a: a[5:13, 6:15], 1),
        (lambda a: a[5:14, 6:15], 2),
        (lambda a: a[5::16, 0], 2),
        (lambda a: a[[5, 36], [0, 49]], 2),
        (lambda a: (a[5:13, 6:15], a[5:14, 6:15], a.float[6]), 7),
        (lambda a: a.levels[0][...], 0),
        (lambda a: (np.asarray(a), np.asarray(a)), 30),
    ],
)
def test_only_what_is_asked_for_is_read_and_only_once(tmp_path, monkeypatch, read, rows):
    monkeypatch.setattr(array_module, "_COARSEST_SIDE", 6)
    assert rows_read(tmp_path, PICTURE, read) == rows


def test_the_cache_is_bounded_and_the_last_blocks_stay(tmp_path):
    block = 4 * 3 * 8 * 9
    PICTURE.save(tmp_path / "a.safetensors")
    array = lg.open(tmp_path / "a.safetensors", cache_bytes=2 * block)
    source, before = array.representation.rows.source, 0

    def reads(*index):
        nonlocal before
        before, was = source.bytes_read, source.bytes_read
        array[index]
        return source.bytes_read > was

    first, second, third = (5, 6), (5, 15), (5, 24)
    assert [reads(*i) for i in (first, second, first, third, first, second)] == [True, True, False, True, False, True]
    none = lg.open(PICTURE, cache_bytes=0)
    same(np.asarray(none), EXPECTED["picture"])
    assert none._cache._bytes == 0
    for wrong in (-1, 1.5, "1GB", True):
        with pytest.raises(lg.ConfigError, match="cache_bytes"):
            lg.open(PICTURE, cache_bytes=wrong)


def test_large_partitions_are_decoded_in_parts(monkeypatch):
    asked = []
    real = array_module.decode
    monkeypatch.setattr(array_module, "decode", lambda inr, box, *a, **k: asked.append(box) or real(inr, box, *a, **k))
    large = representation((1000, 1000), 1, "mlp", None)
    for index, boxes in (((0, 0), 1), ((slice(None, None, 999),) * 2, 4)):
        lg.open(large)[index]
        assert len(asked) == boxes
        assert all((rows[1] - rows[0]) * (columns[1] - columns[0]) <= 1 << 16 for rows, columns in asked)
        asked.clear()


# Levels


def overviewed(inr):
    return replace(inr, overview=overview_of(inr))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("inr", [PICTURE, SOUND, VOLUME, HOLED], ids=str)
def test_levels_are_means_from_coarse_to_fine(monkeypatch, inr, known):
    """With an overview or without, the same to rounding."""
    monkeypatch.setattr(array_module, "_COARSEST_SIDE", 2)
    inr = overviewed(inr)
    levels = lg.open(inr if known else replace(inr, overview=None)).float.levels
    assert [level.size for level in levels] == sorted(level.size for level in levels)
    assert levels[-1].scales == (1,) * len(inr.tile)
    assert max(levels[0].shape[:-1]) <= 2 < max(levels[1].shape[:-1])
    assert tuple(Fraction(1, size) for size in inr.tile) in [level.scales for level in levels]
    for level in levels:
        decoded = inr.decode(scale=level.scales)
        assert level.shape == decoded.values.shape
        np.testing.assert_allclose(np.asarray(level), decoded.values, rtol=0, atol=2e-3)


def test_levels_end_at_a_thumbnail():
    levels = lg.open(representation((2000, 700), 1, "lg", (50, 70))).levels
    assert [level.shape[:2] for level in levels] == [(250, 87), (500, 175), (1000, 350), (2000, 700)]
    assert [level.shape for level in lg.open(PICTURE).levels] == [EXPECTED["picture"].shape]


def test_a_scale_that_leaves_nothing_is_refused():
    for scale in ("1/200", 0, "x"):
        with pytest.raises(lg.ConfigError):
            lg.open(PICTURE).at(scale)


def test_chunks_are_of_whole_partitions_where_they_fit():
    chunks = lg.open(representation((2000, 700), 3, "lg", (50, 70))).chunks
    assert (chunks[0] % 50, chunks[1] % 70, chunks[2]) == (0, 0, 3)
    assert 1 << 17 < np.prod(chunks) < 1 << 20
    assert lg.open(PICTURE).chunks == EXPECTED["picture"].shape
    assert np.prod(lg.open(representation((3000, 3000), 1, "mlp", None)).chunks) <= 1 << 19


# Threads and processes


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_is_the_same_array(tmp_path, copied):
    PICTURE.save(tmp_path / "a.safetensors")
    for array in (lg.open(PICTURE), lg.open(tmp_path / "a.safetensors").at(2).float):
        other = copied(array)
        assert other.scales == array.scales
        same(np.asarray(other), np.asarray(array))


def test_several_threads_read_one_array():
    array, expected = lg.open(PICTURE, cache_bytes=3000), EXPECTED["picture"]
    start = threading.Barrier(4)

    def read(seed):
        generator = np.random.default_rng(seed)
        start.wait()
        for _ in range(10):
            low, left = generator.integers(0, 30, 2)
            assert np.array_equal(array[low : low + 9, left : left + 9], expected[low : low + 9, left : left + 9])
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def rows_of(array, row):
    torch.set_num_threads(1)
    return array[row]


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes_read_it(tmp_path, method):
    PICTURE.save(tmp_path / "a.safetensors")
    array = lg.open(tmp_path / "a.safetensors")
    array[0]
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        for row in (0, 20):
            same(pool.submit(rows_of, array, row).result(), EXPECTED["picture"][row])
