"""Settings of the whole test run, and the fixtures that several modules share."""

import itertools
import logging
import os
import signal
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import lgsirens as lg
from lgsirens.system import output
from lgsirens.training import loop
from lgsirens.training.checkpoint import Checkpoint
from tests.command import run

# No deadline: machines are noisy. The examples are the same in every run; `--hypothesis-profile search` looks further.
settings.register_profile("every run", deadline=None, derandomize=True, max_examples=40, database=None)
settings.register_profile("search", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("every run")

# One worker of the test run per core; tests about threads set their own number.
torch.set_num_threads(1)


@pytest.fixture
def lines(caplog, monkeypatch):
    """What was logged since, without the path."""
    monkeypatch.setattr(logging.getLogger("lgsirens"), "propagate", True)  # the command line turns it off
    return lambda: [record.getMessage().split(": ", 1)[1] for record in caplog.records if record.name == "lgsirens"]


@pytest.fixture
def disk(monkeypatch):
    """What was moved, and what was waited for to be on the disk, in order."""
    done = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: done.append(("fsync", Path(os.readlink(f"/proc/self/fd/{file}")))) or fsync(file)
    )

    def noted(move):
        return lambda old, new, *how: done.append(("move", Path(old), Path(new))) or move(old, new, *how)

    for module, name in ((os, "replace"), (os, "rename"), (output, "_renamed")):
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    return done


@pytest.fixture
def checkpoint_each_step(monkeypatch):
    """Runs keep their state after every step."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


@pytest.fixture
def stopping_at(checkpoint_each_step):
    """`with stopping_at(n):` Ctrl-C comes in step n of a fit, counted from 1, so that it is the last one.

    `with stopping_at(n, error):` the error comes instead, and step n is not taken. With `kept` the state is last kept
    after that step.
    """

    @contextmanager
    def stopping(step, error=None, kept=None):
        real, save, numbers = loop.accumulate_gradients, Checkpoint.save, itertools.count(1)

        def gradients(*arguments):
            if next(numbers) == step:
                if error is not None:
                    raise error
                signal.raise_signal(signal.SIGINT)
            return real(*arguments)

        def save_early(checkpoint, model, optimizer, generator, state, *more):
            if kept is None or state.step <= kept:
                save(checkpoint, model, optimizer, generator, state, *more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "accumulate_gradients", gradients)
            patch.setattr(Checkpoint, "save", save_early)
            yield

    return stopping


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory):
    """A picture and its encoding, made once."""
    path = tmp_path_factory.mktemp("shared")
    rows, columns = np.mgrid[:65, :64]
    picture = np.stack([rows * 3, columns * 3, (rows + columns) * 2], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(path / "photo.png")
    command = ["encode", path / "photo.png", path / "a.safetensors", "--partitions", "5,4", "--steps", 30, "--quiet"]
    assert run(*command) == 0
    return path


@pytest.fixture
def files(folder, shared_files):
    """A current folder with `photo.png` and its encoding `a.safetensors`."""
    for name in ("photo.png", "a.safetensors"):
        (folder / name).write_bytes((shared_files / name).read_bytes())
    return folder


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A working directory beside data/, where a stand-in for the cat film lies."""
    folder = tmp_path / "experiment_scripts"
    (tmp_path / "data").mkdir()
    folder.mkdir()
    monkeypatch.chdir(folder)
    frames, rows, columns = np.mgrid[:10, :16, :16]
    film = np.stack([frames * 20, rows * 12, columns * 12], axis=-1).astype(np.uint8)
    lg.write("../data/cat_video.mp4", lg.Signal.from_array(film, "video", None, Fraction(25)))
    wave = np.sin(np.arange(3200) / 10).astype(np.float32)
    lg.write("../sound.wav", lg.Signal.from_array(wave, "audio", None, 8000))
    rows, columns = np.mgrid[:300, :520]
    Image.fromarray(np.stack([rows, columns, rows + columns], -1).astype(np.uint8)).save("../image.png")
    return folder
