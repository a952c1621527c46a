"""Folders of numbered pictures: which are read, and which are replaced."""

import errno
import os
import stat

import numpy as np
import pytest

from lgsirens.errors import OutputError, RunError
from lgsirens.media import files, folder
from lgsirens.media.folder import replacing_folder
from lgsirens.signal import Signal
from tests.films import noise, refusal


def test_a_folder_is_replaced_only_if_it_holds_such_pictures(tmp_path, lines):
    path, signal = tmp_path / "a", noise((3, 4, 5, 3))
    path.mkdir()
    files.write(path, signal)  # an empty one
    assert sorted(os.listdir(path)) == ["000000.png", "000001.png", "000002.png"]
    with pytest.raises(OutputError, match="exists already"):
        files.write(path, signal)
    files.write(path, noise((2, 4, 5, 3)), overwrite=True)
    assert len(os.listdir(path)) == 2
    (path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"holds letter.txt, so the folder is not replaced"):
        files.write(path, signal, overwrite=True)
    assert len(os.listdir(path)) == 3
    assert os.listdir(tmp_path) == ["a"]
    assert lines() == ["pictures hold no frame rate; .mkv keeps it"] * 2


def test_pictures_of_a_folder_are_sorted_by_number(tmp_path, lines):
    for number in (10, 9, 1):
        files.write(tmp_path / f"shot{number}.png", Signal.from_array(np.full((2, 3), number, np.uint8), "image"))
    (tmp_path / "notes.txt").write_text("no picture")
    assert files.read(tmp_path).values[:, 0, 0, 0].tolist() == [1, 9, 10]
    assert lines() == ["7 numbers are missing; the other pictures follow one another"]


def _folder(path, *names: str) -> None:
    """Pictures whose value is their place among `names`."""
    for value, name in enumerate(names):
        files.write(path / name, Signal.from_array(np.full((2, 3), value, np.uint8), "image"))


@pytest.mark.parametrize(
    "names",
    [
        ("f1.0.png", "f2.0.png", "f10.0.png"),
        ("shot_001_2x.png", "shot_002_2x.png", "shot_010_2x.png"),
        ("img_1_v2.png", "img_2_v2.png", "img_3_v3.png"),
        ("frame_0001_t0.033.png", "frame_0002_t0.066.png", "frame_0010_t0.333.png"),
        ("cam2_9_left.png", "cam2_10_left.png", "cam2_11_left.png"),
    ],
)
def test_the_number_that_differs_orders_the_pictures(tmp_path, names):
    _folder(tmp_path, *names)
    assert files.read(tmp_path).values[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("names", [("cam1_5.png", "cam2_3.png"), ("f1.0.png", "f1.5.png", "f2.0.png")])
def test_names_that_order_pictures_in_several_ways_are_refused(tmp_path, names):
    _folder(tmp_path, *names)
    assert "in the names differ" in refusal(tmp_path)


def test_depth_colour_and_shape_of_pixels_are_those_of_the_pictures(tmp_path):
    frame = Signal(np.zeros((2, 3, 1), np.uint16), "image", (0, 65535), "uint16", spacing=(1.0, 2.0), colour=(9, 16))
    for number in (1, 2):
        files.write(tmp_path / f"{number}.png", frame)
    film = files.read(tmp_path)
    assert (film.colour, film.spacing) == ((9, 16), (1.0, 0.5, 1.0))
    files.write(tmp_path / "b", film)
    assert (files.read(tmp_path / "b").colour, files.read(tmp_path / "b").spacing) == (film.colour, film.spacing)
    for number in (1, 2):
        deep = Signal.from_array(np.full((2, 3), 4095, np.uint16), "image", dtype="uint12")
        files.write(tmp_path / f"c{number}.tif", deep)
        (tmp_path / f"{number}.png").unlink()
    assert (files.read(tmp_path).dtype, files.read(tmp_path).value_range) == ("uint12", (0, 4095))
    files.write(tmp_path / "c3.tif", Signal.from_array(deep.values, "image"))
    assert "c3.tif: has another sample type" in refusal(tmp_path)


def test_hidden_files_are_no_pictures(tmp_path):
    _folder(tmp_path, "f_1.png", "f_2.png")
    for name in ("._f_1.png", ".hidden.png", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7 no picture")
    assert len(files.read(tmp_path).values) == 2


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((4, 5), "2.png", "frame 1 is 5x4 with 1 channels"),
        ((4, 4), "two.png", "no number"),
        ((4, 4), "01.png", "no number in the names differs from picture to picture"),
        ((4, 4), "2_1.png", "2_1.png: has not as many numbers in its name as 1.png"),
    ],
)
def test_folders_that_are_no_film_are_refused(tmp_path, shape, name, message):
    files.write(tmp_path / "1.png", Signal.from_array(np.zeros((4, 4), np.uint8), "image"))
    files.write(tmp_path / name, Signal.from_array(np.zeros(shape, np.uint8), "image"))
    assert message in refusal(tmp_path)


def test_an_interrupted_folder_leaves_the_old_one(tmp_path, monkeypatch):
    files.write(tmp_path / "a", noise((3, 4, 4, 3)))

    def fail(path, samples, signal):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "save_png", fail)
    with pytest.raises(RunError, match="cannot be written: No space left"):
        files.write(tmp_path / "a", noise((9, 4, 4, 3)), overwrite=True)
    assert os.listdir(tmp_path) == ["a"]
    assert len(os.listdir(tmp_path / "a")) == 3


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_a_new_folder_has_the_permissions_that_the_user_wants(tmp_path, mask):
    tmp_path.chmod(0o777)
    before = os.umask(mask)
    try:
        files.write(tmp_path / "a", noise((2, 4, 5, 3)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o777, 0o2775])
def test_a_replaced_folder_keeps_its_permissions_and_is_not_open_to_more_on_the_way(tmp_path, mode):
    path = tmp_path / "a"
    path.mkdir()
    path.chmod(mode)
    with replacing_folder(path, overwrite=True) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_system_that_knows_no_permissions_takes_the_folder(tmp_path, monkeypatch, exists):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if exists:
        (tmp_path / "a").mkdir()
    monkeypatch.setattr(os, "chmod", refuse)
    files.write(tmp_path / "a", noise((2, 4, 5, 3)))
    assert sorted(os.listdir(tmp_path / "a")) == ["000000.png", "000001.png"]
    assert os.listdir(tmp_path) == ["a"]


def test_the_pictures_are_on_the_disk_before_their_folder_has_the_name_and_then_the_name(tmp_path, disk):
    path = tmp_path / "a"
    for _ in range(2):
        disk.clear()
        with replacing_folder(path, overwrite=True) as temporary:
            for number in range(2):
                (temporary / f"00000{number}.png").touch()
        moved = disk.index(("move", temporary, path))
        before = {("fsync", place) for place in (temporary / "000000.png", temporary / "000001.png", temporary)}
        assert before <= set(disk[:moved])
        assert disk[moved + 1 :] == [("fsync", tmp_path)]


def test_a_folder_that_comes_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    rename = os.rename

    def late(old, new):
        monkeypatch.setattr("os.rename", rename)
        new.mkdir()
        (new / "000000.png").touch()
        rename(old, new)

    monkeypatch.setattr("os.rename", late)
    with pytest.raises(OutputError, match="exists already"):
        files.write(tmp_path / "a", noise((3, 4, 5, 3)))
    assert os.listdir(tmp_path / "a") == ["000000.png"]
    assert os.listdir(tmp_path) == ["a"]
