"""Moving: what it refuses, and what of a moved file still goes by where its signal was."""

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.errors import ConfigError, SignalError
from lgsirens.grid.coordinates import Coordinates
from lgsirens.representation.report import compare
from tests.small import picture, representation

TILED = Coordinates("tile", (20, 20), (0.25, 0.25), (0.25, 0.25))


def inr(coordinates=TILED):
    return representation((20, 20), tile=(8, 4), coordinates=coordinates)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        ((8, 2), "whole tiles, a multiple of 8,4 samples"),
        ((8,), "whole tiles"),
        ((8, 4, 0), "whole tiles"),
        ((8.0, 4.0), "whole tiles"),
        ("8,4", "whole tiles"),
        (None, "whole tiles"),
        (8, "whole tiles"),
        ((0, 1 << 31), "farthest position"),
        ((-(1 << 40), 0), "farthest position"),
        ((8 * 10**30, 0), "farthest position"),
    ],
)
def test_an_offset_that_cannot_be_is_refused(offset, words):
    with pytest.raises(ConfigError, match=words) as caught:
        inr().move(offset)
    assert caught.value.option == "offset"


def test_rows_of_signal_coordinates_do_not_move():
    with pytest.raises(ConfigError, match="offset needs tile coordinates"):
        inr(coordinates=None).move((8, 4))


def test_a_file_moves_as_far_as_positions_go_and_back(tmp_path):
    far = [(1 << 31) - 24, -(1 << 31)]
    moved = inr().move(far)
    moved.save(tmp_path / "far.safetensors")
    loaded = lg.load(tmp_path / "far.safetensors")
    assert np.array_equal(loaded.decode().values, inr().decode().values)
    assert np.array_equal(loaded.move([-n for n in far]).ids, inr().ids)
    assert [(entry["action"], entry.get("offset")) for entry in loaded.history] == [("encode", None), ("move", far)]


def test_a_moved_crop_is_not_compared_with_another_part_of_the_original():
    whole = lg.encode(picture(), partition_size=(8, 8), steps=1)
    assert compare(whole.move((8, 8)), picture())["psnr"] == compare(whole, picture())["psnr"]
    assert compare(whole.crop("8:16,8:16"), picture())["psnr"] is not None
    with pytest.raises(SignalError, match="give the signal that was encoded"):
        compare(whole.crop("0:8,0:8").move((8, 8)), picture())
