"""The synthesised prelude: the same bytes everywhere, in tune, in time."""

import hashlib

import numpy as np
import pytest

from lgsirens.errors import ConfigError
from lgsirens.media import prelude as module
from lgsirens.media.prelude import prelude


@pytest.mark.parametrize(
    ("channels", "digest"),
    [
        (1, "9f5b54dca1eb2af7a97618b791dbe3fd5ee5652b54c83dd681d9ded9be9ec948"),
        (2, "f6f6701656e2a9c8590836437f06b1d06e72fe04e5013ba0d1f4c8bbdde98e85"),
    ],
)
def test_the_bytes_are_the_same_every_time(channels, digest):
    values = prelude(channels).values
    assert hashlib.sha256(values.astype("<i2").tobytes()).hexdigest() == digest


@pytest.mark.parametrize("channels", [1, 2])
def test_seven_seconds_at_a_compact_disc_s_rate(channels):
    signal = prelude(channels)
    assert (signal.kind, signal.dtype, signal.sampling_rate) == ("audio", "int16", 44100)
    assert signal.values.shape == (7 * 44100, channels)


@pytest.mark.parametrize("channels", [1, 2])
def test_it_is_loud_and_not_clipped(channels):
    signal = prelude(channels)
    assert signal.value_range == (-29490, 29490)
    sixteenths = signal.values[: 32 * 9450].astype(float).reshape(32, 9450, channels)
    assert (sixteenths.std(axis=1) > 1000).all()
    assert abs(signal.values.mean(axis=0)).max() < 100
    assert abs(signal.values[-20:]).max() < 20  # it ends without a click


def pitch(samples: np.ndarray, near: float) -> float:
    """Hertz, from the autocorrelation at eight periods, refined by a parabola."""
    periods, expected = 8, 44100 / near
    lags = np.arange(int(periods * expected * 0.97), int(periods * expected * 1.03))
    products = np.array([np.dot(samples[:-lag], samples[lag:]) / (len(samples) - lag) for lag in lags])
    place = int(products.argmax())
    left, top, right = products[place - 1 : place + 2]
    return 44100 * periods / (lags[place] + (left - right) / 2 / (left - 2 * top + right))


def cents(found: float, expected: float) -> float:
    return 1200 * float(np.log2(found / expected))


def test_the_first_note_is_middle_c():
    first = prelude().values[200:9450, 0].astype(float)
    assert abs(cents(pitch(first, 261.6256), 261.6256)) < 3


@pytest.mark.parametrize("name", ["C4", "D4", "E4", "G4", "A4", "C5", "D5", "E5", "F5"])
def test_strings_are_in_tune_and_fade(name):
    expected = 440 * 2 ** ((list("C D EF G A B".replace(" ", "_")).index(name[0]) + 12 * int(name[1]) - 57) / 12)
    written = getattr(module, f"_{name}")
    assert abs(cents(written, expected)) < 0.01
    samples = module._string(written, 5, 44100)
    assert abs(cents(pitch(samples[2000:20000], expected), expected)) < 1
    assert samples[20000:24000].std() < 0.5 * samples[:4000].std()


def test_low_strings_are_left_and_high_ones_right():
    values = prelude(2).values.astype(float)
    left, right = values[:9450].std(axis=0)  # only C4 sounds
    assert left > 3 * right
    assert not np.array_equal(values[:, 0], values[:, 1])


@pytest.mark.parametrize("channels", [0, 3])
def test_other_numbers_of_channels_are_one_line(channels):
    with pytest.raises(ConfigError, match="1 or 2 channels, not"):
        prelude(channels)
