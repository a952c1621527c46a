"""Small sounds for tests."""

from fractions import Fraction

import numpy as np

from lgsirens.signal import Signal


def noise(length: int, channels: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Random samples `[S, C]` over the whole type, its limits included; floats beyond [-1, 1]."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(0, 1, (length, channels)).astype(dtype)
    bits = int(dtype[3:])
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    values = rng.integers(low, high, (length, channels), np.int64, endpoint=True)
    values.flat[[0, -1]] = high, low
    return values.astype("int32" if dtype == "int24" else dtype)


def sound_of(dtype: str, length: int = 500, channels: int = 2, rate: Fraction | int | None = 44100, seed: int = 0):
    return Signal.from_array(noise(length, channels, dtype, seed), "audio", sampling_rate=rate, dtype=dtype)
