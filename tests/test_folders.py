"""Folders of numbered pictures: which are read, and which are replaced."""

import os

import numpy as np
import pytest

from lgsirens import media
from lgsirens.errors import OutputError, RunError
from lgsirens.signal import Signal
from tests.films import noise, refusal


def test_a_folder_is_replaced_only_if_it_holds_such_pictures(tmp_path, lines):
    path, signal = tmp_path / "a", noise((3, 4, 5, 3))
    path.mkdir()
    media.write(path, signal)  # an empty one
    assert sorted(os.listdir(path)) == ["000000.png", "000001.png", "000002.png"]
    with pytest.raises(OutputError, match="exists already"):
        media.write(path, signal)
    media.write(path, noise((2, 4, 5, 3)), overwrite=True)
    assert len(os.listdir(path)) == 2
    (path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"holds letter.txt, so the folder is not replaced"):
        media.write(path, signal, overwrite=True)
    assert len(os.listdir(path)) == 3
    assert os.listdir(tmp_path) == ["a"]
    assert lines() == ["pictures hold no frame rate; .mkv keeps it"] * 2


def test_pictures_of_a_folder_are_sorted_by_number(tmp_path, lines):
    for number in (10, 9, 1):
        media.write(tmp_path / f"shot{number}.png", Signal.from_array(np.full((2, 3), number, np.uint8), "image"))
    (tmp_path / "notes.txt").write_text("no picture")
    assert media.read(tmp_path).values[:, 0, 0, 0].tolist() == [1, 9, 10]
    assert lines() == ["7 numbers are missing; the other pictures follow one another"]


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((4, 5), "2.png", "frame 1 is 5x4 with 1 channels"),
        ((4, 4), "two.png", "no number"),
        ((4, 4), "01.png", "1.png"),
    ],
)
def test_folders_that_are_no_film_are_refused(tmp_path, shape, name, message):
    media.write(tmp_path / "1.png", Signal.from_array(np.zeros((4, 4), np.uint8), "image"))
    media.write(tmp_path / name, Signal.from_array(np.zeros(shape, np.uint8), "image"))
    assert message in refusal(tmp_path)


def test_an_interrupted_folder_leaves_the_old_one(tmp_path, monkeypatch):
    media.write(tmp_path / "a", noise((3, 4, 4, 3)))

    def fail(path, samples):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(media.pictures, "save_png", fail)
    with pytest.raises(RunError, match="cannot be written: No space left"):
        media.write(tmp_path / "a", noise((9, 4, 4, 3)), overwrite=True)
    assert os.listdir(tmp_path) == ["a"]
    assert len(os.listdir(tmp_path / "a")) == 3
