"""Manifest: the JSON part of a file, and the rules that it must keep."""

import math
from dataclasses import dataclass
from typing import Any

from lgsirens.grid.box import LARGEST_POSITION, Box, contains
from lgsirens.grid.coordinates import Frame
from lgsirens.nn.siren import AGGREGATIONS, LARGEST_WIDTH, MODES, ModelConfig, row_layout
from lgsirens.representation.representation import FitRecord, SignalInfo
from lgsirens.signal import KINDS, LARGEST_VALUE, SAMPLE_TYPES

FORMAT_VERSION = 1

_LARGEST_COUNT = 1 << 40
LARGEST_DEPTH = 64
LARGEST_FACTOR = 1e6


@dataclass(frozen=True)
class RowEntry:
    """Where one tensor of a local network lies in its row: `shape` numbers from `offset`."""

    name: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Manifest:
    """Everything of a `Representation` that is no tensor, under the same names, and the checks of the tensors."""

    format_version: int
    model: ModelConfig
    row_layout: tuple[RowEntry, ...]
    partitions: int
    tile: tuple[int, ...]
    halo: tuple[int, ...]
    frame: Frame
    extent: Box
    window: Box
    signal: SignalInfo
    crc32: dict[str, int]
    origin: str
    history: tuple[dict[str, Any], ...]
    fit: FitRecord
    config: dict[str, Any]

    @staticmethod
    def layout_of(model: ModelConfig) -> tuple[RowEntry, ...]:
        entries, offset = [], 0
        for name, shape in row_layout(model):
            entries.append(RowEntry(name, shape, offset))
            offset += math.prod(shape)
        return tuple(entries)


def check_manifest(manifest: Manifest) -> None:
    """Check what types alone do not say.

    Raises:
        ValueError: names the part that cannot be.
    """
    model, signal = manifest.model, manifest.signal
    _require(model.mode in MODES, f"mode {model.mode!r} is unknown")
    _require(model.agg_type in AGGREGATIONS, f"agg_type {model.agg_type!r} is unknown")
    _require(1 <= model.local_width <= LARGEST_WIDTH, f"local width {model.local_width} is out of range")
    least_global = 1 if model.mode == "lg" else 0
    _require(least_global <= model.global_width <= LARGEST_WIDTH, f"global width {model.global_width} is out of range")
    _require(0 <= model.hidden_layers <= LARGEST_DEPTH, f"{model.hidden_layers} hidden layers are out of range")
    _require(0 < model.w0 <= LARGEST_FACTOR, f"w0 {model.w0} is out of range")
    _require(manifest.row_layout == Manifest.layout_of(model), "the row layout does not match the model")
    _require(signal.kind in KINDS, f"kind {signal.kind!r} is unknown")
    kind = KINDS[signal.kind]
    _require(model.dimensions == kind.dimensions, f"{model.dimensions} dimensions do not fit kind {signal.kind}")
    _require(1 <= signal.channels <= kind.max_channels, f"{signal.channels} channels do not fit kind {signal.kind}")
    _require(model.channels == signal.channels, "the model's channels do not match the signal's")
    lowest, highest = signal.value_range
    _require(-LARGEST_VALUE <= lowest < highest <= LARGEST_VALUE, f"value range {signal.value_range} is out of range")
    _require(signal.dtype in SAMPLE_TYPES, f"sample type {signal.dtype!r} is unknown")
    _require(all(n > 0 for n in signal.sampling_rate or ()), "the sampling rate is not positive")
    spacing = signal.spacing or (1.0,) * kind.dimensions
    _require(len(spacing) == kind.dimensions and min(spacing) > 0, "the spacing is not positive in each dimension")
    _require(1 <= manifest.partitions <= _LARGEST_COUNT, f"{manifest.partitions} partitions are out of range")
    _require(model.mode != "mlp" or manifest.partitions == 1, "mode mlp has exactly one partition")
    _check_boxes(manifest)


def _check_boxes(manifest: Manifest) -> None:
    dimensions, frame = manifest.model.dimensions, manifest.frame
    for name in ("tile", "halo", "extent", "window"):
        _require(len(getattr(manifest, name)) == dimensions, f"{name} does not have {dimensions} dimensions")
    _require(len(frame.size) == dimensions, f"frame size does not have {dimensions} dimensions")
    _require(all(1 <= size < LARGEST_POSITION for size in (*manifest.tile, *frame.size)), "a size is out of range")
    _require(all(0 <= size < LARGEST_POSITION for size in manifest.halo), "a halo is out of range")
    _require(0 < frame.scale <= LARGEST_FACTOR, f"frame scale {frame.scale} is out of range")
    local_scale = 1.0 if frame.local_scale is None else frame.local_scale
    _require(0 < local_scale <= LARGEST_FACTOR, f"local scale {local_scale} is out of range")
    for name in ("extent", "window"):
        for start, stop in getattr(manifest, name):
            _require(-LARGEST_POSITION <= start < stop <= LARGEST_POSITION, f"{name} {start}:{stop} is out of range")
    _require(contains(manifest.extent, manifest.window), "the window is not inside the extent")


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)
