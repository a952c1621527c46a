"""The public API: what it exports, and that misuse of it raises errors of ours alone."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch

import lgsirens as lg
from lgsirens.errors import require
from tests.small import representation

ARRAY = np.zeros((4, 4), dtype=np.uint8)


def test_the_exports_are_exactly_all():
    modules = {name for name, value in vars(lg).items() if type(value).__name__ == "module"}
    public = {name for name in vars(lg) if not name.startswith("_")} - (modules - set(lg.__all__))
    assert public == set(lg.__all__) - {"__version__"}


def test_every_error_is_one_of_ours():
    errors = [name for name in lg.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(getattr(lg, name), lg.LgsirensError) for name in errors)


@pytest.mark.parametrize(
    "name",
    # A name with an underscore is that of a compiled kernel.
    [m.name for m in pkgutil.walk_packages(lg.__path__, "lgsirens.") if "._" not in m.name],
)
def test_the_examples_of_docstrings_run(name, folder):
    if not name.endswith("__main__"):
        assert doctest.testmod(importlib.import_module(name), raise_on_error=True).failed == 0


@pytest.mark.parametrize("there", [False, True])
def test_a_package_that_is_not_there_is_named_with_its_extra(folder, monkeypatch, there):
    """A folder of its name is none."""
    monkeypatch.syspath_prepend(folder)
    if there:
        (folder / "no_such_package").mkdir()
    with pytest.raises(lg.MissingDependencyError) as missing:
        require("no_such_package", "nothing", "none")
    assert str(missing.value) == "nothing needs no_such_package: pip install 'lgsirens[none]'"


def inr():
    return representation((12, 12), 1, "lg", (4, 4), 1)


def signal():
    return lg.Signal.from_array(ARRAY)


MISUSE = {
    "encode a path": lambda: lg.encode("photo.png"),
    "write an array": lambda: lg.write("a.png", ARRAY),
    "psnr of arrays": lambda: lg.psnr(ARRAY, ARRAY),
    "unknown option": lambda: lg.encode(signal(), stepps=3),
    "steps as text": lambda: lg.encode(signal(), steps="3"),
    "steps as a float": lambda: lg.encode(signal(), steps=3.0),
    "lr nan": lambda: lg.encode(signal(), lr=float("nan")),
    "partitions as a number": lambda: lg.encode(signal(), partitions=4),
    "max_memory as a word": lambda: lg.encode(signal(), max_memory="much"),
    "config as a number": lambda: lg.encode(signal(), config=5),
    "config as nothing much": lambda: lg.encode(signal(), config=0),
    "checkpoint as a number": lambda: lg.encode(signal(), checkpoint=5),
    "unknown device": lambda: lg.encode(signal(), device="abacus"),
    "decode on an unknown device": lambda: inr().decode(device="foo"),
    "decode into little memory": lambda: inr().decode(max_memory="1kB"),
    "size as a number": lambda: inr().decode(size=5),
    "size of booleans": lambda: inr().decode(size=(True, True)),
    "size of floats": lambda: inr().decode(size=(5.5, 3)),
    "scale as a word": lambda: inr().decode(scale="big"),
    "scale as nothing": lambda: inr().decode(scale=None),
    "region as a number": lambda: inr().decode(5),
    "positions of the wrong rank": lambda: inr()(torch.zeros(3)),
    "positions of words": lambda: inr()([["a", "b"]]),
    "positions nan": lambda: inr()([[float("nan"), 0.0]]),
    "drop numbers": lambda: inr().crop(drop_partitions=[5]),
    "drop words": lambda: inr().crop(drop_partitions=[("a", "b")]),
    "drop fractions": lambda: inr().crop(drop_partitions=[(0.7, 0.2)]),
    "move by a number": lambda: inr().move(4),
    "share the network of a path": lambda: lg.encode(signal(), shared_from="a.safetensors"),
    "drop nothing": lambda: inr().crop(drop_partitions=[]),
    "crop nothing": lambda: inr().crop(),
    "load nothing": lambda: lg.load(None),
    "read nothing": lambda: lg.read(None),
    "save to nothing": lambda: inr().save(None),
    "value range of three": lambda: lg.Signal.from_array(ARRAY, value_range=(1, 2, 3)),
    "value range of a number": lambda: lg.Signal.from_array(ARRAY, value_range=5),
    "value range of words": lambda: lg.Signal.from_array(ARRAY, value_range=("a", "b")),
    "ragged list": lambda: lg.Signal.from_array([[1, 2], [3]]),
    "kind as a list": lambda: lg.Signal.from_array(ARRAY, kind=[]),
    "no array": lambda: lg.Signal.from_array(None),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_raises_an_error_of_ours_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lg.LgsirensError) as caught:
        MISUSE[case]()
    assert len(str(caught.value).splitlines()) == 1


def test_numpy_numbers_are_options_too():
    found = lg.encode(signal(), steps=np.int64(2), partitions=np.array([2, 2]), max_memory="100MB")
    assert (found.fit.steps, len(found.lattice)) == (2, 4)


def test_keep_partitions_takes_pairs_and_slices():
    assert len(inr().crop(keep_partitions=[(0, 1), slice(1, 3)]).lattice) == 2


def test_the_example_of_the_docstring_runs(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    lg.write(tmp_path / "photo.png", lg.Signal.from_array(values))
    inr = lg.encode(lg.read(tmp_path / "photo.png"), partitions=(4, 4), parameters=9_000, steps=2)
    inr.crop("10:30, 5:20").save(tmp_path / "face.safetensors")
    lg.write(tmp_path / "face.png", lg.load(tmp_path / "face.safetensors").decode(scale=2))
    assert lg.read(tmp_path / "face.png").shape == (40, 30)
    positions = torch.rand(7, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    inr(positions).sum().backward()
    assert positions.grad.shape == (7, 2)
