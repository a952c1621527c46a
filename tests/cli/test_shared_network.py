"""Many pictures with one shared network from the command line: encode --shared_from, merge --offset."""

import os

import numpy as np
import pytest

import lgsirens as lg
from tests.command import assert_one_line, run
from tests.small import without_times

STEPS = ("--steps", 3, "--quiet")
SMALL = ("--partition_size", "8,8", "--local_width", 5, "--global_width", 6, *STEPS)
SHARED = ("--shared_from", "a.safetensors")


@pytest.fixture
def pictures(folder):
    """a.png, b.png and c.png, 16x24 each, and a.safetensors, with tiles of 8x8."""
    for seed, name in enumerate("abc"):
        values = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        lg.write(f"{name}.png", lg.Signal.from_array(values))
    assert run("encode", "a.png", "a.safetensors", *SMALL) == 0
    return folder


def encoded(name, *more):
    return run("encode", f"{name}.png", f"{name}.safetensors", *SHARED, *STEPS, *more)


def test_pictures_of_one_network_merge_into_one_file(pictures, capsys):
    before = (pictures / "a.safetensors").read_bytes()
    assert encoded("b") == encoded("c") == 0
    merge = ("merge", *(f"{name}.safetensors" for name in "abc"), "all.safetensors")
    assert run(*merge, "--offset", "0,24;-16,0") == 0
    assert run("decode", "all.safetensors", "all.npy", "--quiet") == 0
    for name in "abc":
        assert run("decode", f"{name}.safetensors", f"{name}.npy", "--quiet") == 0
    decoded, (a, b, c) = np.load("all.npy"), (np.load(f"{name}.npy") for name in "abc")
    assert decoded.shape == (32, 48, 3)
    assert np.array_equal(decoded[:16, :24], c)
    assert np.array_equal(decoded[16:], np.concatenate([a, b], axis=1))
    assert run("crop", "all.safetensors", "again.safetensors", "--region", "0:16,24:48") == 0
    assert run("decode", "again.safetensors", "again.png", "--quiet") == 0
    capsys.readouterr()
    assert run("info", "again.safetensors", "--against", "b.png") == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()].count("move") == 2
    assert (pictures / "a.safetensors").read_bytes() == before


def test_a_stopped_run_goes_on_to_the_same_file(pictures, stopping_at, capsys):
    assert encoded("b") == 0
    os.rename("b.safetensors", "whole.safetensors")
    with stopping_at(2):
        assert encoded("b") == 130
    assert run("encode", "b.png", "b.safetensors", *SMALL, "--resume") == 2
    assert encoded("b", "--resume") == 0
    assert without_times(pictures / "b.safetensors") == without_times(pictures / "whole.safetensors")
    assert not (pictures / "b.checkpoint.safetensors").exists()


def test_the_config_that_info_prints_makes_the_run_again_beside_its_network(pictures, capsys):
    assert encoded("b") == encoded("c", "--seed", 1) == 0
    assert run("encode", "c.png", "other.safetensors", *SMALL) == 0
    capsys.readouterr()
    assert run("info", "b.safetensors", "--config") == 0
    (pictures / "b.yaml").write_text(capsys.readouterr().out)
    again = ("encode", "b.png", "again.safetensors", "--config_path", "b.yaml", "--quiet")
    for words in ((), ("--shared_from", "other.safetensors")):
        assert run(*again, *words) == 2
        assert_one_line(capsys, "--shared_from must be a file of origin", lg.load("a.safetensors").origin)
    assert run(*again, "--shared_from", "c.safetensors") == 0  # which has the same one
    assert without_times(pictures / "again.safetensors") == without_times(pictures / "b.safetensors")


def test_a_dry_run_writes_nothing(pictures, capsys):
    before = sorted(os.listdir())
    capsys.readouterr()
    assert encoded("b", "--dry_run") == 0
    assert "6 partitions of 8x8 samples, L = 5, G = 6" in capsys.readouterr().out
    assert sorted(os.listdir()) == before


REFUSED = {
    "another tile": (*SHARED, "--partition_size", "8,4"),
    "a number of tiles": (*SHARED, "--partitions", "2,3"),
    "another depth": (*SHARED, "--hidden_layers", "2"),
    "a budget": (*SHARED, "--parameters", "9000"),
    "signal coordinates": (*SHARED, "--coordinates", "signal"),
    "a file that is not there": ("--shared_from", "nothing.safetensors"),
    "a file without a shared network": ("--shared_from", "lc.safetensors"),
    "a file of another kind": ("--shared_from", "sound.safetensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_use_of_a_shared_network_is_one_line_and_writes_nothing(pictures, capsys, name):
    lg.encode(lg.read("a.png"), mode="lc", steps=1).save("lc.safetensors")
    lg.encode(lg.Signal.from_array(np.arange(50.0)), steps=1).save("sound.safetensors")
    before, words = sorted(os.listdir()), REFUSED[name]
    capsys.readouterr()
    assert run("encode", "b.png", "b.safetensors", *words, *STEPS) == 2
    assert_one_line(capsys, "nothing.safetensors" if "nothing.safetensors" in words else words[-2])
    assert sorted(os.listdir()) == before


def test_the_file_whose_network_is_shared_is_never_written_over(pictures, capsys):
    assert run("encode", "b.png", "a.safetensors", *SHARED, *STEPS, "--overwrite") == 2
    assert_one_line(capsys, "a.safetensors: is the input")


OFFSETS = {
    "no whole tile": ("0,20", "8,8"),
    "too few numbers": ("24", "8,8"),
    "too many files": ("0,24;0,48", "one for each of 1 file"),
    "words": ("0,b", "0,b"),
    "nothing": ("", "is not"),
    "too far": ("0,17179869184", "farthest position"),
    "signal coordinates": ("0,24", "tile coordinates"),
}


@pytest.mark.parametrize("name", OFFSETS)
def test_wrong_offsets_are_one_line_and_write_nothing(pictures, capsys, name):
    offset, words = OFFSETS[name]
    coordinates = ("--coordinates", "signal") if name == "signal coordinates" else ()
    assert run("encode", "b.png", "b.safetensors", *SMALL, *coordinates) == 0
    capsys.readouterr()
    assert run("merge", "a.safetensors", "b.safetensors", "out.safetensors", "--offset", offset) == 2
    assert_one_line(capsys, "--offset", words)
    assert not os.path.exists("out.safetensors")


def test_pieces_that_come_to_lie_on_one_another_need_a_preference(pictures, capsys):
    assert encoded("b") == 0
    merge = ("merge", "a.safetensors", "b.safetensors", "out.safetensors", "--offset", "0,16")
    capsys.readouterr()
    assert run(*merge) == 2
    assert_one_line(capsys, "partition 0,2", "a.safetensors", "b.safetensors", "prefer")
    assert run(*merge, "--prefer", "b.safetensors") == 0
    out, b = lg.load("out.safetensors"), lg.load("b.safetensors")
    assert np.array_equal(out.decode("0:16,16:40").values, b.decode().values)
