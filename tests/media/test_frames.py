"""Which frames are read, and how they are reduced."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lgsirens.errors import ConfigError
from lgsirens.media import files
from lgsirens.signal import Signal
from lgsirens.system.console import Progress
from tests.films import noise, refusal, smooth


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__("read", "frame", quiet=True)
        self.counts = []

    def start(self, total, done=0):
        self.counts.append(f"{done} of {total}")

    def advance(self, count=1, **figures):
        self.counts.append(count)


def test_frames_and_size_are_reduced_on_reading_and_each_frame_is_told(tmp_path):
    signal, bar = smooth(6, 32, 48), Told()
    files.write(tmp_path / "a.mkv", signal, progress=bar)
    files.write(tmp_path / "a", signal, progress=bar)
    assert bar.counts == ["0 of 6", 1, 1, 1, 1, 1, 1] * 2
    bar.counts.clear()
    for name in ("a.mkv", "a"):
        result = files.read(tmp_path / name, frames=(2, 5), max_side=12, progress=bar)
        assert result.values.shape == (3, 8, 12, 3)
        expected = signal.values[2:5].reshape(3, 8, 4, 12, 4, 3).mean(axis=(2, 4))
        assert np.abs(result.values - expected).max() <= 1.5
        assert np.array_equal(files.read(tmp_path / name, frames=(4, None)).values, signal.values[4:])
        assert np.array_equal(files.read(tmp_path / name, max_side=48).values, signal.values)
    assert bar.counts == ["0 of 3", 1, 1, 1] * 2


def test_a_film_that_memory_cannot_hold_is_one_line(tmp_path, monkeypatch):
    files.write(tmp_path / "a.mkv", noise((3, 4, 4, 1)))

    def fail(*_):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(np, "empty", fail)
    message = refusal(tmp_path / "a.mkv")
    assert "9 GiB" in message
    assert "max_side" in message


def test_frames_of_an_array_are_cut_out(tmp_path):
    signal = noise((5, 4, 3, 2))
    files.write(tmp_path / "a.npy", signal)
    assert np.array_equal(files.read(tmp_path / "a.npy", frames=(1, 3)).values, signal.values[1:3])
    assert "max_side is for films in other files" in refusal(tmp_path / "a.npy", max_side=2)


def test_what_only_films_have_is_refused_elsewhere(tmp_path):
    files.write(tmp_path / "a.png", Signal.from_array(np.zeros((4, 4), np.uint8), "image"))
    files.write(tmp_path / "a.mkv", noise((3, 4, 4, 1)))
    assert "frames is for films, this is of kind image" in refusal(tmp_path / "a.png", frames=(0, 1))
    assert "max_side is for films, this is of kind image" in refusal(tmp_path / "a.png", max_side=2)
    assert "is of kind video, not 'image'" in refusal(tmp_path / "a.mkv", kind="image")
    assert "has 3 frames, not 0:4; choose frames within 0:3" in refusal(tmp_path / "a.mkv", frames=(0, 4))
    for options in ({"frames": (2, 2)}, {"frames": (-1, 2)}, {"max_side": 0}):
        with pytest.raises(ConfigError):
            files.read(tmp_path / "a.mkv", **options)


def test_a_long_film_is_never_held_at_full_size(tmp_path):
    frames = np.broadcast_to(np.zeros(3, np.uint8), (80, 480, 640, 3))
    files.write(tmp_path / "a.mp4", Signal.from_array(frames, "video", sampling_rate=25))
    program = """
import re
from lgsirens.media import files

def peak():  # of this process only; getrusage would count the parent's
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])

files.read("a.mp4", frames=(0, 9), max_side=64)
before = peak()
assert files.read("a.mp4", max_side=64).shape == (80, 48, 64)
print(peak() - before)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 * 1024  # all frames are 70 MiB
