"""How a representation shows itself in a notebook: its picture, or its waveform and a player, and its figures."""

import base64
import io
import math
import wave
from fractions import Fraction
from html import escape

import numpy as np
from PIL import Image

from lgsirens.access.array import LazyArray, open_array
from lgsirens.grid.box import box_shape
from lgsirens.grid.coordinates import fine_box
from lgsirens.representation.report import describe, describe_lines
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array
from lgsirens.system.pytorch import as_it_starts

_LARGEST_SIDE = 512  # of the picture
_MOST_SAMPLES = 1 << 22  # that are evaluated for it
_MOST_HEARD = 500_000  # values of the player's sound
_COLUMNS, _HEIGHT = 600, 100  # of the waveform


@as_it_starts()
def notebook_html(representation: Representation) -> str:
    """A picture (of films and volumes the middle one), or a waveform with a player, and the figures as a table; no row
    is read but for what is shown. Of a picture of more than 4 million samples the overview is shown, if there is one.
    """
    array = open_array(representation, cache_bytes=0).float
    shown = _sound(array) if representation.lattice.dimensions == 1 else _picture(array)
    rows = (
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in describe_lines(describe(representation, check=False))
    )
    return f"<div>{shown}<table>{''.join(rows)}</table></div>"


def _picture(array: LazyArray) -> str:
    representation = array.representation
    *further, height, width = representation.shape
    scales = (Fraction(1),) * len(further) + (Fraction(1, math.ceil(max(height, width) / _LARGEST_SIDE)),) * 2
    if height * width > _MOST_SAMPLES and not further and representation.overview is not None:
        tile = representation.lattice.tile
        together = math.ceil(max(height / tile[0], width / tile[1]) / _LARGEST_SIDE)
        coarse = tuple(Fraction(1, size * together) for size in tile)
        scales = coarse if min(box_shape(fine_box(representation.window, coarse))) else scales
    frame = array.at(scales)[tuple(size // 2 for size in further)]
    lowest, highest = representation.signal.value_range
    samples = np.rint((frame - lowest) * (255 / (highest - lowest))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples).save(file, "PNG")
    caption = f", {' and '.join(f'{d} of {n}' for d, n in zip((n // 2 for n in further), further, strict=True))}"
    uri = _data_uri("image/png", file.getvalue())
    title = f"{representation.signal.kind}{caption if further else ''}"
    return f"<img alt='{title}' title='{title}' style='max-width:100%' src='{uri}'/>"


def _sound(array: LazyArray) -> str:
    known = array.representation.signal
    heard = array[: max(1, _MOST_HEARD // known.channels)]
    lowest, highest = known.value_range
    middle, half = (lowest + highest) / 2, (highest - lowest) / 2
    waves = (heard - middle) / half
    rate = known.rate or Fraction(8000)
    file = io.BytesIO()
    with wave.open(file, "wb") as player:
        player.setnchannels(known.channels)
        player.setsampwidth(2)
        player.setframerate(max(1, round(rate)))
        player.writeframes(np.rint(waves * 32767).astype("<i2").tobytes())
    part = "" if len(heard) == len(array) else f"<div>the first {float(len(heard) / rate):.1f} seconds</div>"
    uri = _data_uri("audio/wav", file.getvalue())
    return f"{_waveform(waves)}<div><audio controls='' src='{uri}'></audio></div>{part}"


def _waveform(waves: Array) -> str:
    """From the lowest to the highest value of all channels in each column."""
    columns = np.array_split(waves, min(_COLUMNS, len(waves)))
    lines = (
        f"M{x},{_HEIGHT / 2 * (1 - float(part.max())):.1f}V{_HEIGHT / 2 * (1 - float(part.min())) + 0.5:.1f}"
        for x, part in enumerate(columns)
    )
    style = "stroke='currentColor' fill='none'"
    return f"<svg viewBox='0 0 {_COLUMNS} {_HEIGHT}' width='{_COLUMNS}'><path {style} d='{''.join(lines)}'/></svg>"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
