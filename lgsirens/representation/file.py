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
from itertools import accumulate
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import ConfigError, FileFormatError, OutputError
from lgsirens.grid.box import LARGEST_POSITION, Box, contains, is_empty
from lgsirens.grid.coordinates import COORDINATES
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import LARGEST_WEIGHT, ModelConfig, count, row_layout, shared_layout
from lgsirens.representation import version1
from lgsirens.representation.history import check_history
from lgsirens.representation.representation import LARGEST_FACTOR, Header, Representation
from lgsirens.representation.rows import CODECS, TENSOR_TYPES, FileRows, check_numbers, row_chunks
from lgsirens.representation.sources import PathLike, Source, open_source
from lgsirens.signal import KINDS, LARGEST_VALUE
from lgsirens.system.output import replacing
from lgsirens.system.pytorch import as_it_starts
from lgsirens.system.schema import Option, canonical_json, from_plain, option, to_plain

FORMAT_VERSION = 2

_MANIFEST, _MANIFEST_CRC = "lgsirens", "lgsirens_crc32"
_LARGEST_HEADER = 100_000_000  # the limit of safetensors
# What has one entry for each dimension.
_PER_AXIS = (
    *("tile", "halo", "extent", "window", "signal.spacing"),
    *("coordinates.size", "coordinates.shared_scale", "coordinates.local_scale"),
)


@dataclass(frozen=True, kw_only=True)
class Manifest(Header):
    """The JSON part of a file: the representation's header, and what its tensors are checked by.

    Attributes:
        format_version: of the file.
        partitions: P.
        row_layout: name, shape and offset in a row of each of its tensors, in order.
        crc32: CRC-32 of the bytes of every tensor but `local`.
    """

    format_version: int
    partitions: int = option(least=1, most=1 << 40)
    row_layout: list[dict[str, Any]]
    crc32: dict[str, int]


@as_it_starts()
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


@as_it_starts()
def load(path: PathLike) -> Representation:
    """Open a representation, a file or what lies at a URL; rows stay there until they are needed.

    Raises:
        SignalError: no such file.
        FileFormatError: the file is damaged, or it is not one of ours; says what is wrong.
        RunError: it cannot be read, or the server of a URL fails.
    """
    source = open_source(path)
    try:
        return _decode(source)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{source.name}: damaged: {reason}; restore the file from a copy") from error


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
        row_layout=row_entries(representation.model),
        crc32={name: zlib.crc32(data) for name, data in tensors.items()},
    )
    try:
        # What the reader refuses must not be written.
        text = canonical_json(to_plain(_checked(to_plain(manifest))))
    except ValueError as error:
        raise ConfigError(f"the representation cannot be written: {error}; encode it with other options") from None
    crc32 = zlib.crc32(text.encode())
    metadata = {_MANIFEST: text, _MANIFEST_CRC: str(crc32)}
    header = canonical_json({"__metadata__": metadata, **_tensor_table(manifest)}).encode()
    # As long as if each CRC-32 had ten digits: so it can be told, and written last, before the tensors are known.
    length = len(header) + sum(10 - len(str(number)) for number in (*manifest.crc32.values(), crc32))
    header = header.ljust(-(-length // 8) * 8)
    return struct.pack("<Q", len(header)) + header, b"".join(tensors.values())


def row_entries(model: ModelConfig) -> list[dict[str, Any]]:
    """Where each tensor of a local network lies in its row."""
    layout = row_layout(model)
    offsets = accumulate((math.prod(shape) for _, shape in layout[:-1]), initial=0)
    return [
        {"name": name, "shape": list(shape), "offset": offset}
        for (name, shape), offset in zip(layout, offsets, strict=True)
    ]


def _tensor_table(manifest: Manifest) -> dict[str, Any]:
    """The header's part on tensors, in order; `local` is the last."""
    each, model = (manifest.partitions,), manifest.model
    tensors = {f"shared.{name}": ("F32", shape) for name, shape in shared_layout(model)}
    tensors |= {"partitions": ("I32", (*each, model.dimensions)), "row_crc32": ("U32", each)}
    if manifest.format_version > 1:
        tensors |= {"row_edit": ("I32", each), "row_blank": ("I32", each)}
        if "overview" in manifest.crc32:
            tensors["overview"] = ("F32", (*each, model.channels))
    tensors["local"] = (CODECS[manifest.codec].tensor_type, (*each, count(row_layout(model))))
    table, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * TENSOR_TYPES[dtype].itemsize
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return table


def _bytes(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


# Reading


def _decode(source: Source) -> Representation:
    manifest, table, start = _read_header(source)
    spans = [(start + low, high - low) for low, high in (entry["data_offsets"] for entry in table.values())]
    tensors: dict[str, NDArray[Any]] = {}
    for (name, entry), data in zip(table.items(), source.read_ranges(spans[:-1]), strict=False):
        if zlib.crc32(data) != manifest.crc32[name]:
            raise FileFormatError(f"{source.name}: tensor {name} is damaged (its CRC-32 differs); restore a copy")
        kind = TENSOR_TYPES[entry["dtype"]]
        tensors[name] = np.frombuffer(data, dtype=kind).reshape(entry["shape"]).astype(kind.newbyteorder("="))
        if kind.kind == "f":
            largest = LARGEST_VALUE if name == "overview" else LARGEST_WEIGHT
            check_numbers(source.name, name, torch.from_numpy(tensors[name]), largest)
    ids = tensors["partitions"]
    _check_ids(Lattice(manifest.tile, manifest.halo, ids), manifest.extent)
    if manifest.format_version == 1:
        tensors["row_edit"], tensors["row_blank"] = version1.row_edits(manifest.history, ids)
        manifest = replace(manifest, history=version1.counted(manifest.history))
    edit, blank = tensors["row_edit"], tensors["row_blank"]
    named = np.concatenate([edit, np.abs(blank.astype(np.int64)) - 1])
    _require(edit.min() >= 0 and named.max() < len(manifest.history), "a row names an edit that is not there")
    since = {-int(number) - 1 for number in blank[blank < 0]}
    _require(all("held" in manifest.history[n] for n in since), "the history lacks what a blank row held")
    codec, width = CODECS[manifest.codec], count(row_layout(manifest.model))
    return Representation(
        **{field.name: getattr(manifest, field.name) for field in fields(Header)},
        ids=ids,
        rows=FileRows(source, spans[-1][0], width, codec, tensors["row_crc32"], np.arange(len(ids))),
        row_edit=edit,
        row_blank=blank,
        shared={name: torch.from_numpy(tensors[f"shared.{name}"]) for name, _ in shared_layout(manifest.model)},
        overview=tensors.get("overview"),
    )


def _read_header(source: Source) -> tuple[Manifest, dict[str, Any], int]:
    """The checked manifest, its table of tensors, and where these begin."""
    (length,) = struct.unpack("<Q", *source.read_ranges([(0, 8)]))
    _require(length <= min(_LARGEST_HEADER, source.size - 8), f"its header claims {length} bytes of {source.size}")
    header = _parse_json(*source.read_ranges([(8, length)]))
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_MANIFEST), str):
        raise FileFormatError(
            f"{source.name}: not a file of lgsirens: it has no manifest; `lgsirens encode` writes one"
        )
    text = metadata[_MANIFEST]
    _require(metadata.get(_MANIFEST_CRC) == str(zlib.crc32(text.encode())), "the manifest's CRC-32 differs")
    plain = _parse_json(text.encode())
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FileFormatError(f"{source.name}: format version {version!r}, not 1 to {FORMAT_VERSION}; update lgsirens")
    manifest = _checked(version1.upgraded(plain) if version == 1 else plain)
    table = _tensor_table(manifest)
    _require(set(manifest.crc32) == set(table) - {"local"}, "its checksums do not match its tensors")
    # As text once more, the stricter one: here 0.0 is not 0 either.
    same = json.dumps(header, sort_keys=True) == json.dumps(table, sort_keys=True)
    _require(same, "the header's names, types, shapes or offsets do not match the manifest")
    end = 8 + length + table["local"]["data_offsets"][1]
    _require(source.size == end, f"truncated or overlong: {source.size} bytes, the header describes {end}")
    return manifest, table, 8 + length


def _parse_json(data: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError(f"the key {max(keys, key=keys.count)!r} occurs twice in the header")
        return dict(pairs)

    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise ValueError(f"{text} is no number that JSON allows")
        return number

    return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=finite, parse_float=finite)


def _checked(plain: dict[str, Any]) -> Manifest:
    """The manifest, if it can be: what types and ranges of single fields do not say is how they go together.

    Raises:
        ValueError: names the part that cannot be.
    """
    manifest = from_plain(Manifest, plain)
    model, signal, coordinates = manifest.model, manifest.signal, manifest.coordinates
    extent, window, dimensions = manifest.extent, manifest.window, model.dimensions
    kind, (lowest, highest) = KINDS[signal.kind], signal.value_range
    _require(dimensions == kind.dimensions, f"{dimensions} dimensions do not fit kind {signal.kind}")
    _require(signal.channels <= kind.max_channels, f"{signal.channels} channels do not fit kind {signal.kind}")
    _require(model.channels == signal.channels, "the model's channels do not match the signal's")
    _require(lowest < highest, f"value range {lowest} to {highest} is empty")
    _require(model.mode != "lg" or model.global_width > 0, "mode lg needs a global width")
    _require(model.mode != "mlp" or manifest.partitions == 1, "mode mlp has exactly one partition")
    # As text, because Python takes False for 0.
    _require(canonical_json(manifest.row_layout) == canonical_json(row_entries(model)), "row layout and model differ")
    for name in _PER_AXIS:
        entries = attrgetter(name)(manifest)
        _require(entries is None or len(entries) == dimensions, f"{name} does not have {dimensions} dimensions")
    _require(coordinates.kind in COORDINATES, f"coordinates {coordinates.kind!r} are unknown")
    _require(coordinates.local_scale or coordinates.kind == "signal", "tile coordinates have no local scale")
    _require(all(1 <= n < LARGEST_POSITION for n in coordinates.size), "coordinates.size is out of range")
    for name in ("model.w0", "coordinates.shared_scale", "coordinates.local_scale"):
        Option(above=0, most=LARGEST_FACTOR).check(name, attrgetter(name)(manifest))
    everywhere = ((-LARGEST_POSITION, LARGEST_POSITION),) * dimensions
    _require(not is_empty(extent) and contains(everywhere, extent), "the extent is empty or out of range")
    _require(not is_empty(window) and contains(extent, window), "the window is empty or not inside the extent")
    _require(manifest.codec in CODECS, f"row codec {manifest.codec!r} is unknown; update lgsirens")
    _require(manifest.history, "the history is empty")
    check_history(version1.counted(manifest.history) if manifest.format_version == 1 else manifest.history, dimensions)
    return manifest


def _check_ids(lattice: Lattice, extent: Box) -> None:
    steps = np.diff(lattice.ids.astype(np.int64), axis=0)
    first = np.take_along_axis(steps, (steps != 0).argmax(axis=1)[:, None], axis=1)  # in which a partition differs
    _require((first > 0).all(), "the partition ids are not unique and in order")
    _require(lattice.samples_of_each(extent).all(), "a partition lies outside the extent")


def _require(condition: object, reason: str) -> None:
    if not condition:
        raise ValueError(reason)
