"""The edits that fit: new partitions beside the old ones (`extend`), new content for old ones (`replace`).

What is not fitted stays as it is, to the bit. With the shared network frozen its contribution to each depth is a
constant of each sample, so only rows are trained: new ones, and those of partial tiles that gain samples.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.decode import decode
from lgsirens.device import resolve_device
from lgsirens.errors import ConfigError, SignalError
from lgsirens.fileformat import content_hash
from lgsirens.fit import Checkpoint, FitState, StopRule, fit
from lgsirens.lattice import LONGEST_FRAME, Lattice, tiles_meeting
from lgsirens.memory import DEFAULT_LIMIT, as_bytes, training_samples
from lgsirens.metrics import psnr
from lgsirens.model import SirenPerPartition, build_model
from lgsirens.plan import EncodeConfig
from lgsirens.region import Box, bounding_box, box_shape, box_size, contains, format_box, intersect, is_empty, slices
from lgsirens.representation import GatheredRows, MemoryRows, Representation, history_entry
from lgsirens.runlog import Progress
from lgsirens.sampling import AllSamples, FrozenTerms, Placed, RandomSamples, Samples
from lgsirens.schema import to_plain
from lgsirens.signal import KINDS, Signal, check_signal

FINETUNE = ("none", "shared", "all")

_INHERITED = ("steps", "sample_frac", "seed")
_LARGEST_POSITION = 1 << 31
# So far from a frame's centre, in samples, neighbours share a float32 coordinate.
_FARTHEST = 1 << 23


@dataclass(frozen=True)
class FitOptions:
    """How an edit fits; fraction and seed are those of the encoding when None.

    Attributes:
        steps: optimiser steps; default: those of the encoding, and twice as many where rows learn alone (a step then
            costs a fraction, and new rows have only the features of old ones to build on).
        target_psnr: stop earlier, at this PSNR in dB of what is fitted.
        lr: constant learning rate of Adam; None: warm-up and cosine decay.
        sample_frac: fraction of the samples that a step draws.
        seed: of the initial weights of new rows.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        max_memory: bytes that the activations of one block may take, and as many what the shared network contributes.
        checkpoint: file that keeps the state of the run; delete it once the result is saved.
        resume: go on from the checkpoint if it is there.
        progress: show progress on standard error.
    """

    steps: int | None = None
    target_psnr: float | None = None
    lr: float | None = None
    sample_frac: float | None = None
    seed: int | None = None
    device: str | torch.device = "auto"
    max_memory: int | str = DEFAULT_LIMIT
    checkpoint: str | os.PathLike[str] | None = None
    resume: bool = False
    progress: bool = False

    @classmethod
    def of(cls, options: dict[str, Any]) -> "FitOptions":
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"option {name} is not known; known are {', '.join(known)}")
        return cls(**options)

    def config(self, representation: Representation, rows_alone: bool) -> EncodeConfig:
        """The options of the run, checked."""
        settings = {name: representation.config[name] for name in _INHERITED if name in representation.config}
        if rows_alone and "steps" in settings:
            settings["steps"] *= 2
        given = {name: getattr(self, name) for name in (*_INHERITED, "target_psnr", "lr")}
        settings |= {name: value for name, value in given.items() if value is not None}
        return EncodeConfig.from_options(settings)


@dataclass(frozen=True, eq=False)
class _Edit:
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
        offset: position of the signal's first sample; default: the start of the extent.
        finetune: what else may learn: "none"; "shared", the shared network; "all", the old rows as well. The last
            two train old and new together and give the result a new origin.
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
    signal, box = _placed(representation, signal, offset)
    extent = bounding_box([representation.extent, box])
    if not allow_gap:
        _check_no_gap(representation.extent, box, extent)
    old = representation.lattice
    ids = np.unique(np.concatenate([old.ids, tiles_meeting(box, old.tile)]), axis=0)
    lattice = Lattice(old.tile, old.halo, np.ascontiguousarray(ids, dtype=np.int32))
    before = old.find(lattice.ids)
    gains = lattice.samples_of_each(extent) > lattice.samples_of_each(representation.extent)
    fitted = np.flatnonzero((before < 0) | gains)
    if not len(fitted):
        return representation
    _check_coordinates(representation, extent)
    window = bounding_box([representation.window, box])
    return _fit(
        _Edit("extend", representation, signal, box, lattice, before, fitted, extent, window, finetune, allow_gap),
        FitOptions.of(options),
    )


def replace(
    representation: Representation, signal: Signal, offset: Sequence[int] | None = None, **options: Any
) -> Representation:
    """New content for a region: only the partitions that it meets are fitted anew, the rest stays to the bit.

    Args:
        signal: the new content.
        offset: position of its first sample; default: the start of the extent.
        options: the fields of `FitOptions`.

    Raises:
        SignalError: as for `extend`, or part of the region is not encoded.
        ConfigError: an option out of range.
    """
    signal, box = _placed(representation, signal, offset)
    lattice, extent = representation.lattice, representation.extent
    if not contains(extent, box):
        raise SignalError(
            f"the signal lies at {format_box(box)}, the file holds {format_box(extent)}; extend adds new positions"
        )
    if lattice.samples_within(box) < box_size(box):
        raise SignalError(f"part of {format_box(box)} has no partition to replace; extend adds partitions")
    before, window = np.arange(len(lattice)), representation.window
    edit = _Edit("replace", representation, signal, box, lattice, before, lattice.meeting(box), extent, window)
    return _fit(edit, FitOptions.of(options))


def _placed(representation: Representation, signal: Signal, offset: Sequence[int] | None) -> tuple[Signal, Box]:
    """The signal in the representation's value range, and the box where it lies."""
    known = representation.signal
    check_signal(signal)
    for name, given, own in (
        ("kind", signal.kind, known.kind),
        ("number of channels", signal.channels, known.channels),
        ("sample type", signal.dtype, known.dtype),
    ):
        if given != own:
            raise SignalError(f"the signal's {name} is {given}, the file's {own}; give a signal like the file's")
    if None not in (signal.sampling_rate, known.rate) and signal.sampling_rate != known.rate:
        raise SignalError(f"the signal has {signal.sampling_rate} samples/s, the file {known.rate}; resample it first")
    lowest, highest = known.value_range
    if not KINDS[known.kind].symmetric and signal.value_range != known.value_range:
        given = "{:g} to {:g}".format(*signal.value_range)
        raise SignalError(f"the signal's value range is {given}, the file's {lowest:g} to {highest:g}; use the file's")
    if signal.values.min() < lowest or signal.values.max() > highest:
        raise SignalError(
            f"the signal has values from {signal.values.min():g} to {signal.values.max():g}, the file holds {lowest:g} "
            f"to {highest:g}; scale it, or encode the first part with a larger --value_range"
        )
    offset = [start for start, _ in representation.extent] if offset is None else offset
    if not isinstance(offset, list | tuple) or not all(type(start) is int for start in offset):
        raise SignalError(f"offset {offset!r}: give whole numbers, one per dimension, such as 0,-128")
    if len(offset) != len(signal.shape):
        raise SignalError(f"offset has {len(offset)} numbers, the signal {len(signal.shape)} dimensions; give as many")
    box = tuple((start, start + size) for start, size in zip(offset, signal.shape, strict=True))
    if any(low < -_LARGEST_POSITION or high > _LARGEST_POSITION for low, high in box):
        raise SignalError(f"the signal lies at {format_box(box)}; positions must stay within {_LARGEST_POSITION}")
    return with_fields(signal, value_range=known.value_range), box


def _check_no_gap(extent: Box, box: Box, whole: Box) -> None:
    """Raise SignalError unless the extent and the signal's box together are a box."""
    where = f"the signal lies at {format_box(box)}, the file holds {format_box(extent)}"
    if any(start > stop or low > high for (start, high), (low, stop) in zip(box, extent, strict=True)):
        raise SignalError(f"{where}: that leaves a gap; give an offset that joins them, or --allow_gap")
    common = intersect(extent, box)
    if box_size(extent) + box_size(box) - (0 if is_empty(common) else box_size(common)) < box_size(whole):
        raise SignalError(f"{where}: sizes and offset disagree, together they fill no box; mend them, or --allow_gap")


def _check_coordinates(representation: Representation, extent: Box) -> None:
    frame = representation.frame
    for size, (low, high) in zip(frame.size, extent, strict=True):
        centre = min(size, LONGEST_FRAME) / 2
        if frame.local_scale is None and max(high - centre, centre - low) > _FARTHEST:
            raise ConfigError(
                f"float32 cannot tell samples apart {_FARTHEST} samples from the middle of the first signal; "
                "encode the first part with --local_scale"
            )


def _fit(edit: _Edit, options: FitOptions) -> Representation:
    config = options.config(edit.old, rows_alone=edit.finetune == "none")
    where, limit = resolve_device(options.device), as_bytes(options.max_memory)
    part = edit.lattice.select(edit.trained)
    placed = _targets(edit, part, where)
    model = _model(edit, config.seed, where)
    generator = torch.Generator(where).manual_seed(config.seed)
    per_block = training_samples(model.config, where.type != "cpu", limit)
    samples: Samples
    if config.sample_frac is None:
        samples = AllSamples(placed, part, edit.old.frame, per_block, where)
    else:
        samples = RandomSamples(placed, part, edit.old.frame, per_block, where, config.sample_frac, generator)
    still = None
    if edit.finetune == "none":
        samples = FrozenTerms(samples, model.shared_terms, limit)
    elif edit.finetune == "shared":
        still = torch.from_numpy(~np.isin(edit.trained, edit.fitted)).to(where)
    keeper = None
    if options.checkpoint is not None:
        described = [edit.action, edit.finetune, edit.box, to_plain(config), per_block, where.type]
        keeper = Checkpoint(Path(options.checkpoint), _run_key(edit, described), options.resume)
    rule, peak = StopRule(config.steps, config.target_psnr), KINDS[edit.signal.kind].psnr_peak
    with Progress(edit.action, "step", quiet=not options.progress) as bar:
        state = fit(model, samples, rule, config.lr, peak, generator, keeper, bar, still=still)
    return _assembled(edit, model, state, where)


def _targets(edit: _Edit, part: Lattice, device: torch.device) -> Placed:
    """What the partitions of `part` learn: the signal where it lies, else what the old representation decodes to."""
    ranges = tuple((int(window.min()), int(window.max()) + 1) for window in part.windows(edit.extent))
    box = intersect(ranges, edit.extent)
    values = np.full((*box_shape(box), edit.signal.channels), edit.old.signal.blank, dtype=np.float32)
    known = np.zeros(box_shape(box), dtype=bool)
    common = intersect(edit.old.extent, box)
    if not is_empty(common):
        decoded = decode(edit.old, common, device=device)
        values[slices(common, box)], known[slices(common, box)] = decoded.values, decoded.present
    common = intersect(edit.box, box)
    values[slices(common, box)] = edit.signal.values[slices(common, edit.box)]
    known[slices(common, box)] = True
    unknown = 0
    for place in range(len(part)):
        own = slices(intersect(part.box(place), edit.extent), box)
        unknown += int(known[own].size - known[own].sum())
        known[own] = True
    if unknown and not edit.allow_gap:
        raise SignalError(
            f"{unknown} samples of the partitions to fit are neither in the signal nor in the file; give a signal that "
            "covers whole partitions, or --allow_gap"
        )
    return Placed(with_fields(edit.signal, values=values, mask=None if known.all() else known), box, edit.extent)


def _model(edit: _Edit, seed: int, device: torch.device) -> SirenPerPartition:
    """The network to train: new rows as SIREN begins them, the others as they are."""
    model = build_model(edit.old.model, len(edit.trained), torch.Generator().manual_seed(seed))
    before = edit.before[edit.trained]
    with torch.no_grad():
        model.local[torch.from_numpy(before >= 0)] = edit.old.rows.read(before[before >= 0])
        for name, value in edit.old.shared.items():
            model.shared[name].copy_(value)
    model.shared.requires_grad_(edit.finetune != "none")
    return model.to(device)


def _run_key(edit: _Edit, described: list[Any]) -> str:
    """Hash of everything that the result depends on, but the number of threads."""
    described = [*described, content_hash(edit.old), edit.old.extent, edit.signal.dtype]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(memoryview(edit.signal.values.tobytes()))
    return digest.hexdigest()


def _assembled(edit: _Edit, model: SirenPerPartition, state: FitState, device: torch.device) -> Representation:
    """The representation after an edit, with its line of history."""
    old, moved = edit.old, edit.moved
    learnt = model.local.detach().cpu()[torch.from_numpy(np.searchsorted(edit.trained, moved))]
    owners, places = np.zeros(len(edit.lattice), dtype=np.int64), edit.before.copy()
    owners[moved], places[moved] = 1, np.arange(len(moved))
    new = with_fields(
        old,
        lattice=edit.lattice,
        rows=GatheredRows((old.rows, MemoryRows(learnt)), owners, places),
        extent=edit.extent,
        window=edit.window,
        shared={name: value.detach().cpu() for name, value in model.shared.items()},
    )
    refitted = edit.fitted[edit.before[edit.fitted] >= 0]
    facts: dict[str, Any] = {
        "added": len(edit.fitted) - len(refitted),
        "refitted": edit.lattice.ids[refitted].tolist(),
        "psnr": _finite(_fitted_psnr(edit, new, device)),
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "stopped": state.stopped,
    }
    if edit.finetune != "none":
        facts |= {"finetune": edit.finetune, "moved": _movement(edit, new, device)}
    entry = history_entry(edit.action, edit.window, len(edit.lattice), **facts)
    new = with_fields(new, history=(*old.history, entry))
    return new if edit.finetune == "none" else with_fields(new, origin=content_hash(new))


def _fitted_psnr(edit: _Edit, new: Representation, device: torch.device) -> float:
    """PSNR in dB of the signal where partitions were fitted to it."""
    where = np.zeros(edit.signal.shape, dtype=bool)
    for place in edit.fitted:
        own = intersect(edit.lattice.box(place), edit.box)
        if not is_empty(own):
            where[slices(own, edit.box)] = True
    return psnr(edit.signal, decode(new, edit.box, device=device), where) if where.any() else math.inf


def _movement(edit: _Edit, new: Representation, device: torch.device) -> dict[str, Any]:
    """How far the old region moved: PSNR in dB against what it was, and the largest change in its own units."""
    was, now = (decode(inr, edit.old.extent, device=device) for inr in (edit.old, new))
    change = np.abs(now.values - was.values)[was.present]
    return {"psnr": _finite(psnr(was, now, was.present)), "largest": float(change.max())}


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
