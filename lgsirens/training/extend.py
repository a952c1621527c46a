"""The edits that fit: new partitions beside the old ones (`extend`), new content for old ones (`replace`)."""

import operator
from collections.abc import Sequence
from dataclasses import replace as with_fields
from typing import Any

import numpy as np

from lgsirens.errors import ConfigError, SignalError
from lgsirens.grid.box import LARGEST_POSITION, Box, bounding_box, box_size, contains, format_box, intersect, is_empty
from lgsirens.grid.coordinates import LONGEST_AXIS
from lgsirens.grid.lattice import Lattice, tiles_meeting
from lgsirens.lazy import extremes
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS, Signal, check_signal
from lgsirens.system.console import note
from lgsirens.system.hardware import memory_limit
from lgsirens.system.pytorch import as_it_starts
from lgsirens.training.change import Edit, brings
from lgsirens.training.refit import FitOptions, fit_edit
from lgsirens.training.run import CACHE_PART

FINETUNE = ("none", "shared", "all")

# So far from the middle of the first signal, in samples, float32 misplaces samples by an eighth of their distance.
_FARTHEST = 1 << 21


@as_it_starts()
def extend(
    representation: Representation,
    signal: Signal,
    offset: Sequence[int] | None = None,
    *,
    finetune: str = "none",
    allow_gap: bool = False,
    **options: Any,
) -> Representation:
    """Encode more of a signal: new partitions on the same lattice, on any side.

    The partitions that are there stay as they are, to the bit, but for partial tiles that gain samples: these are
    fitted anew and listed in the history.

    Args:
        signal: the whole bigger signal (what is encoded already is skipped) or its new part.
        offset: position of the signal's first sample; default: 0 on every axis, where the first encoded signal began.
        finetune: what else may learn: "none"; "shared", the shared network; "all", the old rows as well. The last
            two train old and new together and give the result a new lineage.
        allow_gap: positions may be left out between old and new; partitions that reach into them are blank there.
        options: the fields of `FitOptions`.

    Returns:
        The larger representation; the same one if there is nothing to add. The last line of its history has what was
        added and refitted, the PSNR in dB of what was fitted, and with `finetune` how far the old region moved.

    Raises:
        SignalError: the signal is of another kind, channel count, sample type, value range or rate, or does not fit
            at its offset.
        ConfigError: mode mlp, or an option out of range.
    """
    if representation.model.mode == "mlp":
        raise ConfigError("mode mlp is one network for the whole signal and cannot grow; encode with mode lg or lc")
    if finetune not in FINETUNE:
        raise ConfigError(f"finetune {finetune!r} is unknown; choose one of {', '.join(FINETUNE)}")
    if finetune == "shared" and not representation.shared:
        raise ConfigError("finetune shared: mode lc has no shared network; choose none or all")
    fit = FitOptions.of(options)
    signal, box = _placed(representation, signal, offset, fit)
    extent = bounding_box([representation.extent, box])
    if not allow_gap:
        _check_no_gap(representation.extent, box, extent)
    _say_where(offset, box, representation.extent)
    old = representation.lattice
    ids = np.unique(np.concatenate([old.ids, tiles_meeting(box, old.tile)]), axis=0)
    lattice = Lattice(old.tile, old.halo, np.ascontiguousarray(ids, dtype=np.int32))
    before = old.find(lattice.ids)
    gains = lattice.samples_of_each(extent) > lattice.samples_of_each(representation.extent)
    # what was left blank is learnt as soon as the signal has it
    for place in np.flatnonzero((before >= 0) & ~gains & (lattice.samples_of_each(box) > 0)):
        old_place = int(before[place])
        gains[place] = representation.row_blank[old_place] != 0 and brings(representation, old_place, signal, box)
    fitted = np.flatnonzero((before < 0) | gains)
    if not len(fitted):
        return representation
    _check_coordinates(representation, extent)
    window = bounding_box([representation.window, box])
    return fit_edit(
        Edit("extend", representation, signal, box, lattice, before, fitted, extent, window, finetune, allow_gap), fit
    )


@as_it_starts()
def replace(
    representation: Representation, signal: Signal, offset: Sequence[int] | None = None, **options: Any
) -> Representation:
    """New content for a region: only the partitions that it meets are fitted anew, the rest stays to the bit.

    Args:
        signal: the new content.
        offset: position of its first sample; default: 0 on every axis.
        options: the fields of `FitOptions`.

    Raises:
        SignalError: as for `extend`, or part of the region is not encoded.
        ConfigError: an option out of range.
    """
    fit = FitOptions.of(options)
    signal, box = _placed(representation, signal, offset, fit)
    lattice, extent = representation.lattice, representation.extent
    if not contains(extent, box) or lattice.samples_within(box) < box_size(box):
        where = f"the signal lies at {format_box(box)}, the file holds {format_box(extent)}"
        raise SignalError(f"{where}: part of it has no partition to replace; extend adds partitions")
    _say_where(offset, box, extent)
    before, fitted, window = np.arange(len(lattice)), lattice.meeting(box), representation.window
    # a patch says nothing of what was left blank beside it: there may still be gaps
    return fit_edit(
        Edit("replace", representation, signal, box, lattice, before, fitted, extent, window, allow_gap=True), fit
    )


def _placed(
    representation: Representation, signal: Signal, offset: Sequence[int] | None, fit: FitOptions
) -> tuple[Signal, Box]:
    """The signal in the representation's value range, and the box where it lies."""
    known = representation.signal
    check_signal(signal).keep(memory_limit(fit.max_memory) // CACHE_PART)
    for name, given, own in (
        ("kind", signal.kind, known.kind),
        ("number of channels", signal.channels, known.channels),
        ("sample type", signal.dtype, known.dtype),
        ("sampling rate", signal.sampling_rate, known.rate),
        ("spacing", signal.spacing, known.spacing),
        ("colour (primaries, transfer)", signal.colour, known.colour),
        ("value range", None if KINDS[known.kind].symmetric else signal.value_range, known.value_range),
    ):
        if given != own and None not in (given, own):
            raise SignalError(f"the signal's {name} is {given}, the file's {own}; give a signal like the file's")
    (low, high), (lowest, highest) = extremes(signal.values), known.value_range
    if low < lowest or high > highest:
        values = f"{low:g} to {high:g}, the file {lowest:g} to {highest:g}"
        raise SignalError(f"the signal has values from {values}; scale it, or encode with a larger value_range")
    try:
        starts = [0] * len(signal.shape) if offset is None else [*map(operator.index, offset)]
        box = tuple((start, start + size) for start, size in zip(starts, signal.shape, strict=True))
    except (TypeError, ValueError):
        raise SignalError(f"offset {offset!r}: give a whole number per dimension, such as 0,-128") from None
    if any(low < -LARGEST_POSITION or high > LARGEST_POSITION for low, high in box):
        raise SignalError(f"the signal lies at {format_box(box)}; positions must stay within {LARGEST_POSITION}")
    return with_fields(signal, value_range=known.value_range), box


def _say_where(offset: Sequence[int] | None, box: Box, extent: Box) -> None:
    """Note where a signal without an offset lies, if the extent does not begin there too."""
    if offset is None and any(start for start, _ in extent):
        note("no offset: the signal is taken to lie at %s; the file holds %s", format_box(box), format_box(extent))


def _check_no_gap(extent: Box, box: Box, whole: Box) -> None:
    """Raise SignalError unless the extent and the signal's box together are a box."""
    common = intersect(extent, box)
    if box_size(extent) + box_size(box) - (0 if is_empty(common) else box_size(common)) < box_size(whole):
        where = f"the signal lies at {format_box(box)}, the file holds {format_box(extent)}"
        raise SignalError(f"{where}: that leaves a gap, they fill no box; give another offset or size, or allow_gap")


def _check_coordinates(representation: Representation, extent: Box) -> None:
    coordinates = representation.coordinates
    for size, (low, high) in zip(coordinates.size, extent, strict=True):
        centre = min(size, LONGEST_AXIS) / 2
        if coordinates.local_scale is None and max(high - centre, centre - low) > _FARTHEST:
            misplaced = f"float32 misplaces samples that lie {_FARTHEST} samples from the middle of the first signal"
            raise ConfigError(f"{misplaced}; encode the first part with a local_scale")
