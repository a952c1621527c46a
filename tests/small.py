"""Small representations with random weights, built without a fit: fast, and the same for the same seed; and what
files are compared by."""

import json
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgsirens.grid.box import Box, intersect
from lgsirens.grid.coordinates import Coordinates
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.kernels.block import Block
from lgsirens.nn.memory import DEFAULT_LIMIT, training_columns
from lgsirens.nn.siren import ModelConfig, SirenPerPartition, build_model
from lgsirens.representation.file import identified
from lgsirens.representation.representation import FitRecord, Representation, SignalInfo, first_encoding
from lgsirens.representation.rows import MemoryRows
from lgsirens.signal import KINDS, Array, Signal
from lgsirens.system.schema import to_plain
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.run import prepare
from lgsirens.training.samples import AllSamples, RandomSamples, Samples, StratifiedSamples
from lgsirens.training.windows import Windows

KIND_OF_RANK = {1: "audio", 2: "image", 3: "volume"}


def representation(
    shape: Sequence[int],
    channels: int = 1,
    mode: str = "lg",
    tile: Sequence[int] | None = None,
    seed: int = 0,
    *,
    start: Sequence[int] | None = None,
    halo: Sequence[int] | None = None,
    window: Box | None = None,
    kind: str | None = None,
    value_range: tuple[float, float] = (0.0, 255.0),
    dtype: str = "uint8",
    sampling_rate: tuple[int, int] | None = None,
    local_scale: float | None = None,
    local_width: int = 4,
    global_width: int = 5,
    hidden_layers: int = 3,
    agg_type: str = "fc",
    coordinates: Coordinates | None = None,
    overviewed: bool = True,
    config: dict[str, Any] | None = None,
) -> Representation:
    """A representation of a signal of `shape`, with SIREN's initial weights.

    Args:
        tile: samples of a partition along each dimension; None: one partition.
        start: position of the first sample, the origin when None; what an extension would leave.
        window: the extent when None.
        coordinates: those of the signal when None, local ones of `local_scale`.
        overviewed: with numbers in place of an overview.
        kind: settled by the rank when None: audio, image, volume.
    """
    kind = kind or KIND_OF_RANK[len(shape)]
    start = start or (0,) * len(shape)
    extent = tuple((first, first + size) for first, size in zip(start, shape, strict=True))
    lattice = Lattice.covering(extent, tuple(tile or shape), None if halo is None else tuple(halo))
    wide = global_width if mode == "lg" else 0
    model = ModelConfig(mode, len(shape), channels, local_width, wide, hidden_layers, agg_type=agg_type)
    network = build_model(model, len(lattice), torch.Generator().manual_seed(seed))
    coordinates = coordinates or Coordinates(
        "signal",
        tuple(shape),
        (KINDS[kind].coordinate_scale,) * len(shape),
        None if local_scale is None else (local_scale,) * len(shape),
    )
    fresh = first_encoding(
        "encode",
        model,
        lattice,
        coordinates,
        extent,
        SignalInfo(kind, channels, value_range, dtype, sampling_rate),
        MemoryRows(network.local.detach()),
        {name: tensor.detach() for name, tensor in network.shared.items()},
        FitRecord(steps=3, seconds=0.25, psnr=31.5, stopped="steps", device="cpu"),
        {"mode": mode, "seed": seed} if config is None else config,
    )
    entry = fresh.history[0] | {"date": "2024-01-01", "window": to_plain(extent)}
    overview = np.random.default_rng(seed).random((len(lattice), channels), dtype=np.float32) if overviewed else None
    return identified(replace(fresh, window=window or extent, history=(entry,), overview=overview))


def names(ids: Any) -> list[tuple[int, ...]]:
    """Ids as tuples."""
    return [tuple(name) for name in np.asarray(ids).tolist()]


def fitted(inr: Representation) -> set[tuple[int, ...]]:
    """The partitions that the last edit has fitted."""
    return set(names(inr.ids[inr.row_edit == len(inr.history) - 1]))


def refitted(inr: Representation, old: Representation) -> set[tuple[int, ...]]:
    """The partitions that the last edit has fitted anew."""
    return fitted(inr) & set(names(old.ids))


def blank(inr: Representation) -> set[tuple[int, ...]]:
    """The partitions some of whose samples nobody gave."""
    return set(names(inr.ids[inr.row_blank != 0]))


def picture() -> Signal:
    """A small smooth picture."""
    rows, columns = np.mgrid[:40, :33]
    return Signal.from_array((127 + 60 * np.sin(rows / 4) + 60 * np.cos(columns / 5)).astype(np.uint8))


def prepared(
    *, max_memory: int = DEFAULT_LIMIT, own: slice = slice(None), **options: Any
) -> tuple[SirenPerPartition, Samples, torch.Generator]:
    """What a fit of a small model to `picture` starts from."""
    settings = {"partitions": (4, 4), "local_width": 6, "global_width": 7, "kernel": "eager"} | options
    planned = plan(picture(), EncodeConfig(**settings))
    run = prepare(picture(), planned, torch.device("cpu"), max_memory, own)
    return run.model, run.samples, run.generator


def all_samples(windows: Windows, samples_per_block: int) -> AllSamples:
    """All samples in blocks as an eager kernel has them."""
    return AllSamples(windows, samples_per_block, training_columns(samples_per_block, windows.alike))


def some_samples(windows: Windows, samples_per_block: int, fraction: float, seed: int) -> Samples:
    """Draws of a fraction of the samples, as the coordinates of the windows have them."""
    if windows.tiled:
        number = max(1, int(fraction * math.prod(windows.sizes)))
        columns = training_columns(samples_per_block, windows.alike)
        return StratifiedSamples(windows, samples_per_block, columns, lambda step: number, seed, complete=False)
    return RandomSamples(windows, samples_per_block, fraction, torch.Generator().manual_seed(seed))


def in_double(block: Block) -> Block:
    """A block in float64."""
    doubled = {name: getattr(block, name) for name in ("x", "x_local", "target")}
    doubled = {name: None if value is None else value.double() for name, value in doubled.items()}
    features = block.shared_features
    if features is not None:
        doubled["shared_features"] = [None if value is None else value.double() for value in features]
    return replace(block, **doubled)


def overview_of(inr: Representation) -> Array:
    """The means of what its partitions decode to."""
    boxes = [intersect(inr.lattice.box(place), inr.extent) for place in range(len(inr.ids))]
    parts = [np.asarray(inr.decode(box).values, np.float64) for box in boxes]
    return np.array([part.reshape(-1, part.shape[-1]).mean(axis=0) for part in parts], dtype=np.float32)


def contents(inr: Representation) -> dict[str, Any]:
    """Every field of a representation as plain data that `==` compares exactly, the weights as bytes."""
    arrays = ("ids", "row_edit", "row_blank", "overview")
    names = [field.name for field in fields(inr) if field.name not in ("rows", "shared", *arrays)]
    plain = {name: to_plain(getattr(inr, name)) for name in names}
    tensors = {f"shared.{name}": tensor.numpy() for name, tensor in inr.shared.items()}
    tensors |= {name: getattr(inr, name) for name in arrays if getattr(inr, name) is not None}
    tensors["local"] = inr.rows.read(np.arange(len(inr.rows))).numpy()
    plain |= {name: (values.shape, values.dtype, values.tobytes()) for name, values in tensors.items()}
    return plain


def without_times(path: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of a file without what a clock wrote, and all bytes after the header."""
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    manifest = json.loads(json.loads(content[8:header])["__metadata__"]["lgsirens"])
    manifest["fit"].pop("seconds")
    for entry in manifest["history"]:
        entry.pop("date")
        entry.pop("seconds", None)
    return manifest, content[header:]
