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
from lgsirens.grid.box import Box, Region, as_region, box_of_shape, box_shape, box_size, grown
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
from lgsirens.grid.lattice import block_shape
from lgsirens.lazy import LazyValues, regions
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
_CHUNK_VALUES = 1 << 18


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
    return Decoding(representation, region, scale, size, full, blend, max_memory, device, kernel).whole(progress)


class Decoding:
    """What `decode` is asked for, before it is decoded: as an array that is decoded where it is indexed, by slices, or
    by boxes of samples. A sample has the same bits in whatever part. The arguments are those of `decode`.

    Attributes:
        shape: `[*shape, C]` of the result.
        chunks: the shape of parts that decode well, of whole partitions where they fit.
    """

    dtype = np.dtype(np.float32)
    _progress: Progress | None

    def __init__(
        self,
        representation: Representation,
        region: Region | None = None,
        scale: Scale = 1,
        size: Sequence[int] | None = None,
        full: bool = False,
        blend: int | None = None,
        max_memory: int | str | None = None,
        device: torch.device | str = "auto",
        kernel: str = "auto",
    ) -> None:
        box = _requested_box(representation, region, full)
        self._representation, self._asked = representation, as_scales(box, scale, size)
        self._fine, self._fold = fine_box(box, self._asked), finer(self._asked)
        # of what is evaluated
        self._scales = tuple(s * m for s, m in zip(self._asked, self._fold, strict=True))
        self._reach = reach_of(representation, blend, self._scales)
        model, lattice, where = representation.model, representation.lattice, resolve_device(device)
        compiled = choose_kernel(kernel, where).fused
        given = DEFAULT_LIMIT if max_memory is None else as_bytes(max_memory)
        tile = tuple(t + 2 * more for t, more in zip(lattice.tile, self._reach, strict=True))
        call = Call.of(model, tile, self._scales, given if compiled else None)
        limit = max(given, call.bytes) if max_memory is None else given
        if limit < call.bytes:
            least = f"{call.bytes} bytes ({format_bytes(call.bytes)})"
            raise ConfigError(f"{format_bytes(limit)}: is below one evaluation; give at least {least}", "max_memory")
        self._call, self._where, self._progress = call, where, None
        self._evaluate: _Eager | _Fused = (
            _Fused(representation, self._scales, call)
            if compiled
            else _Eager(representation, self._scales, call, where)
        )
        self.shape = (*box_shape(self._fine), model.channels)
        self.chunks = chunk_shape(lattice.tile, self._asked, self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return 4 * math.prod(self.shape)

    @as_it_starts()
    def whole(self, progress: Progress | None = None) -> Signal:
        """The signal, decoded (raises ConfigError if it is more than this machine's memory)."""
        check_fits(self.nbytes, f"a result of {times(self.shape[:-1])} samples")
        return self._signal(*self._read(box_of_shape(self.shape[:-1]), progress))

    def by_region(self, progress: Progress | None = None) -> Signal:
        """The signal, to be decoded where it is read; `progress` is told of the samples then. It has no mask of what is
        present: `missing` counts what is not."""
        self._progress = progress
        if progress is not None:
            progress.start(math.prod(self.shape[:-1]))
        return self._signal(LazyValues(self, keeps=False), None)

    @as_it_starts()
    def __getitem__(self, part: tuple[slice, ...]) -> Array:
        box = tuple((along.start, along.stop) for along in part[:-1])
        values, _ = self._read(box, None)
        if self._progress is not None:
            self._progress.advance(box_size(box))
        return values[..., part[-1]]

    def _read(self, box: Box, progress: Progress | None) -> tuple[Array, NDArray[np.bool_] | None]:
        """The values of a box of samples, counted from the first one, and the mask of what is present, None if all."""
        canvas = self._canvas(box)
        places = self._representation.lattice.meeting(grown(canvas.box, self._reach))
        if progress is not None:
            progress.start(canvas.samples(places))
        at_once = rows_at_once(self._representation.model)
        with torch.inference_mode():
            for start in range(0, len(places), at_once):
                group = places[start : start + at_once]
                rows = self._representation.rows.read(group).to(self._where)
                for blocks, values in self._evaluate(rows, canvas.blocks(group)):
                    for block, samples in zip(blocks, values, strict=False):
                        shaped = samples[: math.prod(self._call.block)].reshape(*self._call.block, -1)
                        done = canvas.paint(block, shaped)
                        if progress is not None:
                            progress.advance(done)
        return canvas.finished()

    def _signal(self, values: Array | LazyValues, mask: NDArray[np.bool_] | None) -> Signal:
        """The signal of these values, with what is known of it."""
        known, asked = self._representation.signal, self._asked
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

    def missing(self) -> int:
        """How many samples have no partition."""
        masks = (self._canvas(box).finished()[1] for box in regions(LazyValues(self, keeps=False)))
        return sum(int(mask.size - mask.sum()) for mask in masks if mask is not None)

    def _canvas(self, box: Box) -> Canvas:
        fine = tuple((low + first, high + first) for (low, high), (first, _) in zip(box, self._fine, strict=True))
        return Canvas(self._representation, fine, self._scales, self._fold, self._reach, self._call.block)


def chunk_shape(tile: Sequence[int], scales: Sequence[Fraction], shape: Sequence[int]) -> tuple[int, ...]:
    """A shape, with all channels, in which decoded samples are well kept: of whole partitions where they fit.

    Args:
        tile: samples of the signal in a partition.
        scales: fine samples per sample.
        shape: of all fine samples, and the channels.
    """
    *sides, channels = shape
    fine = [max(1, round(size * scale)) for size, scale in zip(tile, scales, strict=True)]
    part = block_shape(fine, _CHUNK_VALUES)
    chunk = [*map(min, part, sides)]
    while math.prod(chunk) * channels < _CHUNK_VALUES and chunk != sides:
        axis = min((d for d, side in enumerate(sides) if chunk[d] < side), key=chunk.__getitem__)
        chunk[axis] = min(2 * chunk[axis], sides[axis])
    return (*chunk, channels)


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
