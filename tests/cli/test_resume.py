"""The command line: stopping a run and going on with it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.cli import fitting
from lgsirens.system.program import INTERRUPTED
from lgsirens.training import encode
from lgsirens.training.checkpoint import claimed
from tests.command import assert_one_line, full_disk, run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_saves_what_it_has_and_resume_goes_on(folder, number):
    np.save("a.npy", np.random.default_rng(0).random((64, 64)).astype(np.float32))
    command = [sys.executable, "-c", "import sys; from lgsirens.cli.main import main; sys.exit(main())"]
    command += ["encode", "a.npy", "a.safetensors", "--partitions", "2,2", "--steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (
        process.poll() is None and time.monotonic() < deadline and not os.path.exists(".a.checkpoint.safetensors.lock")
    ):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert "saved what there is" in err
    assert "Traceback" not in err
    inr = lg.load("a.safetensors")
    assert inr.fit.stopped == "interrupted"
    assert sorted(os.listdir()) == ["a.checkpoint.safetensors", "a.npy", "a.safetensors"]
    assert out.startswith("a.safetensors: image 64x64")
    # a changed input and a changed option are refused
    assert run("encode", "a.npy", "a.safetensors", "--partitions", "2,2", "--steps", "9", "--resume", "--quiet") == 2
    np.save("b.npy", np.zeros((64, 64), dtype=np.float32))
    assert run("encode", "b.npy", "a.safetensors", "--partitions", "2,2", "--steps", "100000", "--resume") == 2
    assert lg.load("a.safetensors").fit.steps == inr.fit.steps


def test_runs_with_one_output_keep_their_states_apart(files, capsys, monkeypatch, checkpoint_each_step):
    """As if another run were under way, which then is killed: each goes on from its own checkpoint."""
    np.save("a.npy", np.zeros((32, 32), dtype=np.uint8))
    np.save("b.npy", np.full((32, 32), 200, dtype=np.uint8))
    command = ["x.safetensors", "--steps", 4, "--quiet"]
    _left_checkpoint(monkeypatch, "encode", "a.npy", *command)
    first = Path("x.checkpoint.safetensors").read_bytes()
    with claimed(Path("x.checkpoint.safetensors")) as free:
        assert free
        _left_checkpoint(monkeypatch, "encode", "b.npy", *command)
        assert "x.checkpoint.safetensors: is of a run that is under way" in capsys.readouterr().err
    assert Path("x.checkpoint.safetensors").read_bytes() == first
    assert run("encode", "photo.png", *command, "--resume") == 2
    assert "another input" in capsys.readouterr().err
    for name, left in (("b", 1), ("a", 0)):
        assert run("encode", f"{name}.npy", *command, "--resume", "--overwrite") == 0
        assert lg.load("x.safetensors").decode().values.mean() == pytest.approx(
            float(np.load(f"{name}.npy")[0, 0]), abs=50
        )
        assert len(list(Path().glob("x*.checkpoint.safetensors"))) == left
    assert not list(Path().glob(".*"))


def test_the_claim_of_a_killed_process_ends_with_it(folder):
    code = "import sys, time; from pathlib import Path; from lgsirens.training.checkpoint import claimed\n"
    code += "with claimed(Path('c')) as free:\n    print(free, flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with claimed(Path("c")) as free:
            assert not free
        process.kill()
        process.wait()
    with claimed(Path("c")) as free:
        assert free
    assert os.listdir() == []


def test_what_a_run_killed_while_it_kept_its_state_has_left_goes_with_the_next_one(files, checkpoint_each_step):
    if (child := os.fork()) == 0:
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        run("encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(os.listdir()) == 4
    assert run("encode", "photo.png", "b.safetensors", "--steps", 1, "--quiet") == 0
    assert sorted(os.listdir()) == ["a.safetensors", "b.safetensors", "photo.png"]


def test_a_file_system_without_locks_is_no_obstacle(folder, monkeypatch):
    def refused(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refused)
    with claimed(Path("c")) as free:
        assert free


def test_resume_without_a_checkpoint_starts_at_the_beginning(files, capsys):
    assert run("encode", "photo.png", "b.safetensors", "--steps", 2, "--resume", "--quiet") == 0
    assert lg.load("b.safetensors").fit.steps == 2


def _left_checkpoint(monkeypatch, *command):
    """A run whose result could not be saved, so that its checkpoint is left."""

    def full(*arguments):
        raise lg.RunError("full")

    with monkeypatch.context() as failing:
        failing.setattr(fitting, "save", full)
        assert run(*command) == 1


def test_a_damaged_checkpoint_is_refused(files, capsys, monkeypatch, checkpoint_each_step):
    Path("b.checkpoint.safetensors").write_bytes(b"nonsense")
    command = ["encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet"]
    assert run(*command, "--resume") == 2
    assert_one_line(capsys, "b.checkpoint.safetensors")
    os.remove("b.checkpoint.safetensors")
    _left_checkpoint(monkeypatch, *command)
    content = bytearray(Path("b.checkpoint.safetensors").read_bytes())
    content[-5] ^= 1
    Path("b.checkpoint.safetensors").write_bytes(content)
    capsys.readouterr()
    assert run(*command, "--resume") == 2
    assert_one_line(capsys, "CRC-32")
    assert not Path("b.safetensors").exists()


def test_a_file_that_is_no_checkpoint_is_neither_replaced_nor_deleted(files, capsys):
    content = Path("a.safetensors").read_bytes()
    Path("b.checkpoint.safetensors").write_bytes(content)
    Path("c.checkpoint.safetensors").mkdir()
    for output in ("b.safetensors", "c.safetensors", "d.checkpoint.safetensors"):
        assert run("encode", "photo.png", output, "--steps", 2, "--quiet") == 2
        assert_one_line(capsys, "checkpoint")
    assert Path("b.checkpoint.safetensors").read_bytes() == content


def test_ctrl_c_while_the_result_is_measured_does_not_lose_it(files, monkeypatch):
    real = encode.measure

    def measure(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(encode, "measure", measure)
    assert run("encode", "photo.png", "b.safetensors", "--steps", 2, "--quiet") == 0
    assert lg.load("b.safetensors").fit.steps == 2


def test_resume_with_another_block_size_is_refused(files, monkeypatch, capsys, checkpoint_each_step):
    command = ["encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet"]
    _left_checkpoint(monkeypatch, *command)
    assert run(*command, "--resume", "--max_memory", "300kB") == 2
    assert run(*command, "--resume") == 0


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(files, capsys, monkeypatch, checkpoint_each_step):
    with monkeypatch.context() as full:
        full_disk(full)
        assert run("encode", "photo.png", "b.safetensors", "--steps", 2, "--quiet") == 1
    assert "goes on without a checkpoint" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_not_lost(files, capsys, monkeypatch, stopping_at):
    real = fitting.save

    def failing_save(*arguments):
        full_disk(monkeypatch)
        real(*arguments)

    with monkeypatch.context() as full:
        full.setattr(fitting, "save", failing_save)
        assert run("encode", "photo.png", "b.safetensors", "--steps", 3, "--quiet") == 1
    monkeypatch.undo()
    os.chdir(files)
    with stopping_at(1, MemoryError):
        assert run("encode", "photo.png", "b.safetensors", "--steps", 3, "--quiet", "--resume") == 0
    assert lg.load("b.safetensors").fit.steps == 3
    assert sorted(os.listdir()) == ["a.safetensors", "b.safetensors", "photo.png"]


def test_an_interrupted_step_can_be_resumed_from_its_checkpoint(files, stopping_at):
    """`encode --resume` through the command line ends as a run that was never stopped."""
    options = ["--partitions", "5,4", "--steps", "8", "--quiet"]
    assert run("encode", "photo.png", "whole.safetensors", *options) == 0
    with stopping_at(5):
        assert run("encode", "photo.png", "b.safetensors", *options) == INTERRUPTED
    assert lg.load("b.safetensors").fit.steps == 5
    assert run("encode", "photo.png", "b.safetensors", *options, "--resume") == 0
    whole, resumed = lg.load("whole.safetensors"), lg.load("b.safetensors")
    assert whole.origin == resumed.origin
    assert resumed.fit.steps == 8
    assert not Path("b.checkpoint.safetensors").exists()


def test_a_checkpoint_whose_record_was_changed_is_refused(files, capsys, monkeypatch, checkpoint_each_step):
    command = ["encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet"]
    _left_checkpoint(monkeypatch, *command)
    checkpoint = Path("b.checkpoint.safetensors")
    content = checkpoint.read_bytes()
    for old, new in ((b'\\"step\\", 4', b'\\"step\\", 2'), (b"generator", b"gemerator"), (b"best", b"bust")):
        assert old in content
        checkpoint.write_bytes(content.replace(old, new))
        capsys.readouterr()
        assert run(*command, "--resume") == 2
        assert_one_line(capsys, "b.checkpoint.safetensors")
