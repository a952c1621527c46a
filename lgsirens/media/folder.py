"""Folders of numbered pictures <-> `Signal` `[T, H, W, C]`."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import OutputError, RunError, SignalError
from lgsirens.lazy import LazyValues
from lgsirens.media.animation import shrunk
from lgsirens.media.frames import bounds, gathered
from lgsirens.media.png import save_png
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored
from lgsirens.signal import Array, Signal
from lgsirens.system import output
from lgsirens.system.console import note
from lgsirens.system.output import check_output

_ALIKE = ("shape", "channels", "dtype", "spacing", "colour")


def read_folder(request: Request, suffixes: tuple[str, ...]) -> Signal:
    """Read the numbered pictures of a folder, files of these suffixes, as `video.read_film` does a film."""
    names = _numbered_pictures(request.path, suffixes)
    names = names[slice(*bounds(request.path, request.frames, len(names)))]
    first = request.read(names[0])
    if request.is_large((len(names), *first.values.shape), first.values.dtype):
        frames = _Pictures(request, names, first)
        signal = request.signal(LazyValues(frames, str(request.path)), "video", dtype=first.dtype)
        return replace(signal, spacing=first.spacing and (1.0, *first.spacing), colour=first.colour)
    told: dict[tuple[Any, ...], Path] = {}

    def pictures() -> Iterator[tuple[int, Array]]:
        for index, name in enumerate(names):
            picture = request.read(name)
            told.setdefault((picture.dtype, picture.spacing, picture.colour), name)
            yield index, shrunk(name, np.asarray(picture.values), request.max_side)

    values = gathered(request.path, pictures(), np.arange(len(names)), request.progress, names)
    (dtype, spacing, colour), *others = told
    if others:
        what = "sample type, shape of pixels or colour space"
        raise SignalError(f"{told[others[0]]}: has another {what} than {names[0].name}; make all alike")
    signal = request.signal(values, "video", dtype=dtype)
    return replace(signal, spacing=spacing and (1.0, *spacing), colour=colour)


class _Pictures:
    """The frames `[T, H, W, C]` of a folder, read one by one."""

    def __init__(self, request: Request, names: list[Path], first: Signal) -> None:
        self._request, self._names, self._first = request, names, first
        like = shrunk(names[0], np.asarray(first.values), request.max_side)
        self.dtype, self.shape, self.chunks = like.dtype, (len(names), *like.shape), (1, *like.shape)

    def __getitem__(self, chunk: tuple[slice, ...]) -> Array:
        name, first = self._names[chunk[0].start], self._first
        picture = self._request.read(name)
        if any(getattr(picture, known) != getattr(first, known) for known in _ALIKE):
            raise SignalError(f"{name}: is of another size, type or colour than {self._names[0].name}; make all alike")
        return shrunk(name, np.asarray(picture.values), self._request.max_side)[None]


def _numbered_pictures(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The pictures of a folder in the order of the number that differs in their names; hidden files are none."""
    shown = (name for name in sorted(path.iterdir()) if not name.name.startswith("."))
    names = [name for name in shown if name.suffix.lower() in suffixes and name.is_file()]
    if not names:
        raise SignalError(f"{path}: is a folder without numbered pictures; name a file, or a folder of .png files")
    rows = [[int(digits) for digits in re.findall(r"\d+", name.stem)] for name in names]
    for name, row in zip(names, rows, strict=True):
        if not row:
            raise SignalError(f"{name}: has no number in its name; number the pictures of a film")
        if len(row) != len(rows[0]):
            raise SignalError(f"{name}: has not as many numbers in its name as {names[0].name}; name all alike")
    columns = [column for column in zip(*rows, strict=True) if len(set(column)) == len(names)]
    if not columns:
        raise SignalError(f"{path}: no number in the names differs from picture to picture; number them anew")
    orders = {tuple(sorted(range(len(names)), key=column.__getitem__)) for column in columns}
    if len(orders) > 1:
        raise SignalError(f"{path}: several numbers in the names differ, and order them otherwise; number them anew")
    missing = min(max(column) - min(column) for column in columns) + 1 - len(names)
    if missing:
        note("%s: %d numbers are missing; the other pictures follow one another", path, missing)
    return [names[index] for index in orders.pop()]


def save_folder(folder: Path, stored: Stored) -> None:
    """Write frames of 8 or 16 bits as `000000.png` and so on, into a folder that exists."""
    if stored.signal.sampling_rate is not None:
        note("%s: pictures hold no frame rate; .mkv keeps it", stored.path)
    for number, samples in enumerate(stored.frames()):
        save_png(folder / f"{number:06d}.png", samples, stored.signal)


def check_folder(path: Path, overwrite: bool = False) -> None:
    """Check that a folder may be written: a new or empty one, or, if `overwrite`, one that `save_folder` wrote.

    Raises:
        OutputError: it may not.
        RunError: the folder above is not writable.
    """
    if not path.is_dir():
        check_output(path, overwrite)
        return
    names = sorted(path.iterdir())
    others = [name for name in names if not (re.fullmatch(r"\d{6,}\.png", name.name) and name.is_file())]
    if path.is_symlink() or others:
        what = f"holds {others[0].name}" if others else "is a link"
        raise OutputError(f"{path}: {what}, so the folder is not replaced; choose another name")
    if names and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or overwrite it")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"{path}: the folder {path.parent} is not writable; choose another one")


def replacing_folder(path: Path, overwrite: bool) -> AbstractContextManager[Path]:
    """As `output.replacing`, for a folder of pictures."""
    return output.replacing_folder(path, partial(check_folder, path, overwrite))
