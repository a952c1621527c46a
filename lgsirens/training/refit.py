"""Fitting some partitions of a representation: what an edit changes, what it learns from, and what comes out.

What is not fitted stays as it is, to the bit. With the shared network frozen its contribution to each depth is a
constant of each sample, so only rows are trained.
"""

import math
import os
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, SignalError
from lgsirens.grid.box import Box, bounding_box, box_shape, box_size, boxes_of, format_box, intersect, is_empty, slices
from lgsirens.grid.lattice import Lattice, bounding_extent
from lgsirens.monitoring.log import FitState
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.representation.decode import decode, partition_means
from lgsirens.representation.file import identified
from lgsirens.representation.metrics import psnr, recorded
from lgsirens.representation.representation import Representation, history_entry
from lgsirens.representation.rows import CODECS, GatheredRows, MemoryRows, gather
from lgsirens.signal import Signal
from lgsirens.system.hardware import check_fits, memory_limit, resolve_device
from lgsirens.system.schema import declared, option, to_plain
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig
from lgsirens.training.initial import initial_model
from lgsirens.training.run import BLOCK_PART, Run
from lgsirens.training.samples import CachedSharedFeatures
from lgsirens.training.windows import PositionedSignal, Windows

_INHERITED = ("recipe", "steps", "sample_frac", "seed", "kernel")
_OF_ENCODING = declared(EncodeConfig)
_MOST_BOXES = 1024  # in an entry of the history


@dataclass(frozen=True)
class FitOptions:
    """How an edit fits. Where rows learn alone there are twice the steps of the encoding: a step then costs a fraction,
    and new rows have only the features of old ones to build on.

    Attributes:
        max_memory: bytes, by default half of this machine's memory; a block of a step may take a quarter of them, and
            as many what the shared network contributes.
        checkpoint: file that keeps the state of the run; delete it once the result is saved.
        resume: go on from the checkpoint if it is there.
        progress: show progress on standard error.
    """

    recipe: str | None = option(None, _OF_ENCODING["recipe"], shown="as encoded")
    steps: int | None = option(None, _OF_ENCODING["steps"], shown="twice as encoded; with finetune as encoded")
    seconds: float | None = option(None, _OF_ENCODING["seconds"])
    target_psnr: float | None = option(None, _OF_ENCODING["target_psnr"])
    lr: float | None = option(None, _OF_ENCODING["lr"], shown=_OF_ENCODING["lr"].shown)
    sample_frac: float | None = option(None, _OF_ENCODING["sample_frac"], shown="as encoded")
    seed: int | None = option(None, _OF_ENCODING["seed"], shown="as encoded")
    kernel: str | None = option(None, _OF_ENCODING["kernel"], shown="as encoded")
    device: str | torch.device = option("auto", help="auto, cpu or cuda")
    max_memory: int | str | None = None
    checkpoint: str | os.PathLike[str] | None = None
    resume: bool = option(False, help="go on from the checkpoint of a stopped run")
    progress: bool = False

    @classmethod
    def of(cls, options: dict[str, Any]) -> "FitOptions":
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"is not known; known are {', '.join(known)}", name)
        return cls(**options)

    def config(self, representation: Representation, rows_alone: bool) -> EncodeConfig:
        """The options of the run, checked."""
        settings = {name: representation.config[name] for name in _INHERITED if name in representation.config}
        if settings.get("steps") and representation.config.get("target_psnr") and representation.fit is not None:
            settings["steps"] = max(1, representation.fit.steps)  # those that the target took, not the most allowed
        given = {name: getattr(self, name) for name in (*_INHERITED, "seconds", "target_psnr", "lr")}
        settings |= {name: value for name, value in given.items() if value is not None}
        config = EncodeConfig.from_options(settings)
        steps = config.total_steps if rows_alone and self.steps is None else None
        return config if steps is None else replace(config, steps=2 * steps)


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


def fit_edit(edit: Edit, options: FitOptions) -> Representation:
    """The representation after an edit, with its line of history."""
    alone = edit.finetune == "none"
    config = options.config(edit.old, rows_alone=alone)
    device, limit = resolve_device(options.device), memory_limit(options.max_memory) // BLOCK_PART
    part, coordinates = edit.lattice.select(edit.trained), edit.old.coordinates
    positioned, blank = _targets(edit, part, device)
    centres = _centres(edit, part).to(device) if coordinates.local_scale is None else None
    run = Run(_model(edit, config.seed), Windows(positioned, part, coordinates, device, centres), config, limit)
    if centres is not None:
        _shift(run.model, centres)
    masks: dict[str, Tensor | None] = {}
    if alone:
        run.samples = CachedSharedFeatures(run.samples, run.model.shared_features, limit)
    else:
        fitted = torch.from_numpy(np.isin(edit.trained, edit.fitted)).to(device)
        masks = {"frozen_rows": ~fitted if edit.finetune == "shared" else None, "metric_rows": fitted}
    key = run.key(edit.signal, edit.action, edit.finetune, edit.box, identified(edit.old).lineage, edit.old.extent)
    keeper = Checkpoint.at(options.checkpoint, key, options.resume)
    state = run.fit(edit.action, edit.signal, keeper, options.progress, **masks)
    if centres is not None:
        _shift(run.model, -centres)
    return _assembled(edit, run.model, state, blank)


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


def _targets(edit: Edit, part: Lattice, device: torch.device) -> tuple[PositionedSignal, NDArray[np.int32]]:
    """What the partitions of `part` learn: the signal where it lies, else what the old representation decodes to; and
    their `row_blank`: samples that neither has are blank."""
    windows = part.windows(edit.old.coordinates.windows_in(edit.extent))
    ranges = tuple((int(window.min()), int(window.max()) + 1) for window in windows)
    box = intersect(ranges, edit.extent)
    check_fits(5 * box_size(box) * edit.signal.channels, f"what is to be learnt, {format_box(box)},")
    values = np.full((*box_shape(box), edit.signal.channels), edit.old.signal.blank, dtype=np.float32)
    known = np.zeros(box_shape(box), dtype=bool)
    common = intersect(edit.old.extent, box)
    if not is_empty(common):
        decoded = decode(edit.old, common, device=device)
        values[slices(common, box)], known[slices(common, box)] = decoded.values, decoded.present
    common = intersect(edit.box, box)
    if not is_empty(common):
        given = edit.signal.present[slices(common, edit.box)]
        values[slices(common, box)][given] = edit.signal.values[slices(common, edit.box)][given]
        known[slices(common, box)] |= given
    missing, blank = 0, np.zeros(len(part), dtype=np.int32)
    for place, before in enumerate(edit.before[edit.trained]):
        owned = intersect(part.box(place), edit.extent)
        own = slices(owned, box)
        lacking = int(known[own].size - known[own].sum())
        missing, known[own] = missing + lacking, True
        since = 0 if before < 0 else edit.old.row_blank[before]
        if since:
            blank[place] = since if _still_blank(edit, int(before), owned) else 0
        elif lacking:
            number = len(edit.old.history) + 1
            blank[place] = number if before < 0 else -number
    if missing and not edit.allow_gap:
        absent = f"{missing} samples to fit are neither in the signal nor in the file"
        raise SignalError(f"{absent}; give a signal that covers whole partitions, or allow_gap")
    signal = replace(edit.signal, values=values, mask=None if known.all() else known)
    return PositionedSignal(signal, box, edit.extent), blank


def _still_blank(edit: Edit, before: int, owned: Box) -> bool:
    """Whether a blank row has samples that the signal does not bring either."""
    left, common = unknown(edit.old, before, owned), intersect(edit.box, owned)
    if not is_empty(common):
        left[slices(common, owned)] &= ~edit.signal.present[slices(common, edit.box)]
    return bool(left.any())


def _model(edit: Edit, seed: int) -> SirenPerPartition:
    """The network to train: new rows as SIREN begins them, the others as they are."""
    part, before = edit.lattice.select(edit.trained), edit.before[edit.trained]
    model = initial_model(edit.old.model, part, edit.old.coordinates.kind, seed)
    with torch.no_grad():
        model.local[torch.from_numpy(before >= 0)] = edit.old.rows.read(before[before >= 0])
        for name, value in edit.old.shared.items():
            model.shared[name].copy_(value)
    model.shared.requires_grad_(edit.finetune != "none")
    return model


def _centres(edit: Edit, part: Lattice) -> Tensor:
    """Network coordinates `[P, D]` of the middles of partitions.

    Far from the first signal coordinates are large, and a small change of a first layer's weights turns its sines far:
    fitting is worse there by more than a decibel (docs/lab-notes.md). Counted from the partition's middle it is not,
    and W x + b = W (x - c) + (b + W c) is the same network.
    """
    middles = (part.ids.astype(np.float64) + 0.5) * part.tile - 0.5
    axes = [edit.old.coordinates.of_signal(axis, torch.from_numpy(middles[:, axis])) for axis in range(part.dimensions)]
    return torch.stack(axes, dim=1).float()


@torch.no_grad()
def _shift(model: SirenPerPartition, by: Tensor) -> None:
    """Rows `[P, K]` for coordinates from which `by` `[P, D]` is subtracted."""
    weight, bias = model.unpack(model.local)[:2]
    bias += weight @ by[..., None]


def _assembled(edit: Edit, model: SirenPerPartition, state: FitState, blank: NDArray[np.int32]) -> Representation:
    """The representation after an edit, with its line of history."""
    old, moved, codec, device = edit.old, edit.moved, CODECS[edit.old.codec], model.local.device
    learnt = np.searchsorted(edit.trained, moved)
    rows = MemoryRows(codec.rounded(model.local.detach().cpu()[torch.from_numpy(learnt)]), codec)
    owners, places = np.zeros(len(edit.lattice), dtype=np.int64), edit.before.copy()
    owners[moved], places[moved] = 1, np.arange(len(moved))
    edits = np.full(len(moved), len(old.history), dtype=np.int32)
    new = replace(
        old,
        ids=edit.lattice.ids,
        rows=GatheredRows((old.rows, rows), owners, places),
        row_edit=gather([old.row_edit, edits], owners, places),
        row_blank=gather([old.row_blank, blank[learnt]], owners, places),
        overview=None,
        extent=edit.extent,
        window=edit.window,
        shared={name: value.detach().cpu() for name, value in model.shared.items()},
    )
    changed = edit.lattice.select(edit.trained)  # where the shared network has moved, kept rows decode to other samples
    box = bounding_box([bounding_extent(changed, edit.extent), edit.box])
    decoded = decode(new, box, device=device)
    if old.overview is not None:
        overview = old.overview[edit.before]
        overview[edit.trained] = partition_means(decoded, box, changed)
        new = replace(new, overview=overview)
    is_new = edit.before[edit.fitted] < 0
    facts: dict[str, Any] = {
        "added": int(is_new.sum()),
        "refitted": int((~is_new).sum()),
        "blank": int((blank != 0).sum()),
        "psnr": recorded(_fitted_psnr(edit, decoded, box)),
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "stopped": state.stopped,
    }
    if (blank < 0).any():
        facts["held"] = to_plain(old.extent)
    given = [edit.box] if edit.signal.mask is None else boxes_of(edit.signal.mask, [start for start, _ in edit.box])
    if len(given) <= _MOST_BOXES:  # of a signal that is more torn nothing counts as given
        facts["given"] = to_plain(given)
    if edit.finetune != "none":
        facts |= {"finetune": edit.finetune, "moved": _movement(edit, new, device)}
    entry = history_entry(edit.action, edit.window, len(edit.lattice), **facts)
    new = replace(new, history=(*old.history, entry))
    return new if edit.finetune == "none" else identified(new)


def _fitted_psnr(edit: Edit, decoded: Signal, box: Box) -> float:
    """PSNR in dB of the signal where partitions were fitted to it, out of what `box` decodes to."""
    where = np.zeros(edit.signal.shape, dtype=bool)
    for place in edit.fitted:
        own = intersect(edit.lattice.box(place), edit.box)
        if not is_empty(own):
            where[slices(own, edit.box)] = True
    there = replace(decoded, values=decoded.values[slices(edit.box, box)], mask=None)
    return psnr(edit.signal, there, where) if where.any() else math.inf


def _movement(edit: Edit, new: Representation, device: torch.device) -> dict[str, Any]:
    """How far the old region moved: PSNR in dB against what it was, and the largest change in its own units."""
    was, now = (decode(inr, edit.old.extent, device=device) for inr in (edit.old, new))
    change = np.abs(np.asarray(now.values) - was.values)[was.present]
    return {"psnr": recorded(psnr(was, now, was.present)), "largest": float(change.max())}
