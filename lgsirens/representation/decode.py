"""Decoding any region at any resolution, in bounded memory; values at single positions are in `evaluate.py`.

PyTorch's matrix product may round differently when its size changes. So that the same sample decodes to the same bits
whatever is asked for, every evaluation has one shape, `Call`: B blocks of M samples, fixed by lattice, scale and model;
blocks are cut from each partition's own origin; a region evaluates every block that it meets, then cuts. The fused
kernel rounds each sample by itself.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, RegionError
from lgsirens.grid.box import Box, Region, as_region, box_shape, grown, intersect, slices
from lgsirens.grid.coordinates import (
    Scale,
    as_scales,
    axis_coordinates,
    fine_box,
    fine_offsets,
    fine_positions,
    finer,
    mesh,
)
from lgsirens.grid.lattice import Lattice, block_shape
from lgsirens.nn.kernels import fused
from lgsirens.nn.kernels.kernel import choose_kernel
from lgsirens.nn.memory import DEFAULT_LIMIT, evaluation_bytes, evaluation_samples
from lgsirens.nn.siren import ModelConfig, count, row_layout
from lgsirens.representation.canvas import Block, Canvas, reach_of
from lgsirens.representation.evaluate import BLOCK_SAMPLES, SharedTable, batches, network_of, rows_at_once, to_range
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array, Signal
from lgsirens.system.console import Progress, times
from lgsirens.system.hardware import as_bytes, check_fits, format_bytes, resolve_device
from lgsirens.system.pytorch import as_it_starts

# The fused kernel wants few calls, and blocks large enough that Python has little to do.
_FUSED_BLOCK = 4096
_FUSED_SAMPLES = 1 << 20
_FUSED_BYTES = 64 << 20
_TABLE_BYTES = 64 << 20


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
    def of(
        cls, model: ModelConfig, tile: tuple[int, ...], scale: tuple[Fraction, ...], limit: int | None = None
    ) -> "Call":
        """The call for partitions of `tile` samples, what they reach beyond their borders included.

        Args:
            limit: bytes that a call of the fused kernel may take, whose results do not depend on the number of blocks;
                None: the call is one of PyTorch's.
        """
        fine = [max(1, math.ceil(size * s)) for size, s in zip(tile, scale, strict=True)]
        block = block_shape(fine, BLOCK_SAMPLES if limit is None else _FUSED_BLOCK)
        if limit is not None:
            samples = math.prod(block)
            each = 4 * (samples * (3 * model.channels + 4 * model.dimensions) + count(row_layout(model)))
            blocks = max(1, min(_FUSED_SAMPLES // samples, min(limit, _FUSED_BYTES) // each))
            return cls(block, samples, blocks, blocks * each)
        samples = -(-math.prod(block) // 16) * 16
        blocks = max(1, evaluation_samples(model) // samples)
        row_bytes = 4 * count(row_layout(model))
        return cls(block, samples, blocks, blocks * (samples * evaluation_bytes(model) + row_bytes))


@as_it_starts()
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
    kernel: str = "auto",
) -> Signal:
    """Decode a region at a resolution.

    Fine sample j at scale s lies at position `(j + 0.5) / s - 0.5`; scale 1 gives the samples' own positions. Along
    axes with a scale below 1 it is the mean over its area, the positions within `0.5 / s`, of what is encoded there.

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
        kernel: "fused" (compiled, on CPUs), "eager" (PyTorch), or "auto": what there is. The last bits depend on it.

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
    asked = as_scales(box, scale, size)
    fine, fold = fine_box(box, asked), finer(asked)
    scales = tuple(s * m for s, m in zip(asked, fold, strict=True))  # of what is evaluated
    reach = reach_of(representation, blend, scales)
    model, lattice, where = representation.model, representation.lattice, resolve_device(device)
    compiled = choose_kernel(kernel, where).fused
    given = DEFAULT_LIMIT if max_memory is None else as_bytes(max_memory)
    tile = tuple(t + 2 * more for t, more in zip(lattice.tile, reach, strict=True))
    call = Call.of(model, tile, scales, given if compiled else None)
    limit = max(given, call.bytes) if max_memory is None else given
    if limit < call.bytes:
        least = f"{call.bytes} bytes ({format_bytes(call.bytes)})"
        raise ConfigError(f"{format_bytes(limit)}: is below one evaluation; give at least {least}", "max_memory")
    check_fits(4 * math.prod(box_shape(fine)) * model.channels, f"a result of {times(box_shape(fine))} samples")
    canvas = Canvas(representation, fine, scales, fold, reach, call.block)
    places = lattice.meeting(grown(canvas.box, reach))
    evaluate = _Fused(representation, scales, call) if compiled else _Eager(representation, scales, call, where)
    if progress is not None:
        progress.start(canvas.samples(places))
    at_once = rows_at_once(model)
    with torch.inference_mode():
        for start in range(0, len(places), at_once):
            group = places[start : start + at_once]
            rows = representation.rows.read(group).to(where)
            for blocks, values in evaluate(rows, canvas.blocks(group)):
                for block, samples in zip(blocks, values, strict=False):
                    done = canvas.paint(block, samples[: math.prod(call.block)].reshape(*call.block, -1))
                    if progress is not None:
                        progress.advance(done)
    values, mask = canvas.finished()
    known = representation.signal
    return Signal(
        values,
        known.kind,
        known.value_range,
        known.dtype,
        None if known.rate is None else known.rate * asked[0],
        None if known.spacing is None else tuple(d / float(s) for d, s in zip(known.spacing, asked, strict=True)),
        known.colour,
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


class _Eager:
    """Blocks evaluated by PyTorch, always as many and as large ones."""

    def __init__(
        self, representation: Representation, scales: tuple[Fraction, ...], call: Call, device: torch.device
    ) -> None:
        self._representation, self._scales, self._call = representation, scales, call
        self._network = network_of(representation, device)
        tiled = representation.model.mode == "lg" and representation.coordinates.kind == "tile"
        self._table = SharedTable(self._network) if tiled else None

    def __call__(self, rows: Tensor, blocks: Iterator[Block]) -> Iterator[tuple[list[Block], Array]]:
        """Blocks with their values `[B, M, C]`, of which the first ones are those of the blocks."""
        for real in batches(blocks, self._call.blocks):
            padded = real + [real[0]] * (self._call.blocks - len(real))
            x, x_local = _coordinates(self._representation, padded, self._scales, self._call, rows.device)
            features = None if self._table is None else self._table.features([block.phase for block in padded], x)
            y = self._network(x, rows[[block.row for block in padded]], x_local, features)
            yield real, _in_range(y, self._representation)


class _Fused:
    """Blocks evaluated by the fused kernel, which gives a sample the same bits whatever else is evaluated. With tile
    coordinates those that see the same go together."""

    def __init__(self, representation: Representation, scales: tuple[Fraction, ...], call: Call) -> None:
        self._representation, self._scales, self._call = representation, scales, call
        self._network = network_of(representation)
        self._tables: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, rows: Tensor, blocks: Iterator[Block]) -> Iterator[tuple[list[Block], Array]]:
        """Blocks with their values `[B, M, C]`."""
        tiled = self._representation.coordinates.kind == "tile"
        for some in batches(blocks, self._call.blocks):
            alike = defaultdict[tuple[int, ...], list[int]](list)
            for number, block in enumerate(some):
                alike[block.phase if tiled else ()].append(number)
            # Given back in their own order: where neighbours blend, the order in which they add up rounds.
            y = torch.empty(len(some), self._call.samples, self._representation.model.channels, dtype=torch.float32)
            for phase, numbers in alike.items():
                seen = [some[number] for number in (numbers[:1] if tiled else numbers)]
                x, x_local = _coordinates(self._representation, seen, self._scales, self._call, rows.device)
                table = self._table(phase, x) if tiled and self._representation.model.mode == "lg" else None
                own = rows[[some[number].row for number in numbers]]
                y[numbers] = fused.values(self._network, own, x, x_local, table)
            yield some, _in_range(y, self._representation)

    def _table(self, phase: tuple[int, ...], x: Tensor) -> Tensor:
        """What the shared network contributes to the blocks of one phase; kept until all that are take too much."""
        if phase not in self._tables:
            if sum(table.nbytes for table in self._tables.values()) > _TABLE_BYTES:
                self._tables.clear()
            self._tables[phase] = fused.shared_table(self._network, x)
        return self._tables[phase]


def _in_range(y: Tensor, representation: Representation) -> Array:
    return np.asarray(to_range(y.clamp(-1, 1), *representation.signal.value_range).cpu().numpy())


def _coordinates(
    representation: Representation,
    blocks: list[Block],
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
