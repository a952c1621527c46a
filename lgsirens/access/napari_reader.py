"""napari's reader (`napari.yaml`): pictures, films and volumes as layers of several scales, decoded when viewed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lgsirens.access.array import LazyArray, open_array
from lgsirens.errors import SignalError, require

Layer = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[Any], list[Layer]] | None:
    """The reader of one file, none for several."""
    return read_layers if isinstance(path, str) else None


def read_layers(path: str) -> list[Layer]:
    """One image layer, from fine to coarse, its samples in the file's unit of length where that is known.

    Raises:
        SignalError: it is a sound, which has no picture.
    """
    array = open_array(path)
    known = array.representation.signal
    if array.representation.lattice.dimensions == 1:
        raise SignalError(f"{path}: is a sound, which napari cannot show; use lgsirens decode")
    options: dict[str, Any] = {"multiscale": True, "name": array.representation.signal.kind}
    # Floats of a coloured picture must lie in [0, 1] there.
    coloured = known.channels > 2 and (array.dtype.kind != "f" or known.value_range == (0.0, 1.0))
    if not coloured:
        options["contrast_limits"] = known.value_range
    options |= {"rgb": True} if coloured else {} if known.channels == 1 else {"channel_axis": -1}
    options["scale"] = known.spacing or (1.0,) * (array.ndim - 1)
    options["translate"] = tuple(np.multiply(options["scale"], [low for low, _ in array.representation.window]))
    return [([_viewed(level) for level in reversed(array.levels)], options, "image")]


def _viewed(level: LazyArray) -> Any:
    """What napari slices: without an axis of one channel."""
    dask = require("dask.array", "viewing in napari", "dask")
    viewed = dask.from_array(level, chunks=level.chunks)
    return viewed[..., 0] if level.shape[-1] == 1 else viewed
