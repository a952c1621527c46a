"""Signal -> representation: the run itself. What its options mean is in `plan.py`."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lgsirens.errors import ConfigError
from lgsirens.monitoring.log import FitState, RunLog, check_folder
from lgsirens.monitoring.watcher import Watcher
from lgsirens.nn.memory import DEFAULT_LIMIT, training_bytes, training_samples
from lgsirens.nn.siren import SirenPerPartition, build_model, parameter_counts
from lgsirens.representation.decode import decode
from lgsirens.representation.file import content_hash, sizes
from lgsirens.representation.metrics import psnr, recorded
from lgsirens.representation.representation import FitRecord, MemoryRows, Representation, SignalInfo, history_entry
from lgsirens.signal import KINDS, Signal, check_signal
from lgsirens.system.console import Progress, note
from lgsirens.system.hardware import as_bytes, resolve_device
from lgsirens.system.schema import to_plain
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig, Plan, plan
from lgsirens.training.loop import StopRule, accumulate_gradients, fit
from lgsirens.training.optimizers import build_optimizer
from lgsirens.training.samples import AllSamples, Placed, RandomSamples, Samples

_TIMED_STEPS = 3


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
        source: how the signal was read, such as the frames of a film; kept in the config of the result.

    Returns:
        The representation; `fit.stopped` is "interrupted" if Ctrl-C ended the fit.

    Raises:
        ConfigError: options that cannot be, or that do not fit the signal.
        RunError: the fit diverged.
        FileFormatError: a checkpoint that is damaged or belongs to another run.
        OutputError: another run is logged in the folder of the log.
        MissingDependencyError: a log needs a package that is not installed.
    """
    if not isinstance(config, EncodeConfig | None):
        raise ConfigError(f"config {config!r} is no EncodeConfig; give one, or its fields as keyword arguments")
    if not isinstance(checkpoint, str | os.PathLike | None):
        raise ConfigError(f"checkpoint {checkpoint!r} is no path; name a file")
    if not isinstance(log, RunLog | None):
        raise ConfigError(f"log {log!r} is no RunLog; give RunLog(folder)")
    check_signal(signal)
    planned = _told_plan(signal, EncodeConfig.from_options({**to_plain(config or EncodeConfig()), **options}))
    where = resolve_device(device)
    limit = as_bytes(max_memory)
    model, samples, generator = prepare(signal, planned, where, limit)
    config = planned.config
    # The size of a block and the device decide how sums are rounded, so they are part of what a run is.
    key = _run_key(signal, config, training_samples(planned.model, where.type != "cpu", limit), where)
    keeper = None if checkpoint is None else Checkpoint(Path(checkpoint), key, resume)
    described = _described(signal, planned, source)
    assemble = partial(_assemble, signal, planned, model, described, device=where)
    resuming = keeper is not None and keeper.resume and os.path.exists(keeper.path)
    rule = StopRule(config.steps, config.target_psnr)
    peak = KINDS[signal.kind].psnr_peak
    if log is not None:
        check_folder(log, keeper is not None and keeper.resume, resuming)
        if resuming and keeper is not None:
            keeper.read()  # what cannot go on leaves the folder as it is
    with _watching(log, signal, key, described, assemble, config.steps, resuming, where) as watcher:
        with Progress("encode", "step", quiet=not progress) as bar:
            state = fit(model, samples, rule, config.lr, peak, generator, keeper, bar, watch=watcher)
        del samples
        representation = assemble(state)
        if watcher is not None:
            watcher.finish(representation, state)
    return representation


def _told_plan(signal: Signal, config: EncodeConfig) -> Plan:
    planned = plan(signal, config)
    for line in planned.notes:
        note("%s", line)
    return planned


def _watching(log: RunLog | None, *run: Any) -> AbstractContextManager[Watcher | None]:
    return nullcontext() if log is None else Watcher(log, *run)


def dry_run(
    signal: Signal, config: EncodeConfig, device: str = "auto", max_memory: int = DEFAULT_LIMIT
) -> dict[str, Any]:
    """What an encoding would take, from a few timed steps: parameters, bytes, expected seconds and memory (bytes)."""
    planned = _told_plan(signal, config)
    where = resolve_device(device)
    model, samples, _ = prepare(signal, planned, where, max_memory)
    optimizer = build_optimizer(model)
    durations = []
    for _ in range(_TIMED_STEPS):
        began = time.monotonic()
        accumulate_gradients(model, samples)
        optimizer.step()
        durations.append(time.monotonic() - began)
    described = _described(signal, planned, None)
    representation = _assemble(signal, planned, model, described, FitState(), device=where, measure=False)
    weights = 4 * sum(parameter_counts(planned.model, len(planned.lattice)))
    block = training_samples(planned.model, where.type != "cpu", max_memory) * training_bytes(planned.model)
    return {
        "shape": signal.shape,
        "channels": signal.channels,
        "tile": planned.lattice.tile,
        "partitions": len(planned.lattice),
        "local_width": planned.model.local_width,
        "global_width": planned.model.global_width,
        "parameters": representation.parameters,
        "bytes": sizes(representation),
        "seconds": sorted(durations)[_TIMED_STEPS // 2] * config.steps,
        # weights, the best ones, gradients and two moments of Adam; the samples as read and as cut
        "memory": 5 * weights + 2 * signal.values.nbytes + block,
    }


def prepare(
    signal: Signal, planned: Plan, device: torch.device, max_memory: int
) -> tuple[SirenPerPartition, Samples, torch.Generator]:
    """Model, samples and the generator of draws. Weights are drawn on the CPU: one seed, one start on any device."""
    config = planned.config
    model = build_model(planned.model, len(planned.lattice), torch.Generator().manual_seed(config.seed)).to(device)
    generator = torch.Generator(device).manual_seed(config.seed)
    per_block = training_samples(planned.model, device.type != "cpu", max_memory)
    common = (Placed.first(signal), planned.lattice, planned.frame, per_block, device)
    if config.sample_frac is None:
        return model, AllSamples(*common), generator
    return model, RandomSamples(*common, config.sample_frac, generator), generator


def _described(signal: Signal, planned: Plan, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config of the result: all that makes the run again."""
    value_range = list(signal.value_range)
    return {"kind": signal.kind, "value_range": value_range, **to_plain(planned.config), **to_plain(source or {})}


def _assemble(
    signal: Signal,
    planned: Plan,
    model: SirenPerPartition,
    described: dict[str, Any],
    state: FitState,
    *,
    device: torch.device,
    measure: bool = True,
) -> Representation:
    """The representation of a model, its PSNR measured on what it decodes to."""
    record = FitRecord(state.step, round(state.seconds, 3), None, state.stopped or "running", device.type)
    representation = Representation(
        model=planned.model,
        lattice=planned.lattice,
        frame=planned.frame,
        extent=planned.extent,
        window=planned.extent,
        signal=SignalInfo.of(signal),
        shared={name: value.detach().cpu() for name, value in model.shared.items()},
        rows=MemoryRows(model.local.detach().cpu()),
        origin="",
        history=(history_entry("encode", planned.extent, len(planned.lattice)),),
        fit=record,
        config=described,
    )
    if not measure:
        return representation
    reached = psnr(signal, decode(representation, device=device))
    record = replace(record, psnr=recorded(reached))
    return replace(representation, fit=record, origin=content_hash(representation))


def _run_key(signal: Signal, config: EncodeConfig, per_block: int, device: torch.device) -> str:
    """Hash of everything that the result of a run depends on, but the number of threads."""
    described = [signal.kind, signal.value_range, signal.dtype, signal.values.shape, to_plain(config)]
    described += [per_block, device.type]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(memoryview(signal.values.tobytes()))
    return digest.hexdigest()
