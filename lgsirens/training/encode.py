"""Signal -> representation: the run itself. What its options mean is in `config.py`."""

import os
import statistics
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from lgsirens.errors import ConfigError
from lgsirens.monitoring.log import FitState, RunLog, check_folder
from lgsirens.monitoring.watcher import Watcher
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.representation.decode import decode, partition_means
from lgsirens.representation.file import identified
from lgsirens.representation.metrics import psnr, recorded, slabs
from lgsirens.representation.report import describe
from lgsirens.representation.representation import FitRecord, Representation, SignalInfo, first_encoding
from lgsirens.signal import KINDS, Signal, check_signal
from lgsirens.system.console import note
from lgsirens.system.hardware import as_bytes, resolve_device
from lgsirens.system.pytorch import as_it_starts
from lgsirens.system.schema import canonical_json, to_plain
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig, Plan, plan
from lgsirens.training.initial import initial_model
from lgsirens.training.loop import accumulate_gradients
from lgsirens.training.optimizers import build_optimizer, fit_bytes
from lgsirens.training.run import Run
from lgsirens.training.samples import CachedSharedFeatures
from lgsirens.training.windows import PositionedSignal, Windows


@as_it_starts()
def encode(
    signal: Signal,
    config: EncodeConfig | None = None,
    *,
    device: str | torch.device = "auto",
    max_memory: int | str = DEFAULT_LIMIT,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    log: RunLog | None = None,
    shared_from: Representation | None = None,
    source: Mapping[str, Any] | None = None,
    **options: Any,
) -> Representation:
    """Fit a representation to a signal.

    Args:
        signal: from `read` or `Signal.from_array`.
        config: the options; keyword arguments named as the fields of `EncodeConfig` override them.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        max_memory: bytes that the activations of one block of a step may take.
        checkpoint: file that keeps the state of the run, written about every 30 seconds; delete it once the result is
            saved.
        resume: go on from the checkpoint if it is there.
        progress: show a progress bar (off a terminal: a line every ten seconds) on standard error.
        log: keep a log of the run; it changes nothing of the result.
        shared_from: its shared network, with tile coordinates, stays as it is and rows alone learn, so that the result
            merges with it (`move`). Networks, tiles, halo and what they see are its own; so is the value range of a
            sound of its sample type.
        source: how the signal was read, such as the frames of a film; kept in the config of the result.

    Returns:
        The representation; `fit.stopped` is "interrupted" if Ctrl-C ended the fit.

    Raises:
        ConfigError: options that cannot be, or that do not fit the signal or the network to share.
        RunError: the fit diverged.
        FileFormatError: a checkpoint that is damaged or belongs to another run.
        OutputError: another run is logged in the folder of the log.
        MissingDependencyError: a log needs a package that is not installed.
    """
    if not isinstance(config, EncodeConfig | None):
        raise ConfigError(f"config {config!r} is no EncodeConfig; give one, or its fields as keyword arguments")
    config = EncodeConfig.from_options({**to_plain(config or EncodeConfig()), **options})
    if not isinstance(shared_from, Representation | None):
        raise ConfigError(f"{shared_from!r}: is no Representation; give one from load or encode", "shared_from")
    planned = plan(check_signal(signal), config, shared_from)
    signal = _ranged(signal, shared_from)
    _say_beyond(signal)
    described = _described(signal, planned, source)
    run = prepare(signal, planned, resolve_device(device), as_bytes(max_memory))
    key = run.key(signal, described.get("shared_from"))
    keeper = Checkpoint.at(checkpoint, key, resume)
    assemble = partial(_assemble, signal, planned, run, described)
    resuming = keeper is not None and keeper.goes_on
    watcher = None
    if log is not None:
        check_folder(log, keeper is not None and resume, resuming)
        if resuming and keeper is not None:
            keeper.read()  # what cannot go on leaves the folder as it is
        watcher = Watcher(log, signal, key, described, assemble, resuming, run.device)
    with watcher or nullcontext():
        state = run.fit("encode", signal, keeper, progress, watch=watcher)
        del run.samples  # decoding needs the memory
        representation = assemble(state)
        if watcher is not None:
            watcher.finish(representation, state)
    return representation


@as_it_starts()
def dry_run(
    signal: Signal,
    config: EncodeConfig,
    device: str = "auto",
    max_memory: int = DEFAULT_LIMIT,
    shared_from: Representation | None = None,
) -> dict[str, Any]:
    """What an encoding would take, from a few timed steps: the figures of its result as `report.describe` gives them,
    expected seconds, at most so many or about, and memory (bytes)."""
    planned = plan(signal, config, shared_from)
    signal = _ranged(signal, shared_from)
    run = prepare(signal, planned, resolve_device(device), max_memory)
    optimizer = build_optimizer(run.model, run.config.recipe, run.kernel.fused)
    steps, durations = run.config.total_steps or 0, []
    for step in (0, *(sixths * steps // 6 for sixths in (1, 3, 5))):
        began = time.monotonic()
        accumulate_gradients(run.model, run.samples.draw(step), kernel=run.kernel)
        optimizer.step()
        durations.append(time.monotonic() - began)
    # The first one prepares more than it does; the others are in the middle of a third of the steps each.
    seconds = statistics.mean(durations[1:]) * steps
    # Where the shared network does not learn, all that a block is made of is kept: in float32, what the rows learn.
    kept = 0 if shared_from is None else min(max_memory, 4 * signal.values.size)
    representation = _assemble(signal, planned, run, _described(signal, planned, None), FitState(), measure=False)
    model_bytes = fit_bytes(planned.model, len(planned.lattice), planned.config.recipe)
    return {
        **describe(representation),
        "seconds": min(filter(None, (config.seconds, seconds))),
        "at_most": config.target_psnr is not None or config.seconds is not None,
        # the samples as read, as cut, and in float32
        "memory": model_bytes + 2 * signal.values.nbytes + 4 * signal.values.size + run.block_bytes + kept,
    }


def prepare(signal: Signal, planned: Plan, device: torch.device, max_memory: int) -> Run:
    """The run of a plan, whose notes are told: new weights, but for a network to share, and a first signal."""
    for line in planned.notes:
        note("%s", line)
    model = initial_model(planned.model, planned.lattice, planned.coordinates.kind, planned.config.seed)
    windows = Windows(PositionedSignal.first(signal), planned.lattice, planned.coordinates, device)
    if planned.shared_from is None:
        return Run(model, windows, planned.config, max_memory)
    model.shared.load_state_dict(planned.shared_from.shared)
    model.shared.requires_grad_(False)
    run = Run(model, windows, planned.config, max_memory)
    run.samples = CachedSharedFeatures(run.samples, run.model.shared_features, max_memory)
    return run


def _ranged(signal: Signal, shared_from: Representation | None) -> Signal:
    """A sound as loud as the one whose network it shares: its peak would else be its own, and the two not merge."""
    if shared_from is None or not KINDS[signal.kind].symmetric or signal.dtype != shared_from.signal.dtype:
        return signal
    lowest, highest = shared_from.signal.value_range
    if signal.value_range != (lowest, highest):
        note("value_range: that of shared_from, %g to %g", lowest, highest)
    return signal.with_range((lowest, highest))


def _say_beyond(signal: Signal) -> None:
    """Say how many values will be cut as they are decoded."""
    lowest, highest = signal.value_range
    parts = map(signal.read, slabs(signal))
    beyond = sum(int(((part < lowest) | (part > highest)).sum()) for part in parts)
    if beyond:
        what = beyond, signal.values.size, lowest, highest
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


def _assemble(
    signal: Signal, planned: Plan, run: Run, described: dict[str, Any], state: FitState, measure: bool = True
) -> Representation:
    """The representation of a run's model, its PSNR measured on what it decodes to."""
    record = FitRecord(state.step, round(state.seconds, 3), None, state.stopped or "running", run.where)
    where = planned.lattice, planned.coordinates, planned.extent
    rows, shared = run.model.local.detach().cpu(), {k: value.detach().cpu() for k, value in run.model.shared.items()}
    representation = first_encoding(
        "encode", planned.model, *where, SignalInfo.of(signal), rows, shared, record, described
    )
    overview = np.zeros((len(planned.lattice), signal.channels), dtype=np.float32)
    if measure:
        decoded = decode(representation, device=run.device, kernel=planned.config.kernel)
        overview = partition_means(decoded, planned.extent, planned.lattice)
        record = replace(record, psnr=recorded(psnr(signal, decoded)))
    kept = None if planned.config.no_overview else overview
    return identified(replace(representation, fit=record, overview=kept))
