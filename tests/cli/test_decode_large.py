"""Files larger than `--max_memory`: the same results, in bounded memory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.grid.coordinates import Coordinates
from lgsirens.lazy import CACHE_BYTES
from lgsirens.media.files import read
from lgsirens.representation.file import save
from tests.command import run
from tests.small import representation

MIB = 1 << 20
PEAK = """
import json, sys
from lgsirens.cli.main import main
import lgsirens, PIL.Image, tifffile, imagecodecs, zarr, h5py, soundfile, av

def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

before = peak()
code = eval(sys.argv[1])
print(json.dumps([code, before, peak()]))
"""


def tiled(size, **options):
    coordinates = Coordinates("tile", (size, size), (1 / 64,) * 2, (1 / 64,) * 2)
    return representation((size, size), 3, tile=(32, 32), coordinates=coordinates, **options)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tiled(200), tmp_path / "a.safetensors")
    return "a.safetensors"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".zarr", ".jpg"])
@pytest.mark.parametrize("options", [(), ("--scale", "3/2"), ("--region", "10:150,31:99"), ("--scale", "1/2")], ids=str)
def test_what_is_decoded_part_by_part_is_what_is_decoded_whole(stored, suffix, options, monkeypatch, capsys):
    assert run("decode", stored, f"whole{suffix}", "--quiet", *options) == 0
    whole = capsys.readouterr().out
    monkeypatch.setattr("lgsirens.paper.runs._COPIES", 1 << 40)
    assert run("decode", stored, f"parts{suffix}", "--quiet", *options) == 0
    assert capsys.readouterr().out == whole.replace("whole", "parts")
    assert np.array_equal(read(f"whole{suffix}").values, read(f"parts{suffix}").values)


def test_samples_without_a_partition_are_counted(stored, monkeypatch, capsys):
    lg.load(stored).crop("0:32, 0:32", "64:96, 64:96").save("b.safetensors")
    monkeypatch.setattr("lgsirens.paper.runs._COPIES", 1 << 40)
    assert run("decode", "b.safetensors", "b.npy", "--quiet") == 0
    assert f"{96 * 96 - 2 * 32 * 32} samples without a partition" in capsys.readouterr().out


def peaks(script, folder):
    words = [sys.executable, "-c", PEAK, script]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy", ".zarr"])
def test_decoding_stays_within_max_memory(tmp_path, suffix):
    save(tiled(6144, overviewed=False), tmp_path / "a.safetensors")
    command = f'main(["decode", "a.safetensors", "a{suffix}", "--max_memory", "250MB", "--quiet"])'
    code, before, after = peaks(command, tmp_path)
    assert code == 0
    assert after - before < 1.2 * 250e6  # of 453 MB of float32
    whole = lg.load(tmp_path / "a.safetensors").decode("3000:3100, 0:6144")
    signal = read(tmp_path / f"a{suffix}", value_range=(0, 255))
    part = signal.read(((3000, 3100), (0, 6144)))
    assert np.array_equal(part, whole.values if suffix == ".npy" else np.rint(whole.values))


def tif(path, values):
    import tifffile

    tifffile.imwrite(path, values, tile=(256, 256), compression="deflate", photometric="rgb", bigtiff=True)


def plain_tif(path, values):
    import tifffile

    tifffile.imwrite(path, values, photometric="rgb")


def stored_zarr(path, values):
    import zarr

    zarr.create_array(str(path), shape=values.shape, chunks=(512, 512, 3), dtype="uint8")[:] = values


def hdf5(path, values):
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=values, chunks=(512, 512, 3))


def wav(path, values):
    import soundfile

    soundfile.write(path, values.reshape(-1, 2).astype(np.int16), 48000, "PCM_16")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("name", "make"),
    {"a.tif": tif, "b.tif": plain_tif, "a.npy": np.save, "a.zarr": stored_zarr, "a.h5": hdf5, "a.wav": wav}.items(),
)
def test_a_large_file_is_passed_through_in_bounded_memory(tmp_path, name, make):
    values = np.random.default_rng(0).integers(0, 255, (10240, 12288, 3)).astype(np.uint8)  # 377 MB
    make(tmp_path / name, values)
    highest, before, after = peaks(f'lgsirens.lazy.extremes(lgsirens.read("{name}").values)[1]', tmp_path)
    assert highest == 254
    assert after - before < CACHE_BYTES + 96 * MIB  # which heaps of many small tiles want
