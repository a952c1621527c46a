"""Decoding any region at any resolution, in bounded memory; values at single positions are in `evaluate.py`.

A matrix product may round differently when its size changes. So that the same sample decodes to the same bits
whatever is asked for, every evaluation has one shape, `Call`: B blocks of M samples, fixed by lattice, scale and model;
blocks are cut from each partition's own origin; a region evaluates every block that it meets, then cuts.
"""

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, RegionError
from lgsirens.grid.box import Box, Region, as_region, box_shape, box_size, grown, intersect, is_empty, slices
from lgsirens.grid.coordinates import Scale, as_scales, axis_coordinates, fine_box, fine_offsets, fine_positions, mesh
from lgsirens.grid.lattice import Lattice, block_shape
from lgsirens.nn.memory import DEFAULT_LIMIT, evaluation_bytes, evaluation_samples
from lgsirens.nn.siren import ModelConfig, SirenPerPartition, count, row_layout
from lgsirens.representation.evaluate import BLOCK_SAMPLES, SharedTable, batches, network_of, rows_at_once, to_range
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array, Signal
from lgsirens.system.console import Progress, times
from lgsirens.system.hardware import as_bytes, check_fits, format_bytes, resolve_device


@dataclass(frozen=True)
class Call:
    """The one shape of every evaluation of a decode.

    Attributes:
        block: samples of a block along each dimension.
        samples: M, samples of a block, rounded up to a multiple of 16.
        blocks: B.
        bytes: working memory of one evaluation.
    """

    block: tuple[int, ...]
    samples: int
    blocks: int
    bytes: int

    @classmethod
    def of(cls, model: ModelConfig, tile: tuple[int, ...], scale: tuple[Fraction, ...]) -> "Call":
        """The call for partitions of `tile` samples, what they reach beyond their borders included."""
        fine = [max(1, math.ceil(size * s)) for size, s in zip(tile, scale, strict=True)]
        block = block_shape(fine, BLOCK_SAMPLES)
        samples = -(-math.prod(block) // 16) * 16
        blocks = max(1, evaluation_samples(model) // samples)
        row_bytes = 4 * count(row_layout(model))
        return cls(block, samples, blocks, blocks * (samples * evaluation_bytes(model) + row_bytes))


def decode(
    representation: Representation,
    region: Region | None = None,
    scale: Scale = 1,
    size: Sequence[int] | None = None,
    full: bool = False,
    blend: int | None = None,
    max_memory: int | str | None = None,
    device: torch.device | str = "auto",
    progress: Progress | None = None,
) -> Signal:
    """Decode a region at a resolution.

    Fine sample j at scale s lies at position `(j + 0.5) / s - 0.5`; scale 1 gives the samples' own positions.

    Args:
        region: `start:stop` per dimension in absolute positions, as text, slices or pairs; default: the window.
        scale: fine samples per sample, one number or one per dimension; rational (`"3/2"`, 1.5, Fraction).
        size: instead of `scale`: samples of the result along each dimension.
        full: decode the whole extent instead of the window.
        blend: within so many samples of an inner border cross-fade the neighbours' predictions (`blend`); best at
            most the halo that was trained. Samples within that reach of a partition depend on it. None: within the halo
            along axes whose scale is not 1, in files with tile coordinates.
        max_memory: bytes that an evaluation may use beside the result; None: 1 GiB, or what one needs if that is more.
        device: where to evaluate: "auto" (CUDA if there is one), "cpu" or "cuda". On the CPU a sample has the same
            bits whatever region is asked for; elsewhere the last ones may differ.
        progress: told of the evaluated samples.

    Returns:
        A signal with float32 values `[*shape, C]`, clipped to the value range, and the mask of what is present;
        samples without a partition have the lowest value (audio: silence).

    Raises:
        RegionError: the region or size is empty, outside, or of wrong dimension.
        ConfigError: the scale is not positive, `blend` is more than half a partition, or `max_memory` is below one
            evaluation.
        FileFormatError: a row that was read is damaged.
    """
    box = _requested_box(representation, region, full)
    scales = as_scales(box, scale, size)
    reach = _reach(representation, blend, scales)
    fine = fine_box(box, scales)
    model, lattice = representation.model, representation.lattice
    call = Call.of(model, tuple(t + 2 * more for t, more in zip(lattice.tile, reach, strict=True)), scales)
    limit = max(DEFAULT_LIMIT, call.bytes) if max_memory is None else as_bytes(max_memory)
    where = resolve_device(device)
    if limit < call.bytes:
        least = f"{call.bytes} bytes ({format_bytes(call.bytes)})"
        raise ConfigError(f"{format_bytes(limit)}: is below one evaluation; give at least {least}", "max_memory")
    check_fits(4 * math.prod(box_shape(fine)) * model.channels, f"a result of {times(box_shape(fine))} samples")
    canvas = _Canvas(representation, box, scales, reach)
    places = lattice.meeting(grown(box, reach))
    network = network_of(representation, where)
    table = SharedTable(network) if model.mode == "lg" and representation.coordinates.kind == "tile" else None
    if progress is not None:
        progress.start(sum(box_size(wanted) for wanted in map(canvas.wanted, places) if not is_empty(wanted)))
    at_once = rows_at_once(model)
    with torch.inference_mode():
        for start in range(0, len(places), at_once):
            group = places[start : start + at_once]
            rows = representation.rows.read(group).to(where)
            for blocks in batches(_blocks(canvas, group, call), call.blocks):
                results = _evaluate(representation, network, table, rows, blocks, scales, call)
                for result, block in zip(results, blocks, strict=False):
                    done = canvas.paint(block, result[: math.prod(call.block)].reshape(*call.block, -1))
                    if progress is not None:
                        progress.advance(done)
    values, mask = canvas.finished()
    known = representation.signal
    return Signal(
        values,
        known.kind,
        known.value_range,
        known.dtype,
        None if known.rate is None else known.rate * scales[0],
        None if known.spacing is None else tuple(d / float(s) for d, s in zip(known.spacing, scales, strict=True)),
        mask,
    )


def partition_means(decoded: Signal, box: Box, lattice: Lattice) -> NDArray[np.float32]:
    """The mean of the samples of each partition, `[P, C]`, out of what fills a box at scale 1.

    Args:
        box: holds samples of every partition.
    """
    parts = (slices(intersect(lattice.box(place), box), box) for place in range(len(lattice)))
    means = [decoded.values[part].mean(axis=tuple(range(lattice.dimensions)), dtype=np.float64) for part in parts]
    return np.stack(means).astype(np.float32)


def _requested_box(representation: Representation, region: Region | None, full: bool) -> Box:
    if region is None:
        return representation.extent if full else representation.window
    if full:
        raise RegionError("a region and full exclude each other; give one of them")
    return as_region(region, representation.extent, representation.signal.rate)


class _Canvas:
    """Where a decode is put together: values, and what has been added to them where partitions blend."""

    def __init__(
        self, representation: Representation, box: Box, scales: tuple[Fraction, ...], reach: tuple[int, ...]
    ) -> None:
        self.lattice, self.scales, self.reach = representation.lattice, scales, reach
        self.fine = fine_box(box, scales)
        self._blank, shape = representation.signal.blank, box_shape(self.fine)
        self._mask = _mask(self.lattice, box, scales)
        start = 0.0 if any(reach) else self._blank
        self._values = np.full((*shape, representation.model.channels), start, dtype=np.float32)
        self._weights = np.zeros(shape, dtype=np.float32) if any(reach) else None

    def area(self, place: int) -> Box:
        """The fine samples that a partition is evaluated at: its own, and those that it reaches."""
        return fine_box(grown(self.lattice.box(place), self.reach), self.scales)

    def wanted(self, place: int) -> Box:
        return intersect(self.area(place), self.fine)

    def paint(self, block: "_Block", samples: Array) -> int:
        """Add what is wanted of one evaluated block; returns the number of its samples."""
        part = samples[slices(block.target, tuple((s, s) for s in block.start))]
        target = slices(block.target, self.fine)
        if self._weights is None:
            self._values[target] = part
        else:
            weight = _weights(self.lattice.box(block.place), self.reach, block.target, self.scales)
            self._values[target] += part * weight[..., None]
            self._weights[target] += weight
        return box_size(block.target)

    def finished(self) -> tuple[Array, NDArray[np.bool_] | None]:
        """The values, and the mask of what is present (None: all of it)."""
        if self._weights is not None:
            self._values /= np.where(self._weights > 0, self._weights, 1)[..., None]
            if self._mask is not None:
                self._values[~self._mask] = self._blank
        return self._values, self._mask


def _mask(lattice: Lattice, box: Box, scales: tuple[Fraction, ...]) -> NDArray[np.bool_] | None:
    """The fine samples of a box that partitions own; None: all of them."""
    places, fine = lattice.meeting(box), fine_box(box, scales)
    if len(places) == math.prod(-(-high // t) - low // t for (low, high), t in zip(box, lattice.tile, strict=True)):
        return None
    mask = np.zeros(box_shape(fine), dtype=bool)
    for place in places:
        mask[slices(intersect(fine_box(lattice.box(place), scales), fine), fine)] = True
    return mask


@dataclass(frozen=True)
class _Block:
    """One block to evaluate: its row in the group, its partition, its first fine sample, and what of it is wanted."""

    row: int
    place: int
    start: tuple[int, ...]
    target: Box


def _blocks(canvas: _Canvas, group: NDArray[np.int64], call: Call) -> Iterator[_Block]:
    for row, place in enumerate(group):
        wanted = canvas.wanted(place)
        if is_empty(wanted):  # a scale below 1 may leave a partition no sample
            continue
        starts = [
            range(first + (low - first) // size * size, high, size)
            for (first, _), (low, high), size in zip(canvas.area(place), wanted, call.block, strict=True)
        ]
        for start in itertools.product(*starts):
            block = tuple((s, s + size) for s, size in zip(start, call.block, strict=True))
            yield _Block(row, int(place), start, intersect(block, wanted))


def _evaluate(
    representation: Representation,
    network: SirenPerPartition,
    table: SharedTable | None,
    rows: Tensor,
    blocks: list[_Block],
    scales: tuple[Fraction, ...],
    call: Call,
) -> Array:
    """One evaluation of the fixed shape; `[B, M, C]` values, of which the first `len(blocks)` count."""
    padded = blocks + [blocks[0]] * (call.blocks - len(blocks))
    x, x_local = _coordinates(representation, padded, scales, call, rows.device)
    features = None if table is None else table.features([_phase(representation, b, scales) for b in padded], x)
    y = network(x, rows[[block.row for block in padded]], x_local, features)
    return np.asarray(to_range(y.clamp(-1, 1), *representation.signal.value_range).cpu().numpy())


def _coordinates(
    representation: Representation,
    blocks: list[_Block],
    scales: tuple[Fraction, ...],
    call: Call,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """Network coordinates `[B, M, D]` of blocks: the signal's, and what the local networks see instead, if they do."""
    lattice, places = representation.lattice, np.array([block.place for block in blocks])
    starts = np.array([block.start for block in blocks], dtype=np.int64)
    origins = lattice.ids[places].astype(np.int64) * lattice.tile
    axes = list(zip(starts.T, call.block, scales, strict=True))
    positions = [fine_positions(*axis) for axis in axes]
    offsets = [fine_offsets(*axis, origin) for axis, origin in zip(axes, origins.T, strict=True)]
    shared, local = axis_coordinates(representation.coordinates, lattice, places, positions, offsets)

    def padded(axes: list[Tensor]) -> Tensor:
        # Only the axes cross over to the device: a mesh of them is larger by far.
        x = mesh([axis.to(device) for axis in axes]).mT
        return torch.nn.functional.pad(x, (0, call.samples - x.shape[-1])).mT

    return padded(shared), None if local is None else padded(local)


def _phase(representation: Representation, block: _Block, scales: tuple[Fraction, ...]) -> tuple[int, ...]:
    """Where a block begins in its tile, in whole numbers: blocks with the same see the same tile coordinates."""
    origins = [low for low, _ in representation.lattice.box(block.place)]
    return tuple(
        (2 * first + 1) * s.denominator - (2 * low + 1) * s.numerator
        for first, low, s in zip(block.start, origins, scales, strict=True)
    )


# Blending


def _reach(representation: Representation, width: int | None, scales: tuple[Fraction, ...]) -> tuple[int, ...]:
    """How far partitions reach beyond their borders along each axis, in samples, for `--blend width`.

    Along an axis that the first signal filled with one partition the reach is at most half of it.

    Raises:
        ConfigError: the width is no whole number from 0 to half a partition.
    """
    lattice = representation.lattice
    if width is None:
        tiled = representation.coordinates.kind == "tile"
        axes = zip(lattice.halo, lattice.tile, scales, strict=True)
        return tuple(min(halo, tile // 2) if tiled and scale != 1 else 0 for halo, tile, scale in axes)
    try:
        width = operator.index(width)
    except TypeError:
        width = -1
    if width < 0:
        raise ConfigError("give a whole number of samples, 0 or more", "blend")
    reach = []
    for tile, size in zip(lattice.tile, representation.coordinates.size, strict=True):
        if 2 * width > tile and size > tile:
            raise ConfigError(f"blend {width}: partitions are {tile} samples wide; give at most {tile // 2}")
        reach.append(min(width, tile // 2))
    return tuple(reach)


def _weights(tile: Box, reach: tuple[int, ...], fine: Box, scales: tuple[Fraction, ...]) -> NDArray[np.float32]:
    """Weights of the fine samples `[*shape]` of `fine` for the partition that owns `tile`."""
    axes: list[NDArray[Any]] = []
    for (low, high), width, (start, stop), scale in zip(tile, reach, fine, scales, strict=True):
        position = fine_positions(np.array(start), stop - start, scale)
        inside = np.minimum(position - (low - 0.5), (high - 0.5) - position)
        axes.append(np.clip(0.5 + inside / (2 * width), 0, 1) if width else np.ones(stop - start))
    return reduce(np.multiply.outer, axes).astype(np.float32)
