"""Rows: in memory, in a file, gathered out of several; and how a file keeps them."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import FileFormatError
from lgsirens.nn.siren import LARGEST_WEIGHT, are_sound
from lgsirens.representation.sources import Source

_CHUNK_BYTES = 16 << 20

# Types of tensors by their names in safetensors.
TENSOR_TYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "U32": np.dtype("<u4")}


@dataclass(frozen=True)
class RowCodec:
    """How a file keeps rows: as a tensor `[P, K]` of the type `tensor_type`, a key of `TENSOR_TYPES`."""

    tensor_type: str

    def row_bytes(self, width: int) -> int:
        """Bytes of one row of `width` numbers."""
        return width * TENSOR_TYPES[self.tensor_type].itemsize

    def encode(self, rows: Tensor) -> NDArray[Any]:
        """Rows `[n, K]` as they lie in the file."""
        return np.ascontiguousarray(rows.numpy(), dtype=TENSOR_TYPES[self.tensor_type])

    def decode(self, data: bytes | bytearray, width: int) -> Tensor:
        """Rows `[n, K]` float32 of the bytes of a file."""
        rows = np.frombuffer(data, dtype=TENSOR_TYPES[self.tensor_type]).reshape(-1, width)
        return torch.from_numpy(rows.astype(np.float32, copy=not rows.flags.writeable))

    def rounded(self, rows: Tensor) -> Tensor:
        """Rows `[n, K]` float32 as they come back from a file."""
        return self.decode(self.encode(rows).tobytes(), rows.shape[1])


CODECS = {"float32": RowCodec("F32")}


class Rows(Protocol):
    """P rows of K weights, in memory or in a file."""

    def __len__(self) -> int: ...

    @property
    def width(self) -> int:
        """K."""

    def read(self, places: NDArray[Any]) -> Tensor:
        """Rows `[n, K]` float32 at the given places (sorted, unique)."""

    def crc32(self) -> NDArray[np.uint32]:
        """CRC-32 of the bytes that each row has in a file, `[P]`."""

    def select(self, places: NDArray[Any]) -> "Rows":
        """Only the rows at the given places (sorted, unique); reads none of them."""


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows held in memory, `[P, K]` float32, numbers that `codec` keeps exactly."""

    values: Tensor
    codec: RowCodec = CODECS["float32"]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def read(self, places: NDArray[Any]) -> Tensor:
        return self.values[torch.from_numpy(np.asarray(places, dtype=np.int64))]

    def crc32(self) -> NDArray[np.uint32]:
        data = self.codec.encode(self.values)
        return np.fromiter((zlib.crc32(row) for row in data), dtype=np.uint32, count=len(data))

    def select(self, places: NDArray[Any]) -> "MemoryRows":
        return replace(self, values=self.read(places))


@dataclass(frozen=True, eq=False)
class FileRows:
    """Rows that stay in their file until they are read.

    Attributes:
        source: what they are read from.
        offset: where the first row begins in it.
        width: K.
        codec: how they lie there.
        checksums: CRC-32 of the selected rows.
        places: which rows of the file are selected.
    """

    source: Source
    offset: int
    width: int
    codec: RowCodec
    checksums: NDArray[np.uint32]
    places: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, places: NDArray[Any]) -> Tensor:
        in_file, each = self.places[places], self.codec.row_bytes(self.width)
        breaks = np.flatnonzero(np.diff(in_file) != 1) + 1
        runs = np.split(in_file, breaks) if len(in_file) else []
        ranges = [(self.offset + int(run[0]) * each, len(run) * each) for run in runs]
        data = bytearray().join(self.source.read_ranges(ranges))
        view = memoryview(data)
        for n, (row, expected) in enumerate(zip(in_file, self.checksums[places], strict=True)):
            if zlib.crc32(view[n * each : (n + 1) * each]) != expected:
                raise FileFormatError(f"{self.source.name}: row {row} is damaged (its CRC-32 differs); restore a copy")
        rows = self.codec.decode(data, self.width)
        check_numbers(self.source.name, "local", rows)
        return rows

    def crc32(self) -> NDArray[np.uint32]:
        return self.checksums

    def select(self, places: NDArray[Any]) -> "FileRows":
        return replace(self, checksums=self.checksums[places], places=self.places[places])


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
        out = torch.empty(len(places), self.width, dtype=torch.float32, device="cpu")
        for number, source in enumerate(self.sources):
            here = np.flatnonzero(self.owners[places] == number)
            out[torch.from_numpy(here)] = source.read(self.places[places][here])
        return out

    def crc32(self) -> NDArray[np.uint32]:
        return gather([source.crc32() for source in self.sources], self.owners, self.places)

    def select(self, places: NDArray[Any]) -> "GatheredRows":
        return replace(self, owners=self.owners[places], places=self.places[places])


def gather(arrays: Sequence[NDArray[Any]], owners: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[Any]:
    """What is kept for each row, out of several: entry i is `arrays[owners[i]][places[i]]`."""
    out = np.empty((len(places), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for number, array in enumerate(arrays):
        here = owners == number
        out[here] = array[places[here]]
    return out


def row_chunks(rows: Rows) -> Iterator[Tensor]:
    """All rows in order, a bounded number of bytes at a time."""
    step = max(1, _CHUNK_BYTES // (4 * rows.width))  # of float32, in memory
    for start in range(0, len(rows), step):
        yield rows.read(np.arange(start, min(start + step, len(rows))))


def check_numbers(name: str, tensor: str, values: Tensor, largest: float = LARGEST_WEIGHT) -> None:
    """Raise FileFormatError for a tensor of the file `name` with numbers that are NaN, infinite or too large."""
    if not are_sound(values, largest):
        reason = f"NaN or infinite numbers, or some beyond {largest:g}"
        raise FileFormatError(f"{name}: tensor {tensor} holds {reason}; restore a copy or encode again")
