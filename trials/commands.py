"""The commands that are tried, on small signals, and the children that run them."""

import importlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lgsirens as lg
from lgsirens.cli.main import main
from lgsirens.training import groups, loop

SECONDS = 120  # after which a child hangs

# What the commands import when they need it: here once, for all children.
_LATE = ("av", "soundfile", "tensorboard.summary.writer.record_writer", "tifffile", "torch.utils.tensorboard", "zarr")


@dataclass(frozen=True)
class Command:
    """A command line, run in a folder with its inputs.

    Attributes:
        outputs: what it must leave whole or not at all; of these, what is there before may stay instead.
        inputs: what it needs, as prepared by `prepare`: its name there, or its name and that which it gets.
        resumes: a run that was killed is gone on with by `--resume`.
    """

    name: str
    words: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    resumes: bool = False

    @property
    def argv(self) -> list[str]:
        return self.words.split()

    def fill(self, folder: Path, prepared: Path) -> None:
        """Make the folder, with the inputs."""
        folder.mkdir(parents=True)
        for given in self.inputs:
            name, _, here = given.partition(":")
            source, target = prepared / name, folder / (here or name)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


_ENCODE = "encode photo.png out.safetensors --partitions 3,3 --steps 5 --quiet"
_GROUPS = "encode wide.png out.safetensors --partitions 5,5 --steps 3 --quiet"
_LOG = f"{_ENCODE} --log_dir logs/run --summary_every 2 --checkpoint_every 3"
_LEFT = ("logs/run/model_final.safetensors", "logs/run/config.yaml", "logs/run/checkpoints/model_step_3.safetensors")
_MANY = "encode-many pictures out --steps 3 --quiet"
_MANY_LEFT = ("out/000000.png.safetensors", "out/000001.png.safetensors")
COMMANDS = (
    Command("encode", _ENCODE, ("out.safetensors",), ("photo.png",), True),
    Command(
        "encode over another",
        f"{_ENCODE} --overwrite",
        ("out.safetensors",),
        ("photo.png", "a.safetensors:out.safetensors"),
        True,
    ),
    Command("encode in groups", f"{_GROUPS} --max_memory 300kB", ("out.safetensors",), ("wide.png",), True),
    Command("log", _LOG, ("out.safetensors", *_LEFT), ("photo.png",), True),
    Command(
        "extend",
        "extend a.safetensors out.safetensors --signal wide.png --steps 4 --quiet",
        ("out.safetensors",),
        ("a.safetensors", "wide.png"),
        True,
    ),
    Command(
        "extend in groups",
        "extend a.safetensors out.safetensors --signal large.png --steps 4 --max_memory 300kB --quiet",
        ("out.safetensors",),
        ("a.safetensors", "large.png"),
        True,
    ),
    Command(
        "replace",
        "replace a.safetensors out.safetensors --signal patch.png --offset 8,8 --steps 4 --quiet",
        ("out.safetensors",),
        ("a.safetensors", "patch.png"),
        True,
    ),
    Command("encode-many", f"{_MANY} --partition_size 6,6", _MANY_LEFT, ("pictures",), True),
    Command(
        "encode-many with one network",
        f"{_MANY} --partition_size 6,6 --share_network",
        _MANY_LEFT,
        ("pictures",),
        True,
    ),
    Command("crop", "crop a.safetensors out.safetensors --region 0:20,0:20", ("out.safetensors",), ("a.safetensors",)),
    Command(
        "merge",
        "merge left.safetensors right.safetensors out.safetensors",
        ("out.safetensors",),
        ("left.safetensors", "right.safetensors"),
    ),
    Command("decode", "decode a.safetensors out.png --quiet", ("out.png",), ("a.safetensors",)),
    Command(
        "decode over another",
        "decode a.safetensors out.png --quiet --overwrite",
        ("out.png",),
        ("a.safetensors", "photo.png:out.png"),
    ),
    Command("decode to TIFF", "decode a.safetensors out.tif --quiet", ("out.tif",), ("a.safetensors",)),
    Command("decode to WAV", "decode sound.safetensors out.wav --quiet", ("out.wav",), ("sound.safetensors",)),
    Command("decode to MKV", "decode film.safetensors out.mkv --quiet", ("out.mkv",), ("film.safetensors",)),
    Command("decode to a folder", "decode film.safetensors out --quiet", ("out",), ("film.safetensors",)),
    Command(
        "decode over a folder",
        "decode film.safetensors out --quiet --overwrite",
        ("out",),
        ("film.safetensors", "pictures:out"),
    ),
    Command("export", "export sound.safetensors out.zarr --quiet", ("out.zarr",), ("sound.safetensors",)),
    Command(
        "export over another",
        "export sound.safetensors out.zarr --quiet --overwrite",
        ("out.zarr",),
        ("sound.safetensors", "old.zarr:out.zarr"),
    ),
)


def chosen(quick: bool, only: str | None) -> list[Command]:
    """The commands that are asked for."""
    few = ("encode", "crop", "decode over a folder")
    return [
        command for command in COMMANDS if command.name == only or (only is None and (not quick or command.name in few))
    ]


@dataclass(frozen=True)
class Ended:
    """How a child has ended: its exit code, or minus the signal; and what it has said."""

    code: int
    said: str


def prepare(folder: Path) -> None:
    """Make the inputs, and let this process be one that has all that children need."""
    in_small()
    for module in _LATE:
        importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "children would wait for threads that they have not got"
    assert call(_inputs, folder) is None
    for words in (
        "encode photo.png a.safetensors --partitions 3,3 --steps 12 --quiet",
        "encode sound.wav sound.safetensors --partitions 3 --steps 12 --quiet",
        "encode film.npy film.safetensors --kind video --partitions 2,2,2 --steps 4 --quiet",
        "crop a.safetensors left.safetensors --region :,:14",
        "crop a.safetensors right.safetensors --region :,14:",
        "encode wide.png old.safetensors --partitions 1,1 --steps 1 --quiet",
        "export sound.safetensors old.zarr --scale 1/2 --quiet",
    ):
        ended = run(words.split(), folder)
        assert ended.code == 0, (words, ended.said)


def in_small() -> None:
    """Let runs keep their state after every step, and groups be of a few partitions."""
    loop.SECONDS_BETWEEN_CHECKPOINTS = -1.0
    groups.GROUP_BYTES, groups.LEARNING_PARTITIONS = 45_000, 4


def _inputs(folder: Path) -> None:
    rows, columns = np.mgrid[:80, :90]
    large = np.stack([rows * 5, columns * 4, (rows + columns) * 2], -1).astype(np.uint8)
    wide = large[:40, :60]
    frames = np.random.default_rng(0).integers(0, 255, (3, 12, 12, 1), dtype=np.uint8)
    lg.write(folder / "photo.png", lg.Signal.from_array(wide[:, :40]))
    lg.write(folder / "wide.png", lg.Signal.from_array(wide))
    lg.write(folder / "large.png", lg.Signal.from_array(large))
    lg.write(folder / "patch.png", lg.Signal.from_array(255 - wide[8:20, 8:20]))
    wave = (20000 * np.sin(np.arange(2000) / 9)).astype(np.int16)
    lg.write(folder / "sound.wav", lg.Signal.from_array(wave, "audio", None, 8000))
    np.save(folder / "film.npy", frames)
    lg.write(folder / "pictures", lg.Signal.from_array(frames[:2], "video"))


def run(
    words: list[str],
    folder: Path,
    before: Callable[[], Any] = lambda: None,
    stopped: Callable[[], Any] = lambda: None,
) -> Ended:
    """Run a command in a folder, in a child of this process, which must have no other threads.

    Args:
        before: called in the child first.
        stopped: called here if the child is stopped; then it goes on.
    """
    with tempfile.TemporaryFile() as said:
        child = forked(words, folder, said.fileno(), before)
        while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
            stopped()
            os.kill(child, signal.SIGCONT)
        said.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), said.read().decode(errors="replace"))


def forked(words: list[str], folder: Path, said: int, before: Callable[[], Any]) -> int:
    """A child that runs a command and says what it has to say to a descriptor."""
    child = os.fork()
    if child == 0:
        _in_child(lambda: _command(words, folder, said, before))
    return child


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, or the exception that it raises, called in a child."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:

            def answered() -> int:
                try:
                    found = function(*arguments)
                except Exception as error:
                    found = error
                pickle.dump(found, answer)
                answer.flush()
                return 0

            _in_child(answered)
        status = os.waitpid(child, 0)[1]
        assert status == 0, f"{function.__name__} ended with {os.waitstatus_to_exitcode(status)}"
        answer.seek(0)
        return pickle.load(answer)


def _in_child(work: Callable[[], int]) -> None:
    code = 70
    try:
        signal.alarm(SECONDS)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _command(words: list[str], folder: Path, said: int, before: Callable[[], Any]) -> int:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, descriptor in ((0, nothing), (1, nothing), (2, said)):
        os.dup2(descriptor, number)
    os.chdir(folder)
    before()
    return main(words)
