"""`xarray.open_dataset(path, engine="lgsirens")`: the signal as a lazy variable, its positions and times beside it."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from lgsirens.access.array import LazyArray, open_array
from lgsirens.grid.coordinates import Scale, fine_box, fine_positions
from lgsirens.signal import KINDS


class Backend(BackendEntrypoint):
    """The engine "lgsirens", for files and URLs."""

    description = "Open representations of lgsirens (.safetensors) as arrays"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "scale")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, scale: Scale = 1
    ) -> xarray.Dataset:
        """One variable of the signal's name (`image`, `audio`, `video` or `volume`).

        Its coordinates are positions in samples along each axis; `time` in seconds where the signal has a rate, and
        `AXIS_distance` in the file's unit of length where it has a spacing.

        Args:
            drop_variables: what is left out.
            scale: as in `LazyArray.at`.
        """
        array = open_array(filename_or_obj).at(scale)
        known = array.representation.signal
        names = KINDS[known.kind].axes
        dimensions = (*names, "channel")
        data = indexing.LazilyIndexedArray(_Lazy(array))
        encoding = {"preferred_chunks": dict(zip(dimensions, array.chunks, strict=True))}
        attributes = {"value_range": list(known.value_range), "sample_type": known.dtype}
        dataset = xarray.Dataset(
            {known.kind: xarray.Variable(dimensions, data, attributes, encoding)}, coords=_coordinates(array)
        )
        dropped = [drop_variables] if isinstance(drop_variables, str) else [*(drop_variables or ())]
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is named like a representation."""
        return isinstance(filename_or_obj, str | os.PathLike) and str(filename_or_obj).endswith(".safetensors")


def _coordinates(array: LazyArray) -> dict[str, Any]:
    known, names = array.representation.signal, KINDS[array.representation.signal.kind].axes
    found: dict[str, Any] = {}
    for axis, ((low, high), scale) in enumerate(
        zip(fine_box(array.representation.window, array.scales), array.scales, strict=True)
    ):
        name, positions = names[axis], fine_positions(np.array(low), high - low, scale)
        found[name] = (name, positions, {"units": "samples"})
        if known.spacing is not None:
            found[f"{name}_distance"] = (name, positions * known.spacing[axis])
        if axis == 0 and known.rate is not None:
            found["time"] = (name, positions / float(known.rate), {"units": "s"})
    return found


class _Lazy(BackendArray):
    """A lazy array as xarray's backends give them."""

    def __init__(self, array: LazyArray) -> None:
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._array.__getitem__)
