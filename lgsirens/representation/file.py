"""Representation <-> one `.safetensors` file (docs/format.md).

Bytes: u64 header length, JSON header, then the tensors without gaps: `shared.*`, what is kept for each partition, and
its rows, `local` `[P, K]`. All but `local` is read and checked when a file is opened; rows are read one byte range per
run of partitions, and checked, when they are needed.
"""

import hashlib
import json
import math
import struct
import zlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import ConfigError, FileFormatError, OutputError
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import ModelConfig, count, row_layout, shared_layout
from lgsirens.representation import version1
from lgsirens.representation.representation import Header, Representation, check_header
from lgsirens.representation.rows import CODECS, TENSOR_TYPES, FileRows, check_finite, row_chunks
from lgsirens.representation.sources import FileSource, PathLike, Source
from lgsirens.system.output import replacing
from lgsirens.system.schema import canonical_json, from_plain, to_plain

FORMAT_VERSION = 2

_MANIFEST, _MANIFEST_CRC = "lgsirens", "lgsirens_crc32"
_LARGEST_HEADER = 100_000_000  # the limit of safetensors
_LARGEST_COUNT = 1 << 40

# name, safetensors type, shape
_Entry = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class RowEntry:
    """Where one tensor of a local network lies in its row: `shape` numbers from `offset`."""

    name: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Manifest(Header):
    """The JSON part of a file: the representation's header, and what its tensors are checked by.

    Attributes:
        format_version: of the file.
        partitions: P.
        row_layout: the tensors of a row, in order.
        crc32: CRC-32 of the bytes of every tensor but `local`.
    """

    format_version: int
    partitions: int
    row_layout: tuple[RowEntry, ...]
    crc32: dict[str, int]


def save(representation: Representation, path: PathLike, overwrite: bool = False) -> None:
    """Write a representation to one `.safetensors` file, whole or not at all.

    Raises:
        OutputError: the suffix is not `.safetensors`, the folder is missing, or the file exists.
        RunError: the disk is full or the folder is not writable.
    """
    if not str(path).endswith(".safetensors"):
        raise OutputError(f"{path}: a representation is a .safetensors file; give the output that suffix")
    header, index = _encode(representation)
    codec = CODECS[representation.codec]
    with replacing(path, overwrite) as temporary, open(temporary, "wb") as file:
        file.write(header)
        file.write(index)
        for chunk in row_chunks(representation.rows):
            file.write(codec.encode(chunk).data)


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
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{path}: damaged: {reason}; restore the file from a copy") from error


def sizes(representation: Representation) -> dict[str, int]:
    """Bytes of the representation as a file: file, local, shared, index, header."""
    header, index = _encode(representation)
    local = len(representation.rows) * CODECS[representation.codec].row_bytes(representation.rows.width)
    shared = sum(tensor.nbytes for tensor in representation.shared.values())
    return {
        "file": len(header) + len(index) + local,
        "local": local,
        "shared": shared,
        "index": len(index) - shared,
        "header": len(header),
    }


def identified(representation: Representation) -> Representation:
    """A fresh encoding with its origin and lineage.

    The lineage is a SHA-256 of config, partitions and all weights. With the signal's coordinates it is the origin too:
    a row says nothing elsewhere. With tile coordinates the origin hashes all that gives a row its meaning: model, tile,
    scales, kind, channels and shared network.
    """
    shared = [_bytes(tensor.numpy()) for tensor in representation.shared.values()]
    rows = (_bytes(chunk.numpy()) for chunk in row_chunks(representation.rows))
    config, ids = canonical_json(representation.config).encode(), _bytes(representation.ids)
    lineage = origin = _sha256(config, ids, *shared, *rows)
    if representation.coordinates.kind == "tile":
        coordinates, signal = representation.coordinates, representation.signal
        scales = coordinates.shared_scale, coordinates.local_scale
        meaning = [representation.model, representation.tile, scales, signal.kind, signal.channels]
        origin = _sha256(canonical_json(to_plain(meaning)).encode(), *shared)
    return replace(representation, origin=origin, lineage=lineage)


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# Writing


def _encode(representation: Representation) -> tuple[bytes, bytes]:
    """Header and index: all bytes but those of the rows."""
    shared = {f"shared.{name}": representation.shared[name].numpy() for name, _ in shared_layout(representation.model)}
    index = {
        "partitions": representation.ids,
        "row_crc32": representation.rows.crc32(),
        "row_edit": representation.row_edit,
        "row_blank": representation.row_blank,
        **({} if representation.overview is None else {"overview": representation.overview}),
    }
    tensors = {name: _bytes(data) for name, data in (shared | index).items()}
    manifest = Manifest(
        **{field.name: getattr(representation, field.name) for field in fields(Header)},
        format_version=FORMAT_VERSION,
        partitions=len(representation.ids),
        row_layout=_row_entries(representation.model),
        crc32={name: zlib.crc32(data) for name, data in tensors.items()},
    )
    try:
        # What the reader refuses must not be written.
        check_header(manifest)
        text = canonical_json(to_plain(manifest))
    except ValueError as error:
        raise ConfigError(f"the representation cannot be written: {error}; encode it with other options") from None
    crc32 = zlib.crc32(text.encode())
    metadata = {_MANIFEST: text, _MANIFEST_CRC: str(crc32)}
    header = canonical_json({"__metadata__": metadata, **_tensor_table(_entries(manifest))}).encode()
    # As long as if each CRC-32 had ten digits: so it can be told, and written last, before the tensors are known.
    length = len(header) + sum(10 - len(str(number)) for number in (*manifest.crc32.values(), crc32))
    header = header.ljust(-(-length // 8) * 8)
    return struct.pack("<Q", len(header)) + header, b"".join(tensors.values())


def _row_entries(model: ModelConfig) -> tuple[RowEntry, ...]:
    entries, offset = [], 0
    for name, shape in row_layout(model):
        entries.append(RowEntry(name, shape, offset))
        offset += math.prod(shape)
    return tuple(entries)


def _entries(manifest: Manifest) -> list[_Entry]:
    """Every tensor of the file, in order; `local` is the last."""
    partitions, model = manifest.partitions, manifest.model
    each: list[_Entry] = [("row_edit", "I32", (partitions,)), ("row_blank", "I32", (partitions,))]
    if "overview" in manifest.crc32:
        each.append(("overview", "F32", (partitions, model.channels)))
    return [
        *((f"shared.{name}", "F32", shape) for name, shape in shared_layout(model)),
        ("partitions", "I32", (partitions, model.dimensions)),
        ("row_crc32", "U32", (partitions,)),
        *(each if manifest.format_version > 1 else ()),
        ("local", CODECS[manifest.codec].tensor_type, (partitions, count(row_layout(model)))),
    ]


def _tensor_table(entries: list[_Entry]) -> dict[str, Any]:
    """The header's part on tensors."""
    table, offset = {}, 0
    for name, dtype, shape in entries:
        end = offset + math.prod(shape) * TENSOR_TYPES[dtype].itemsize
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return table


def _bytes(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


# Reading


def _decode(source: Source) -> Representation:
    manifest, start = _read_header(source)
    entries = _entries(manifest)
    spans = [described["data_offsets"] for described in _tensor_table(entries).values()]
    *index, (rows_offset, _) = [(start + low, high - low) for low, high in spans]
    tensors: dict[str, NDArray[Any]] = {}
    for (name, dtype, shape), data in zip(entries[:-1], source.read_ranges(index), strict=True):
        if zlib.crc32(data) != manifest.crc32[name]:
            raise FileFormatError(f"{source.name}: tensor {name} is damaged (its CRC-32 differs); restore a copy")
        kind = TENSOR_TYPES[dtype]
        tensors[name] = np.frombuffer(data, dtype=kind).reshape(shape).astype(kind.newbyteorder("="))
    ids = tensors["partitions"]
    _check_ids(Lattice(manifest.tile, manifest.halo, ids), manifest)
    if manifest.format_version == 1:
        edit, blank = version1.row_edits(manifest.history, ids)
        manifest = replace(manifest, history=version1.counted(manifest.history))
    else:
        edit, blank = tensors["row_edit"], tensors["row_blank"]
        named = np.concatenate([edit, np.abs(blank.astype(np.int64)) - 1])
        _require(edit.min() >= 0 and named.max() < len(manifest.history), "a row names an edit that is not there")
        since = {-int(number) - 1 for number in blank[blank < 0]}
        _require(all("held" in manifest.history[n] for n in since), "the history lacks what a blank row held")
    for name, values in tensors.items():
        if name == "overview" or name.startswith("shared."):
            check_finite(source.name, name, torch.from_numpy(values))
    width = count(row_layout(manifest.model))
    return Representation(
        **{field.name: getattr(manifest, field.name) for field in fields(Header)},
        ids=ids,
        rows=FileRows(source, rows_offset, width, CODECS[manifest.codec], tensors["row_crc32"], np.arange(len(ids))),
        row_edit=edit,
        row_blank=blank,
        shared={name: torch.from_numpy(tensors[f"shared.{name}"]) for name, _ in shared_layout(manifest.model)},
        overview=tensors.get("overview"),
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
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_MANIFEST), str):
        raise FileFormatError(f"{foreign}: it has no manifest; `lgsirens encode` writes one")
    text = metadata[_MANIFEST]
    _require(metadata.get(_MANIFEST_CRC) == str(zlib.crc32(text.encode())), "the manifest's CRC-32 differs")
    plain = _parse_json(text.encode())
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FileFormatError(
            f"{source.name}: format version {version!r}, this program reads 1 to {FORMAT_VERSION}; update lgsirens"
        )
    manifest = from_plain(Manifest, version1.upgraded(plain) if version == 1 else plain)
    check_header(manifest)
    _require(1 <= manifest.partitions <= _LARGEST_COUNT, f"{manifest.partitions} partitions are out of range")
    _require(manifest.model.mode != "mlp" or manifest.partitions == 1, "mode mlp has exactly one partition")
    _require(manifest.row_layout == _row_entries(manifest.model), "the row layout does not match the model")
    entries = _entries(manifest)
    _require(set(manifest.crc32) == {name for name, _, _ in entries[:-1]}, "its checksums do not match its tensors")
    table = _tensor_table(entries)
    # As text, because Python takes 0, 0.0 and False for equal.
    same = json.dumps(header, sort_keys=True) == json.dumps(table, sort_keys=True)
    _require(same, "the header's names, types, shapes or offsets do not match the manifest")
    described = 8 + length + table["local"]["data_offsets"][1]
    if source.size != described:
        raise FileFormatError(
            f"{source.name}: truncated or overlong: {source.size} bytes, the header describes {described}"
        )
    return manifest, 8 + length


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


def _check_ids(lattice: Lattice, manifest: Manifest) -> None:
    columns = [np.ascontiguousarray(column) for column in lattice.ids.T]
    rising, equal = np.zeros(len(lattice) - 1, dtype=bool), np.ones(len(lattice) - 1, dtype=bool)
    for column in columns:
        rising |= equal & (column[1:] > column[:-1])
        equal &= column[1:] == column[:-1]
    _require(bool(rising.all()), "the partition ids are not unique and in order")
    for column, (low, high), tile in zip(columns, manifest.extent, manifest.tile, strict=True):
        inside = column.min() >= low // tile and column.max() < -(-high // tile)
        _require(bool(inside), "a partition lies outside the extent")


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)
