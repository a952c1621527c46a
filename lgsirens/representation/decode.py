"""Decoding any region at any resolution, in bounded memory, and evaluation at any positions.

A matrix product may round differently when its size changes. So that the same sample decodes to the same bits
whatever is asked for, every evaluation has one shape, `Call`: B blocks of M samples, fixed by lattice, scale and model;
blocks are cut from each partition's own origin; a region evaluates every block that it meets, then cuts.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, RegionError
from lgsirens.grid.box import Box, Region, as_region, box_shape, box_size, intersect, is_empty, slices
from lgsirens.grid.coordinates import Scale, as_scales, fine_box, fine_positions
from lgsirens.grid.lattice import Lattice, axis_coordinates, block_shape, mesh
from lgsirens.nn.memory import DEFAULT_LIMIT, MIB, evaluation_bytes, evaluation_samples
from lgsirens.nn.siren import ModelConfig, SirenPerPartition, build_model, count, row_layout
from lgsirens.representation.blend import check_blend, grown, weights
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array, Signal
from lgsirens.system.console import Progress, times
from lgsirens.system.hardware import as_bytes, check_fits, format_bytes, resolve_device

T = TypeVar("T")

_BLOCK_SAMPLES = 1024
_ROW_BYTES = 16 * MIB


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
        block = block_shape(fine, _BLOCK_SAMPLES)
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
    blend: int = 0,
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
            most the halo that was trained. Samples within that reach of a partition depend on it.
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
    scales, reach = as_scales(box, scale, size), check_blend(representation, blend)
    fine = fine_box(box, scales)
    model, lattice = representation.model, representation.lattice
    call = Call.of(model, tuple(t + 2 * more for t, more in zip(lattice.tile, reach, strict=True)), scales)
    limit = max(DEFAULT_LIMIT, call.bytes) if max_memory is None else as_bytes(max_memory)
    where = resolve_device(device)
    if limit < call.bytes:
        raise ConfigError(
            f"--max_memory {format_bytes(limit)} is below one evaluation; give at least {call.bytes} bytes "
            f"({format_bytes(call.bytes)})"
        )
    check_fits(4 * math.prod(box_shape(fine)) * model.channels, f"a result of {times(box_shape(fine))} samples")
    canvas = _Canvas(representation, box, scales, reach)
    places = lattice.meeting(grown(box, reach))
    network = network_of(representation, where)
    if progress is not None:
        progress.start(sum(box_size(wanted) for wanted in map(canvas.wanted, places) if not is_empty(wanted)))
    rows_at_once = _rows_at_once(model)
    with torch.inference_mode():
        for start in range(0, len(places), rows_at_once):
            group = places[start : start + rows_at_once]
            rows = representation.rows.read(group).to(where)
            for blocks in _batches(_blocks(canvas, group, call), call.blocks):
                results = _evaluate(representation, network, rows, blocks, scales, call)
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


def evaluate(representation: Representation, positions: Tensor | Array) -> Tensor:
    """Values at arbitrary positions, differentiable in the positions.

    Args:
        positions: `[M, D]`, absolute, in samples; integers are the samples themselves. Arrays become tensors.

    Returns:
        `[M, C]` float32 in the units of the value range, not clipped; the lowest value (audio: silence), and
        no gradient, where no partition is present.

    Raises:
        RegionError: not `[M, D]` numbers, or NaN or infinite ones.
    """
    try:
        positions = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError):
        raise RegionError("positions are no array of numbers; give a tensor [M, D]") from None
    model, lattice, frame = representation.model, representation.lattice, representation.frame
    if positions.ndim != 2 or positions.shape[1] != model.dimensions:
        raise RegionError(f"positions of shape {tuple(positions.shape)}: expected [M, {model.dimensions}]")
    exact = positions.double()
    if not bool(exact.isfinite().all()):
        raise RegionError("positions are NaN or infinite; give finite ones")
    tile = torch.tensor(lattice.tile, dtype=torch.float64, device=exact.device)
    ids = torch.floor((exact.detach() + 0.5) / tile).clamp(-(2.0**62), 2.0**62).long()
    place = lattice.find(ids.cpu().numpy())
    lowest, highest = representation.signal.value_range
    out = torch.full((len(place), model.channels), representation.signal.blank, device=exact.device)
    # In the graph to every order even where nothing is present; the sine keeps the largest positions finite.
    out = out + 0 * exact.sin().sum(dim=1, keepdim=True).float()
    network = network_of(representation, exact.device)
    for members, real in _member_blocks(place, evaluation_samples(model), _rows_at_once(model)):
        points = torch.from_numpy(members).to(exact.device)
        inside = exact[points]
        x = [frame.coordinate(d, inside[..., d]).float() for d in range(model.dimensions)]
        x_local = None
        if frame.local_scale is not None:
            own = ids[points]
            x_local = torch.stack(
                [frame.local_coordinate(t, own[..., d], inside[..., d]).float() for d, t in enumerate(lattice.tile)], -1
            )
        owners, block_row = np.unique(place[members[:, 0]], return_inverse=True)
        rows = representation.rows.read(owners)[torch.from_numpy(block_row)].to(exact.device)
        y = network(torch.stack(x, -1), rows, x_local)
        kept = torch.from_numpy(real).to(exact.device)
        out = out.index_put((points[kept],), _to_range(y[kept], lowest, highest))
    return out


def network_of(representation: Representation, device: torch.device | str = "cpu") -> SirenPerPartition:
    """The model with the shared weights of a representation, its own rows left out; weights take no gradient."""
    network = build_model(representation.model, 1)
    network.load_state_dict({"local": network.local, **{f"shared.{k}": v for k, v in representation.shared.items()}})
    return network.requires_grad_(False).to(device)


def _requested_box(representation: Representation, region: Region | None, full: bool) -> Box:
    if region is None:
        return representation.extent if full else representation.window
    if full:
        raise RegionError("a region and --full exclude each other; give one of them")
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
            weight = weights(self.lattice.box(block.place), self.reach, block.target, self.scales)
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


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _evaluate(
    representation: Representation,
    network: SirenPerPartition,
    rows: Tensor,
    blocks: list[_Block],
    scales: tuple[Fraction, ...],
    call: Call,
) -> Array:
    """One evaluation of the fixed shape; `[B, M, C]` values, of which the first `len(blocks)` count."""
    padded = blocks + [blocks[0]] * (call.blocks - len(blocks))
    x, x_local = _coordinates(representation, padded, scales, call, rows.device)
    y = network(x, rows[[block.row for block in padded]], x_local)
    return np.asarray(_to_range(y.clamp(-1, 1), *representation.signal.value_range).cpu().numpy())


def _coordinates(
    representation: Representation,
    blocks: list[_Block],
    scales: tuple[Fraction, ...],
    call: Call,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """Network coordinates `[B, M, D]` of blocks: the signal's, and what the local networks see instead, if they do."""
    starts = np.array([block.start for block in blocks], dtype=np.int64)
    positions = [
        fine_positions(starts[:, d], size, s) for d, (size, s) in enumerate(zip(call.block, scales, strict=True))
    ]
    places = np.array([block.place for block in blocks])
    shared, local = axis_coordinates(representation.frame, representation.lattice, places, positions)

    def padded(axes: list[Tensor]) -> Tensor:
        # Only the axes cross over to the device: a mesh of them is larger by far.
        x = mesh([axis.to(device) for axis in axes]).mT
        return torch.nn.functional.pad(x, (0, call.samples - x.shape[-1])).mT

    return padded(shared), None if local is None else padded(local)


def _to_range(y: Tensor, lowest: float, highest: float) -> Tensor:
    """From the network's [-1, 1] to the value range."""
    return (y + 1) * ((highest - lowest) / 2) + lowest


def _rows_at_once(model: ModelConfig) -> int:
    return max(1, _ROW_BYTES // (4 * count(row_layout(model))))


def _member_blocks(
    place: NDArray[np.int64], samples: int, rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Cut points into blocks of one partition each, their widths powers of two, so that less than half is padding.

    Yields the numbers of points `[B, n]`, B at most `rows` and B * n about `samples`, and which of them count: a block
    that is not full repeats its own points.
    """
    order = np.argsort(place, kind="stable")
    order = order[place[order] >= 0]
    runs = np.split(order, np.flatnonzero(np.diff(place[order])) + 1) if len(order) else []
    blocks = [run[i : i + _BLOCK_SAMPLES] for run in runs for i in range(0, len(run), _BLOCK_SAMPLES)]
    for width, alike in itertools.groupby(sorted(blocks, key=_width), _width):
        for taken in _batches(alike, min(rows, max(1, samples // width))):
            sizes = np.array([len(block) for block in taken])
            yield np.stack([np.resize(block, width) for block in taken]), np.arange(width) < sizes[:, None]


def _width(block: NDArray[np.int64]) -> int:
    """The least power of two that is not below the number of points."""
    return 1 << (len(block) - 1).bit_length()
