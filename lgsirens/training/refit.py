"""Fitting some partitions of a representation: what an edit changes, what it learns from, and what comes out.

What is not fitted stays as it is, to the bit. With the shared network frozen its contribution to each depth is a
constant of each sample, so only rows are trained.
"""

import os
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError
from lgsirens.grid.box import box_size, boxes_of, intersect, is_empty, slices
from lgsirens.grid.lattice import Lattice
from lgsirens.monitoring.log import FitState
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.representation.decode import decode
from lgsirens.representation.file import identified
from lgsirens.representation.measure import measure
from lgsirens.representation.metrics import psnr, psnr_of_sum, recorded
from lgsirens.representation.representation import Representation, history_entry
from lgsirens.representation.rows import CODECS, GatheredRows, MemoryRows, Rows, gather
from lgsirens.system.hardware import memory_limit, resolve_device
from lgsirens.system.schema import declared, option, to_plain
from lgsirens.training.change import Edit, around, blank_after, targets
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig, Plan
from lgsirens.training.groups import GroupFit, all_at_once, check_groups, hindrance_of_draws, whole_bytes
from lgsirens.training.initial import initial_model
from lgsirens.training.result import Fitted
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
        max_memory: bytes that the edit may take, beside PyTorch itself, by default half of this machine's memory. What
            needs more is fitted in groups of partitions, where rows learn alone.
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


def fit_edit(edit: Edit, options: FitOptions) -> Representation:
    """The representation after an edit, with its line of history. Where rows learn alone, what needs more than
    `max_memory` is fitted in groups of partitions, one after the other.

    Raises:
        ConfigError: an option out of range, or `max_memory` is too little.
        SignalError: samples to fit are neither in the signal nor in the file.
        RunError, FileFormatError, KeyboardInterrupt: as `encode`.
    """
    old, alone = edit.old, edit.finetune == "none"
    config, limit = options.config(old, rows_alone=alone), memory_limit(options.max_memory)
    planned = Plan(old.model, edit.lattice.select(edit.trained), old.coordinates, edit.extent, config, (), old)
    blank = blank_after(edit)
    hindrance = hindrance_of_draws(planned)
    if not alone:
        hindrance = all_at_once(f"finetune {edit.finetune} learns", "finetune none")
    grouped = _whole_bytes(edit, planned) > limit - limit // BLOCK_PART
    if grouped and (hindrance is None or options.max_memory is not None):
        check_groups(planned, edit.signal.channels, limit, hindrance)
        fitted = _in_groups(edit, planned, limit // BLOCK_PART, options)
        new = _joined(edit, fitted.rows, fitted.shared, blank)
    else:
        new, fitted = _at_once(edit, planned, limit // BLOCK_PART, options, blank)
    return _recorded(edit, new, fitted, blank, resolve_device(options.device))


def _in_groups(edit: Edit, planned: Plan, limit: int, options: FitOptions) -> Fitted:
    """What a fit of group after group finds."""
    device, given = resolve_device(options.device), PositionedSignal(edit.signal, edit.box, edit.extent)
    how: Any = {"action": edit.action, "fit_rows": partial(_fit_alone, edit, device, limit)}
    groups = GroupFit(given, planned, device, limit, **how, codec=CODECS[edit.old.codec])
    keeper = Checkpoint.at(options.checkpoint, groups.key(*_key(edit)), options.resume)
    return groups.fit(keeper, options.progress)


def _at_once(
    edit: Edit, planned: Plan, limit: int, options: FitOptions, blank: NDArray[np.int32]
) -> tuple[Representation, Fitted]:
    """The representation after a fit of all partitions together, and what was found."""
    device = resolve_device(options.device)
    run, masks = _prepared(edit, planned, device, limit), _masks(edit, device)
    keeper = Checkpoint.at(options.checkpoint, run.key(edit.signal, *_key(edit)), options.resume)
    state = run.fit(edit.action, edit.signal, keeper, options.progress, **masks)
    rows = MemoryRows(_rows(edit, planned, run), CODECS[edit.old.codec])
    new = _joined(edit, rows, {name: value.detach().cpu() for name, value in run.model.shared.items()}, blank)
    del run
    found = measure(new, edit.signal, edit.box, edit.trained, device, planned.config.kernel)
    return new, Fitted(rows, new.shared, *found, state)


def _key(edit: Edit) -> tuple[Any, ...]:
    """What else the result depends on."""
    return edit.action, edit.finetune, edit.box, identified(edit.old).lineage, edit.old.extent


def _whole_bytes(edit: Edit, planned: Plan) -> int:
    """What a fit of all partitions at once keeps, beside what a block of a step takes."""
    each = 4 * edit.signal.channels + 1  # of what is to be learnt, and of what is decoded for it
    return whole_bytes(edit.signal, planned) + 2 * each * box_size(around(edit, planned.lattice))


def _prepared(edit: Edit, some: Plan, device: torch.device, limit: int) -> Run:
    """The run that fits partitions of the lattice."""
    part = some.lattice
    centres = _centres(edit, part).to(device) if some.coordinates.local_scale is None else None
    windows = Windows(targets(edit, part, device), part, some.coordinates, device, centres)
    run = Run(_model(edit, part, some.config.seed), windows, some.config, limit)
    if centres is not None:
        _shift(run.model, centres)
    if edit.finetune == "none":
        run.samples = CachedSharedFeatures(run.samples, run.model.shared_features, limit)
    return run


def _masks(edit: Edit, device: torch.device) -> dict[str, Tensor | None]:
    """Of what is trained, which rows do not change and which count."""
    if edit.finetune == "none":
        return {}
    fitted = torch.from_numpy(np.isin(edit.trained, edit.fitted)).to(device)
    return {"frozen_rows": ~fitted if edit.finetune == "shared" else None, "metric_rows": fitted}


def _fit_alone(
    edit: Edit, device: torch.device, limit: int, some: Plan, shared: dict[str, Tensor]
) -> tuple[Tensor, FitState]:
    """Rows `[n, K]` of a group of partitions."""
    run = _prepared(edit, some, device, limit)
    state = run.fit(edit.action, edit.signal, None, False)
    return _rows(edit, some, run), state


def _model(edit: Edit, part: Lattice, seed: int) -> SirenPerPartition:
    """The network to train: new rows as SIREN begins them, the others as they are."""
    model = initial_model(edit.old.model, part, edit.old.coordinates.kind, seed)
    before = edit.old.lattice.find(part.ids)
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


def _rows(edit: Edit, some: Plan, run: Run) -> Tensor:
    """The rows `[n, K]` of a run, on the CPU."""
    if some.coordinates.local_scale is None:
        _shift(run.model, -_centres(edit, some.lattice).to(run.device))
    return CODECS[edit.old.codec].rounded(run.model.local.detach().cpu())


def _joined(edit: Edit, rows: Rows, shared: dict[str, Tensor], blank: NDArray[np.int32]) -> Representation:
    """The representation after an edit, without its line of history and its overview.

    Args:
        rows: of what was trained, as `blank`.
    """
    old, moved = edit.old, edit.moved
    owners, places = np.zeros(len(edit.lattice), dtype=np.int64), edit.before.copy()
    owners[moved], places[moved] = 1, np.arange(len(moved))
    edits = np.full(len(moved), len(old.history), dtype=np.int32)
    learnt = np.searchsorted(edit.trained, moved)
    rows = rows if len(rows) == len(learnt) else rows.select(learnt)
    return replace(
        old,
        ids=edit.lattice.ids,
        rows=GatheredRows((old.rows, rows), owners, places),
        row_edit=gather([old.row_edit, edits], owners, places),
        row_blank=gather([old.row_blank, blank[learnt]], owners, places),
        overview=None,
        extent=edit.extent,
        window=edit.window,
        shared=shared,
    )


def _recorded(
    edit: Edit, new: Representation, fitted: Fitted, blank: NDArray[np.int32], device: torch.device
) -> Representation:
    """An edited representation with its line of history and its overview."""
    old, state = edit.old, fitted.state
    if old.overview is not None:
        overview = old.overview[edit.before]
        overview[edit.trained] = fitted.means
        new = replace(new, overview=overview)
    is_new = edit.before[edit.fitted] < 0
    facts: dict[str, Any] = {
        "added": int(is_new.sum()),
        "refitted": int((~is_new).sum()),
        "blank": int((blank != 0).sum()),
        **_quality(edit, fitted),
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


def _quality(edit: Edit, fitted: Fitted) -> dict[str, Any]:
    """PSNR in dB of the signal where partitions were fitted to it, if they met any of its samples."""
    lattice, mask = edit.lattice.select(edit.fitted), edit.signal.mask
    if mask is None:
        present = lattice.samples_within(edit.box)
    else:
        boxes = (intersect(lattice.box(place), edit.box) for place in range(len(lattice)))
        present = sum(int(mask[slices(own, edit.box)].sum()) for own in boxes if not is_empty(own))
    total = float(fitted.errors[np.searchsorted(edit.trained, edit.fitted)].sum())
    return (
        {"psnr": recorded(psnr_of_sum(edit.signal, total, present))} if present else {"psnr": None, "measured": False}
    )


def _movement(edit: Edit, new: Representation, device: torch.device) -> dict[str, Any]:
    """How far the old region moved: PSNR in dB against what it was, and the largest change in its own units."""
    was, now = (decode(inr, edit.old.extent, device=device) for inr in (edit.old, new))
    change = np.abs(np.asarray(now.values) - was.values)[was.present]
    return {"psnr": recorded(psnr(was, now, was.present)), "largest": float(change.max())}
