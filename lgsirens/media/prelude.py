"""About seven seconds of Bach's Prelude in C major, BWV 846, on synthetic plucked strings: sound without a download.

The notes are in the public domain; the strings are Karplus and Strong's: a burst of noise goes round a delay line and
a low-pass filter. The bytes are the same on every machine: integers, and additions and multiplications of float64
one by one, which IEEE 754 rounds the same everywhere. So no sines, no powers, and no sums, which NumPy orders by
the width of the processor's registers.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import ConfigError
from lgsirens.signal import Signal

Samples = NDArray[np.float64]

RATE = 44_100
_STEP = 9_450  # samples of a sixteenth note: 70 quarter notes a minute
_LENGTH = 7 * RATE
_RING = 8 * _STEP  # a string is damped after half a bar
_DAMPING = 2 * _STEP
_DECAY = 2.5  # seconds in which a string falls by 60 dB
_LOUDEST = 29_490  # 0.9 of the type's range
_WIDTH = 0.6  # of the stereo picture, 0 to 1

# Hertz, in equal temperament, A4 = 440; written out because powers differ from machine to machine.
_PITCHES = (261.6256, 293.6648, 329.6276, 391.9954, 440.0, 523.2511, 587.3295, 659.2551, 698.4565)
_C4, _D4, _E4, _G4, _A4, _C5, _D5, _E5, _F5 = _PITCHES

# The first two bars: five notes, of which each half bar plays 1 2 3 4 5 3 4 5.
_BARS = ((_C4, _E4, _G4, _C5, _E5), (_C4, _D4, _A4, _D5, _F5))
_NOTES = [bar[place] for bar in _BARS for _half in range(2) for place in (0, 1, 2, 3, 4, 2, 3, 4)]


def prelude(channels: int = 1) -> Signal:
    """The opening of the prelude: `[308700, channels]` int16 at 44.1 kHz, the same bytes every time.

    Args:
        channels: 1, or 2 with low strings to the left and high ones to the right.

    Raises:
        ConfigError: another number of channels.
    """
    if channels not in (1, 2):
        raise ConfigError(f"the prelude has 1 or 2 channels, not {channels!r}; choose one of them")
    mixed = np.zeros((_LENGTH, channels))
    for number, pitch in enumerate(_NOTES):
        start = number * _STEP
        note = _string(pitch, number, min(_RING, _LENGTH - start))
        # Of two channels strings stand from left to right in the order of their pitch.
        side = _WIDTH * (2 * _PITCHES.index(pitch) / (len(_PITCHES) - 1) - 1)
        for channel, gain in enumerate((1.0,) if channels == 1 else (1 - side, 1 + side)):
            mixed[start : start + len(note), channel] += note * gain
    scaled = mixed * (_LOUDEST / np.abs(mixed).max())
    return Signal.from_array(np.rint(scaled).astype(np.int16), "audio", sampling_rate=RATE)


def _string(pitch: float, seed: int, length: int) -> Samples:
    """One plucked string, `length` samples.

    What comes round is delayed by `delay` whole samples and then by the filter, together one period. It is filtered
    by whole stretches of `delay` samples: none of them depends on another.
    """
    period = RATE / pitch
    delay, taps = _loop(period)
    gain = 1 - 6.9 / (pitch * _DECAY)  # 60 dB are 6.9 nepers
    reach = delay + len(taps) - 1
    line = np.zeros(reach + length)
    line[:reach] = _pluck(reach, int(period), seed)
    for start in range(reach, len(line), delay):
        stop = min(start + delay, len(line))
        for lag, tap in enumerate(taps, delay):
            line[start:stop] += line[start - lag : stop - lag] * (tap * gain)
    note = line[reach:]
    end = len(note[-_DAMPING:])
    note[-end:] *= np.arange(end, 0, -1) / end
    return note


def _loop(period: float) -> tuple[int, Samples]:
    """Whole delay and filter that make one period: a low pass of three taps, and Lagrange's four for the fraction.

    The four taps have nearly no damping of their own, so all pitches fade alike.
    """
    delay = int(period) - 2  # the low pass takes one sample, the fraction one to two
    d = period - delay - 1
    fraction = (
        -(d - 1) * (d - 2) * (d - 3) / 6,
        d * (d - 2) * (d - 3) / 2,
        -d * (d - 1) * (d - 3) / 2,
        d * (d - 1) * (d - 2) / 6,
    )
    taps = np.zeros(6)
    for shift, weight in enumerate((0.1, 0.8, 0.1)):
        for place, tap in enumerate(fraction):
            taps[shift + place] += weight * tap
    return delay, taps


def _pluck(length: int, period: int, seed: int) -> Samples:
    """How a string is drawn: a triangle with its corner at a fifth, and noise; periodic, and without a mean."""
    corner = period // 5
    shape = [n * (period - corner) if n < corner else (period - n) * corner for n in range(period)]
    top = corner * (period - corner)
    drawn = [(bump << 16) // top + (draw >> 2) for bump, draw in zip(shape, _noise(seed, period), strict=True)]
    # The mean would not swing but fade slowly, a thump under every note.
    centred = [value * period - sum(drawn) for value in drawn]
    return np.array([centred[n % period] for n in range(length)], np.float64) / (period << 16)


def _noise(seed: int, count: int) -> Iterator[int]:
    """Integers in [-2^16, 2^16), from Knuth's linear congruential generator."""
    state = seed
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield (state >> 47) - 2**16
