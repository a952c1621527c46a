"""Signal -> representation: options, their meaning for one signal, and the run itself."""

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lgsirens.budget import default_widths, parameters, widths_for_budget
from lgsirens.decode import decode
from lgsirens.errors import ConfigError
from lgsirens.fileformat import content_hash, sizes
from lgsirens.fit import Checkpoint, FitState, StopRule, accumulate_gradients, fit
from lgsirens.lattice import LONGEST_FRAME, Frame, Lattice
from lgsirens.memory import DEFAULT_LIMIT, training_bytes, training_samples
from lgsirens.metrics import psnr
from lgsirens.model import AGGREGATIONS, MODES, ModelConfig, SirenPerPartition, build_model
from lgsirens.optimizers import build_optimizer
from lgsirens.region import Box, box_of_shape
from lgsirens.representation import FitRecord, MemoryRows, Representation, SignalInfo
from lgsirens.runlog import Progress, note
from lgsirens.sampling import AllSamples, RandomSamples, Samples
from lgsirens.schema import from_plain, to_plain
from lgsirens.signal import KINDS, Signal
from lgsirens.version import __version__

_TIMED_STEPS = 3


@dataclass(frozen=True)
class EncodeConfig:
    """The options that determine a representation.

    Attributes:
        mode: "lg" (Local-Global SIREN), "lc" (SIREN-per-Partition) or "mlp" (SIREN).
        partitions: number of partitions along each dimension.
        partition_size: instead: samples of a partition along each dimension. Default: 32,32 for images.
        parameters: budget; default: 0.75 for each sample position of an image.
        local_width: instead of a budget: L, with `global_width` in mode "lg".
        global_width: G.
        agg_type: "fc" or "fc_and_add", how local and global features meet.
        overlaps: halo along each dimension, in samples.
        sample_frac: fraction of the samples that a step draws, with replacement; None: every sample in every step.
        local_scale: None: local networks see the signal's coordinates (the paper); else their own, in half tiles
            times this.
        steps: optimiser steps.
        target_psnr: stop earlier, at this PSNR in dB.
        lr: constant learning rate of Adam (published: 5e-4 for images); None: warm-up and cosine decay.
        seed: of the initial weights.
    """

    mode: str = "lg"
    partitions: tuple[int, ...] | None = None
    partition_size: tuple[int, ...] | None = None
    parameters: int | None = None
    local_width: int | None = None
    global_width: int | None = None
    agg_type: str = "fc"
    overlaps: tuple[int, ...] | None = None
    sample_frac: float | None = None
    local_scale: float | None = None
    steps: int = 500
    target_psnr: float | None = None
    lr: float | None = None
    seed: int = 0

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "EncodeConfig":
        """Check types, names and ranges of options by name.

        Raises:
            ConfigError: names the option, what was given and what it may be.
        """
        try:
            config = from_plain(cls, {name: _plain(value) for name, value in options.items()})
        except ValueError as error:
            raise ConfigError(f"option {error}") from None
        config.check()
        return config

    def check(self) -> None:
        """Raise ConfigError if options exclude each other or are out of range."""
        _require(self.mode in MODES, f"mode {self.mode!r} is unknown; choose one of {', '.join(MODES)}")
        _require(
            self.agg_type in AGGREGATIONS,
            f"agg_type {self.agg_type!r} is unknown; choose one of {', '.join(AGGREGATIONS)}",
        )
        for name in ("parameters", "local_width", "global_width", "steps", "target_psnr", "lr", "local_scale"):
            value = getattr(self, name)
            _require(value is None or (math.isfinite(value) and value > 0), f"{name} {value} must be above 0")
        _require(
            self.sample_frac is None or 0 < self.sample_frac <= 1, f"sample_frac {self.sample_frac}: above 0, at most 1"
        )
        _require(0 <= self.seed < 1 << 63, f"seed {self.seed} must be from 0 to 2^63 - 1")
        for name in ("partitions", "partition_size"):
            _require(
                all(n >= 1 for n in getattr(self, name) or ()), f"{name} {_commas(getattr(self, name))}: at least 1"
            )
        _require(all(n >= 0 for n in self.overlaps or ()), f"overlaps {_commas(self.overlaps)}: at least 0")
        _require(
            not (self.partitions and self.partition_size), "partitions and partition_size exclude each other; give one"
        )
        widths = self.local_width is not None or self.global_width is not None
        _require(not (self.parameters and widths), "parameters and widths exclude each other; give one of them")
        if self.mode == "lg":
            both = (self.local_width is None) == (self.global_width is None)
            _require(both, "mode lg needs local_width and global_width together, or a number of parameters")
        else:
            _require(self.global_width is None, f"global_width: mode {self.mode} has no shared network; use mode lg")
        if self.mode == "mlp":
            one = all(n == 1 for n in self.partitions or ()) and self.partition_size is None
            _require(one, "partitions: mode mlp is one network for the whole signal; use mode lg or lc")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a config means for one signal."""

    model: ModelConfig
    lattice: Lattice
    frame: Frame
    extent: Box
    config: EncodeConfig


def plan(signal: Signal, config: EncodeConfig) -> Plan:
    """Lattice, frame and widths for a signal (no weights yet).

    Raises:
        ConfigError: the config does not fit the signal.
    """
    kind = KINDS[signal.kind]
    for name in ("partitions", "partition_size", "overlaps"):
        given = getattr(config, name)
        if kind.dimensions == 1 and given is not None and len(given) == 3 and given[::2] == (1, 1):
            config = replace(config, **{name: given[1:2]})  # as the published commands write it for audio
        elif given is not None and len(given) != kind.dimensions:
            raise ConfigError(
                f"{name} {_commas(given)}: {signal.kind} has {kind.dimensions} dimensions ({', '.join(kind.axes)}), "
                f"got {len(given)} numbers"
            )
    extent = box_of_shape(signal.shape)
    halo = config.overlaps or (0,) * kind.dimensions
    if any(o >= size for o, size in zip(halo, signal.shape, strict=True) if o):
        raise ConfigError(f"overlaps {_commas(halo)}: must be smaller than the signal, {_commas(signal.shape)} samples")
    lattice = Lattice.covering(extent, _tile(signal, config), halo)
    empty = ModelConfig(config.mode, kind.dimensions, signal.channels, 0, agg_type=config.agg_type)
    if config.local_width is not None:
        model = replace(empty, local_width=config.local_width, global_width=config.global_width or 0)
    elif config.parameters is not None:
        model = widths_for_budget(empty, len(lattice), config.parameters)
    else:
        model = default_widths(empty, len(lattice), math.prod(signal.shape), kind.parameters_per_sample)
    config = replace(config, local_scale=_local_scale(signal, config, lattice.tile))
    frame = Frame(signal.shape, kind.frame_scale, config.local_scale)
    resolved = replace(
        config,
        partitions=None,
        partition_size=None if config.mode == "mlp" else lattice.tile,
        parameters=None,
        local_width=model.local_width,
        global_width=model.global_width or None,
        overlaps=halo,
    )
    return Plan(model, lattice, frame, extent, resolved)


def encode(
    signal: Signal,
    config: EncodeConfig | None = None,
    *,
    device: str = "auto",
    max_memory: int = DEFAULT_LIMIT,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    **options: Any,
) -> Representation:
    """Fit a representation to a signal.

    Args:
        signal: from `read` or `Signal.from_array`.
        config: the options; keyword arguments named as the fields of `EncodeConfig` override them.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        max_memory: bytes that the activations of one block of a step may take.
        checkpoint: file that keeps the state of the run, written at least every 60 seconds; delete it once the result
            is saved.
        resume: go on from the checkpoint if it is there.
        progress: show a progress bar (off a terminal: a line every ten seconds) on standard error.

    Returns:
        The representation; `fit.stopped` is "interrupted" if Ctrl-C ended the fit.

    Raises:
        ConfigError: options that cannot be, or that do not fit the signal.
        RunError: the fit diverged.
        FileFormatError: a checkpoint that is damaged or belongs to another run.
    """
    plain = to_plain(config or EncodeConfig())
    planned = plan(signal, EncodeConfig.from_options({**plain, **options}))
    where = resolve_device(device)
    model, samples, generator = _prepare(signal, planned, where, max_memory)
    config = planned.config
    keeper = None
    if checkpoint is not None:
        keeper = Checkpoint(Path(checkpoint), _run_key(signal, config), resume)
    with Progress("encode", "step", quiet=not progress) as bar:
        rule = StopRule(config.steps, config.target_psnr)
        state = fit(model, samples, rule, config.lr, KINDS[signal.kind].psnr_peak, generator, keeper, bar)
    del samples
    return _assemble(signal, planned, model, state, where)


def dry_run(
    signal: Signal, config: EncodeConfig, device: str = "auto", max_memory: int = DEFAULT_LIMIT
) -> dict[str, Any]:
    """What an encoding would take, from a few timed steps: parameters, bytes, expected seconds and memory (bytes)."""
    planned = plan(signal, config)
    where = resolve_device(device)
    model, samples, _ = _prepare(signal, planned, where, max_memory)
    optimizer = build_optimizer(model)
    durations = []
    for _ in range(_TIMED_STEPS):
        began = time.monotonic()
        accumulate_gradients(model, samples)
        optimizer.step()
        durations.append(time.monotonic() - began)
    representation = _assemble(signal, planned, model, FitState(), where, measure=False)
    weights = 4 * sum(parameters(planned.model, len(planned.lattice)))
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
        # weights, gradients and two moments of Adam; the samples as read and as cut
        "memory": 4 * weights + 2 * signal.values.nbytes + block,
    }


def resolve_device(device: str) -> torch.device:
    """`"auto"`, `"cpu"` or `"cuda"` as a device (ConfigError if unknown or absent)."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {device!r} is unknown; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: PyTorch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _tile(signal: Signal, config: EncodeConfig) -> tuple[int, ...]:
    shape = signal.shape
    if config.mode == "mlp":
        return shape
    if config.partition_size is not None:
        return config.partition_size
    if config.partitions is None:
        side = round(KINDS[signal.kind].samples_per_partition ** (1 / len(shape)))
        return tuple(min(side, size) for size in shape)
    if any(n > size for n, size in zip(config.partitions, shape, strict=True)):
        raise ConfigError(
            f"partitions {_commas(config.partitions)}: more than the signal has samples, {_commas(shape)}; give fewer"
        )
    tile = tuple(-(-size // n) for n, size in zip(config.partitions, shape, strict=True))
    real = tuple(-(-size // t) for size, t in zip(shape, tile, strict=True))
    if real != config.partitions:
        note(
            "partitions: asked for %s, got %s, because tiles of %s samples cover %s",
            *(_commas(numbers) for numbers in (config.partitions, real, tile, shape)),
        )
    return tile


def _local_scale(signal: Signal, config: EncodeConfig, tile: tuple[int, ...]) -> float | None:
    """The local scale asked for; where float32 cannot tell the samples of a long axis apart, the one that gives local
    networks coordinates of their own tile at the frame's step."""
    longest = max(signal.shape)
    if config.local_scale is not None or longest <= LONGEST_FRAME:
        return config.local_scale
    if config.mode == "mlp":
        note("mode mlp: float32 cannot tell all of %d samples along one axis apart; modes lg and lc can", longest)
        return None
    note("local networks see their own tile's coordinates, because float32 cannot tell %d samples apart", longest)
    step = 2 * KINDS[signal.kind].frame_scale / (LONGEST_FRAME - 1)
    return step * tile[signal.shape.index(longest)] / 2


def _prepare(
    signal: Signal, planned: Plan, device: torch.device, max_memory: int
) -> tuple[SirenPerPartition, Samples, torch.Generator]:
    """Model, samples and the generator of draws. Weights are drawn on the CPU: one seed, one start on any device."""
    config = planned.config
    model = build_model(planned.model, len(planned.lattice), torch.Generator().manual_seed(config.seed)).to(device)
    generator = torch.Generator(device).manual_seed(config.seed)
    per_block = training_samples(planned.model, device.type != "cpu", max_memory)
    common = (signal, planned.lattice, planned.frame, per_block, device)
    if config.sample_frac is None:
        return model, AllSamples(*common), generator
    return model, RandomSamples(*common, config.sample_frac, generator), generator


def _assemble(
    signal: Signal, planned: Plan, model: SirenPerPartition, state: FitState, device: torch.device, measure: bool = True
) -> Representation:
    """The representation of a fitted model, its PSNR measured on what it decodes to."""
    record = FitRecord(state.step, round(state.seconds, 3), None, state.stopped, device.type)
    representation = Representation(
        model=planned.model,
        lattice=planned.lattice,
        frame=planned.frame,
        extent=planned.extent,
        window=planned.extent,
        signal=_known(signal),
        shared={name: value.detach().cpu() for name, value in model.shared.items()},
        rows=MemoryRows(model.local.detach().cpu()),
        origin="",
        history=(history_entry("encode", planned.extent),),
        fit=record,
        config={"kind": signal.kind, "value_range": list(signal.value_range), **to_plain(planned.config)},
    )
    if not measure:
        return representation
    reached = psnr(signal, decode(representation, device=device))
    record = replace(record, psnr=round(reached, 4) if math.isfinite(reached) else None)
    return replace(representation, fit=record, origin=content_hash(representation))


def _known(signal: Signal) -> SignalInfo:
    rate = None if signal.sampling_rate is None else signal.sampling_rate.as_integer_ratio()
    return SignalInfo(signal.kind, signal.channels, signal.value_range, signal.dtype, rate, signal.spacing)


def history_entry(action: str, window: Box) -> dict[str, Any]:
    """One line of a representation's history: what was done, when, by which version, to which window."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"action": action, "date": now, "version": __version__, "window": to_plain(window)}


def _run_key(signal: Signal, config: EncodeConfig) -> str:
    """Hash of everything that the result of a run depends on."""
    described = [signal.kind, signal.value_range, signal.dtype, signal.values.shape, to_plain(config)]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(memoryview(signal.values.tobytes()))
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _commas(numbers: Any) -> str:
    return ",".join(str(n) for n in numbers or ())


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
