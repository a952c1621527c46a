"""Fuzz targets of our own files: the reader as a whole, and its manifest."""

import json
import math
import zlib
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from lgsirens.errors import LgsirensError
from lgsirens.grid.box import Box, box_shape
from lgsirens.nn.siren import count, row_layout, shared_layout
from lgsirens.representation.decode import decode
from lgsirens.representation.edit import crop
from lgsirens.representation.evaluate import evaluate
from lgsirens.representation.file import Manifest, _checked, _tensor_table, load, sizes
from lgsirens.representation.report import describe, describe_text
from lgsirens.representation.representation import Representation
from lgsirens.representation.rows import TENSOR_TYPES
from lgsirens.representation.version1 import upgraded
from lgsirens.signal import Array
from trials.fuzz.bases import bases
from trials.fuzz.forging import Parts, repaired
from trials.fuzz.mutation import Mutate, mutated_json, mutated_words

_SIDE = 4  # samples of what is decoded, along each axis
_LARGEST_BODY = 1 << 20


def files() -> list[bytes]:
    return list(bases().values())


def manifests() -> list[bytes]:
    return [Parts.of(content).manifest.encode() for content in bases().values()]  # type: ignore[union-attr]


def read_file(content: bytes, path: Path) -> None:
    """A file as it is, and with checksums that match."""
    path = path.with_suffix(".safetensors")
    path.write_bytes(content)
    with suppress(LgsirensError):
        use(path)
    path.write_bytes(repaired(content))
    use(path)


def read_manifest(content: bytes, path: Path) -> None:
    """A manifest in a file that is as it says, as far as that can be."""
    path = path.with_suffix(".safetensors")
    path.write_bytes(_contained(content.decode("utf-8", "surrogateescape")))
    use(path)


def decode_part(path: Path) -> tuple[Representation, Box, Array]:
    """Open a file, read all rows and decode a corner of its window: the representation, the corner, its values."""
    inr = load(path)
    inr.rows.read(np.arange(len(inr.rows)))
    corner = tuple((low, min(high, low + _SIDE)) for low, high in inr.window)
    values = decode(inr, corner).values
    lowest, highest = map(np.float32, inr.signal.value_range)
    slack = (abs(lowest) + abs(highest)) * np.float32(1e-6)
    assert values.shape[:-1] == box_shape(corner)
    assert np.isfinite(values).all()
    assert ((values >= lowest - slack) & (values <= highest + slack)).all()
    return inr, corner, values


def use(path: Path) -> None:
    """All that is done with a file, to a small part of it."""
    inr, corner, values = decode_part(path)
    evaluate(inr, np.array([[low for low, _ in corner]], np.float64))
    cut = crop(inr, corner)
    assert np.array_equal(decode(cut, corner).values, values)
    sizes(cut)
    if math.prod(inr.shape) <= 1 << 16:
        describe_text(describe(inr))


def mutate_file(content: bytes, size: int, random: Random, raw: Mutate) -> bytes:
    parts = Parts.of(content)
    if parts is None or random.random() < 0.2:
        return raw(content, size)
    if random.random() < 0.4:
        return parts._replace(body=mutated_words(parts.body, random)).joined()
    if random.random() < 0.2:
        return parts._replace(header=_changed(parts.header, random, raw)).joined()
    manifest = mutated_json(parts.manifest.encode(), size, random, raw)
    return parts._replace(manifest=manifest.decode("utf-8", "replace")).joined()


def _changed(header: dict[str, Any], random: Random, raw: Mutate) -> dict[str, Any]:
    try:
        found = json.loads(mutated_json(json.dumps(header).encode(), 1 << 20, random, raw))
    except (ValueError, RecursionError):
        return header
    return found if isinstance(found, dict) else header


def _contained(text: str) -> bytes:
    """A file with this manifest, with tensors and checksums as it says, if it can be; else with none."""
    try:
        plain = json.loads(text)
        manifest = _checked(upgraded(plain) if plain["format_version"] == 1 else plain)
        if sum(_numbers(manifest)) * 4 > _LARGEST_BODY:
            raise ValueError
    except Exception:
        return Parts({}, text, b"").joined()
    table, tensors = _tensor_table(manifest), _tensors(manifest)
    body = b"".join(tensors[name].astype(TENSOR_TYPES[table[name]["dtype"]]).tobytes() for name in table)
    plain["crc32"] = {name: zlib.crc32(tensors[name].tobytes()) for name in table if name != "local"}
    return Parts(table, json.dumps(plain), body).joined()


def _numbers(manifest: Manifest) -> tuple[int, int]:
    """Of rows and index, and of the shared network."""
    model = manifest.model
    each = count(row_layout(model)) + model.dimensions + model.channels + 3
    return manifest.partitions * each, count(shared_layout(model))


def _tensors(manifest: Manifest) -> dict[str, Any]:
    """The first tiles of the extent with random weights, all rows fitted by the last edit."""
    model, number = manifest.model, manifest.partitions
    rng = np.random.default_rng(0)
    tiles = (range(low // t, -(-high // t)) for (low, high), t in zip(manifest.extent, manifest.tile, strict=True))
    ids = np.array(list(islice(_combined(list(tiles)), number)), np.int32)
    local = rng.normal(0, 0.3, (number, count(row_layout(model)))).astype(np.float32)
    return {
        **{f"shared.{n}": rng.normal(0, 0.3, s).astype(np.float32) for n, s in shared_layout(model)},
        "partitions": ids,
        "row_crc32": np.array([zlib.crc32(row) for row in local], np.uint32),
        "row_edit": np.full(number, len(manifest.history) - 1, np.int32),
        "row_blank": np.zeros(number, np.int32),
        "overview": np.zeros((number, model.channels), np.float32),
        "local": local,
    }


def _combined(axes: list[range]) -> Any:
    """All combinations in C order; `product` would make lists of the ranges."""
    if len(axes) == 1:
        return ((n,) for n in axes[0])
    return ((n, *rest) for n in axes[0] for rest in _combined(axes[1:]))
