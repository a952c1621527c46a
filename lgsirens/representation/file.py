"""Representation <-> one `.safetensors` file (docs/format.md).

Bytes: u64 header length, JSON header, then the tensors without gaps: `shared.*`, `partitions` `[P, D]` int32,
`row_crc32` `[P]` uint32, `local` `[P, K]` float32. All but `local` is read and checked when a file is opened; rows are
read one byte range per run of partitions, and checked, when they are needed.
"""

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgsirens.errors import ConfigError, FileFormatError, OutputError
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import count, row_layout, shared_layout
from lgsirens.representation.manifest import FORMAT_VERSION, Manifest, check_manifest
from lgsirens.representation.representation import Representation, Rows
from lgsirens.representation.sources import FileSource, PathLike, Source
from lgsirens.system.output import replacing
from lgsirens.system.schema import from_plain, to_plain

_MANIFEST, _MANIFEST_CRC = "lgsirens", "lgsirens_crc32"
_LARGEST_HEADER = 100_000_000  # the limit of safetensors
_WRITE_BYTES = 16 << 20
_TYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "U32": np.dtype("<u4")}

# name, safetensors type, shape
_Entry = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class FileRows:
    """Rows that stay in their file until they are read.

    Attributes:
        source: what they are read from.
        offset: where `local` begins in it.
        width: K.
        checksums: CRC-32 of the selected rows.
        places: which rows of the file are selected.
    """

    source: Source
    offset: int
    width: int
    checksums: NDArray[np.uint32]
    places: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, places: NDArray[Any]) -> Tensor:
        in_file = self.places[places]
        row_bytes = 4 * self.width
        breaks = np.flatnonzero(np.diff(in_file) != 1) + 1
        runs = np.split(in_file, breaks) if len(in_file) else []
        ranges = [(self.offset + int(run[0]) * row_bytes, len(run) * row_bytes) for run in runs]
        data = bytearray().join(self.source.read_ranges(ranges))
        view = memoryview(data)
        for n, (row, expected) in enumerate(zip(in_file, self.checksums[places], strict=True)):
            if zlib.crc32(view[n * row_bytes : (n + 1) * row_bytes]) != expected:
                raise FileFormatError(
                    f"{self.source.name}: row {row} is damaged (its CRC-32 differs); restore the file from a copy"
                )
        rows = np.frombuffer(data, dtype="<f4").reshape(len(in_file), self.width)
        _check_finite(self.source.name, "local", rows)
        return torch.from_numpy(rows.astype(np.float32, copy=False))

    def crc32(self) -> NDArray[np.uint32]:
        return self.checksums

    def select(self, places: NDArray[Any]) -> "FileRows":
        return replace(self, checksums=self.checksums[places], places=self.places[places])


def save(representation: Representation, path: PathLike, overwrite: bool = False) -> None:
    """Write a representation to one `.safetensors` file, whole or not at all.

    Raises:
        OutputError: the suffix is not `.safetensors`, the folder is missing, or the file exists.
        RunError: the disk is full or the folder is not writable.
    """
    if not isinstance(path, str | os.PathLike) or Path(path).suffix != ".safetensors":
        raise OutputError(f"{path}: a representation is a .safetensors file; give the output that suffix")
    header, index = _encode(representation)
    with replacing(path, overwrite) as temporary, open(temporary, "wb") as file:
        file.write(header)
        file.write(index)
        for chunk in row_chunks(representation.rows):
            file.write(_bytes(chunk.numpy()))


def load(path: PathLike) -> Representation:
    """Open a representation; rows stay in the file until they are needed.

    Raises:
        SignalError: no such file.
        FileFormatError: the file is damaged, or it is not one of ours; says what is wrong.
    """
    source = FileSource(path)
    try:
        return _decode(source)
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{path}: damaged: {reason}; restore the file from a copy") from error


def sizes(representation: Representation) -> dict[str, int]:
    """Bytes of the representation as a file: file, local, shared, index, header."""
    header, _ = _encode(representation)
    count_of = representation.parameters
    local, shared = 4 * count_of["local"], 4 * count_of["shared"]
    index = 4 * (representation.lattice.dimensions + 1) * len(representation.rows)
    return {
        "file": len(header) + local + shared + index,
        "local": local,
        "shared": shared,
        "index": index,
        "header": len(header),
    }


def content_hash(representation: Representation) -> str:
    """SHA-256 over all tensors and the config: the origin of a fresh encoding."""
    digest = hashlib.sha256(json.dumps(representation.config, sort_keys=True).encode())
    for data in _index_tensors(representation).values():
        digest.update(_bytes(data))
    for chunk in row_chunks(representation.rows):
        digest.update(_bytes(chunk.numpy()))
    return digest.hexdigest()


def row_chunks(rows: Rows) -> Iterator[Tensor]:
    """All rows in order, a bounded number of bytes at a time."""
    step = max(1, _WRITE_BYTES // (4 * rows.width))
    for start in range(0, len(rows), step):
        yield rows.read(np.arange(start, min(start + step, len(rows))))


def _index_tensors(representation: Representation) -> dict[str, NDArray[Any]]:
    """What precedes the rows, in the order of the file."""
    tensors = {f"shared.{name}": representation.shared[name].numpy() for name, _ in shared_layout(representation.model)}
    return {**tensors, "partitions": representation.lattice.ids, "row_crc32": representation.rows.crc32()}


def _encode(representation: Representation) -> tuple[bytes, bytes]:
    tensors = {name: _bytes(data) for name, data in _index_tensors(representation).items()}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model=representation.model,
        row_layout=Manifest.layout_of(representation.model),
        partitions=len(representation.lattice),
        tile=representation.lattice.tile,
        halo=representation.lattice.halo,
        frame=representation.frame,
        extent=representation.extent,
        window=representation.window,
        signal=representation.signal,
        crc32={name: zlib.crc32(data) for name, data in tensors.items()},
        origin=representation.origin,
        history=representation.history,
        fit=representation.fit,
        config=representation.config,
    )
    try:
        # What the reader refuses must not be written.
        check_manifest(manifest)
        text = json.dumps(to_plain(manifest), allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"the representation cannot be written: {error}; encode it with other options") from None
    header: dict[str, Any] = {"__metadata__": {_MANIFEST: text, _MANIFEST_CRC: str(zlib.crc32(text.encode()))}}
    header |= _tensor_table(_entries(manifest))
    data = json.dumps(header).encode()
    data += b" " * (-len(data) % 8)
    return struct.pack("<Q", len(data)) + data, b"".join(tensors.values())


def _decode(source: Source) -> Representation:
    manifest, start = _read_header(source)
    entries = _entries(manifest)
    spans = [described["data_offsets"] for described in _tensor_table(entries).values()]
    *index, (rows_offset, _) = [(start + low, high - low) for low, high in spans]
    tensors: dict[str, NDArray[Any]] = {}
    for (name, dtype, shape), data in zip(entries[:-1], source.read_ranges(index), strict=True):
        if zlib.crc32(data) != manifest.crc32[name]:
            raise FileFormatError(f"{source.name}: tensor {name} is damaged (its CRC-32 differs); restore a copy")
        tensors[name] = np.frombuffer(data, dtype=_TYPES[dtype]).reshape(shape).astype(_TYPES[dtype].newbyteorder("="))
    lattice = Lattice(manifest.tile, manifest.halo, tensors["partitions"])
    _check_ids(source.name, lattice, manifest)
    shared = {name: tensors[f"shared.{name}"] for name, _ in shared_layout(manifest.model)}
    for name, values in shared.items():
        _check_finite(source.name, name, values)
    width = count(row_layout(manifest.model))
    rows = FileRows(source, rows_offset, width, tensors["row_crc32"], np.arange(len(lattice)))
    return Representation(
        model=manifest.model,
        lattice=lattice,
        frame=manifest.frame,
        extent=manifest.extent,
        window=manifest.window,
        signal=manifest.signal,
        shared={name: torch.from_numpy(values) for name, values in shared.items()},
        rows=rows,
        origin=manifest.origin,
        history=manifest.history,
        fit=manifest.fit,
        config=manifest.config,
    )


def _read_header(source: Source) -> tuple[Manifest, int]:
    """The checked manifest, and where the tensors begin."""
    foreign = f"{source.name}: not a file of lgsirens"
    if source.size < 8:
        raise FileFormatError(f"{foreign}: {source.size} bytes are no safetensors header; name another file")
    (length,) = struct.unpack("<Q", *source.read_ranges([(0, 8)]))
    if length > min(_LARGEST_HEADER, source.size - 8):
        raise FileFormatError(
            f"{source.name}: truncated or no safetensors file: its header claims {length} bytes of {source.size}"
        )
    header = _parse_json(*source.read_ranges([(8, length)]))
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_MANIFEST), str):
        raise FileFormatError(f"{foreign}: it has no manifest; `lgsirens encode` writes one")
    text = metadata[_MANIFEST]
    if metadata.get(_MANIFEST_CRC) != str(zlib.crc32(text.encode())):
        raise ValueError("the manifest's CRC-32 differs")
    plain = _parse_json(text.encode())
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if version != FORMAT_VERSION:
        raise FileFormatError(
            f"{source.name}: format version {version!r}, this program reads {FORMAT_VERSION}; update lgsirens"
        )
    manifest = from_plain(Manifest, plain)
    check_manifest(manifest)
    entries = _entries(manifest)
    if set(manifest.crc32) != {name for name, _, _ in entries[:-1]}:
        raise ValueError("the manifest's list of checksums does not match its tensors")
    # As text, because Python takes 0, 0.0 and False for equal.
    if json.dumps(header, sort_keys=True) != json.dumps(_tensor_table(entries), sort_keys=True):
        raise ValueError("the header's names, types, shapes or offsets do not match the manifest")
    data_bytes = sum(_nbytes(shape) for _, _, shape in entries)
    if source.size != 8 + length + data_bytes:
        raise FileFormatError(
            f"{source.name}: truncated or overlong: {source.size} bytes, the header describes {8 + length + data_bytes}"
        )
    return manifest, 8 + length


def _entries(manifest: Manifest) -> list[_Entry]:
    """Every tensor of the file, in order; `local` is the last."""
    partitions, model = manifest.partitions, manifest.model
    return [
        *((f"shared.{name}", "F32", shape) for name, shape in shared_layout(model)),
        ("partitions", "I32", (partitions, model.dimensions)),
        ("row_crc32", "U32", (partitions,)),
        ("local", "F32", (partitions, count(row_layout(model)))),
    ]


def _tensor_table(entries: list[_Entry]) -> dict[str, Any]:
    """The header's part on tensors."""
    table, offset = {}, 0
    for name, dtype, shape in entries:
        end = offset + _nbytes(shape)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return table


def _nbytes(shape: tuple[int, ...]) -> int:
    size = 4  # every type of ours has four bytes
    for length in shape:
        size *= length
    return size


def _parse_json(data: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError(f"the key {max(keys, key=keys.count)!r} occurs twice in the header")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number that JSON allows")

    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            refuse(text)
        return number

    return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)


def _check_ids(file: str, lattice: Lattice, manifest: Manifest) -> None:
    columns = [np.ascontiguousarray(column) for column in lattice.ids.T]
    rising, equal = np.zeros(len(lattice) - 1, dtype=bool), np.ones(len(lattice) - 1, dtype=bool)
    for column in columns:
        rising |= equal & (column[1:] > column[:-1])
        equal &= column[1:] == column[:-1]
    if not rising.all():
        raise FileFormatError(f"{file}: damaged: the partition ids are not unique and in order; restore a copy")
    for column, (low, high), tile in zip(columns, manifest.extent, manifest.tile, strict=True):
        if column.min() < low // tile or column.max() >= -(-high // tile):
            raise FileFormatError(f"{file}: damaged: a partition lies outside the extent; restore a copy")


def _check_finite(file: str, name: str, values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise FileFormatError(f"{file}: tensor {name} holds NaN or infinite weights; restore a copy or encode again")


def _bytes(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
