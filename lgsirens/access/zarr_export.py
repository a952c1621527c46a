"""`lgsirens export FILE OUT.zarr`: the decoded signal as a Zarr array, block by block."""

import itertools
import os
from functools import partial
from pathlib import Path

from lgsirens.access.array import LazyArray
from lgsirens.errors import OutputError, require
from lgsirens.signal import KINDS
from lgsirens.system.console import Progress
from lgsirens.system.output import replacing_folder
from lgsirens.system.pytorch import as_it_starts


def check_store(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return `path` if a Zarr array may be written there.

    Raises:
        OutputError: it is not named *.zarr, its folder is missing, it exists, or what would be replaced is no Zarr.
    """
    path = Path(os.path.realpath(os.path.expanduser(path)))
    if path.suffix != ".zarr":
        raise OutputError(f"{path}: a Zarr array is a folder *.zarr; name OUTPUT so")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or overwrite it")
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup")):
        raise OutputError(f"{path}: is there and is no Zarr; choose another name")
    return path


@as_it_starts()
def export(
    array: LazyArray, path: str | os.PathLike[str], overwrite: bool = False, progress: Progress | None = None
) -> None:
    """Write a lazy array as a Zarr array (format 3), in chunks of its own, whole or not at all.

    Its attributes are `kind`, `value_range`, `sample_type`, `scale`, and `sampling_rate` and `spacing` where the signal
    has them; its dimensions have names.

    Raises:
        OutputError: as `check_store`.
        RunError: it cannot be written.
        MissingDependencyError: zarr is not installed.
    """
    path = check_store(path, overwrite)
    zarr = require("zarr", f"writing {path}", "zarr")
    known = array.representation.signal
    spacing = known.spacing and [d / float(s) for d, s in zip(known.spacing, array.scales, strict=True)]
    attributes = {
        "kind": known.kind,
        "value_range": list(known.value_range),
        "sample_type": known.dtype,
        "scale": [str(scale) for scale in array.scales],
        **({} if known.rate is None else {"sampling_rate": float(known.rate * array.scales[0])}),
        **({} if spacing is None else {"spacing": spacing}),
    }
    with replacing_folder(path, partial(check_store, path, overwrite)) as temporary:
        store = zarr.create_array(
            str(temporary),
            shape=array.shape,
            chunks=array.chunks,
            dtype=array.dtype,
            dimension_names=[*KINDS[known.kind].axes, "channel"],
            attributes=attributes,
        )
        chunks = [range(0, size, step) for size, step in zip(array.shape, array.chunks, strict=True)]
        if progress is not None:
            progress.start(array.size)
        for starts in itertools.product(*chunks):
            part = tuple(slice(start, start + step) for start, step in zip(starts, array.chunks, strict=True))
            values = array[part]
            store[part] = values
            if progress is not None:
                progress.advance(values.size)
