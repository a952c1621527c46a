"""Editing that fits nothing: pure functions, a new representation out, the old one untouched."""

import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import ConfigError, RegionError
from lgsirens.grid.box import Box, Region, as_region, bounding_box, intersect, is_empty
from lgsirens.grid.lattice import Lattice, bounding_extent
from lgsirens.representation.file import FileRows
from lgsirens.representation.representation import GatheredRows, Representation, check_representation, history_entry
from lgsirens.system.console import counted, note

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
        history=(*representation.history, history_entry("crop", window, len(kept))),
    )


def merge(
    representation: Representation, *others: Representation, prefer: Representation | None = None
) -> Representation:
    """Pieces of one origin come back together.

    Rows that several pieces hold must agree. Where they do not, the one wins that alone was fitted since the pieces
    parted (a partial tile that an extension filled, replaced content).

    Args:
        others: further pieces.
        prefer: the piece whose rows win where two were fitted anew and disagree.

    Raises:
        ConfigError: the pieces are of different origin, their rows disagree, or together they would show samples that
            nobody fitted.
    """
    pieces = (representation, *others)
    if len(pieces) < 2:
        raise ConfigError("merge takes at least two pieces; give another one")
    for number, piece in enumerate(map(check_representation, pieces)):
        _check_kin(representation, piece, number)
    if prefer is not None and not any(piece is prefer for piece in pieces):
        raise ConfigError("prefer: name one of the pieces to merge")
    ids = np.unique(np.concatenate([piece.lattice.ids for piece in pieces]), axis=0)
    lattice = replace(representation.lattice, ids=np.ascontiguousarray(ids, dtype=np.int32))
    places = np.stack([piece.lattice.find(lattice.ids) for piece in pieces])
    owners = _owners(pieces, lattice, places, prefer)
    extent = bounding_box([piece.extent for piece in pieces])
    for number, piece in enumerate(pieces):
        own = lattice.select(np.flatnonzero(owners == number))
        grown = np.flatnonzero(own.samples_of_each(extent) > own.samples_of_each(piece.extent))
        if len(grown):
            raise ConfigError(
                f"partition {_name(own.ids[grown[0]])} is partial in {_title(piece, number)}, and other pieces reach "
                "beyond it: nobody fitted the samples between; extend that piece first"
            )
    window = bounding_box([piece.window for piece in pieces])
    history: list[dict[str, Any]] = []
    for piece in sorted(pieces, key=lambda piece: piece is prefer):  # the last entry of a partition tells of its row
        history += [entry for entry in piece.history if entry not in history]
    entry = history_entry("merge", window, len(lattice), pieces=len(pieces))
    return replace(
        representation,
        lattice=lattice,
        rows=GatheredRows(tuple(p.rows for p in pieces), owners, places[owners, np.arange(len(lattice))]),
        extent=extent,
        window=window,
        history=(*history, entry),
    )


def _check_kin(first: Representation, piece: Representation, number: int) -> None:
    if piece.origin != first.origin:
        raise ConfigError(
            f"{_title(piece, number)} comes from another encoding than {_title(first, 0)} (origin {piece.origin[:12]}, "
            f"not {first.origin[:12]}); only pieces of one origin merge"
        )
    same = all(getattr(piece, name) == getattr(first, name) for name in ("model", "frame", "signal"))
    same &= all(getattr(piece.lattice, name) == getattr(first.lattice, name) for name in ("tile", "halo"))
    if not same or not all(torch.equal(piece.shared[name], value) for name, value in first.shared.items()):
        raise ConfigError(
            f"{_title(piece, number)} claims the origin of {_title(first, 0)}, but differs in more than its rows; "
            "merge files that lgsirens made"
        )


def _owners(
    pieces: tuple[Representation, ...], lattice: Lattice, places: NDArray[np.int64], prefer: Representation | None
) -> NDArray[np.int64]:
    """Which piece each partition's row comes from, `[P]`: of those that agree, the one that holds most of its tile."""
    checksums, covered = np.full(places.shape, -1, dtype=np.int64), np.full(places.shape, -1, dtype=np.int64)
    for number, piece in enumerate(pieces):
        held = places[number] >= 0
        checksums[number, held] = piece.rows.crc32()[places[number, held]]
        covered[number, held] = lattice.select(np.flatnonzero(held)).samples_of_each(piece.extent)
    owners = np.asarray(np.argmax(covered, axis=0))
    agreed = checksums[owners, np.arange(len(lattice))]
    since = {(a, b): _fitted_since(pieces[a], pieces[b]) for a in range(len(pieces)) for b in range(len(pieces))}
    for at in np.flatnonzero(((checksums != agreed) & (places >= 0)).any(axis=0)):
        name = tuple(int(k) for k in lattice.ids[at])
        holders = sorted(np.flatnonzero(places[:, at] >= 0).tolist(), key=lambda number: -covered[number, at])

        def wins(number: int, at: int = int(at), name: tuple[int, ...] = name, holders: list[int] = holders) -> bool:
            others = [other for other in holders if checksums[other, at] != checksums[number, at]]
            return all(name in since[number, other] and name not in since[other, number] for other in others)

        winners = [number for number in holders if wins(number)]
        winners = winners or [number for number in holders if pieces[number] is prefer]
        if not winners:
            files = " and ".join(_title(pieces[number], number) for number in holders[:2])
            raise ConfigError(
                f"partition {_name(name)} differs between {files}; name the one of them that wins with --prefer"
            )
        owners[at] = winners[0]
    return owners


def _fitted_since(piece: Representation, other: Representation) -> set[tuple[int, ...]]:
    """The partitions that were fitted in a piece since it and the other parted."""
    own = [entry for entry in piece.history if entry not in other.history]
    return {tuple(name) for entry in own for kind in ("added", "refitted") for name in entry.get(kind, ())}


def _title(piece: Representation, number: int) -> str:
    return piece.rows.source.name if isinstance(piece.rows, FileRows) else f"piece {number + 1}"


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
            raise RegionError(f"partition {_name(entry)} needs {counted(lattice.dimensions, 'number')}, one an axis")
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
