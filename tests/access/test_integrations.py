"""Other libraries read a representation by their own means: dask, xarray, zarr, napari."""

import sys
import tomllib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import dask.array
import dask.base
import numpy as np
import pytest
import xarray as xr
import zarr

import lgsirens as lg
from lgsirens.access import array as array_module
from lgsirens.access.napari_reader import get_reader
from lgsirens.media import store
from lgsirens.representation import decode as decode_module
from tests.command import assert_one_line, run
from tests.small import representation

ROOT = Path(__file__).resolve().parents[2]
PICTURE = representation((37, 50), 3, "lg", (8, 9), 1, start=(-5, 3))
GRAY = representation((40, 60), 1, "lg", (8, 9), 2)
SOUND = representation((300,), 2, "lg", (40,), 2, value_range=(-1.0, 1.0), dtype="int16", sampling_rate=(8000, 1))
SCAN = representation((9, 10, 11), 1, "lg", (4, 5, 4), 3, dtype="float32", value_range=(0.0, 1.0))
SCAN = replace(SCAN, signal=replace(SCAN.signal, spacing=(2.5, 0.5, 0.5)))
FILM = representation((6, 20, 30), 3, "lg", (3, 8, 9), 4, kind="video", sampling_rate=(30000, 1001))


@pytest.fixture
def stored(tmp_path):
    def store(inr):
        inr.save(tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"

    return store


# dask


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
def test_dask_computes_by_chunks(stored, scheduler, monkeypatch):
    monkeypatch.setattr(decode_module, "_CHUNK_VALUES", 600)
    array = lg.open(stored(PICTURE))
    lazy = dask.array.from_array(array, chunks=array.chunks)
    assert lazy.npartitions > 3
    assert (lazy.shape, lazy.dtype) == (array.shape, array.dtype)
    expected = np.asarray(lg.open(PICTURE))
    found = (lazy.astype(np.int64)[3:30, ::-2].sum(axis=2)).compute(scheduler=scheduler, num_workers=2)
    assert np.array_equal(found, expected.astype(np.int64)[3:30, ::-2].sum(axis=2))


def test_dask_knows_the_same_array_again(stored):
    array = lg.open(stored(PICTURE))
    token = dask.base.tokenize(array)
    array[0]
    assert dask.base.tokenize(lg.open(PICTURE)) == token
    others = [array.at(2), array.float, lg.open(PICTURE.crop("-5:20, 3:30")), lg.open(GRAY)]
    assert len({dask.base.tokenize(other) for other in [array, *others]}) == 5


# xarray


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """As after an installation: the entry points that pyproject.toml declares are found."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "site" / "lgsirens-0.0.0.dist-info"
    info.mkdir(parents=True)
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lgsirens\nVersion: 0.0.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    xr.backends.plugins.refresh_engines()
    yield
    monkeypatch.undo()
    xr.backends.plugins.refresh_engines()


@pytest.mark.parametrize("inr", [PICTURE, SOUND, SCAN, FILM], ids=str)
def test_xarray_opens_it_by_its_engine(installed, stored, inr):
    path = stored(inr)
    with xr.open_dataset(path, engine="lgsirens") as dataset:
        variable = dataset[inr.signal.kind]
        expected = np.asarray(lg.open(inr))
        assert variable.dims[-1] == "channel"
        assert (variable.shape, variable.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(variable[2:5].values, expected[2:5])
        assert np.array_equal(variable[..., 0].isel({variable.dims[0]: [5, 0]}).values, expected[[5, 0]][..., 0])
        for name, (low, high) in zip(variable.dims, inr.window, strict=False):
            assert np.array_equal(dataset[name], np.arange(low, high))
    with xr.open_dataset(path) as guessed:
        assert inr.signal.kind in guessed


def test_xarray_has_times_and_distances_at_any_scale(installed, stored):
    with xr.open_dataset(stored(SOUND), engine="lgsirens", scale="1/2") as sound:
        assert np.allclose(sound.time, (np.arange(150) * 2 + 0.5) / 8000)
        assert sound.audio.sel(sample=[0.5, 2.5]).shape == (2, 2)
    film = xr.open_dataset(FILM, engine="lgsirens")
    assert np.allclose(film.time, [float(n * Fraction(1001, 30000)) for n in range(6)])
    scan = xr.open_dataset(SCAN, engine="lgsirens", scale=2)
    assert np.allclose(scan.slice_distance, (np.arange(18) / 2 - 0.25) * 2.5)
    assert scan.column_distance[-1] == 5.125
    assert "time" not in scan
    assert "volume" not in xr.open_dataset(SCAN, engine="lgsirens", drop_variables="volume")


def test_xarray_chunks_it_with_dask(installed, stored, monkeypatch):
    monkeypatch.setattr(decode_module, "_CHUNK_VALUES", 600)
    with xr.open_dataset(stored(PICTURE), engine="lgsirens", chunks={}) as dataset:
        assert dataset.image.data.npartitions > 3
        assert np.array_equal(dataset.image.compute(), np.asarray(lg.open(PICTURE)))


# zarr


@pytest.mark.parametrize("inr", [PICTURE, SOUND, SCAN, FILM], ids=str)
def test_export_writes_a_zarr_array(stored, folder, inr, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK_VALUES", 300)
    assert run("export", stored(inr), "a.zarr", "--quiet") == 0
    found = zarr.open_array("a.zarr", mode="r")
    expected = np.asarray(lg.open(inr))
    assert (found.dtype, found.nchunks > 1) == (expected.dtype, True)
    assert np.array_equal(found[...], expected)
    assert found.metadata.dimension_names[-1] == "channel"
    assert found.attrs["kind"] == inr.signal.kind
    assert found.attrs.get("spacing") == (None if inr.signal.spacing is None else list(inr.signal.spacing))
    assert sorted(path.name for path in folder.iterdir()) == ["a.safetensors", "a.zarr"]


def test_export_at_a_scale_over_an_older_one(stored, folder, capsys):
    path = stored(PICTURE)
    assert run("export", path, "a.zarr", "--quiet") == 0
    assert run("export", path, "a.zarr", "--quiet") == 2
    assert_one_line(capsys, "exists already")
    assert run("export", path, "a.zarr", "--quiet", "--scale", "1/2", "--overwrite") == 0
    assert np.array_equal(zarr.open_array("a.zarr", mode="r")[...], np.asarray(lg.open(PICTURE).at("1/2")))
    assert sorted(path.name for path in folder.iterdir()) == ["a.safetensors", "a.zarr"]


def test_export_refuses_what_it_would_destroy(stored, folder, capsys):
    path = stored(PICTURE)
    (folder / "mine.zarr").mkdir()
    (folder / "mine.zarr" / "letter.txt").write_text("dear")
    for output, message in (("mine.zarr", "is no Zarr"), ("a.npy", "*.zarr"), ("none/a.zarr", "does not exist")):
        assert run("export", path, output, "--overwrite") == 2
        assert_one_line(capsys, message)
    assert (folder / "mine.zarr" / "letter.txt").read_text() == "dear"


def test_an_export_that_fails_leaves_nothing(stored, folder, monkeypatch):
    path = stored(PICTURE)
    monkeypatch.setattr(store.Stored, "parts", lambda *a: (_ for _ in ()).throw(lg.RunError("no")))
    assert run("export", path, "a.zarr", "--quiet") == 1
    assert [path.name for path in folder.iterdir()] == ["a.safetensors"]


# napari


@pytest.mark.parametrize("inr", [PICTURE, GRAY, SCAN, FILM], ids=str)
def test_the_reader_gives_layers_of_several_scales(stored, inr, monkeypatch):
    monkeypatch.setattr(array_module, "_COARSEST_SIDE", 8)
    path = stored(inr)
    ((levels, options, kind),) = get_reader(str(path))(str(path))
    expected = np.asarray(lg.open(inr))
    assert kind == "image"
    assert np.array_equal(levels[0].compute(), expected if inr.signal.channels == 3 else expected[..., 0])
    assert len(levels) > 1
    assert levels[1].size < levels[0].size
    assert options.get("rgb", False) == (inr.signal.channels == 3)
    assert options["scale"] == (inr.signal.spacing or (1.0,) * len(inr.tile))
    assert options["translate"] == tuple(s * low for s, (low, _) in zip(options["scale"], inr.window, strict=True))


def test_the_reader_takes_no_sound_and_no_list(stored):
    path = stored(SOUND)
    assert get_reader([str(path)]) is None
    with pytest.raises(lg.SignalError, match="is a sound"):
        get_reader(str(path))(str(path))


def test_napari_shows_it(stored):
    """The real one, without a window."""
    pytest.importorskip("napari", reason="napari is not installed")
    from napari.components import ViewerModel
    from npe2 import PluginManager, PluginManifest

    manager = PluginManager.instance()
    manager.register(PluginManifest.from_file(ROOT / "lgsirens" / "access" / "napari.yaml"))
    viewer = ViewerModel()
    (layer,) = viewer.open(stored(PICTURE), plugin="lgsirens")
    assert (layer.multiscale, layer.rgb) == (True, True)
    assert np.array_equal(np.asarray(layer.data[0]), np.asarray(lg.open(PICTURE)))


def test_the_core_imports_none_of_these():
    """In a process of its own, whatever this one has imported."""
    import subprocess

    unwanted = ("xarray", "zarr", "dask", "napari", "httpx", "fsspec", "lgsirens.access.xarray_backend")
    program = f"import sys, lgsirens; print([m for m in {unwanted!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
