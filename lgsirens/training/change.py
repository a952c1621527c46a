"""An edit that fits: what it changes, what it learns from, and what it leaves blank."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import SignalError
from lgsirens.grid.box import Box, box_shape, box_size, format_box, intersect, is_empty, slices
from lgsirens.grid.lattice import Lattice
from lgsirens.representation.decode import decode
from lgsirens.representation.representation import Representation
from lgsirens.signal import Signal
from lgsirens.system.hardware import check_fits
from lgsirens.training.windows import PositionedSignal


@dataclass(frozen=True, eq=False)
class Edit:
    """What an edit changes.

    Attributes:
        action: its name.
        old: the representation before.
        signal: the samples given, in the value range of the representation.
        box: where they lie.
        lattice: all partitions after.
        before: `[P]`, where each was in the old lattice; -1 if it is new.
        fitted: places of the partitions to fit.
        extent: after.
        window: after.
        finetune: what else learns.
        allow_gap: samples to fit that nothing is known of are blank.
    """

    action: str
    old: Representation
    signal: Signal
    box: Box
    lattice: Lattice
    before: NDArray[np.int64]
    fitted: NDArray[np.int64]
    extent: Box
    window: Box
    finetune: str = "none"
    allow_gap: bool = False

    @property
    def trained(self) -> NDArray[np.int64]:
        """Places of the partitions whose samples a step sees."""
        return self.fitted if self.finetune == "none" else np.arange(len(self.lattice))

    @property
    def moved(self) -> NDArray[np.int64]:
        """Places of the partitions whose rows change."""
        return self.trained if self.finetune == "all" else self.fitted


def unknown(representation: Representation, place: int, box: Box) -> NDArray[np.bool_]:
    """Which samples of a box, inside the tile of a blank row, nobody has given."""
    number, nowhere = int(representation.row_blank[place]), np.ones(box_shape(box), dtype=bool)
    since = representation.history[abs(number) - 1 :]
    boxes = [box for entry in since for box in entry.get("given", ())] + ([since[0]["held"]] if number < 0 else [])
    for low_and_high in boxes:
        given = intersect(box, tuple((low, high) for low, high in low_and_high))
        if not is_empty(given):
            nowhere[slices(given, box)] = False
    return nowhere


def brings(representation: Representation, place: int, signal: Signal, box: Box) -> bool:
    """Whether a signal that fills a box has samples of a blank row that nobody has given."""
    common = intersect(representation.lattice.box(place), box)
    present = signal.present[slices(common, box)]
    return bool((unknown(representation, place, common) & present).any())


def blank_after(edit: Edit) -> NDArray[np.int32]:
    """`row_blank` of what is trained, after the edit; raises SignalError if that leaves gaps that are not allowed."""
    part, before = edit.lattice.select(edit.trained), edit.before[edit.trained]
    missing, blank, since = 0, np.zeros(len(part), dtype=np.int32), np.where(before < 0, 0, edit.old.row_blank[before])
    there = (before >= 0) & (part.samples_of_each(edit.old.extent) == part.samples_of_each(edit.extent))
    given = (part.samples_of_each(edit.box) == part.samples_of_each(edit.extent)) & (edit.signal.mask is None)
    for number in np.flatnonzero(~given & ~(there & (since == 0))):  # of the others nothing can be lacking
        owned = intersect(part.box(int(number)), edit.extent)
        lacking = _lacking(edit, owned, before[number] >= 0)
        missing += lacking
        if since[number]:
            blank[number] = since[number] if _still_blank(edit, int(before[number]), owned) else 0
        elif lacking:
            entry = len(edit.old.history) + 1
            blank[number] = entry if before[number] < 0 else -entry
    if missing and not edit.allow_gap:
        absent = f"{missing} samples to fit are neither in the signal nor in the file"
        raise SignalError(f"{absent}; give a signal that covers whole partitions, or allow_gap")
    return blank


def _lacking(edit: Edit, owned: Box, there: bool) -> int:
    """How many samples of a box, of a partition that the file has or not, neither the file nor the signal has."""
    lacking = np.ones(box_shape(owned), dtype=bool)
    held, common = intersect(edit.old.extent, owned), intersect(edit.box, owned)
    if there and not is_empty(held):
        lacking[slices(held, owned)] = False
    if not is_empty(common):
        lacking[slices(common, owned)] &= ~edit.signal.present[slices(common, edit.box)]
    return int(lacking.sum())


def around(edit: Edit, part: Lattice) -> Box:
    """What the windows of partitions see."""
    ends = replace(part, ids=np.stack([part.ids.min(axis=0), part.ids.max(axis=0)]))
    windows = ends.windows(edit.old.coordinates.windows_in(edit.extent))
    return intersect(tuple((int(window.min()), int(window.max()) + 1) for window in windows), edit.extent)


def targets(edit: Edit, part: Lattice, device: torch.device) -> PositionedSignal:
    """What the partitions of `part` learn: the signal where it lies, else what the old representation decodes to;
    samples that neither has are blank."""
    box = around(edit, part)
    check_fits(5 * box_size(box) * edit.signal.channels, f"what is to be learnt, {format_box(box)},")
    values = np.full((*box_shape(box), edit.signal.channels), edit.old.signal.blank, dtype=np.float32)
    known = np.zeros(box_shape(box), dtype=bool)
    common = intersect(edit.old.extent, box)
    if not is_empty(common):
        decoded = decode(edit.old, common, device=device)
        values[slices(common, box)], known[slices(common, box)] = decoded.values, decoded.present
    common = intersect(edit.box, box)
    if not is_empty(common):
        given, samples = edit.signal.present[slices(common, edit.box)], edit.signal.values[slices(common, edit.box)]
        values[slices(common, box)][given] = samples[given]
        known[slices(common, box)] |= given
    for place in np.intersect1d(edit.lattice.meeting(box), edit.trained, assume_unique=True):
        own = intersect(intersect(edit.lattice.box(int(place)), edit.extent), box)
        known[slices(own, box)] = True
    signal = replace(edit.signal, values=values, mask=None if known.all() else known)
    return PositionedSignal(signal, box, edit.extent)


def _still_blank(edit: Edit, before: int, owned: Box) -> bool:
    """Whether a blank row has samples that the signal does not bring either."""
    left, common = unknown(edit.old, before, owned), intersect(edit.box, owned)
    if not is_empty(common):
        left[slices(common, owned)] &= ~edit.signal.present[slices(common, edit.box)]
    return bool(left.any())
