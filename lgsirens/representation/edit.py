"""Editing that fits nothing: pure functions, a new representation out, the old one untouched."""

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import ConfigError, RegionError
from lgsirens.grid.box import LARGEST_POSITION, Box, Region, as_region, bounding_box, intersect, is_empty, shifted
from lgsirens.grid.lattice import Lattice, bounding_extent
from lgsirens.representation.representation import Representation, history_entry
from lgsirens.representation.rows import FileRows, GatheredRows, gather
from lgsirens.system.console import commas, note
from lgsirens.system.pytorch import as_it_starts
from lgsirens.system.schema import canonical_json, to_plain

# What pieces of one origin have in common, beside coordinates and shared network.
_OF_ORIGIN = ("model", "tile")


@as_it_starts()
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
        raise RegionError("crop takes exactly one of region, keep_partitions and drop_partitions")
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
    kept = representation.select(places)
    extent, window = _boxes_after(representation, kept.lattice, boxes)
    entry = history_entry("crop", window, len(kept.ids))
    return replace(kept, extent=extent, window=window, history=(*representation.history, entry))


@as_it_starts()
def move(representation: Representation, offset: Sequence[int]) -> Representation:
    """The same rows elsewhere: with tile coordinates they mean the same anywhere.

    Values decode to the same bits there, at every scale by which the offset is whole. So signals that share a network
    come into one file side by side:

    >>> import lgsirens as lg
    >>> dark, light = (lg.Signal.from_array(np.full((8, 8), value, dtype=np.uint8)) for value in (9, 250))
    >>> first = lg.encode(dark, partition_size=(4, 4), steps=1)
    >>> second = lg.encode(light, shared_from=first, steps=1)
    >>> lg.merge(first, second.move((0, 8))).window
    ((0, 8), (0, 16))

    Args:
        offset: samples along each dimension, whole tiles.

    Returns:
        A representation of another lineage: its history says nothing of rows that were where it lies now. The same one
        for an offset of 0.

    Raises:
        ConfigError: the coordinates are the signal's, in which a row means something else elsewhere; the offset is not
            of whole tiles, or leaves the positions that there are.
    """
    if representation.coordinates.kind != "tile":
        raise ConfigError("needs tile coordinates, where a row means the same anywhere; encode with those", "offset")
    tile = representation.tile
    try:
        by = [operator.index(samples) for samples in offset]
        whole = not any(samples % size for samples, size in zip(by, tile, strict=True))
    except (TypeError, ValueError):
        whole = False
    if not whole:
        tiles = f"whole tiles, a multiple of {commas(tile)} samples along each dimension"
        raise ConfigError(f"{offset}: give {tiles}", "offset")
    if not any(by):
        return representation
    extent, window = shifted(representation.extent, by), shifted(representation.window, by)
    if any(low < -LARGEST_POSITION or high > LARGEST_POSITION for low, high in extent):
        raise ConfigError(f"{offset}: leads beyond {LARGEST_POSITION}, the farthest position; give less", "offset")
    history = [_moved(entry, by) for entry in representation.history]
    entry = history_entry("move", window, len(representation.ids), offset=by)
    return replace(
        representation,
        ids=(representation.ids + np.array(by) // tile).astype(np.int32),
        extent=extent,
        window=window,
        lineage=hashlib.sha256(f"{representation.lineage}{canonical_json(by)}".encode()).hexdigest(),
        history=(*history, entry),
    )


def _moved(entry: dict[str, Any], by: Sequence[int]) -> dict[str, Any]:
    """An entry of the history whose boxes, which tell what is blank, stay with the rows."""
    boxes: dict[str, Any] = {}
    if "given" in entry:
        boxes["given"] = [shifted(box, by) for box in entry["given"]]
    if "held" in entry:
        boxes["held"] = shifted(entry["held"], by)
    return {**entry, **to_plain(boxes)}


@as_it_starts()
def merge(
    representation: Representation, *others: Representation, prefer: Representation | None = None
) -> Representation:
    """Pieces of one origin come together, with tile coordinates whatever they were fitted to.

    Rows that several pieces hold must agree. Where they do not, the one wins that alone was fitted since the pieces
    parted (a partial tile that an extension filled, replaced content).

    Args:
        others: further pieces.
        prefer: the piece whose rows win where two were fitted anew and disagree.

    Returns:
        All their rows; `fit` and `config` are those of the first piece.

    Raises:
        ConfigError: the pieces are of different origin, their rows disagree, or together they would show samples that
            nobody fitted.
    """
    pieces = (representation, *others)
    if len(pieces) < 2:
        raise ConfigError("merge takes at least two pieces; give another one")
    for number, piece in enumerate(pieces):
        _check_kin(representation, piece, number)
    if prefer is not None and not any(piece is prefer for piece in pieces):
        raise ConfigError("prefer: name one of the pieces to merge")
    ids = np.unique(np.concatenate([piece.lattice.ids for piece in pieces]), axis=0)
    lattice = replace(representation.lattice, ids=np.ascontiguousarray(ids, dtype=np.int32))
    places = np.stack([piece.lattice.find(lattice.ids) for piece in pieces])
    history, edits = _histories(pieces)
    owners = _owners(pieces, lattice, places, edits, prefer)
    extent = bounding_box([piece.extent for piece in pieces])
    for number, piece in enumerate(pieces):
        own = lattice.select(np.flatnonzero(owners == number))
        grown = np.flatnonzero(own.samples_of_each(extent) > own.samples_of_each(piece.extent))
        if len(grown):
            partial = f"partition {_name(own.ids[grown[0]])} is partial in {_title(piece, number)}"
            raise ConfigError(f"{partial}: nobody fitted the samples up to other pieces; extend that piece first")
    window = bounding_box([piece.window for piece in pieces])
    chosen = places[owners, np.arange(len(lattice))]
    own_edits = [numbers[piece.row_edit] for numbers, piece in zip(edits, pieces, strict=True)]
    blanks = [_blanks_after(piece, numbers, history) for numbers, piece in zip(edits, pieces, strict=True)]
    overviews = [piece.overview for piece in pieces if piece.overview is not None]
    entry = history_entry("merge", window, len(lattice), pieces=len(pieces))
    return replace(
        representation,
        ids=lattice.ids,
        rows=GatheredRows(tuple(piece.rows for piece in pieces), owners, chosen),
        row_edit=gather(own_edits, owners, chosen),
        row_blank=gather(blanks, owners, chosen),
        overview=gather(overviews, owners, chosen) if len(overviews) == len(pieces) else None,
        extent=extent,
        window=window,
        lineage=_lineage(pieces),
        history=(*history, entry),
    )


def _histories(pieces: Sequence[Representation]) -> tuple[list[dict[str, Any]], list[NDArray[np.int32]]]:
    """All that was done to any of the pieces, and where each entry of each piece's history stands in that."""
    history: list[dict[str, Any]] = []
    for piece in pieces:
        history += [entry for entry in piece.history if entry not in history]
    return history, [np.array([history.index(e) for e in piece.history], dtype=np.int32) for piece in pieces]


def _blanks_after(piece: Representation, edits: NDArray[np.int32], history: list[dict[str, Any]]) -> NDArray[np.int32]:
    """`row_blank` of a piece in the history of all."""
    entry = edits[np.maximum(np.abs(piece.row_blank) - 1, 0)] + 1
    since = np.sign(piece.row_blank) * entry
    # What only another piece was given a blank row has not seen: nothing counts as given any more.
    foreign = [other for number, other in enumerate(history) if number not in edits]
    for box in (box for other in foreign for box in other.get("given", ())):
        since[piece.lattice.samples_of_each(box) > 0] = len(history) + 1
    return np.where(piece.row_blank == 0, 0, since).astype(np.int32)


def _lineage(pieces: Sequence[Representation]) -> str:
    """That of the pieces; of several, a hash of them, whatever their order."""
    lineages = sorted({piece.lineage for piece in pieces})
    return lineages[0] if len(lineages) == 1 else hashlib.sha256("".join(lineages).encode()).hexdigest()


def _check_kin(first: Representation, piece: Representation, number: int) -> None:
    title, other = _title(piece, number), _title(first, 0)
    if piece.origin != first.origin:
        raise ConfigError(f"{title} comes from another encoding than {other}: only pieces of one origin merge")
    ours, theirs = ({**vars(inr.signal), "halo": inr.halo, "codec": inr.codec} for inr in (piece, first))
    for name, value in ours.items():
        if value != theirs[name]:
            raise ConfigError(f"{name} is {value} in {title} and {theirs[name]} in {other}; such do not merge")
    coordinates = piece.coordinates
    if coordinates.kind == "tile":  # where the first signal ended is nothing to its rows
        coordinates = replace(coordinates, size=first.coordinates.size)
    same = coordinates == first.coordinates and all(getattr(piece, n) == getattr(first, n) for n in _OF_ORIGIN)
    if not same or not all(torch.equal(piece.shared[name], value) for name, value in first.shared.items()):
        raise ConfigError(f"{title} claims the origin of {other}, not its networks; merge files that lgsirens made")


def _owners(
    pieces: tuple[Representation, ...],
    lattice: Lattice,
    places: NDArray[np.int64],
    edits: list[NDArray[np.int32]],
    prefer: Representation | None,
) -> NDArray[np.int64]:
    """Which piece each partition's row comes from, `[P]`: of those that agree, the one that holds most of its tile."""
    checksums, covered = np.full(places.shape, -1, dtype=np.int64), np.full(places.shape, -1, dtype=np.int64)
    for number, piece in enumerate(pieces):
        held = places[number] >= 0
        checksums[number, held] = piece.rows.crc32()[places[number, held]]
        covered[number, held] = lattice.select(np.flatnonzero(held)).samples_of_each(piece.extent)
    owners = np.asarray(np.argmax(covered, axis=0))
    agreed = checksums[owners, np.arange(len(lattice))]
    known = [set(numbers.tolist()) for numbers in edits]
    for at in np.flatnonzero(((checksums != agreed) & (places >= 0)).any(axis=0)).tolist():
        holders = sorted(np.flatnonzero(places[:, at] >= 0).tolist(), key=lambda number: -covered[number, at])
        fitted_by = {number: edits[number][pieces[number].row_edit[places[number, at]]] for number in holders}

        def wins(number: int, at: int = at, holders: list[int] = holders, by: dict[int, Any] = fitted_by) -> bool:
            """Whether the row was fitted after the pieces parted, and in none of those that disagree."""
            others = [other for other in holders if checksums[other, at] != checksums[number, at]]
            return all(
                pieces[other].lineage == pieces[number].lineage
                and by[number] not in known[other]
                and by[other] in known[number]
                for other in others
            )

        winners = [*filter(wins, holders)] or [number for number in holders if pieces[number] is prefer]
        if not winners:
            name, files = _name(lattice.ids[at]), " and ".join(_title(pieces[n], n) for n in holders[:2])
            raise ConfigError(f"partition {name} differs between {files}; name the one that wins as prefer")
        owners[at] = winners[0]
    return owners


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
    box = as_region(ranges, tuple(zip(low.tolist(), high.tolist(), strict=True)), name="partitions")
    starts, stops = np.array(box).T
    return np.flatnonzero(((lattice.ids >= starts) & (lattice.ids < stops)).all(axis=1))


def _not_dropped(lattice: Lattice, dropped: str | Sequence[Sequence[int]]) -> NDArray[np.int64]:
    try:
        entries = [text.split(",") for text in dropped.split(";")] if isinstance(dropped, str) else dropped
        ids = np.array([[int(n) if isinstance(n, str) else operator.index(n) for n in entry] for entry in entries])
        if ids.shape != (len(ids), lattice.dimensions):
            raise ValueError
    except (TypeError, ValueError):
        raise RegionError(f'partitions {dropped!r}: give ids such as "0,0;15,15" or [(0, 0), (15, 15)]') from None
    places = lattice.find(np.clip(ids, -LARGEST_POSITION, LARGEST_POSITION).astype(np.int64))
    if (places < 0).any():
        first, last = _name(lattice.ids[0]), _name(lattice.ids[-1])
        raise RegionError(f"partitions {dropped!r}: not all are in the file, which has {first} to {last}")
    return np.setdiff1d(np.arange(len(lattice)), places)


def _name(entry: Any) -> str:
    return ",".join(str(int(number)) for number in entry)
