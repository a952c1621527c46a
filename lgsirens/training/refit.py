"""Fitting some partitions of a representation: what an edit changes, what it learns from, and what comes out.

What is not fitted stays as it is, to the bit. With the shared network frozen its contribution to each depth is a
constant of each sample, so only rows are trained.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, SignalError
from lgsirens.grid.box import Box, box_shape, box_size, contains, format_box, intersect, is_empty, slices
from lgsirens.grid.lattice import Lattice
from lgsirens.monitoring.log import FitState
from lgsirens.nn.memory import DEFAULT_LIMIT, training_samples
from lgsirens.nn.siren import SirenPerPartition, build_model
from lgsirens.representation.decode import decode
from lgsirens.representation.file import content_hash
from lgsirens.representation.metrics import psnr, recorded
from lgsirens.representation.representation import GatheredRows, MemoryRows, Representation, history_entry
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import Progress
from lgsirens.system.hardware import as_bytes, check_fits, resolve_device
from lgsirens.system.schema import declared, option, to_plain
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig
from lgsirens.training.loop import StopRule, fit
from lgsirens.training.samples import AllSamples, CachedSharedFeatures, Centred, Placed, RandomSamples, Samples

_INHERITED = ("steps", "sample_frac", "seed")
_OF_ENCODING = declared(EncodeConfig)


@dataclass(frozen=True)
class FitOptions:
    """How an edit fits. Where rows learn alone there are twice the steps of the encoding: a step then costs a fraction,
    and new rows have only the features of old ones to build on.

    Attributes:
        max_memory: bytes that the activations of one block may take, and as many what the shared network contributes.
        checkpoint: file that keeps the state of the run; delete it once the result is saved.
        resume: go on from the checkpoint if it is there.
        progress: show progress on standard error.
    """

    steps: int | None = option(None, _OF_ENCODING["steps"], shown="twice as encoded; with finetune as encoded")
    target_psnr: float | None = option(None, _OF_ENCODING["target_psnr"])
    lr: float | None = option(None, _OF_ENCODING["lr"], shown=_OF_ENCODING["lr"].shown)
    sample_frac: float | None = option(None, _OF_ENCODING["sample_frac"], shown="as encoded")
    seed: int | None = option(None, _OF_ENCODING["seed"], shown="as encoded")
    device: str | torch.device = option("auto", help="auto, cpu or cuda")
    max_memory: int | str = DEFAULT_LIMIT
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
        given = {name: getattr(self, name) for name in (*_INHERITED, "target_psnr", "lr")}
        settings |= {name: value for name, value in given.items() if value is not None}
        config = EncodeConfig.from_options(settings)
        return replace(config, steps=2 * config.steps) if rows_alone and self.steps is None else config


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
    config = options.config(edit.old, rows_alone=edit.finetune == "none")
    where, limit = resolve_device(options.device), as_bytes(options.max_memory)
    part = edit.lattice.select(edit.trained)
    placed, blank = _targets(edit, part, where)
    model = _model(edit, config.seed, where)
    generator = torch.Generator(where).manual_seed(config.seed)
    per_block = training_samples(model.config, where.type != "cpu", limit)
    samples: Samples
    if config.sample_frac is None:
        samples = AllSamples(placed, part, edit.old.frame, per_block, where)
    else:
        samples = RandomSamples(placed, part, edit.old.frame, per_block, where, config.sample_frac, generator)
    centres = _centres(edit, part).to(where) if edit.old.frame.local_scale is None else None
    if centres is not None:
        samples = Centred(samples, centres)
        _shift(model, centres)
    frozen_rows = metric_rows = None
    if edit.finetune == "none":
        samples = CachedSharedFeatures(samples, model.shared_features, limit)
    else:
        metric_rows = torch.from_numpy(np.isin(edit.trained, edit.fitted)).to(where)
        frozen_rows = ~metric_rows if edit.finetune == "shared" else None
    keeper = None
    if options.checkpoint is not None:
        if not isinstance(options.checkpoint, str | os.PathLike):
            raise ConfigError(f"checkpoint {options.checkpoint!r} is no path; name a file, or leave it out")
        described = [edit.action, edit.finetune, edit.box, to_plain(config), per_block, where.type]
        keeper = Checkpoint(Path(options.checkpoint), _run_key(edit, described), options.resume)
    rule, peak = StopRule(config.steps, config.target_psnr), KINDS[edit.signal.kind].psnr_peak
    with Progress(edit.action, "step", quiet=not options.progress) as bar:
        state = fit(model, samples, rule, config.lr, peak, generator, keeper, bar, frozen_rows, metric_rows)
    if centres is not None:
        _shift(model, -centres)
    return _assembled(edit, model, state, blank, where)


def left_blank(representation: Representation) -> set[tuple[int, ...]]:
    """Ids of the partitions whose last fit left samples blank."""
    names: set[tuple[int, ...]] = set()
    for entry in representation.history:
        names -= {tuple(name) for key in ("added", "refitted") for name in entry.get(key, ())}
        names |= {tuple(name) for name in entry.get("blank", ())}
    return names


def _targets(edit: Edit, part: Lattice, device: torch.device) -> tuple[Placed, list[list[int]]]:
    """What the partitions of `part` learn: the signal where it lies, else what the old representation decodes to; and
    the ids of those that hold samples which neither has: these are blank."""
    ranges = tuple((int(window.min()), int(window.max()) + 1) for window in part.windows(edit.extent))
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
    unknown, blank, before = 0, [], left_blank(edit.old)
    for place, name in enumerate(part.ids.tolist()):
        owned = intersect(part.box(place), edit.extent)
        own = slices(owned, box)
        lacking = int(known[own].size - known[own].sum())
        # The old file does not tell which samples were blank: where gaps are allowed, what is not given may still be.
        if lacking or (edit.allow_gap and tuple(name) in before and not _gives(edit, owned)):
            blank.append(name)
        unknown, known[own] = unknown + lacking, True
    if unknown and not edit.allow_gap:
        raise SignalError(
            f"{unknown} samples of the partitions to fit are neither in the signal nor in the file; give a signal that "
            "covers whole partitions, or --allow_gap"
        )
    placed = Placed(replace(edit.signal, values=values, mask=None if known.all() else known), box, edit.extent)
    return placed, blank


def _gives(edit: Edit, box: Box) -> bool:
    """Whether the signal has every sample of a box."""
    return contains(edit.box, box) and bool(edit.signal.present[slices(box, edit.box)].all())


def _model(edit: Edit, seed: int, device: torch.device) -> SirenPerPartition:
    """The network to train: new rows as SIREN begins them, the others as they are."""
    model = build_model(edit.old.model, len(edit.trained), torch.Generator().manual_seed(seed))
    before = edit.before[edit.trained]
    with torch.no_grad():
        model.local[torch.from_numpy(before >= 0)] = edit.old.rows.read(before[before >= 0])
        for name, value in edit.old.shared.items():
            model.shared[name].copy_(value)
    model.shared.requires_grad_(edit.finetune != "none")
    return model.to(device)


def _centres(edit: Edit, part: Lattice) -> Tensor:
    """Network coordinates `[P, D]` of the middles of partitions.

    Far from the first signal coordinates are large, and a small change of a first layer's weights turns its sines far:
    fitting is worse there by more than a decibel (docs/lab-notes.md). Counted from the partition's middle it is not,
    and W x + b = W (x - c) + (b + W c) is the same network.
    """
    middles = (part.ids.astype(np.float64) + 0.5) * part.tile - 0.5
    axes = [edit.old.frame.coordinate(axis, torch.from_numpy(middles[:, axis])) for axis in range(part.dimensions)]
    return torch.stack(axes, dim=1).float()


@torch.no_grad()
def _shift(model: SirenPerPartition, by: Tensor) -> None:
    """Rows `[P, K]` for coordinates from which `by` `[P, D]` is subtracted."""
    weight, bias = model.unpack(model.local)[:2]
    bias += weight @ by[..., None]


def _run_key(edit: Edit, described: list[Any]) -> str:
    """Hash of everything that the result depends on, but the number of threads."""
    described = [*described, content_hash(edit.old), edit.old.extent, edit.signal.dtype]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(memoryview(edit.signal.values.tobytes()))
    digest.update(memoryview(np.ascontiguousarray(edit.signal.present).tobytes()))
    return digest.hexdigest()


def _assembled(
    edit: Edit, model: SirenPerPartition, state: FitState, blank: list[list[int]], device: torch.device
) -> Representation:
    """The representation after an edit, with its line of history."""
    old, moved = edit.old, edit.moved
    learnt = model.local.detach().cpu()[torch.from_numpy(np.searchsorted(edit.trained, moved))]
    owners, places = np.zeros(len(edit.lattice), dtype=np.int64), edit.before.copy()
    owners[moved], places[moved] = 1, np.arange(len(moved))
    new = replace(
        old,
        lattice=edit.lattice,
        rows=GatheredRows((old.rows, MemoryRows(learnt)), owners, places),
        extent=edit.extent,
        window=edit.window,
        shared={name: value.detach().cpu() for name, value in model.shared.items()},
    )
    is_new = edit.before[edit.fitted] < 0
    facts: dict[str, Any] = {
        "added": edit.lattice.ids[edit.fitted[is_new]].tolist(),
        "refitted": edit.lattice.ids[edit.fitted[~is_new]].tolist(),
        "blank": blank,
        "psnr": recorded(_fitted_psnr(edit, new, device)),
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "stopped": state.stopped,
    }
    if edit.finetune != "none":
        facts |= {"finetune": edit.finetune, "moved": _movement(edit, new, device)}
    entry = history_entry(edit.action, edit.window, len(edit.lattice), **facts)
    new = replace(new, history=(*old.history, entry))
    return new if edit.finetune == "none" else replace(new, origin=content_hash(new))


def _fitted_psnr(edit: Edit, new: Representation, device: torch.device) -> float:
    """PSNR in dB of the signal where partitions were fitted to it."""
    where = np.zeros(edit.signal.shape, dtype=bool)
    for place in edit.fitted:
        own = intersect(edit.lattice.box(place), edit.box)
        if not is_empty(own):
            where[slices(own, edit.box)] = True
    return psnr(edit.signal, decode(new, edit.box, device=device), where) if where.any() else math.inf


def _movement(edit: Edit, new: Representation, device: torch.device) -> dict[str, Any]:
    """How far the old region moved: PSNR in dB against what it was, and the largest change in its own units."""
    was, now = (decode(inr, edit.old.extent, device=device) for inr in (edit.old, new))
    change = np.abs(now.values - was.values)[was.present]
    return {"psnr": recorded(psnr(was, now, was.present)), "largest": float(change.max())}
