"""What options mean for one signal: lattice, coordinates and widths, before any weight is drawn."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lgsirens.errors import ConfigError
from lgsirens.grid.box import Box, box_of_shape
from lgsirens.grid.coordinates import COORDINATES, LONGEST_AXIS, Coordinates
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.kernels.kernel import KERNELS
from lgsirens.nn.siren import AGGREGATIONS, LARGEST_DEPTH, LARGEST_WIDTH, MODES, ModelConfig
from lgsirens.nn.widths import default_widths, widths_for_budget
from lgsirens.representation.representation import LARGEST_FACTOR, Representation
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import commas, counted
from lgsirens.system.hardware import check_fits
from lgsirens.system.schema import from_plain, option
from lgsirens.training.optimizers import RECIPES, fit_bytes

_SCALES = ("shared_scale", "local_scale")  # one number is that of every axis

# What the kinds of signals take by default, for help.
_TILES = ", ".join(f"{kind.samples_per_partition} samples ({name})" for name, kind in KINDS.items())
_STEPS = ", ".join(f"{recipe.steps} ({name})" for name, recipe in RECIPES.items())
_HALOS = ", ".join(f"{kind.halo} ({name}, tile coordinates)" for name, kind in KINDS.items() if kind.halo) + ", else 0"
_BUDGETS = ", ".join(f"{kind.parameters_per_sample} a sample ({name})" for name, kind in KINDS.items())


_OF_MODEL = ("hidden_layers", "agg_type")  # by default those of `ModelConfig`


@dataclass(frozen=True)
class EncodeConfig:
    """The options that determine a representation; the `help` of each field says what it is.

    `partition_size` replaces `partitions`, and `parameters` replaces the widths, which go together in mode "lg".
    """

    mode: str = option("lg", choices=MODES, help="lg (Local-Global SIREN), lc (SIREN-per-Partition) or mlp (SIREN)")
    partitions: tuple[int, ...] | None = option(None, least=1, help="number per dimension, such as 16,16")
    partition_size: tuple[int, ...] | None = option(None, least=1, shown=_TILES, help="or samples of each, as 32,32")
    parameters: int | None = option(None, least=1, shown=_BUDGETS, help="budget that gives the widths")
    local_width: int | None = option(None, least=1, most=LARGEST_WIDTH, metavar="L", help="or local networks' width")
    global_width: int | None = option(None, least=1, most=LARGEST_WIDTH, metavar="G", help="the shared network's width")
    hidden_layers: int | None = option(
        None, least=0, most=LARGEST_DEPTH, metavar="H", shown="3", help="hidden layers after the first"
    )
    agg_type: str | None = option(
        None, choices=AGGREGATIONS, shown="fc", help="fc or fc_and_add: how local and global features meet"
    )
    overlaps: tuple[int, ...] | None = option(None, least=0, shown=_HALOS, help="halo per dimension, in samples")
    sample_frac: float | None = option(
        None, above=0, most=1, shown="all; fast: growing", help="fraction of samples that a step draws"
    )
    recipe: str = option("fast", choices=tuple(RECIPES), help="fast, adam, or paper: as published (docs/recipes.md)")
    coordinates: str | None = option(
        None, choices=COORDINATES, shown="tile; recipe paper and adam: signal", help="what networks see"
    )
    shared_scale: tuple[float, ...] | None = option(
        None,
        above=0,
        most=LARGEST_FACTOR,
        shown="by the tile",
        metavar="S",
        help="tile coordinates of the shared network: -S to S; one number or one per axis",
    )
    local_scale: tuple[float, ...] | None = option(
        None, above=0, most=LARGEST_FACTOR, shown="by the tile", metavar="S", help="of local ones"
    )
    steps: int | None = option(None, least=1, shown=_STEPS, help="optimiser steps")
    seconds: float | None = option(None, above=0, metavar="S", help="of fitting: as many steps as fit")
    target_psnr: float | None = option(None, above=0, metavar="DB", help="stop as soon as this PSNR is reached")
    lr: float | None = option(
        None, above=0, shown="by the recipe", help="highest learning rate; of paper the constant one"
    )
    kernel: str = option("auto", choices=KERNELS, help="fused (compiled, on CPUs), eager (PyTorch), or what there is")
    seed: int = option(0, least=0, most=(1 << 53) - 1, help="of the initial weights and the draws")
    no_overview: bool = option(False, help="leave the overview out of the file; coarse levels are then decoded")

    @property
    def total_steps(self) -> int | None:
        """`steps`, or those of the recipe; None: as many as fit into `seconds`."""
        recipe = RECIPES[self.recipe]
        # A rate that does not depend on how many steps there will be lets a fit go on until it meets its target.
        until_target = self.target_psnr is not None and recipe.decay == "inverse"
        return self.steps or (None if self.seconds else recipe.steps * (10 if until_target else 1))

    @property
    def seen(self) -> str:
        """`coordinates`, or those of the recipe."""
        return self.coordinates or RECIPES[self.recipe].coordinates

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "EncodeConfig":
        """Check types, names and ranges of options by name, and what excludes each other.

        Raises:
            ConfigError: names the option, what was given and what it may be.
        """
        plain = {name: _plain(value) for name, value in options.items()}
        plain |= {name: [plain[name]] for name in _SCALES if isinstance(plain.get(name), int | float)}
        config = from_plain(cls, plain)
        widths = [width for width in (config.local_width, config.global_width) if width is not None]
        alone = config.mode == "mlp"
        for name, wrong, message in (
            ("partitions", config.partitions and config.partition_size, "beside partition_size; give one of them"),
            ("parameters", config.parameters and widths, "beside widths; give one of them"),
            ("mode", config.mode == "lg" and len(widths) == 1, "lg: give local_width and global_width, or parameters"),
            ("global_width", config.mode != "lg" and config.global_width, "needs mode lg, which has a shared network"),
            ("partitions", alone and math.prod(config.partitions or ()) > 1, "needs mode lg or lc: mlp is one network"),
            ("partition_size", alone and config.partition_size, "needs mode lg or lc: mlp is one network"),
            ("overlaps", alone and any(config.overlaps or ()), "needs mode lg or lc: mlp has no neighbours"),
            ("shared_scale", config.shared_scale and config.seen != "tile", "needs coordinates tile"),
        ):
            if wrong:
                raise ConfigError(message, name)
        return config


@dataclass(frozen=True, eq=False)
class Plan:
    """What a config means for one signal.

    Attributes:
        notes: what a user should be told of it, a line each.
        shared_from: has the shared network, which then does not learn.
    """

    model: ModelConfig
    lattice: Lattice
    coordinates: Coordinates
    extent: Box
    config: EncodeConfig
    notes: tuple[str, ...]
    shared_from: Representation | None = None


def plan(signal: Signal, config: EncodeConfig, shared_from: Representation | None = None) -> Plan:
    """Lattice, coordinates and widths for a signal (no weights yet).

    Args:
        shared_from: takes its shared network, and all that goes with it.

    Raises:
        ConfigError: the config does not fit the signal, or the network to share.
    """
    kind = KINDS[signal.kind]
    for name in ("partitions", "partition_size", "overlaps", *_SCALES):
        if (numbers := getattr(config, name)) is not None:
            every = name in _SCALES and len(numbers) == 1
            named: Any = {name: along_axes(name, numbers * kind.dimensions if every else numbers, signal.kind)}
            config = replace(config, **named)
    extent = box_of_shape(signal.shape)
    if shared_from is None:
        lattice = _lattice(signal, config, extent)
        model, coordinates = _model(signal, config, len(lattice)), _coordinates(signal, config, lattice.tile)
    else:
        _check_shareable(signal, shared_from)
        lattice = Lattice.covering(extent, shared_from.tile, shared_from.halo)
        model, coordinates = shared_from.model, replace(shared_from.coordinates, size=signal.shape)
    needed = fit_bytes(model, len(lattice), config.recipe)
    check_fits(needed, f"a fit of {len(lattice)} partitions of this width")
    settled = _settled(model, lattice, coordinates)
    if shared_from is not None:
        _check_settled(config, settled)
    resolved = replace(config, steps=config.total_steps, **settled)
    notes = tuple(_notes(signal, config, lattice.tile, coordinates.kind))
    return Plan(model, lattice, coordinates, extent, resolved, notes, shared_from)


def _settled(model: ModelConfig, lattice: Lattice, coordinates: Coordinates) -> dict[str, Any]:
    """The options that say what networks there are and what they see, as they were chosen in the end."""
    return {
        "mode": model.mode,
        "partitions": None,
        "partition_size": None if model.mode == "mlp" else lattice.tile,
        "parameters": None,
        "local_width": model.local_width,
        "global_width": model.global_width or None,
        "hidden_layers": model.hidden_layers,
        "agg_type": model.agg_type,
        "overlaps": lattice.halo,
        "coordinates": coordinates.kind,
        "shared_scale": coordinates.shared_scale if coordinates.kind == "tile" else None,
        "local_scale": coordinates.local_scale,
    }


def _check_settled(config: EncodeConfig, settled: dict[str, Any]) -> None:
    """Raise ConfigError if an option is given that is another in the file of `shared_from`."""
    for name, value in settled.items():
        if (asked := getattr(config, name)) not in (None, value):
            shown = commas(asked) if isinstance(asked, tuple) else asked
            raise ConfigError(f"{shown}: shared_from brings its own; leave it out", name)


def _check_shareable(signal: Signal, shared_from: Representation) -> None:
    """Raise ConfigError unless rows for a signal can be fitted to the shared network of another."""
    known = shared_from.signal
    ours, theirs = (f"{one.kind} of {counted(one.channels, 'channel')}" for one in (signal, known))
    if not shared_from.shared:
        reason = f"mode {shared_from.model.mode} has no shared network; name a file of mode lg"
    elif shared_from.coordinates.kind != "tile":
        reason = "rows of signal coordinates belong to one signal; name a file with coordinates tile"
    elif ours != theirs:
        reason = f"it holds {theirs}, the signal is {ours}; name a file of such"
    else:
        return
    raise ConfigError(f"cannot be: {reason}", "shared_from")


def along_axes(name: str, numbers: Sequence[float], kind: str) -> tuple[Any, ...]:
    """One number per dimension; for audio also 1,N,1, as the published commands write it.

    Raises:
        ConfigError: another number of them; names the option.
    """
    axes = KINDS[kind].axes
    if len(axes) == 1 and len(numbers) == 3 and numbers[0] == numbers[2] == 1:
        return (numbers[1],)
    if len(numbers) != len(axes):
        dimensions = f"{counted(len(axes), 'dimension')} ({', '.join(axes)})"
        raise ConfigError(f"{commas(numbers)}: {kind} has {dimensions}; give a number for each", name)
    return tuple(numbers)


def _model(signal: Signal, config: EncodeConfig, partitions: int) -> ModelConfig:
    kind = KINDS[signal.kind]
    chosen: Any = {name: value for name in _OF_MODEL if (value := getattr(config, name)) is not None}
    empty = ModelConfig(config.mode, kind.dimensions, signal.channels, 0, **chosen)
    if config.local_width is not None:
        return replace(empty, local_width=config.local_width, global_width=config.global_width or 0)
    if config.parameters is not None:
        return widths_for_budget(empty, partitions, config.parameters)
    return default_widths(empty, partitions, math.prod(signal.shape), kind.parameters_per_sample)


def _lattice(signal: Signal, config: EncodeConfig, extent: Box) -> Lattice:
    halo = config.overlaps or _halo(signal, config)
    if any(o >= size for o, size in zip(halo, signal.shape, strict=True) if o):
        raise ConfigError(f"{commas(halo)}: must be below the signal's {commas(signal.shape)} samples", "overlaps")
    return Lattice.covering(extent, _tile(signal, config), halo)


def _tile(signal: Signal, config: EncodeConfig) -> tuple[int, ...]:
    shape = signal.shape
    if config.mode == "mlp":
        return shape
    if config.partitions is None:
        side = round(KINDS[signal.kind].samples_per_partition ** (1 / len(shape)))
        sides = config.partition_size or (side,) * len(shape)
        return tuple(min(t, size) for t, size in zip(sides, shape, strict=True))
    if any(n > size for n, size in zip(config.partitions, shape, strict=True)):
        asked = commas(config.partitions)
        raise ConfigError(f"{asked}: more than the signal has samples, {commas(shape)}; give fewer", "partitions")
    return tuple(-(-size // n) for n, size in zip(config.partitions, shape, strict=True))


def _halo(signal: Signal, config: EncodeConfig) -> tuple[int, ...]:
    """What windows reach into the neighbours by default: no seams show between the samples then."""
    kind = KINDS[signal.kind]
    reach = kind.halo if config.seen == "tile" and config.mode != "mlp" else 0
    return tuple(min(reach, size - 1) for size in signal.shape)


def _coordinates(signal: Signal, config: EncodeConfig, tile: tuple[int, ...]) -> Coordinates:
    kind = KINDS[signal.kind]
    if config.seen == "signal":
        scale = (kind.coordinate_scale,) * len(tile)
        return Coordinates("signal", signal.shape, scale, _local_scale(signal, config, tile))
    default = (kind.coordinate_step * math.prod(tile) ** (1 / len(tile)) / 2,) * len(tile)
    return Coordinates("tile", signal.shape, config.shared_scale or default, config.local_scale or default)


def _local_scale(signal: Signal, config: EncodeConfig, tile: tuple[int, ...]) -> tuple[float, ...] | None:
    """The local scale asked for; where float32 cannot tell the samples of a long axis apart, the one that gives local
    networks coordinates of their own tile at the step of so many samples."""
    longest = max(signal.shape)
    if config.local_scale is not None or longest <= LONGEST_AXIS or config.mode == "mlp":
        return config.local_scale
    step = 2 * KINDS[signal.kind].coordinate_scale / (LONGEST_AXIS - 1)
    return (step * tile[signal.shape.index(longest)] / 2,) * len(tile)


def _notes(signal: Signal, config: EncodeConfig, tile: tuple[int, ...], coordinates: str) -> Iterator[str]:
    """Where a plan is not what was asked for."""
    shape, longest = signal.shape, max(signal.shape)
    real = tuple(-(-size // t) for size, t in zip(shape, tile, strict=True))
    if config.partitions not in (None, real):
        asked, got, samples, whole = (commas(numbers) for numbers in (config.partitions, real, tile, shape))
        yield f"partitions: asked for {asked}, got {got}, because tiles of {samples} samples cover {whole}"
    if config.lr is not None and RECIPES[config.recipe].decay != "none":
        yield f"lr: the highest rate of recipe {config.recipe}, which decays; recipe paper keeps it constant"
    if config.local_scale is not None or longest <= LONGEST_AXIS or coordinates == "tile":
        return
    if config.mode == "mlp":
        yield f"mode mlp: float32 cannot tell all of {longest} samples along one axis apart; modes lg and lc can"
    else:
        yield f"local networks see their own tile's coordinates, because float32 cannot tell {longest} samples apart"


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's; options nest no deeper than a list, and one may hold itself."""
    if isinstance(value, list | tuple):
        return [entry.tolist() if isinstance(entry, np.generic) else entry for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
