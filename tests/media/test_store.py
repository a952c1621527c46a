"""Zarr and HDF5: read whole and by region, with what their attributes say, and written chunk by chunk."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lgsirens.errors import OutputError, SignalError
from lgsirens.media import store
from lgsirens.media.files import read, write
from lgsirens.signal import Signal
from tests.media.test_large import agree

h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")

SAMPLES = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
TAKE = Signal.from_array(np.arange(100, dtype=np.int16), "audio", (-4000, 4000), Fraction(30000, 1001))
SCAN = replace(Signal.from_array(SAMPLES[:9, :, :1].repeat(8, axis=2), "volume"), spacing=(2.0, 1.0, 0.5))


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_zarr_array(tmp_path, form, zipped):
    path = tmp_path / ("a.zip" if zipped else "a.zarr")
    kept = zarr.storage.ZipStore(path, mode="w") if zipped else str(path)
    array = zarr.create_array(kept, shape=SAMPLES.shape, chunks=(16, 32, 3), dtype="uint8", zarr_format=form)
    array[:] = SAMPLES
    if zipped:
        kept.close()
    lazy = agree(path)
    assert lazy.values.chunks == (16, 32, 3)
    assert np.array_equal(read(path).values, SAMPLES)


@pytest.mark.parametrize("chunks", [None, (16, 32, 3)])
def test_a_dataset_of_hdf5(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("deep/picture", data=SAMPLES, chunks=chunks)
    agree(tmp_path / "a.h5")
    for name in ("deep/picture", "/deep/picture", "deep"):
        assert np.array_equal(read(f"{tmp_path / 'a.h5'}::{name}").values, SAMPLES)


def several_hdf5(path):
    with h5py.File(path, "w") as file:
        file["left"], file["deep/right"] = SAMPLES, SAMPLES[::-1]


def several_zarr(path):
    group = zarr.create_group(str(path))
    for name, samples in (("left", SAMPLES), ("deep/right", SAMPLES[::-1])):
        group.create_array(name, shape=samples.shape, dtype="uint8")[:] = samples


@pytest.mark.parametrize(("name", "make"), [("a.h5", several_hdf5), ("a.zarr", several_zarr)])
def test_one_of_several_arrays_is_named(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(SignalError, match=r"several arrays \((left, deep/right|deep/right, left)\); name one"):
        read(tmp_path / name)
    assert np.array_equal(read(f"{tmp_path / name}::left").values, SAMPLES)
    assert np.array_equal(read(f"{tmp_path / name}::/deep/right").values, SAMPLES[::-1])
    assert np.array_equal(read(f"{tmp_path / name}::deep").values, SAMPLES[::-1])
    with pytest.raises(SignalError, match=name) as caught:
        read(f"{tmp_path / name}::none")
    assert len(str(caught.value).splitlines()) == 1


def test_other_formats_hold_no_arrays_by_name(tmp_path):
    np.save(tmp_path / "a.npy", SAMPLES)
    with pytest.raises(SignalError, match="holds no arrays by name"):
        read(f"{tmp_path / 'a.npy'}::left")


@pytest.mark.parametrize("signal", [TAKE, SCAN], ids=["sound", "volume"])
def test_what_is_written_is_read_as_it_was(tmp_path, signal, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK_VALUES", 300)
    write(tmp_path / "a.zarr", signal)
    assert zarr.open_array(str(tmp_path / "a.zarr"), mode="r").nchunks > 1 or signal is TAKE
    lazy = agree(tmp_path / "a.zarr")
    for name in ("kind", "value_range", "dtype", "sampling_rate", "spacing"):
        assert getattr(lazy, name) == getattr(signal, name)
    assert np.array_equal(np.asarray(lazy.values), signal.values)
    assert read(tmp_path / "a.zarr", value_range=(-9999, 9999)).value_range == (-9999, 9999)


def test_attributes_that_mean_something_else_are_left_alone(tmp_path):
    attributes = {"kind": "volume", "value_range": "wide", "sample_type": ["uint8"], "sampling_rate": -1}
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(8, 9), dtype="uint8", attributes=attributes)
    array[:] = SAMPLES[:8, :9, 0]
    signal = read(tmp_path / "a.zarr")
    assert (signal.kind, signal.value_range, signal.dtype, signal.sampling_rate) == ("image", (0, 255), "uint8", None)


def test_a_zip_file_of_something_else_is_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", SAMPLES)
    with pytest.raises(SignalError, match=r"a\.npz: ") as caught:
        read(tmp_path / "a.npz")
    assert len(str(caught.value).splitlines()) == 1


def test_a_store_is_replaced_only_by_overwrite_and_only_if_it_is_one(tmp_path):
    write(tmp_path / "a.zarr", TAKE)
    with pytest.raises(OutputError, match="exists already"):
        write(tmp_path / "a.zarr", SCAN)
    write(tmp_path / "a.zarr", SCAN, overwrite=True)
    assert read(tmp_path / "a.zarr").kind == "volume"
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(OutputError, match="is no Zarr"):
        write(tmp_path / "b.zarr", SCAN, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]
