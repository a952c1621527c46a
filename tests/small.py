"""Small representations with random weights, built without a fit: fast, and the same for the same seed; and what
files are compared by."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgsirens.grid.box import Box
from lgsirens.grid.lattice import Frame, Lattice
from lgsirens.nn.kernels.block import Block
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.nn.siren import ModelConfig, SirenPerPartition, build_model
from lgsirens.representation.file import content_hash
from lgsirens.representation.representation import FitRecord, MemoryRows, Representation, SignalInfo
from lgsirens.signal import KINDS, Signal
from lgsirens.system.schema import to_plain
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.encode import prepare
from lgsirens.training.samples import Samples

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
    config: dict[str, Any] | None = None,
) -> Representation:
    """A representation of a signal of `shape`, with SIREN's initial weights.

    Args:
        tile: samples of a partition along each dimension; None: one partition.
        start: position of the first sample, the origin when None; what an extension would leave.
        window: the extent when None.
        kind: settled by the rank when None: audio, image, volume.
    """
    kind = kind or KIND_OF_RANK[len(shape)]
    start = start or (0,) * len(shape)
    extent = tuple((first, first + size) for first, size in zip(start, shape, strict=True))
    lattice = Lattice.covering(extent, tuple(tile or shape), None if halo is None else tuple(halo))
    wide = global_width if mode == "lg" else 0
    model = ModelConfig(mode, len(shape), channels, local_width, wide, hidden_layers, agg_type=agg_type)
    network = build_model(model, len(lattice), torch.Generator().manual_seed(seed))
    fresh = Representation(
        model=model,
        lattice=lattice,
        frame=Frame(tuple(shape), KINDS[kind].frame_scale, local_scale),
        extent=extent,
        window=window or extent,
        signal=SignalInfo(kind, channels, value_range, dtype, sampling_rate),
        shared={name: tensor.detach() for name, tensor in network.shared.items()},
        rows=MemoryRows(network.local.detach()),
        origin="",
        history=({"action": "encode", "window": "all", "date": "2024-01-01"},),
        fit=FitRecord(steps=3, seconds=0.25, psnr=31.5, stopped="steps", device="cpu"),
        config={"mode": mode, "seed": seed} if config is None else config,
    )
    return replace(fresh, origin=content_hash(fresh))


def picture() -> Signal:
    """A small smooth picture."""
    rows, columns = np.mgrid[:40, :33]
    return Signal.from_array((127 + 60 * np.sin(rows / 4) + 60 * np.cos(columns / 5)).astype(np.uint8))


def prepared(*, max_memory: int = DEFAULT_LIMIT, **options: Any) -> tuple[SirenPerPartition, Samples, torch.Generator]:
    """What a fit of a small model to `picture` starts from."""
    settings = {"partitions": (4, 4), "local_width": 6, "global_width": 7} | options
    planned = plan(picture(), EncodeConfig(**settings))
    run = prepare(picture(), planned, torch.device("cpu"), max_memory)
    return run.model, run.samples, run.generator


def in_double(block: Block) -> Block:
    """A block in float64."""
    doubled = {name: getattr(block, name) for name in ("x", "x_local", "target")}
    doubled = {name: None if value is None else value.double() for name, value in doubled.items()}
    features = block.shared_features
    if features is not None:
        doubled["shared_features"] = [None if value is None else value.double() for value in features]
    return replace(block, **doubled)


def contents(inr: Representation) -> dict[str, Any]:
    """Every field of a representation as plain data that `==` compares exactly, the weights as bytes."""
    plain = {field.name: to_plain(getattr(inr, field.name)) for field in fields(inr)}
    plain["lattice"] = (inr.lattice.tile, inr.lattice.halo, inr.lattice.ids.dtype, inr.lattice.ids.tolist())
    plain["shared"] = {name: (t.shape, t.dtype, t.numpy().tobytes()) for name, t in inr.shared.items()}
    rows = inr.rows.read(np.arange(len(inr.rows)))
    plain["rows"] = (rows.shape, rows.dtype, rows.numpy().tobytes())
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
