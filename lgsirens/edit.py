"""Editing that fits nothing: pure functions, a new representation out, the old one untouched."""

import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgsirens.errors import RegionError
from lgsirens.lattice import Lattice, bounding_extent
from lgsirens.region import Box, Region, as_region, bounding_box, intersect, is_empty
from lgsirens.representation import Representation, history_entry
from lgsirens.runlog import note

_LARGEST_ID = 1 << 31


def crop(
    representation: Representation,
    *regions: Region,
    keep_partitions: Region | None = None,
    drop_partitions: str | Sequence[Sequence[int]] | None = None,
) -> Representation:
    """Keep the partitions that meet any of the regions; nothing of the others stays.

    Kept samples decode to the same bits as before. The window of the result is the bounding box of the regions.

    Args:
        regions: `start:stop` per dimension in absolute positions, as text, slices or pairs.
        keep_partitions: instead: ranges of partition ids, such as `"2:6,0:3"`.
        drop_partitions: instead: ids to leave out, such as `"0,0;15,15"` or `[(0, 0), (15, 15)]`.

    Raises:
        RegionError: not exactly one of the three is given, a region or id is not there, or nothing would be left.
    """
    if [bool(regions), keep_partitions is not None, drop_partitions is not None].count(True) != 1:
        raise RegionError("crop takes exactly one of --region, --keep_partitions and --drop_partitions")
    lattice = representation.lattice
    boxes = [as_region(region, representation.extent, representation.signal.rate) for region in regions]
    if boxes:
        places = np.unique(np.concatenate([lattice.meeting(box) for box in boxes]))
    elif keep_partitions is not None:
        places = _kept(lattice, keep_partitions)
    else:
        places = _not_dropped(lattice, () if drop_partitions is None else drop_partitions)
    if not len(places):
        raise RegionError(f"no partition would be left of {len(lattice)}; keep at least one")
    if representation.model.mode == "mlp":
        note("mode mlp is one network: the crop changes the window and saves no byte; modes lg and lc can be cut")
    kept = lattice.select(places)
    extent, window = _boxes_after(representation, kept, boxes)
    return replace(
        representation,
        lattice=kept,
        rows=representation.rows.select(places),
        extent=extent,
        window=window,
        history=(*representation.history, history_entry("crop", window)),
    )


def _boxes_after(representation: Representation, kept: Lattice, regions: list[Box]) -> tuple[Box, Box]:
    """Extent and window of a crop."""
    extent = bounding_extent(kept, representation.extent)
    if regions:
        window = bounding_box(regions)
        return bounding_box([extent, window]), window
    window = intersect(representation.window, extent)
    return extent, extent if is_empty(window) else window


def _kept(lattice: Lattice, ranges: Region) -> NDArray[np.int64]:
    low, high = lattice.ids.min(axis=0), lattice.ids.max(axis=0) + 1
    held = tuple((int(a), int(b)) for a, b in zip(low, high, strict=True))
    box = as_region(ranges, held, name="partitions")
    inside = np.ones(len(lattice), dtype=bool)
    for axis, (start, stop) in enumerate(box):
        inside &= (lattice.ids[:, axis] >= start) & (lattice.ids[:, axis] < stop)
    return np.flatnonzero(inside)


def _not_dropped(lattice: Lattice, dropped: str | Sequence[Sequence[int]]) -> NDArray[np.int64]:
    try:
        ids = _parse_ids(dropped) if isinstance(dropped, str) else [tuple(map(operator.index, e)) for e in dropped]
    except TypeError:
        raise RegionError(f'partitions {dropped!r}: give ids such as "0,0;15,15" or [(0, 0), (15, 15)]') from None
    if not ids:
        raise RegionError("no partition is named to be dropped; name at least one")
    for entry in ids:
        if len(entry) != lattice.dimensions:
            raise RegionError(f"partition {_name(entry)} needs {lattice.dimensions} numbers, one per dimension")
    bounded = [[max(-_LARGEST_ID, min(_LARGEST_ID, number)) for number in entry] for entry in ids]
    places = lattice.find(np.array(bounded, dtype=np.int64).reshape(-1, lattice.dimensions))
    for entry, place in zip(ids, places, strict=True):
        if place < 0:
            first, last = _name(lattice.ids[0]), _name(lattice.ids[-1])
            raise RegionError(f"partition {_name(entry)} is not in the file, which has {first} to {last}")
    return np.setdiff1d(np.arange(len(lattice)), places)


def _parse_ids(text: str) -> list[tuple[int, ...]]:
    if not re.fullmatch(
        r"\s*[+-]?\d{1,18}(\s*,\s*[+-]?\d{1,18})*(\s*;\s*[+-]?\d{1,18}(\s*,\s*[+-]?\d{1,18})*)*\s*", text
    ):
        raise RegionError(f'partitions {text!r}: give ids separated by semicolons, such as "0,0;15,15"')
    return [tuple(int(number) for number in entry.split(",")) for entry in text.split(";")]


def _name(entry: Any) -> str:
    return ",".join(str(int(number)) for number in entry)
