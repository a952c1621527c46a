"""What a shared network for many files is learnt from."""

from pathlib import Path

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.training import mosaic as mosaics


def test_blocks_of_a_mosaic_are_whole_tiles_of_the_files(monkeypatch):
    monkeypatch.setattr(mosaics, "LEARNING_PARTITIONS", 16)
    pictures = {Path(str(n)): np.random.default_rng(n).integers(0, 256, (24, 40), dtype=np.uint8) for n in range(9)}
    read = lambda path: lg.Signal.from_array(pictures[path])  # noqa: E731
    found, tile = mosaics.mosaic(list(pictures), read, lg.EncodeConfig(partition_size=(8, 8)), False)
    assert tile == (8, 8)
    assert found.shape == (16, 4 * 16)  # four blocks of 2x2 tiles
    for number, values in enumerate(np.split(found.values[..., 0], 4, axis=1)):
        whole = pictures[Path(str((1, 3, 5, 7)[number]))]
        places = [(r, c) for r in range(0, 9, 8) for c in range(0, 25, 8)]
        assert any(np.array_equal(values, whole[r : r + 16, c : c + 16]) for r, c in places)


@pytest.mark.parametrize("readable", range(9))
def test_one_file_that_can_be_read_is_enough_for_a_mosaic(monkeypatch, readable):
    monkeypatch.setattr(mosaics, "LEARNING_PARTITIONS", 18)

    def read(path):
        if path != Path(str(readable)):
            raise lg.SignalError(f"{path}: is damaged")
        return lg.Signal.from_array(np.full((5, 20), 7, dtype=np.uint8))

    found, _ = mosaics.mosaic([Path(str(n)) for n in range(9)], read, lg.EncodeConfig(partition_size=(8, 8)), False)
    assert found.shape == (16, 16)
    assert (found.values == 7).all()


def test_a_mosaic_of_volumes_and_of_several_ranges(folder):
    volumes = [np.full((9, 9, 9), 3, dtype=np.uint8), np.full((5, 12, 9), 771, dtype=np.uint16)]
    read = lambda path: lg.Signal.from_array(volumes[int(path.name)])  # noqa: E731
    found, tile = mosaics.mosaic([Path("0"), Path("1")], read, lg.EncodeConfig(partition_size=(4, 4, 4)), False)
    assert (tile, found.shape, found.value_range) == ((4, 4, 4), (12, 12, 24), (0, 255))
    assert (found.values == 3).all()
