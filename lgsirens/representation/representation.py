"""Representation: what a file holds, as frozen data. Editing it makes a new one."""

import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError
from lgsirens.grid.box import Box, box_shape
from lgsirens.grid.coordinates import Frame
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import ModelConfig, count, parameter_counts, row_layout
from lgsirens.signal import KINDS
from lgsirens.system.console import times
from lgsirens.system.program import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from lgsirens.signal import Signal

    _Edit = Callable[..., "Representation"]


class Rows(Protocol):
    """P rows of K weights, in memory or in a file."""

    def __len__(self) -> int: ...

    @property
    def width(self) -> int:
        """K."""
        ...

    def read(self, places: NDArray[Any]) -> Tensor:
        """Rows `[n, K]` float32 at the given places (sorted, unique)."""
        ...

    def crc32(self) -> NDArray[np.uint32]:
        """CRC-32 of each row's bytes, `[P]`."""
        ...

    def select(self, places: NDArray[Any]) -> "Rows":
        """Only the rows at the given places (sorted, unique); reads none of them."""
        ...


@dataclass(frozen=True)
class SignalInfo:
    """What is known of the encoded signal, to give it back as it came.

    The fields are those of `Signal`, but the sampling rate is a numerator and a denominator.
    """

    kind: str
    channels: int
    value_range: tuple[float, float]
    dtype: str
    sampling_rate: tuple[int, int] | None = None
    spacing: tuple[float, ...] | None = None

    @classmethod
    def of(cls, signal: "Signal") -> "SignalInfo":
        """What is known of a signal."""
        rate = None if signal.sampling_rate is None else signal.sampling_rate.as_integer_ratio()
        return cls(signal.kind, signal.channels, signal.value_range, signal.dtype, rate, signal.spacing)

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
        stopped: why it ended: "steps", "target_psnr" or "interrupted"; "running": weights on the way, from a log;
            "imported": trained by the published code, which says no steps and seconds.
        device: where it ran.
    """

    steps: int
    seconds: float
    psnr: float | None
    stopped: str
    device: str


@dataclass(frozen=True, eq=False)
class Representation:
    """A signal as rows of weights, one per partition, and one small shared network.

    Attributes:
        model: widths and mode.
        lattice: tile size and the ids of the partitions that are present.
        frame: the fixed map from positions to network coordinates.
        extent: the box of positions that is encoded.
        window: the box that `decode` returns by default, inside the extent.
        signal: what is known of the signal.
        shared: the shared network's tensors by name, float32; empty unless mode is "lg".
        rows: `[P, K]` float32, one row per partition, in the lattice's order.
        origin: hash of the encoding that this comes from; edits of the rows keep it.
        history: what was done to it, oldest first.
        fit: how the fit ended.
        config: the options of the run that encoded it.
    """

    model: ModelConfig
    lattice: Lattice
    frame: Frame
    extent: Box
    window: Box
    signal: SignalInfo
    shared: dict[str, Tensor]
    rows: Rows
    origin: str
    history: tuple[dict[str, Any], ...]
    fit: FitRecord
    config: dict[str, Any]

    if TYPE_CHECKING:  # attached by lgsirens/__init__.py, from the rooms above this one
        crop: ClassVar[_Edit]
        extend: ClassVar[_Edit]
        merge: ClassVar[_Edit]
        replace: ClassVar[_Edit]
        decode: ClassVar[Callable[..., Signal]]
        save: ClassVar[Callable[..., None]]
        __call__: ClassVar[Callable[..., Tensor]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples of the window along each dimension."""
        return box_shape(self.window)

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of parameters: total, local, shared, per_partition."""
        local, shared = parameter_counts(self.model, len(self.lattice))
        return {
            "total": local + shared,
            "local": local,
            "shared": shared,
            "per_partition": count(row_layout(self.model)),
        }

    def __repr__(self) -> str:
        return (
            f"Representation({self.signal.kind} {times(self.shape)}x{self.signal.channels}, "
            f"{self.model.mode}, {len(self.lattice)} partitions, {self.parameters['total']:,} parameters)"
        )


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows held in memory, `[P, K]` float32."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def read(self, places: NDArray[Any]) -> Tensor:
        return self.values[torch.from_numpy(np.asarray(places, dtype=np.int64))]

    def crc32(self) -> NDArray[np.uint32]:
        return row_checksums(self.values)

    def select(self, places: NDArray[Any]) -> "MemoryRows":
        return MemoryRows(self.read(places))


@dataclass(frozen=True, eq=False)
class GatheredRows:
    """Rows out of several others: row i is row `places[i]` of `sources[owners[i]]`.

    The rows of each source are taken in its own order.
    """

    sources: tuple[Rows, ...]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def width(self) -> int:
        return self.sources[0].width

    def read(self, places: NDArray[Any]) -> Tensor:
        out = torch.empty(len(places), self.width)
        for number, source in enumerate(self.sources):
            here = np.flatnonzero(self.owners[places] == number)
            out[torch.from_numpy(here)] = source.read(self.places[places][here])
        return out

    def crc32(self) -> NDArray[np.uint32]:
        checksums = np.empty(len(self), dtype=np.uint32)
        for number, source in enumerate(self.sources):
            here = self.owners == number
            checksums[here] = source.crc32()[self.places[here]]
        return checksums

    def select(self, places: NDArray[Any]) -> "GatheredRows":
        return replace(self, owners=self.owners[places], places=self.places[places])


def check_representation(value: object) -> Representation:
    """`value` if it is a representation, else ConfigError."""
    if not isinstance(value, Representation):
        raise ConfigError(f"{value!r} is no Representation; make one with encode(signal) or load(path)")
    return value


def history_entry(action: str, window: Box, partitions: int, **facts: Any) -> dict[str, Any]:
    """One line of a representation's history: what was done, when, by which version, what it left, and more."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"action": action, "date": now, "version": __version__, "window": [list(ends) for ends in window]}
    return {**entry, "partitions": partitions, **facts}


def row_checksums(rows: Tensor) -> NDArray[np.uint32]:
    """CRC-32 of the little-endian bytes of each row, `[n]`."""
    data = np.ascontiguousarray(rows.numpy(), dtype="<f4")
    return np.fromiter((zlib.crc32(row) for row in data), dtype=np.uint32, count=len(data))
