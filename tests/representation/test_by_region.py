"""Law 7 for any part: what is decoded where it is read has the bits of the whole decode."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsirens.grid.coordinates import Coordinates
from lgsirens.lazy import LazyValues
from lgsirens.representation.decode import Decoding, decode
from lgsirens.representation.edit import crop
from tests.small import representation

TILED = Coordinates("tile", (23, 31), (1 / 16,) * 2, (1 / 16,) * 2)
FILES = {
    "signal coordinates": representation((23, 31), 3, tile=(8, 8)),
    "tile coordinates": representation((23, 31), 3, tile=(8, 8), coordinates=TILED, halo=(2, 2)),
    "lc": representation((23, 31), 1, "lc", tile=(8, 8)),
    "a crop": crop(representation((40, 40), 3, tile=(8, 8), start=(-9, 5)), "-5:9, 12:33"),
    "holes": crop(representation((23, 31), 3, tile=(8, 8)), "0:8, 0:8", "16:23, 20:31"),
    "sound": representation((300,), 2, tile=(64,), sampling_rate=(8000, 1)),
    "volume": representation((9, 11, 13), 1, tile=(4, 4, 4)),
}


@settings(max_examples=15)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kernel", ["auto", "eager"])
@given(st.data())
def test_a_part_has_the_bits_of_the_whole(name, kernel, data):
    inr = FILES[name]
    scale = data.draw(st.sampled_from([Fraction(1), Fraction(2), Fraction(3, 2), Fraction(1, 2), Fraction(2, 3)]))
    how = {"scale": scale, "blend": data.draw(st.sampled_from([None, 0, 2])), "kernel": kernel}
    whole, decoding = decode(inr, **how), Decoding(inr, **how)
    lazy = decoding.by_region()
    assert isinstance(lazy.values, LazyValues)
    for known in ("kind", "value_range", "dtype", "sampling_rate", "spacing", "colour", "shape", "channels"):
        assert getattr(lazy, known) == getattr(whole, known)
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in whole.shape]
    box = tuple(map(tuple, ends))
    assert np.array_equal(lazy.read(box), whole.read(box))
    assert np.array_equal(np.asarray(lazy.values), whole.values)
    assert decoding.missing() == whole.present.size - whole.present.sum()


def test_only_the_rows_of_a_part_are_read(monkeypatch):
    inr, read = FILES["signal coordinates"], []
    real = type(inr.rows).read
    monkeypatch.setattr(type(inr.rows), "read", lambda self, places: read.extend(places) or real(self, places))
    Decoding(inr).by_region().read(((0, 8), (9, 20)))
    assert sorted(read) == [1, 2]
