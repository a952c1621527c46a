"""Signal -> representation: the run itself. What its options mean is in `config.py`."""

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from lgsirens.errors import ConfigError
from lgsirens.monitoring.log import FitState, RunLog, check_folder
from lgsirens.monitoring.watcher import Watcher
from lgsirens.nn.kernels.kernel import choose_kernel
from lgsirens.representation.file import identified
from lgsirens.representation.measure import measure
from lgsirens.representation.metrics import psnr_of_sum, recorded, slabs
from lgsirens.representation.report import describe
from lgsirens.representation.representation import FitRecord, Representation
from lgsirens.representation.rows import CODECS, MemoryRows
from lgsirens.signal import KINDS, UNSIGNED_TYPES, Signal, check_signal, integer_limits
from lgsirens.system.console import note
from lgsirens.system.hardware import memory_limit, resolve_device
from lgsirens.system.pytorch import as_it_starts
from lgsirens.system.schema import canonical_json, to_plain
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig, Plan, plan
from lgsirens.training.groups import GroupFit, check_groups, hindrance, learning, whole_bytes
from lgsirens.training.loop import accumulate_gradients
from lgsirens.training.optimizers import build_optimizer
from lgsirens.training.ranks import ALONE, Ranks
from lgsirens.training.result import Fitted, as_representation
from lgsirens.training.run import BLOCK_PART, CACHE_PART, Run, prepare
from lgsirens.training.windows import PositionedSignal


@as_it_starts()
def encode(
    signal: Signal | Any,
    config: EncodeConfig | None = None,
    *,
    device: str | torch.device = "auto",
    max_memory: int | str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    log: RunLog | None = None,
    shared_from: Representation | None = None,
    source: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
    **options: Any,
) -> Representation:
    """Fit a representation to a signal.

    Args:
        signal: from `read` or `Signal.from_array`, or an array as that takes it, of Zarr, dask, HDF5 or a memory map
            too, which is never held whole where it is fitted in groups.
        config: the options; keyword arguments named as the fields of `EncodeConfig` override them.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        max_memory: bytes that the whole run may take, beside PyTorch itself; None: half of this machine's memory. What
            needs more is fitted in groups of partitions, which are read, fitted and written one after the other
            (`groups.py`).
        checkpoint: file that keeps the state of the run, written about every 30 seconds; delete it once the result is
            saved.
        resume: go on from the checkpoint if it is there.
        progress: show a progress bar (off a terminal: a line every ten seconds) on standard error.
        log: keep a log of the run; it changes nothing of the result.
        shared_from: its shared network, with tile coordinates, stays as it is and rows alone learn, so that the result
            merges with it (`move`). Networks, tiles, halo and what they see are its own; so is the value range of a
            sound of its sample type.
        source: how the signal was read, such as the frames of a film; kept in the config of the result.
        ranks: who fit it together (`ranks.ranks_of_environment`). Each rank calls this with the same arguments, reads
            the samples of its partitions, and returns the whole.

    Returns:
        The representation; `fit.stopped` is "interrupted" if Ctrl-C ended the fit. Where it was fitted in groups, its
        rows stay in the file of the checkpoint until it is saved.

    Raises:
        ConfigError: options that cannot be, or that do not fit the signal or the network to share.
        RunError: the fit diverged.
        FileFormatError: a checkpoint that is damaged or belongs to another run.
        OutputError: another run is logged in the folder of the log.
        MissingDependencyError: a log needs a package that is not installed.
        KeyboardInterrupt: Ctrl-C ended a fit in groups, whose checkpoint has what was finished.
    """
    if not isinstance(config, EncodeConfig | None):
        raise ConfigError(f"config {config!r} is no EncodeConfig; give one, or its fields as keyword arguments")
    config = EncodeConfig.from_options({**to_plain(config or EncodeConfig()), **options})
    if not isinstance(shared_from, Representation | None):
        raise ConfigError(f"{shared_from!r}: is no Representation; give one from load or encode", "shared_from")
    if not isinstance(signal, Signal) and all(hasattr(signal, name) for name in ("shape", "dtype", "__getitem__")):
        signal = ranks.together(partial(Signal.from_array, signal))
    planned = ranks.together(lambda: plan(check_signal(signal), config, shared_from))
    limit = ranks.of_first(memory_limit(max_memory))
    if ranks.first:
        for line in planned.notes:
            note("%s", line)
    signal.keep(limit // CACHE_PART)
    signal = _ranged(signal, shared_from)
    where: torch.device = ranks.together(lambda: resolve_device(device))
    kernel = ranks.together(lambda: choose_kernel(planned.config.kernel, where).name)
    ranks.agree({"device": where.type, "kernel": kernel})
    described = ranks.together(lambda: _described(signal, planned, source))
    grouped = whole_bytes(signal, planned) > limit - limit // BLOCK_PART
    if grouped and (max_memory is not None or hindrance(planned) is None):
        if log is not None:
            raise ranks.alike(
                ConfigError("a fit in groups keeps no log; give more max_memory, or no log", "max_memory")
            )
        ranks.together(lambda: check_groups(planned, signal.channels, limit, hindrance(planned)))
        fit = GroupFit(PositionedSignal.first(signal), planned, where, limit // BLOCK_PART, ranks)
        key = fit.key(described.get("shared_from"))
        fitted = fit.fit(Checkpoint.at(checkpoint, key, resume, ranks), progress)
        return _result(signal, planned, fitted, f"{fit.where}, in groups", described, ranks)
    _say_beyond(signal, ranks)
    own = ranks.together(lambda: ranks.partitions(len(planned.lattice)))
    run = ranks.together(lambda: prepare(signal, planned, where, limit // BLOCK_PART, own))
    key = run.key(signal, described.get("shared_from"), ranks=ranks)
    keeper = Checkpoint.at(checkpoint, key, resume, ranks, own)
    assemble = partial(_assembled, signal, planned, run, described, ranks, own)
    resuming, watcher = keeper is not None and keeper.goes_on, None
    if log is not None:
        if ranks.size > 1:
            raise ranks.alike(ConfigError(f"is kept by one process, not by {ranks.size} ranks; leave it out", "log"))
        check_folder(log, keeper is not None and resume, resuming)
        if resuming and keeper is not None:
            keeper.read()  # what cannot go on leaves the folder as it is
        watcher = Watcher(log, signal, key, described, assemble, resuming, run.device)
    with watcher or nullcontext():
        state = run.fit("encode", signal, keeper, progress and ranks.first, watch=watcher, ranks=ranks)
        del run.samples  # decoding needs the memory
        representation = assemble(state)
        if watcher is not None:
            watcher.finish(representation, state)
    return representation


def in_batches(config: EncodeConfig, shared_from: Representation | None) -> bool:
    """Whether signals may be fitted in the same steps: the shared network stands, and how many steps there are is known
    beforehand."""
    bounded = config.target_psnr is not None or config.seconds is not None
    return shared_from is not None and config.recipe != "paper" and not bounded


def batch_bytes(signal: Signal, config: EncodeConfig, shared_from: Representation | None) -> int | None:
    """What `encode_batch` keeps of a signal; None if it must be fitted alone.

    Raises:
        ConfigError: the options do not fit the signal or the network to share.
    """
    return whole_bytes(signal, plan(signal, config, shared_from)) if in_batches(config, shared_from) else None


@as_it_starts()
def encode_batch(
    signals: Sequence[Signal],
    config: EncodeConfig,
    *,
    shared_from: Representation,
    device: str | torch.device = "auto",
    max_memory: int | str | None = None,
    source: Mapping[str, Any] | None = None,
) -> list[Representation]:
    """Fit representations to signals of one shape in the same steps: each as `encode` alone finds it, to the bit by the
    fused kernel, in far less time where they are small.

    Args:
        signals: at least one, of which `batch_bytes` gives a number.
        config, shared_from, device, max_memory, source: as `encode` takes them.

    Returns:
        Of each its representation; the seconds of the fit are its part of them.

    Raises:
        ConfigError, RunError: as `encode` does, of any of the signals.
        KeyboardInterrupt: Ctrl-C ended the fit.
    """
    signals = [_ranged(check_signal(signal), shared_from) for signal in signals]
    first, *others = signals
    planned, limit = plan(first, config, shared_from), memory_limit(max_memory)
    for line in planned.notes:
        note("%s", line)
    for signal in signals:
        _say_beyond(signal)
    run = prepare(first, planned, resolve_device(device), limit // BLOCK_PART, beside=others)
    state = run.fit("encode", first, None, False)
    if state.stopped == "interrupted":
        raise KeyboardInterrupt
    del run.samples
    state, each, found = replace(state, seconds=state.seconds / len(signals)), len(planned.lattice), []
    for number, signal in enumerate(signals):
        rows = slice(number * each, (number + 1) * each)
        described = _described(signal, planned, source)
        found.append(_assembled(signal, planned, run, described, ALONE, slice(None), state, rows_of=rows))
    return found


@as_it_starts()
def dry_run(
    signal: Signal,
    config: EncodeConfig,
    device: str = "auto",
    max_memory: int | str | None = None,
    shared_from: Representation | None = None,
) -> dict[str, Any]:
    """What an encoding would take, from a few timed steps: the figures of its result as `report.describe` gives them,
    expected seconds, at most so many or about, and memory (bytes)."""
    planned, limit = plan(signal, config, shared_from), memory_limit(max_memory)
    for line in planned.notes:
        note("%s", line)
    signal = _ranged(signal, shared_from)
    grouped, fits = whole_bytes(signal, planned) > limit - limit // BLOCK_PART, 1.0
    some, where = planned, resolve_device(device)
    if grouped and hindrance(planned) is None:
        check_groups(planned, signal.channels, limit)
        some = GroupFit(PositionedSignal.first(signal), planned, where, limit // BLOCK_PART).largest
        fits = (len(planned.lattice) + len(learning(planned))) / len(some.lattice)
    run = prepare(signal, some, where, limit // BLOCK_PART)
    optimizer = build_optimizer(run.model, run.config.recipe, run.kernel.fused)
    steps, durations = run.config.total_steps or 0, []
    for step in (0, *(sixths * steps // 6 for sixths in (1, 3, 5))):
        began = time.monotonic()
        accumulate_gradients(run.model, run.samples.draw(step), kernel=run.kernel)
        optimizer.step()
        durations.append(time.monotonic() - began)
    # The first one prepares more than it does; the others are in the middle of a third of the steps each.
    seconds = statistics.mean(durations[1:]) * steps * fits
    rows = MemoryRows(torch.zeros(len(planned.lattice), run.model.local.shape[1]))
    unknown = FitRecord(0, 0.0, None, "running", run.where)
    shared = {name: value.detach().cpu() for name, value in run.model.shared.items()}
    described = _described(signal, planned, None)
    whole = as_representation(planned, signal, planned.lattice, rows, shared, unknown, described)
    means = np.zeros((len(rows), signal.channels), dtype=np.float32)
    return {
        **describe(identified(replace(whole, overview=None if config.no_overview else means))),
        "seconds": min(filter(None, (config.seconds, seconds))),
        "at_most": config.target_psnr is not None or config.seconds is not None,
        "memory": whole_bytes(signal, some) + run.block_bytes,
    }


def _ranged(signal: Signal, shared_from: Representation | None) -> Signal:
    """A sound as loud as the one whose network it shares: its peak would else be its own, and the two not merge."""
    if shared_from is None or not KINDS[signal.kind].symmetric or signal.dtype != shared_from.signal.dtype:
        return signal
    lowest, highest = shared_from.signal.value_range
    if signal.value_range != (lowest, highest):
        note("value_range: that of shared_from, %g to %g", lowest, highest)
    return signal.with_range((lowest, highest))


def _say_beyond(signal: Signal, ranks: Ranks = ALONE) -> None:
    """Say how many values will be cut as they are decoded; each rank looks at a part of them."""
    lowest, highest = signal.value_range
    if signal.dtype in UNSIGNED_TYPES and (lowest, highest) == integer_limits(signal.dtype):
        return  # none can be
    boxes = list(slabs(signal))
    parts = map(signal.read, boxes[ranks.part(len(boxes))])
    own = ranks.together(lambda: sum(int(((part < lowest) | (part > highest)).sum()) for part in parts))
    if (beyond := sum(ranks.everyone(own))) and ranks.first:
        what = beyond, math.prod(signal.shape) * signal.channels, lowest, highest
        note("value_range: %d of %d values are beyond it, and decode to its ends, %g and %g", *what)


def _described(signal: Signal, planned: Plan, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config of the result: all that makes the run again."""
    described: dict[str, Any] = {"kind": signal.kind, "value_range": list(signal.value_range)}
    described |= {**to_plain(planned.config), **to_plain(source or {})}
    if planned.shared_from is not None:
        described["shared_from"] = planned.shared_from.origin
    try:
        canonical_json(described)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"source cannot be written as JSON: {error}; give plain numbers and Unicode text") from None
    return described


def _assembled(
    signal: Signal,
    planned: Plan,
    run: Run,
    described: dict[str, Any],
    ranks: Ranks,
    own: slice,
    state: FitState,
    measured: bool = True,
    rows_of: slice = slice(None),
) -> Representation:
    """The representation of a run's model, or of some of its rows, measured on what it decodes to; if not, without
    origin."""
    rows = MemoryRows(CODECS["float32"].rounded(ranks.gathered(run.model.local.detach().cpu()[rows_of])))
    shared = {name: value.detach().cpu() for name, value in run.model.shared.items()}
    unknown = FitRecord(state.step, state.seconds, None, state.stopped or "running", run.where)
    whole = as_representation(planned, signal, planned.lattice, rows, shared, unknown, described)
    if not measured:
        return whole
    places = np.arange(len(planned.lattice))[own]
    first = PositionedSignal.first(signal)
    of = whole, first.signal, first.box, places, run.device, planned.config.kernel
    found = ranks.everyone(ranks.together(lambda: measure(*of)))
    errors, means = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _result(signal, planned, Fitted(rows, shared, errors, means, state), run.where, described, ranks)


def _result(
    signal: Signal, planned: Plan, fitted: Fitted, where: str, described: dict[str, Any], ranks: Ranks
) -> Representation:
    """What was fitted as a representation, with its figures and its origin."""
    state, where = fitted.state, where if ranks.size == 1 else f"{where}, {ranks.size} ranks"
    reached = recorded(psnr_of_sum(signal, float(fitted.errors.sum())))
    record = FitRecord(state.step, round(state.seconds, 3), reached, state.stopped or "running", where)
    rows, shared = fitted.rows, fitted.shared
    whole = as_representation(planned, signal, planned.lattice, rows, shared, record, described)
    whole = replace(whole, overview=None if planned.config.no_overview else fitted.means)
    named = ranks.together(lambda: identified(whole) if ranks.first else whole)
    origin, lineage = ranks.of_first((named.origin, named.lineage))
    return replace(whole, origin=origin, lineage=lineage)
