"""Zarr and HDF5 arrays <-> `Signal`: chunks are read where they are asked for, and written one after the other."""

import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgsirens.errors import OutputError, RunError, SignalError, require
from lgsirens.lazy import LazyValues
from lgsirens.media.frames import bounds
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored
from lgsirens.signal import KINDS, SAMPLE_TYPES, Signal, array_type
from lgsirens.system.output import replacing_folder

MARKS = ("zarr.json", ".zarray", ".zgroup")  # of a folder that is a Zarr
_CHUNK_VALUES = 1 << 18
_LISTED = 5


def read_zarr(request: Request, file: BinaryIO) -> Signal:
    """Read an array of Zarr, of format 2 or 3, a folder or a ZIP file of it.

    Raises:
        SignalError: it holds no array, or several and none is named; or as `Signal.from_array`.
        MissingDependencyError: zarr is missing.
    """
    zarr = require("zarr", f"{request.path}: Zarr", "zarr")
    stored = zarr.storage.ZipStore(request.path, mode="r") if request.path.is_file() else str(request.path)
    node = zarr.open(stored, mode="r", path=request.dataset or "")
    if not isinstance(node, zarr.Array):
        arrays = {name: array for name, array in node.members(max_depth=None) if isinstance(array, zarr.Array)}
        node = _only(request, arrays)
    return _signal(request, node, node.attrs.asdict())


def read_hdf5(request: Request, file: BinaryIO) -> Signal:
    """Read a dataset of HDF5; errors as of `read_zarr`."""
    h5py = require("h5py", f"{request.path}: HDF5", "hdf5")
    content, arrays = h5py.File(request.path, "r"), {}
    if request.dataset:
        found = content.get(request.dataset)
        content = found if found is not None else {}
        arrays = {request.dataset: content} if isinstance(content, h5py.Dataset) else {}
    if isinstance(content, h5py.Group):
        content.visititems(lambda name, node: arrays.update({name: node}) if isinstance(node, h5py.Dataset) else None)
    node = _only(request, arrays)
    return _signal(request, node, dict(node.attrs))


def _only(request: Request, arrays: Mapping[str, Any]) -> Any:
    """The array that there is to read."""
    inside = f" in {request.dataset}" if request.dataset else ""
    if not arrays:
        raise SignalError(f"{request.path}: holds no array{inside}; name another file, or an array after ::")
    if len(arrays) > 1:
        names = ", ".join([*arrays][:_LISTED]) + (", ..." if len(arrays) > _LISTED else "")
        raise SignalError(f"{request.path}: holds several arrays{inside} ({names}); name one: {request.path}::NAME")
    return next(iter(arrays.values()))


def _signal(request: Request, array: Any, attributes: Mapping[str, Any]) -> Signal:
    """The signal of an array, by what is asked for, else by attributes such as `save_zarr` writes."""
    path, known = request.path, _known(array, attributes)
    kind = request.kind or known.get("kind")
    if request.value_range is None and "value_range" in known:
        request = replace(request, value_range=known["value_range"])
    large = request.is_large(array.shape, array.dtype)
    values = LazyValues(array, str(path)) if large else np.asarray(array[...])
    signal = request.signal(values, kind, known.get("sampling_rate"), known.get("sample_type"))
    request.check((signal.kind,))
    if request.max_side is not None:
        raise SignalError(f"{path}: max_side is for films in other files; reduce the array first")
    start, stop = bounds(path, request.frames, len(signal.values))
    if (start, stop) != (0, len(signal.values)):
        raise SignalError(f"{path}: frames are for films in other files; take a part of the array first")
    return replace(signal, spacing=known.get("spacing"))


def _known(array: Any, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What attributes say, as far as it fits the array: others may mean something else by these names."""
    known: dict[str, Any] = {}
    kind, dtype = attributes.get("kind"), attributes.get("sample_type")
    if isinstance(kind, str) and kind in KINDS and len(array.shape) - KINDS[kind].dimensions in (0, 1):
        known["kind"] = kind
        if (spacing := _numbers(attributes.get("spacing"), KINDS[kind].dimensions)) and min(spacing) > 0:
            known["spacing"] = spacing
    if isinstance(dtype, str) and dtype in SAMPLE_TYPES and array_type(dtype) == array.dtype:
        known["sample_type"] = dtype
    if (ends := _numbers(attributes.get("value_range"), 2)) and ends[0] < ends[1]:
        known["value_range"] = ends
    if (rate := _numbers([attributes.get("sampling_rate")], 1)) and rate[0] > 0:
        known["sampling_rate"] = Fraction(rate[0]).limit_denominator(1_000_000)
    return known


def _numbers(given: Any, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def save_zarr(path: Path, stored: Stored) -> None:
    """Write a Zarr array (format 3), chunk by chunk, into an empty folder."""
    begin_zarr(path, stored)
    fill_zarr(path, stored)


def begin_zarr(path: Path, stored: Stored) -> None:
    """Make a Zarr array without samples in an empty folder.

    Its attributes are `kind`, `value_range`, `sample_type`, and `sampling_rate` and `spacing` where the signal has
    them; its dimensions have names.
    """
    zarr, signal = require("zarr", f"{stored.path}: Zarr", "zarr"), stored.signal
    rate, spacing = signal.sampling_rate, signal.spacing
    zarr.create_array(
        str(path),
        shape=signal.values.shape,
        chunks=_chunks(signal),
        dtype=stored.dtype,
        dimension_names=[*KINDS[signal.kind].axes, "channel"],
        attributes={
            "kind": signal.kind,
            "value_range": list(signal.value_range),
            "sample_type": stored.target or signal.dtype,
            **({} if rate is None else {"sampling_rate": float(rate)}),
            **({} if spacing is None else {"spacing": list(spacing)}),
        },
    )


def fill_zarr(path: Path, stored: Stored, rank: int = 0, ranks: int = 1) -> None:
    """Write the samples of an array that `begin_zarr` has made, or of its parts those of one of several processes."""
    array = require("zarr", f"{stored.path}: Zarr", "zarr").open_array(str(path), mode="r+")
    for box, samples in stored.parts(_chunks(stored.signal)[:-1], rank, ranks):
        array[tuple(slice(*ends) for ends in box)] = samples


def _chunks(signal: Signal) -> tuple[int, ...]:
    if known := getattr(signal.values, "chunks", None):
        return tuple(known)
    chunk = list(signal.values.shape)
    while math.prod(chunk) > _CHUNK_VALUES and max(chunk[:-1]) > 1:
        axis = chunk.index(max(chunk[:-1]))
        chunk[axis] = -(-chunk[axis] // 2)
    return tuple(chunk)


def check_store(path: Path, overwrite: bool = False) -> Path:
    """Return `path` if a Zarr array may be written there.

    Raises:
        OutputError: its folder is missing, it exists, or what would be replaced is no Zarr.
        RunError: the folder is not writable.
    """
    path = Path(os.path.realpath(os.path.expanduser(path)))
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or overwrite it")
    if path.exists() and not is_store(path):
        raise OutputError(f"{path}: is there and is no Zarr; choose another name")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"{path}: the folder {path.parent} is not writable; choose another one")
    return path


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr."""
    return any((path / name).is_file() for name in MARKS)


def replacing_store(path: Path, overwrite: bool) -> AbstractContextManager[Path]:
    """As `output.replacing`, for a folder that is a Zarr."""
    return replacing_folder(path, partial(check_store, path, overwrite))
