"""Drawings of arrays, with NumPy and Pillow alone: pixels `[H, W, 3]` uint8."""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
Pixels = NDArray[np.uint8]

WIDTH = 1024  # of what has time along it

_GAP = 4
_TITLE = 14
_PAPER = 255
_INK = (31, 78, 121)
_LOWEST_DECIBELS = -90.0
_WINDOW = 512
# Dark to light, so that it also reads in gray.
_HEAT = np.array([(0, 0, 8), (60, 15, 110), (160, 40, 110), (235, 95, 50), (252, 180, 40), (255, 255, 200)])
_COLD_TO_WARM = np.array([(33, 80, 160), (255, 255, 255), (178, 30, 40)])


def picture(values: Array, value_range: tuple[float, float]) -> Pixels:
    """`[H, W, C]`, lowest value black and highest white; gray or colour, alpha left out."""
    shown = values[..., :3] if values.shape[-1] >= 3 else values[..., :1].repeat(3, axis=-1)
    return np.rint(np.interp(shown, value_range, (0, 255))).astype(np.uint8)


def heat(values: Array) -> Pixels:
    """`[H, W]`: 0 is dark, 1 and more is light."""
    return _coloured(values, _HEAT)


def cold_to_warm(values: Array) -> Pixels:
    """`[H, W]`: 0 is white, -1 and less blue, 1 and more red."""
    return _coloured((values + 1) / 2, _COLD_TO_WARM)


def waveform(samples: Array, height: int = 96) -> Pixels:
    """`[S]` in [-1, 1]: from lowest to highest sample in each of `WIDTH` columns."""
    starts = np.arange(WIDTH) * len(samples) // WIDTH
    lowest, highest = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    rows, middle = np.arange(height)[:, None], (height - 1) / 2
    top, bottom = middle * (1 - highest.clip(-1, 1)), middle * (1 - lowest.clip(-1, 1))
    inked = (rows >= np.floor(top)) & (rows <= np.ceil(bottom))
    return np.where(inked[..., None], _INK, _PAPER).astype(np.uint8)


def spectrogram(samples: Array) -> Pixels:
    """`[S]` in [-1, 1]: time to the right, frequency up to half the sampling rate; light is loud, a sine of amplitude 1
    is 0 dB, dark ends at -90 dB."""
    size = min(_WINDOW, len(samples))
    window = np.hanning(size + 2)[1:-1]  # without its zeros, so that one sample is a window too
    starts = np.linspace(0, len(samples) - size, WIDTH).round().astype(np.int64)
    frames = samples[starts[:, None] + np.arange(size)] * window
    amplitudes = np.abs(np.fft.rfft(frames, _WINDOW)[:, :-1].T) * (2 / window.sum())
    decibels = 20 * np.log10(amplitudes.clip(1e-9))
    return heat(1 - decibels[::-1] / _LOWEST_DECIBELS)


def reduced(pixels: Pixels, most: int) -> Pixels:
    """The same at most `most` pixels high and wide, reduced by a whole factor."""
    factor = -(-max(pixels.shape[:2]) // most)
    return pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))


def row(panels: list[Pixels]) -> Pixels:
    """Panels side by side."""
    return _joined(panels, axis=1)


def column(panels: list[Pixels]) -> Pixels:
    """Panels one below the other."""
    return _joined(panels, axis=0)


def titled(panels: Mapping[str, Pixels]) -> list[Pixels]:
    """Panels with their names above them; one that is narrower than its name gets a margin."""
    return [_joined([_title(name, panel.shape[1]), panel], axis=0, gap=0) for name, panel in panels.items()]


def png(pixels: Pixels) -> bytes:
    """A PNG file, packed in a third of the usual time for a tenth more bytes: a log has many."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _coloured(values: Array, anchors: Array) -> Pixels:
    at = np.nan_to_num(values).clip(0, 1) * (len(anchors) - 1)
    channels = [np.interp(at, np.arange(len(anchors)), anchor) for anchor in anchors.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _title(text: str, least_width: int) -> Pixels:
    font = ImageFont.load_default(10)
    strip = Image.new("RGB", (max(least_width, 2 + math.ceil(font.getlength(text))), _TITLE), (_PAPER,) * 3)
    ImageDraw.Draw(strip).text((1, 1), text, fill=0, font=font)
    return np.asarray(strip)


def _joined(panels: list[Pixels], axis: int, gap: int = _GAP) -> Pixels:
    """Panels along an axis, with gaps between them, each padded to the longest across."""
    across = max(panel.shape[1 - axis] for panel in panels)
    parts = []
    for place, panel in enumerate(panels):
        margins = [(0, 0)] * 3
        margins[axis], margins[1 - axis] = (gap if place else 0, 0), (0, across - panel.shape[1 - axis])
        parts.append(np.pad(panel, margins, constant_values=_PAPER))
    return np.concatenate(parts, axis=axis)
