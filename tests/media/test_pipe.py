"""Pipes and standard input as inputs."""

import os
import tempfile
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import lgsirens as lg
from tests.command import assert_one_line, run

RNG = np.random.default_rng(0)
SIGNALS = {
    "a.png": lg.Signal.from_array(RNG.integers(0, 255, (12, 16, 3), dtype=np.uint8)),
    "a.npy": lg.Signal.from_array(RNG.random((12, 16), dtype=np.float32)),
    "a.wav": lg.Signal.from_array(RNG.integers(-99, 99, 400, dtype=np.int16), sampling_rate=8000),
    "a.mkv": lg.Signal.from_array(RNG.integers(0, 255, (3, 12, 16, 3), dtype=np.uint8), sampling_rate=Fraction(25)),
}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where what pipes give is kept: nothing may be left there."""
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    yield tmp_path
    assert os.listdir(tmp_path / "kept") == []


@pytest.mark.parametrize("name", SIGNALS)
def test_standard_input_is_read_as_the_file(name, temporary, monkeypatch):
    lg.write(temporary / name, SIGNALS[name])
    with open(temporary / name) as file:
        monkeypatch.setattr("sys.stdin", file)
        read = lg.read("-")
    assert read.values.tobytes() == lg.read(temporary / name).values.tobytes() == SIGNALS[name].values.tobytes()
    assert (read.kind, read.sampling_rate) == (SIGNALS[name].kind, SIGNALS[name].sampling_rate)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", SIGNALS)
def test_a_pipe_is_read_as_the_file(name, temporary):
    lg.write(temporary / name, SIGNALS[name])
    _feed(temporary / "pipe", (temporary / name).read_bytes())
    assert lg.read(temporary / "pipe").values.tobytes() == SIGNALS[name].values.tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("content", [b"", b"nothing that is known", b"\x89PNG\r\n\x1a\n cut"])
def test_what_is_wrong_in_a_pipe_is_said_of_the_pipe(content, temporary, capsys):
    _feed(temporary / "pipe", content)
    assert run("encode", temporary / "pipe", temporary / "x.safetensors") == 2
    assert_one_line(capsys, f"{temporary}/pipe: ")


def test_no_standard_input_is_one_line(temporary, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    assert run("encode", "-", temporary / "x.safetensors") == 2
    assert_one_line(capsys, "-: ", "name a file")


def _feed(pipe: Path, content: bytes) -> None:
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True).start()
