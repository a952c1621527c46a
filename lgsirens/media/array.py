"""`.npy` arrays <-> `Signal`."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lgsirens.errors import SignalError
from lgsirens.media.frames import bounds
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import Array, Signal


def read_array(request: Request, file: BinaryIO) -> Signal:
    """Read an array of any kind, by default of the one that its rank settles; pickled objects are refused."""
    head = file.read(10)
    head += file.read(int.from_bytes(head[8:], "little"))
    if b"'|O'" in head:
        raise SignalError(f"{request.path}: holds objects, which could run code; save it as an array of numbers")
    plain = re.sub(rb"(\d)L", rb"\1 ", head)  # Python 2 spelt lengths so, of which NumPy would warn
    source = io.BytesIO(plain + file.read()) if plain != head else file
    source.seek(0)
    values = _mapped(request) if source is file else None
    if values is None:
        values = np.lib.format.read_array(source, allow_pickle=False)
    signal = request.signal(values, request.kind)
    request.check((signal.kind,))
    if request.max_side is not None:
        raise SignalError(f"{request.path}: max_side is for films in other files than .npy; reduce the array first")
    length = len(signal.values)
    start, stop = bounds(request.path, request.frames, length)
    if (start, stop) == (0, length):
        return signal
    part = Signal.from_array(values[start:stop], signal.kind, signal.value_range)  # of a map it is one
    return replace(signal, values=part.values)


def _mapped(request: Request) -> Array | None:
    """A large array as it lies in its file; None: it is small."""
    mapped: Array = np.load(request.path, mmap_mode="r", allow_pickle=False)
    return mapped if request.is_large(mapped.shape, mapped.dtype) else None


def save_array(path: Path, stored: Stored) -> None:
    """Write the values as they are."""
    with open_for_writing(path) as file:
        described = {"descr": np.lib.format.dtype_to_descr(stored.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, described | {"shape": stored.signal.values.shape})
        for band in stored.bands():
            file.write(band.data)
