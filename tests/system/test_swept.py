"""What killed writers leave, and folders that change places."""

import errno
import fcntl
import os
import signal

import pytest

from lgsirens.errors import RunError
from lgsirens.system.output import make_folder, replacing, replacing_folder, sweep


def names(folder):
    return sorted(os.listdir(folder))


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


def _killed_writing(writing):
    """Leave what a process leaves that is killed in the block."""
    if (child := os.fork()) == 0:
        with writing as temporary:
            (temporary / "half" if temporary.is_dir() else temporary).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("name", ["a.bin", "a[1]*?.bin", ".hidden", "n" * 251 + ".bin"])
def test_what_a_killed_writer_has_left_goes_with_the_next_one(tmp_path, name):
    path, mine = tmp_path / name, tmp_path / ".a.lgsirens"
    mine.touch()
    for _ in range(2):
        _killed_writing(replacing(path))
    assert len(names(tmp_path)) == 2  # of the second one
    with replacing(path) as temporary:
        assert names(tmp_path) == sorted([temporary.name, mine.name])
    assert names(tmp_path) == sorted([name, mine.name])


def test_what_a_killed_writer_of_a_folder_has_left_goes_with_the_next_one(tmp_path):
    for _ in range(2):
        _killed_writing(replacing_folder(tmp_path / "a", lambda: None))
    assert len(names(tmp_path)) == 1
    with replacing_folder(tmp_path / "a", lambda: None) as temporary:
        assert names(tmp_path) == [temporary.name]
        sweep(tmp_path)
        assert names(tmp_path) == [temporary.name]
    assert names(tmp_path) == ["a"]


def test_a_file_that_is_swept_before_it_is_locked_is_begun_anew(tmp_path, monkeypatch):
    lock, swept = fcntl.flock, []

    def late(descriptor, how):
        if how == fcntl.LOCK_EX and not swept:
            swept.append(None)
            sweep(tmp_path)
        lock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", late)
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["a.bin"]


def test_where_there_are_no_locks_nothing_is_swept(tmp_path, monkeypatch):
    _killed_writing(replacing(tmp_path / "a.bin"))
    (left,) = names(tmp_path)
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOLCK))
    with replacing(tmp_path / "a.bin"):
        pass
    assert names(tmp_path) == [left, "a.bin"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_changes_places_with_the_one_that_is_there(tmp_path, monkeypatch, at_once):
    """Where the system can let them, there is no moment without either."""
    if not at_once:
        monkeypatch.setattr("lgsirens.system.output._renamed", lambda *arguments: False)
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    if at_once:
        monkeypatch.setattr("os.rename", lambda *paths: pytest.fail("two moves"))
    with replacing_folder(path, lambda: None) as temporary:
        (temporary / "new").touch()
    assert (names(tmp_path), names(path)) == (["a"], ["new"])


def test_a_folder_that_cannot_change_places_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("lgsirens.system.output._renamed", lambda *arguments: False)
    path, rename = tmp_path / "a", os.rename
    path.mkdir()
    (path / "old").touch()
    monkeypatch.setattr(
        "os.rename",
        lambda old, new: refusing(errno.EIO)() if new == path and "old" not in names(old) else rename(old, new),
    )
    with pytest.raises(RunError, match="cannot be written"), replacing_folder(path, lambda: None) as temporary:
        (temporary / "new").touch()
    assert (names(tmp_path), names(path)) == (["a"], ["old"])


def test_a_new_folder_is_on_the_disk_and_so_are_those_above_it(tmp_path, disk):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert disk == [("fsync", tmp_path), ("fsync", tmp_path / "a")]
