"""Representation: what a file holds, as frozen data. Editing it makes a new one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.grid.box import LARGEST_POSITION, Box, box_shape
from lgsirens.grid.coordinates import Coordinates
from lgsirens.grid.lattice import Ids, Lattice
from lgsirens.nn.siren import ModelConfig, count, parameter_counts, row_layout
from lgsirens.representation.rows import Rows
from lgsirens.signal import KINDS, LARGEST_VALUE, SAMPLE_TYPES, Signal
from lgsirens.system.console import times
from lgsirens.system.program import __version__
from lgsirens.system.schema import option, to_plain

if TYPE_CHECKING:
    _Edit = Callable[..., "Representation"]

LARGEST_FACTOR = 1e6  # of w0 and of scales


@dataclass(frozen=True)
class SignalInfo:
    """What is known of the encoded signal, to give it back as it came.

    The fields are those of `Signal`, but the sampling rate is a numerator and a denominator.
    """

    kind: str = option(choices=tuple(KINDS))
    channels: int = option(least=1)
    value_range: tuple[float, float] = option(least=-LARGEST_VALUE, most=LARGEST_VALUE)
    dtype: str = option(choices=SAMPLE_TYPES)
    sampling_rate: tuple[int, int] | None = option(None, least=1)
    spacing: tuple[float, ...] | None = option(None, above=0)
    colour: tuple[int, int] | None = option(None, least=1, most=255)

    @classmethod
    def of(cls, signal: Signal) -> "SignalInfo":
        """What is known of a signal."""
        rate = None if signal.sampling_rate is None else signal.sampling_rate.as_integer_ratio()
        known = signal.value_range, signal.dtype, rate, signal.spacing, signal.colour
        return cls(signal.kind, signal.channels, *known)

    @property
    def rate(self) -> Fraction | None:
        """Samples per second along the first axis."""
        return None if self.sampling_rate is None else Fraction(*self.sampling_rate)

    @property
    def blank(self) -> float:
        """The value of samples without a partition: the lowest, or silence."""
        lowest, highest = self.value_range
        return min(max(0.0, lowest), highest) if KINDS[self.kind].symmetric else lowest


@dataclass(frozen=True)
class FitRecord:
    """How the fit ended.

    Attributes:
        steps: optimiser steps taken.
        seconds: wall-clock seconds of all steps, resumed runs included, those of a log left out.
        psnr: dB of the clipped reconstruction of the signal that was encoded; None if it is exact (infinite), or not
            measured ("imported").
        stopped: why it ended: "steps", "seconds", "target_psnr" or "interrupted"; "running": weights on the way, from
            a log; "imported": trained by the published code, which says no steps and seconds.
        device: where it ran, such as "cpu, fused avx512".
    """

    steps: int
    seconds: float
    psnr: float | None
    stopped: str
    device: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """All of a representation that is no tensor; a file keeps it as JSON under the same names.

    Attributes:
        model: widths and mode.
        tile: T, samples per dimension of one partition.
        halo: extra samples on each side of a partition that its local network also trains on.
        coordinates: the fixed map from positions to what the networks see.
        extent: the box of positions that is encoded.
        window: the box that `decode` returns by default, inside the extent.
        signal: what is known of the signal.
        codec: how a file keeps rows, a key of `CODECS`.
        origin: hash of what gives rows their meaning; edits of the rows keep it, and only what has one origin merges.
        lineage: hash of the encoding that this comes from, rows included; edits of the rows keep it too.
        history: what was done to it, oldest first.
        fit: how the first fit ended.
        config: the options of the run that encoded it.
    """

    model: ModelConfig
    tile: tuple[int, ...] = option(least=1, below=LARGEST_POSITION)
    halo: tuple[int, ...] = option(least=0, below=LARGEST_POSITION)
    coordinates: Coordinates
    extent: Box
    window: Box
    signal: SignalInfo
    codec: str
    origin: str
    lineage: str
    history: tuple[dict[str, Any], ...]
    fit: FitRecord
    config: dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Representation(Header):
    """A signal as rows of weights, one per partition, and one small shared network.

    Attributes:
        ids: `[P, D]` int32, the partitions that are present, unique, in C order.
        rows: `[P, K]` float32, one row per partition.
        row_edit: `[P]` int32, which entry of the history has fitted each row.
        row_blank: `[P]` int32, 0 for rows all of whose samples were given. Else the entry of the history, counted from
            1, that left some blank, negative if the row was complete before; what the entries from there on gave tells
            which are blank still (`training.change.unknown`).
        shared: the shared network's tensors by name, float32; empty unless mode is "lg".
        overview: `[P, C]` float32, the mean of the samples that each partition decodes to, if it is known.
    """

    ids: Ids
    rows: Rows
    row_edit: NDArray[np.int32]
    row_blank: NDArray[np.int32]
    shared: dict[str, Tensor]
    overview: NDArray[np.float32] | None = None

    if TYPE_CHECKING:  # attached by lgsirens/__init__.py, from the rooms above this one
        crop: ClassVar[_Edit]
        extend: ClassVar[_Edit]
        merge: ClassVar[_Edit]
        move: ClassVar[_Edit]
        replace: ClassVar[_Edit]
        decode: ClassVar[Callable[..., Signal]]
        save: ClassVar[Callable[..., None]]
        __call__: ClassVar[Callable[..., Tensor]]
        _repr_html_: ClassVar[Callable[..., str]]

    @cached_property
    def lattice(self) -> Lattice:
        """The tiles, and the ids of those that are present."""
        return Lattice(self.tile, self.halo, self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples of the window along each dimension."""
        return box_shape(self.window)

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of parameters: total, local, shared, per_partition."""
        local, shared = parameter_counts(self.model, len(self.ids))
        each = count(row_layout(self.model))
        return {"total": local + shared, "local": local, "shared": shared, "per_partition": each}

    def select(self, places: NDArray[Any]) -> "Representation":
        """Only the partitions at `places` (sorted), with all that is kept for each; reads no row."""
        return replace(
            self,
            ids=np.ascontiguousarray(self.ids[places]),
            rows=self.rows.select(places),
            row_edit=self.row_edit[places],
            row_blank=self.row_blank[places],
            overview=None if self.overview is None else self.overview[places],
        )

    def __repr__(self) -> str:
        return (
            f"Representation({self.signal.kind} {times(self.shape)}x{self.signal.channels}, "
            f"{self.model.mode}, {len(self.ids)} partitions, {self.parameters['total']:,} parameters)"
        )


def first_encoding(
    action: str,
    model: ModelConfig,
    lattice: Lattice,
    coordinates: Coordinates,
    extent: Box,
    signal: SignalInfo,
    rows: Rows,
    shared: dict[str, Tensor],
    fit: FitRecord,
    config: dict[str, Any],
) -> Representation:
    """A representation that nothing was done to yet, without origin and lineage (`file.identified`).

    Args:
        action: how it came about, for its history.
        rows: of the lattice's partitions.
    """
    partitions = len(lattice)
    return Representation(
        model=model,
        tile=lattice.tile,
        halo=lattice.halo,
        coordinates=coordinates,
        extent=extent,
        window=extent,
        signal=signal,
        codec="float32",
        origin="",
        lineage="",
        history=(history_entry(action, extent, partitions),),
        fit=fit,
        config=config,
        ids=lattice.ids,
        rows=rows,
        row_edit=np.zeros(partitions, dtype=np.int32),
        row_blank=np.zeros(partitions, dtype=np.int32),
        shared=shared,
    )


def history_entry(action: str, window: Box, partitions: int, **facts: Any) -> dict[str, Any]:
    """One line of a representation's history: what was done, when, by which version, what it left, and more."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"action": action, "date": now, "version": __version__, "window": to_plain(window)}
    return {**entry, "partitions": partitions, **facts}
