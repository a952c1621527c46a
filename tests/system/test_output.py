import errno
import fcntl
import os
import stat

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.errors import LgsirensError, OutputError, RunError
from lgsirens.system.output import check_output, replacing
from tests.command import run


def names(folder):
    return sorted(os.listdir(folder))


def test_the_file_appears_whole_and_only_at_the_end(tmp_path):
    path = tmp_path / "a.bin"
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        assert not path.exists()
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["a.png", "a.tar.gz", ".hidden.tif", "ü b.PNG"])
def test_the_temporary_name_keeps_the_suffix(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        assert temporary.suffix == (tmp_path / name).suffix
        assert temporary.name != name
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OutputError("no")])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail():
        with replacing(path, overwrite=True) as temporary:
            temporary.write_bytes(b"new")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("function", ["replace", "fsync", "block"])
def test_an_error_of_the_system_becomes_one_line_that_names_file_and_reason(tmp_path, monkeypatch, function):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write():
        with replacing(path, overwrite=True) as temporary:
            temporary.write_bytes(b"new")
            if function == "block":
                full()

    if function != "block":
        monkeypatch.setattr(os, function, full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        write()
    monkeypatch.undo()
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


def rewritten(temporary):
    """As encoders do that replace the file themselves, with permissions of their own."""
    temporary.unlink()
    temporary.touch(0o600)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
@pytest.mark.parametrize("block", [rewritten, lambda temporary: None])
def test_a_new_file_has_the_permissions_that_the_user_wants(tmp_path, mask, block):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "a.bin") as temporary:
            block(temporary)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666, 0o755])
@pytest.mark.parametrize("block", [rewritten, lambda temporary: temporary.write_bytes(b"new")])
def test_a_replaced_file_keeps_its_permissions_and_is_not_open_to_more_on_the_way(tmp_path, mode, block):
    path = tmp_path / "a.bin"
    path.touch()
    path.chmod(mode)
    with replacing(path, overwrite=True) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        block(temporary)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_umask_of_other_threads_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads create files meanwhile"))
    with replacing(tmp_path / "a.bin"):
        pass


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_system_that_knows_no_permissions_takes_the_file(tmp_path, monkeypatch, exists):
    path = tmp_path / "a.bin"
    if exists:
        path.write_bytes(b"old")
    monkeypatch.setattr(os, "chmod", refusing(errno.EPERM))
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_the_content_is_on_the_disk_before_it_has_the_name_and_then_the_name(tmp_path, disk):
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
    assert disk == [("fsync", temporary), ("move", temporary, tmp_path / "a.bin"), ("fsync", tmp_path)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_wait_for_the_disk_takes_the_file(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", refusing(number))
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_a_folder_that_cannot_be_opened_takes_the_file(tmp_path, monkeypatch):
    system = os.open

    def refuse(path, *arguments):
        return refusing(errno.EACCES)() if path == tmp_path else system(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_an_existing_file_needs_overwrite(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already.*overwrite"), replacing(path):
        pytest.fail("the block must not run")
    assert path.read_bytes() == b"old"
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_cannot_be_a_file_is_refused_before_any_work(tmp_path, overwrite):
    for path, message in (
        (tmp_path / "no" / "a.bin", "does not exist"),
        (tmp_path, "is a folder"),
        (str(tmp_path), "is a folder"),
    ):
        with pytest.raises(OutputError, match=message) as caught:
            check_output(path, overwrite)
        assert str(path) in str(caught.value)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "file" / "a.bin", overwrite)


def test_a_folder_that_is_not_writable_is_a_failure_at_run_time(tmp_path, monkeypatch):
    # permissions do not hold root back, so the question is answered here
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RunError, match="not writable"):
        check_output(tmp_path / "a.bin")


def test_a_path_as_text_comes_back_as_a_path(tmp_path):
    assert check_output(str(tmp_path / "a.bin")) == tmp_path / "a.bin"
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".png", "n." + "n" * 250, "a\0b"])
def test_a_name_that_the_system_does_not_take_is_refused_as_one_of_ours(tmp_path, name):
    with pytest.raises(LgsirensError), replacing(tmp_path / name):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []


def test_the_longest_name_that_the_system_takes_is_taken(tmp_path):
    name = "n" * 251 + ".bin"
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == [name]


def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path):
    """Encoders take minutes: two writers of one name may both have found it free."""
    path = tmp_path / "a.bin"

    def meet():
        with replacing(path) as late:
            late.write_bytes(b"late")
            with replacing(path) as early:
                early.write_bytes(b"early")

    with pytest.raises(OutputError, match="exists already"):
        meet()
    assert path.read_bytes() == b"early"
    assert names(tmp_path) == ["a.bin"]


def test_of_two_writers_that_may_overwrite_the_last_one_stays_whole(tmp_path):
    path = tmp_path / "a.bin"
    with replacing(path, overwrite=True) as one, replacing(path, overwrite=True) as two:
        assert one != two
        one.write_bytes(b"one")
        two.write_bytes(b"two")
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_there_but_no_file_is_never_replaced(tmp_path, overwrite):
    """For the superuser nothing else keeps `--overwrite /dev/null` from ending that device."""
    path = tmp_path / "a.bin"
    os.mkfifo(path)
    with pytest.raises(OutputError, match="a.bin"), replacing(path, overwrite):
        pytest.fail("the block must not run")
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_stays_a_link_and_its_target_gets_the_file(tmp_path, exists):
    target, link = tmp_path / "far" / "target", tmp_path / "near" / "a.bin"
    target.parent.mkdir()
    link.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(target)
    with replacing(link, overwrite=True) as temporary:
        assert (temporary.parent, temporary.suffix) == (target.parent, ".bin")
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_other_names_of_a_replaced_file_keep_the_old_content(tmp_path):
    one, two = tmp_path / "one.bin", tmp_path / "two.bin"
    one.write_bytes(b"old")
    os.link(one, two)
    with replacing(one, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert (one.read_bytes(), two.read_bytes()) == (b"new", b"old")


def test_a_file_is_settled_through_a_descriptor_that_may_write(tmp_path, monkeypatch):
    """Not every system waits for the disk through one that only reads."""
    system, modes = os.fsync, []

    def fsync(descriptor):
        modes.append(
            (stat.S_ISDIR(os.fstat(descriptor).st_mode), fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        )
        return system(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "a.bin"):
        pass
    assert modes == [(False, os.O_RDWR), (True, os.O_RDONLY)]


def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder(tmp_path, monkeypatch, capsys):
    """Quoted in a script or written in a config, no shell has seen it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    lg.write("~/a.npy", lg.Signal.from_array(np.zeros((8, 8), np.uint8)))
    fit = ["--steps", "1", "--quiet"]
    assert run("encode", "~/a.npy", "~/a.safetensors", *fit, "--log_dir", "~/logs") == 0
    assert run("crop", "~/a.safetensors", "~/b.safetensors", "--region", "0:8,0:8") == 0
    assert run("decode", "~/b.safetensors", "~/b.npy") == 0
    lg.encode(lg.read("~/a.npy"), steps=1, log=lg.RunLog("~/logs2")).save("~/c.safetensors")
    assert len(lg.load("~/c.safetensors").lattice) == 1
    assert os.listdir() == []
    names = ["a.npy", "a.safetensors", "b.npy", "b.safetensors", "c.safetensors", "logs", "logs2"]
    assert sorted(os.listdir(tmp_path / "home")) == names


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EEXIST, errno.ENOSYS])
@pytest.mark.parametrize("exists", [False, True])
def test_where_no_file_can_be_moved_it_is_copied(number, exists, tmp_path, monkeypatch):
    _refuse(monkeypatch, number)
    path = tmp_path / "a.bin"
    if exists:
        path.write_bytes(b"old")
    with replacing(path, overwrite=exists) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_what_could_be_neither_moved_nor_copied_is_kept_and_named(tmp_path, monkeypatch):
    _refuse(monkeypatch, errno.EPERM)
    monkeypatch.setattr("shutil.copyfileobj", lambda *files: _raise(errno.ENOSPC))
    with pytest.raises(RunError, match="the whole file is ") as caught, replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
    assert str(temporary) in str(caught.value)
    assert temporary.read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give files away")
def test_an_existing_file_keeps_its_owner_and_permissions(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.chown(path, 1234, 2345)
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 2345, 0o640)


def _refuse(monkeypatch, number):
    monkeypatch.setattr("os.replace", lambda source, target: _raise(number))
    monkeypatch.setattr("os.link", lambda source, target: _raise(errno.EPERM))
    monkeypatch.setattr("lgsirens.system.output._renamed", lambda *arguments: False)


def _raise(number):
    raise OSError(number, os.strerror(number))


def test_of_two_writers_that_replace_nothing_the_first_one_wins(tmp_path):
    def nested():
        with replacing(tmp_path / "a.bin") as late, replacing(tmp_path / "a.bin") as early:
            late.write_bytes(b"late")
            early.write_bytes(b"early")

    with pytest.raises(OutputError, match="exists already"):
        nested()
    assert (tmp_path / "a.bin").read_bytes() == b"early"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_file_that_comes_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    monkeypatch.setattr("lgsirens.system.output.check_output", lambda path, overwrite=False: path)
    path.write_bytes(b"early")
    with pytest.raises(OutputError, match="exists already"), replacing(path) as late:
        late.write_bytes(b"late")
    assert path.read_bytes() == b"early"


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="in a circle"):
        check_output(tmp_path / "a", overwrite=True)
