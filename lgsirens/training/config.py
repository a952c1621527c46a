"""What options mean for one signal: lattice, coordinates and widths, before any weight is drawn."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lgsirens.errors import ConfigError
from lgsirens.grid.box import Box, box_of_shape
from lgsirens.grid.coordinates import LONGEST_AXIS, Coordinates
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import AGGREGATIONS, LARGEST_DEPTH, LARGEST_WIDTH, MODES, ModelConfig, parameter_counts
from lgsirens.nn.widths import default_widths, widths_for_budget
from lgsirens.representation.representation import LARGEST_FACTOR
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import commas, counted
from lgsirens.system.hardware import check_fits
from lgsirens.system.schema import from_plain


@dataclass(frozen=True)
class EncodeConfig:
    """The options that determine a representation.

    Attributes:
        mode: "lg" (Local-Global SIREN), "lc" (SIREN-per-Partition) or "mlp" (SIREN).
        partitions: number of partitions along each dimension.
        partition_size: instead: samples of a partition along each dimension. Default: 32,32 for images, 10,000 for
            audio, 25,25,25 for video and volumes.
        parameters: budget; default, for each sample position: 0.75 (image), 0.65 (audio), 0.075 (video, volume).
        local_width: instead of a budget: L, with `global_width` in mode "lg".
        global_width: G.
        hidden_layers: H, hidden layers after the first.
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
    hidden_layers: int = 3
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
        _one_of("mode", self.mode, MODES)
        _one_of("agg_type", self.agg_type, AGGREGATIONS)
        for name in ("parameters", "local_width", "global_width", "steps", "target_psnr", "lr", "local_scale"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} {value} must be above 0")
        for name, most in (
            *(("local_width", LARGEST_WIDTH), ("global_width", LARGEST_WIDTH)),
            *(("hidden_layers", LARGEST_DEPTH), ("local_scale", LARGEST_FACTOR), ("sample_frac", 1.0)),
            ("seed", (1 << 63) - 1),
        ):
            value = getattr(self, name)
            _require(value is None or value <= most, f"{name} {value} must be at most {most}")
        _require(self.sample_frac is None or self.sample_frac > 0, f"sample_frac {self.sample_frac} must be above 0")
        for name in ("seed", "hidden_layers"):
            _require(getattr(self, name) >= 0, f"{name} {getattr(self, name)} must be at least 0")
        for name, least in (("partitions", 1), ("partition_size", 1), ("overlaps", 0)):
            numbers = getattr(self, name)
            _require(numbers is None or numbers, f"{name}: empty; give one number per dimension")
            _require(all(n >= least for n in numbers or ()), f"{name} {commas(numbers)}: each at least {least}")
        self._check_alternatives()

    def _check_alternatives(self) -> None:
        _require(
            self.partitions is None or self.partition_size is None,
            "partitions: given beside partition_size; give one of them",
        )
        widths = self.local_width is not None or self.global_width is not None
        _require(self.parameters is None or not widths, "parameters and widths exclude each other; give one of them")
        if self.mode == "lg":
            both = (self.local_width is None) == (self.global_width is None)
            _require(both, "mode lg needs local_width and global_width together, or a number of parameters")
        else:
            _require(self.global_width is None, f"global_width: mode {self.mode} has no shared network; use mode lg")
        if self.mode == "mlp":
            one = all(n == 1 for n in self.partitions or ()) and self.partition_size is None
            name = "partitions" if self.partition_size is None else "partition_size"
            _require(one, f"{name}: mode mlp is one network for the whole signal; use mode lg or lc")
            alone = not any(self.overlaps or ())
            _require(alone, "overlaps: mode mlp has one partition and no neighbours; leave them out")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a config means for one signal.

    Attributes:
        notes: what a user should be told of it, a line each.
    """

    model: ModelConfig
    lattice: Lattice
    coordinates: Coordinates
    extent: Box
    config: EncodeConfig
    notes: tuple[str, ...]


def plan(signal: Signal, config: EncodeConfig) -> Plan:
    """Lattice, coordinates and widths for a signal (no weights yet).

    Raises:
        ConfigError: the config does not fit the signal.
    """
    kind = KINDS[signal.kind]
    counts = {name: getattr(config, name) for name in ("partitions", "partition_size", "overlaps")}
    given = {name: along_axes(name, numbers, signal.kind) for name, numbers in counts.items() if numbers is not None}
    config = replace(config, **given)  # type: ignore[arg-type]
    extent = box_of_shape(signal.shape)
    halo = config.overlaps or (0,) * kind.dimensions
    if any(o >= size for o, size in zip(halo, signal.shape, strict=True) if o):
        raise ConfigError(f"overlaps {commas(halo)}: must be smaller than the signal, {commas(signal.shape)} samples")
    lattice = Lattice.covering(extent, _tile(signal, config), halo)
    empty = ModelConfig(
        config.mode, kind.dimensions, signal.channels, 0, 0, config.hidden_layers, agg_type=config.agg_type
    )
    if config.local_width is not None:
        model = replace(empty, local_width=config.local_width, global_width=config.global_width or 0)
    elif config.parameters is not None:
        model = widths_for_budget(empty, len(lattice), config.parameters)
    else:
        model = default_widths(empty, len(lattice), math.prod(signal.shape), kind.parameters_per_sample)
    # weights, the best ones, gradients and two moments
    check_fits(20 * sum(parameter_counts(model, len(lattice))), f"a fit of {len(lattice)} partitions of this width")
    local_scale = _local_scale(signal, config, lattice.tile)
    scales = (kind.coordinate_scale,) * kind.dimensions
    own_scales = None if local_scale is None else (local_scale,) * kind.dimensions
    coordinates = Coordinates("signal", signal.shape, scales, own_scales)
    resolved = replace(
        config,
        local_scale=local_scale,
        partitions=None,
        partition_size=None if config.mode == "mlp" else lattice.tile,
        parameters=None,
        local_width=model.local_width,
        global_width=model.global_width or None,
        overlaps=halo,
    )
    return Plan(model, lattice, coordinates, extent, resolved, tuple(_notes(signal, config, lattice.tile)))


def along_axes(name: str, numbers: Sequence[int], kind: str) -> tuple[int, ...]:
    """One number per dimension; for audio also 1,N,1, as the published commands write it.

    Raises:
        ConfigError: another number of them; names the option.
    """
    axes = KINDS[kind].axes
    if len(axes) == 1 and len(numbers) == 3 and numbers[0] == numbers[2] == 1:
        return (numbers[1],)
    if len(numbers) != len(axes):
        raise ConfigError(
            f"{name} {commas(numbers)}: {kind} has {counted(len(axes), 'dimension')} ({', '.join(axes)}), "
            f"got {counted(len(numbers), 'number')}"
        )
    return tuple(numbers)


def _tile(signal: Signal, config: EncodeConfig) -> tuple[int, ...]:
    shape = signal.shape
    if config.mode == "mlp":
        return shape
    if config.partition_size is not None:
        return tuple(min(t, size) for t, size in zip(config.partition_size, shape, strict=True))
    if config.partitions is None:
        side = round(KINDS[signal.kind].samples_per_partition ** (1 / len(shape)))
        return tuple(min(side, size) for size in shape)
    if any(n > size for n, size in zip(config.partitions, shape, strict=True)):
        raise ConfigError(
            f"partitions {commas(config.partitions)}: more than the signal has samples, {commas(shape)}; give fewer"
        )
    return tuple(-(-size // n) for n, size in zip(config.partitions, shape, strict=True))


def _local_scale(signal: Signal, config: EncodeConfig, tile: tuple[int, ...]) -> float | None:
    """The local scale asked for; where float32 cannot tell the samples of a long axis apart, the one that gives local
    networks coordinates of their own tile at the step of so many samples."""
    longest = max(signal.shape)
    if config.local_scale is not None or longest <= LONGEST_AXIS or config.mode == "mlp":
        return config.local_scale
    step = 2 * KINDS[signal.kind].coordinate_scale / (LONGEST_AXIS - 1)
    return step * tile[signal.shape.index(longest)] / 2


def _notes(signal: Signal, config: EncodeConfig, tile: tuple[int, ...]) -> Iterator[str]:
    """Where a plan is not what was asked for."""
    shape, longest = signal.shape, max(signal.shape)
    real = tuple(-(-size // t) for size, t in zip(shape, tile, strict=True))
    if config.partitions not in (None, real):
        asked, got, samples, whole = (commas(numbers) for numbers in (config.partitions, real, tile, shape))
        yield f"partitions: asked for {asked}, got {got}, because tiles of {samples} samples cover {whole}"
    if config.local_scale is not None or longest <= LONGEST_AXIS:
        return
    if config.mode == "mlp":
        yield f"mode mlp: float32 cannot tell all of {longest} samples along one axis apart; modes lg and lc can"
    else:
        yield f"local networks see their own tile's coordinates, because float32 cannot tell {longest} samples apart"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):  # options nest no deeper; a list may hold itself
        return [entry.tolist() if isinstance(entry, np.generic) else entry for entry in value]
    return value


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    _require(value in known, f"{name} {value!r} is unknown; choose one of {', '.join(known)}")


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise ConfigError(message)
