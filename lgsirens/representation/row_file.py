"""A file that rows are written to as they are finished, in any order and by several processes, each at its place.

It is a safetensors file from the first moment on, as large as it will ever be: a full disk is met before the work, not
after it. A row counts as finished when its weights and its figures match their checksums, which are written last.
"""

import errno
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import FileFormatError, RunError
from lgsirens.representation.rows import TENSOR_TYPES, FileRows, RowCodec
from lgsirens.representation.sources import FileSource
from lgsirens.system.output import replacing
from lgsirens.system.schema import canonical_json

_FIGURES = ("row_errors", "row_steps", "row_ending", "overview")  # of a row, beside its weights
_BYTES_AT_ONCE = 32 << 20


class RowFile:
    """The file of one run.

    Args:
        path: of a file that `create` has made.
        codec: how it keeps rows.

    Attributes:
        record: what `create` was given.

    Raises:
        FileFormatError: it is damaged.
        RunError: it cannot be opened.
    """

    def __init__(self, path: Path, codec: RowCodec) -> None:
        self.path, self._codec = path, codec
        try:
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
                self._inode = os.fstat(file.fileno()).st_ino
                self.record: dict[str, str] = header.pop("__metadata__")
                self._table = {
                    name: (_type(each["dtype"]), tuple(each["shape"]), 8 + length + each["data_offsets"][0])
                    for name, each in header.items()
                }
            if _checksum(header, self.shared) != self.record["crc32"]:
                raise ValueError("its CRC-32 differs")
            if os.path.getsize(path) != 8 + length + max(each["data_offsets"][1] for each in header.values()):
                raise ValueError("it is not as long as it says")
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}; check its disk") from error
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise FileFormatError(f"{path}: damaged checkpoint ({error}); delete it and start again") from error

    @classmethod
    def create(
        cls,
        path: Path,
        record: Mapping[str, str],
        shared: Mapping[str, Tensor],
        rows: tuple[int, int],
        channels: int,
        codec: RowCodec,
    ) -> "RowFile":
        """Make a file without rows, in place of any that is there.

        Args:
            record: what tells the run from others, as metadata.
            shared: the tensors of the shared network, kept as they are.
            rows: P and K.
            channels: C.
            codec: how rows are kept.

        Raises:
            RunError: no room is left, or the folder is not writable.
        """
        kept = {f"shared.{name}": np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in shared.items()}
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "row_errors": ("F64", (rows[0],)),
        }
        whole = ("row_crc32", "figures_crc32", "row_steps", "row_ending")
        shapes |= dict.fromkeys(whole, ("U32", (rows[0],)))
        shapes |= {name: ("F32", values.shape) for name, values in kept.items()}
        shapes |= {"overview": ("F32", (rows[0], channels)), "local": (codec.tensor_type, rows)}
        table, end = dict[str, Any](), 0
        for name, (kind, shape) in shapes.items():
            start, end = end, end + math.prod(shape) * _type(kind).itemsize
            table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        crc32 = _checksum(table, {name: tensor.cpu() for name, tensor in shared.items()})
        text = canonical_json({"__metadata__": {**record, "crc32": crc32}, **table}).encode()
        header = text.ljust(-(-len(text) // 8) * 8)
        with replacing(path, overwrite=True) as temporary, open(temporary, "r+b") as file:
            _allocate(file.fileno(), 8 + len(header) + end)
            file.write(struct.pack("<Q", len(header)) + header)
            for name, values in kept.items():
                file.seek(8 + len(header) + table[name]["data_offsets"][0])
                file.write(values.tobytes())
        return cls(path, codec)

    def write(
        self,
        places: NDArray[np.int64],
        rows: Tensor,
        errors: NDArray[Any],
        means: NDArray[Any],
        steps: int,
        ending: int,
    ) -> None:
        """Keep finished rows.

        Args:
            places: `[n]`, sorted.
            rows: `[n, K]`, numbers that the codec keeps exactly.
            errors: `[n]`, sums of the squared errors of what they decode to.
            means: `[n, C]`, of what they decode to.
            steps: that they took.
            ending: a number for why there were no more.

        Raises:
            RunError: they cannot be written.
        """
        each = np.full(len(places), steps), np.full(len(places), ending)
        figures = dict(zip(_FIGURES, (errors, *each, means), strict=True))
        figures = {name: np.ascontiguousarray(values, self._table[name][0]) for name, values in figures.items()}
        data = self._codec.encode(rows)
        with self._opened() as descriptor:
            for name, values in {"local": data, **figures}.items():
                self._put(descriptor, name, places, values)
            os.fsync(descriptor)  # a checksum on the disk says that what it covers is there, too
            self._put(descriptor, "row_crc32", places, _row_checksums(data))
            self._put(descriptor, "figures_crc32", places, _row_checksums(*figures.values()))
            os.fsync(descriptor)

    def finished(self) -> NDArray[np.bool_]:
        """`[P]`, the rows that are there; reads all of them."""
        expected, (kind, shape, _) = self._read("row_crc32"), self._table["local"]
        found: NDArray[np.bool_] = _row_checksums(*map(self._read, _FIGURES)) == self._read("figures_crc32")
        at_once = max(1, _BYTES_AT_ONCE // (kind.itemsize * shape[1]))
        for start in range(0, len(expected), at_once):
            part = slice(start, start + at_once)
            found[part] &= _row_checksums(self._read("local", part)) == expected[part]
        return found

    @property
    def shared(self) -> dict[str, Tensor]:
        """The shared network's tensors by name."""
        names = [name.removeprefix("shared.") for name in self._table if name.startswith("shared.")]
        return {name: torch.from_numpy(self._read(f"shared.{name}")) for name in names}

    @property
    def errors(self) -> NDArray[np.float64]:
        """`[P]`, as they were written."""
        return self._read("row_errors")

    @property
    def steps(self) -> NDArray[np.uint32]:
        """`[P]`, as they were written."""
        return self._read("row_steps")

    @property
    def endings(self) -> NDArray[np.uint32]:
        """`[P]`, the numbers as they were written."""
        return self._read("row_ending")

    @property
    def overview(self) -> NDArray[np.float32]:
        """`[P, C]`, the means as they were written."""
        return self._read("overview")

    @property
    def rows(self) -> FileRows:
        """The rows, which stay in the file."""
        _, (partitions, width), offset = self._table["local"]
        return FileRows(
            FileSource(self.path), offset, width, self._codec, self._read("row_crc32"), np.arange(partitions)
        )

    def _read(self, name: str, part: slice = slice(None)) -> NDArray[Any]:
        kind, shape, offset = self._table[name]
        start, stop, _ = part.indices(shape[0])
        each = math.prod(shape[1:])
        with self._opened() as descriptor, open(descriptor, "rb", closefd=False) as file:
            at = offset + start * each * kind.itemsize
            values = np.fromfile(file, kind, (stop - start) * each, offset=at - file.tell())
        return values.reshape(stop - start, *shape[1:]).astype(kind.newbyteorder("="))

    def _put(self, descriptor: int, name: str, places: NDArray[np.int64], values: NDArray[Any]) -> None:
        kind, shape, offset = self._table[name]
        values, each = np.ascontiguousarray(values, dtype=kind), math.prod(shape[1:]) * kind.itemsize
        for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
            data, at = memoryview(values[run].tobytes()), offset + int(places[run[0]]) * each
            while data:
                written = os.pwrite(descriptor, data, at)
                data, at = data[written:], at + written

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDWR)
            try:
                if os.fstat(descriptor).st_ino != self._inode:
                    raise RunError(f"{self.path}: was replaced by another run; start again")
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RunError(f"{self.path}: {error.strerror}; free space or check its disk, resume goes on") from error


def _type(name: str) -> np.dtype[Any]:
    """The NumPy type of a tensor."""
    return np.dtype("<f8") if name == "F64" else TENSOR_TYPES[name]


def _row_checksums(*columns: NDArray[Any]) -> NDArray[np.uint32]:
    """CRC-32 of what arrays `[n, ...]` have of each row, `[n]`."""
    parts = [np.ascontiguousarray(column, column.dtype.newbyteorder("<")) for column in columns]
    rows = np.concatenate([part.reshape(len(part), -1).view(np.uint8) for part in parts], axis=1)
    return np.array([zlib.crc32(row) for row in rows], dtype=np.uint32)


def _checksum(table: dict[str, Any], shared: Mapping[str, Tensor]) -> str:
    """CRC-32 of what does not change any more, as text."""
    crc32 = zlib.crc32(canonical_json(table).encode())
    for name in sorted(shared):
        crc32 = zlib.crc32(shared[name].numpy().tobytes(), crc32)
    return str(crc32)


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:  # not every system and file system can promise room
        if getattr(error, "errno", errno.EINVAL) not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
        os.truncate(descriptor, size)
