"""The file: what it holds, what is read of it, and that a damaged one is refused or decodes to the same values."""

import errno
import json
import math
import os
import pickle
import resource
import shutil
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsirens.decode import network_of
from lgsirens.errors import FileFormatError, LgsirensError, OutputError, RunError, SignalError
from lgsirens.fileformat import ByteSource, load, row_chunks, save, sizes
from lgsirens.manifest import Manifest
from lgsirens.model import ModelConfig, count, row_layout, shared_layout
from lgsirens.representation import FitRecord, MemoryRows
from lgsirens.schema import to_plain
from lgsirens.signal import KINDS
from tests.small import contents, representation

MODES = ("lg", "lc", "mlp")
quick = settings(max_examples=25)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)


@st.composite
def representations(draw, modes=MODES):
    """Any that a file may hold: every mode and rank, shifted, with partial tiles, halos and a smaller window."""
    mode = draw(st.sampled_from(modes))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    single = mode == "mlp"
    start = None if single else tuple(draw(st.integers(-20, 20)) for _ in shape)
    window = []
    for first, size in zip(start or (0,) * len(shape), shape, strict=True):
        low = draw(st.integers(first, first + size - 1))
        window.append((low, draw(st.integers(low + 1, first + size))))
    kinds = [kind.name for kind in KINDS.values() if kind.dimensions == len(shape)]
    inr = representation(
        shape,
        draw(st.integers(1, 4)),
        mode,
        None if single else tuple(draw(st.integers(1, size)) for size in shape),
        draw(st.integers(0, 2**32 - 1)),
        start=start,
        window=tuple(window),
        halo=tuple(draw(st.integers(0, 3)) for _ in shape),
        kind=draw(st.sampled_from(kinds)),
        value_range=draw(st.sampled_from([(0.0, 255.0), (-0.1, 1e-3), (-32768.0, 32767.0)])),
        dtype=draw(st.sampled_from(["uint8", "int16", "float64"])),
        sampling_rate=draw(st.none() | st.tuples(st.integers(1, 10**6), st.integers(1, 1001))),
        local_scale=draw(st.none() | st.floats(0.01, 10)),
        local_width=draw(st.integers(1, 4)),
        global_width=draw(st.integers(1, 4)),
        hidden_layers=draw(st.integers(0, 3)),
        agg_type=draw(st.sampled_from(["fc", "fc_and_add"])),
        config=draw(json_objects),
    )
    fit = FitRecord(
        draw(st.integers(0, 2**40)), draw(st.floats(0, 1e9)), draw(st.none() | st.floats(-99, 99)), "x", "é"
    )
    return replace(inr, fit=fit, history=tuple(draw(st.lists(json_objects, max_size=3))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fileformat")


def store(inr, path):
    save(inr, path, overwrite=True)
    return path


# What a file holds


@quick
@given(representations())
def test_loading_gives_back_every_field(folder, inr):
    assert contents(load(store(inr, folder / "a.safetensors"))) == contents(inr)


@quick
@given(representations())
def test_the_same_representation_gives_the_same_bytes_and_so_does_what_was_loaded(folder, inr):
    first = store(inr, folder / "a.safetensors").read_bytes()
    assert store(inr, folder / "b.safetensors").read_bytes() == first
    assert store(load(folder / "a.safetensors"), folder / "b.safetensors").read_bytes() == first


@quick
@given(representations())
def test_the_file_is_as_large_as_its_parts(folder, inr):
    path = store(inr, folder / "a.safetensors")
    figures = sizes(inr)
    assert path.stat().st_size == figures["file"]
    assert figures["file"] == sum(figures[part] for part in ("header", "shared", "index", "local"))
    assert figures["header"] == 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert figures["header"] % 8 == 0
    assert figures["local"] == 4 * len(inr.lattice) * count(row_layout(inr.model))
    assert figures["index"] == 4 * len(inr.lattice) * (inr.lattice.dimensions + 1)
    assert sizes(load(path)) == figures


@quick
@given(representations())
def test_plain_safetensors_reads_the_tensors_and_the_metadata(folder, inr):
    path = store(inr, folder / "a.safetensors")
    tensors = safetensors.torch.load_file(path)
    shared = [name for name, _ in shared_layout(inr.model)]
    assert set(tensors) == {"local", "partitions", "row_crc32", *(f"shared.{name}" for name in shared)}
    rows = inr.rows.read(np.arange(len(inr.rows)))
    assert torch.equal(tensors["local"], rows)
    assert tensors["local"].dtype == torch.float32
    assert tensors["partitions"].dtype == torch.int32
    assert tensors["partitions"].tolist() == inr.lattice.ids.tolist()
    assert tensors["row_crc32"].dtype == torch.uint32
    assert tensors["row_crc32"].tolist() == [zlib.crc32(row.numpy().tobytes()) for row in rows]
    for name in shared:
        assert tensors[f"shared.{name}"].dtype == torch.float32
        assert torch.equal(tensors[f"shared.{name}"], inr.shared[name])
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert set(metadata) == {"lgsirens", "lgsirens_crc32"}
    assert metadata["lgsirens_crc32"] == str(zlib.crc32(metadata["lgsirens"].encode()))
    manifest = json.loads(metadata["lgsirens"])
    assert manifest["format_version"] == 1
    assert manifest["partitions"] == len(inr.lattice)


def test_the_row_layout_in_the_manifest_finds_each_tensor_of_a_row(tmp_path):
    inr = representation((6, 7), 3, "lg", (3, 3))
    path = store(inr, tmp_path / "a.safetensors")
    manifest = Parts(path).manifest
    row = safetensors.torch.load_file(path)["local"][2]
    unpacked = network_of(inr).unpack(inr.rows.read(np.array([2])))
    assert [(e["name"], tuple(e["shape"])) for e in manifest["row_layout"]] == row_layout(inr.model)
    for entry, tensor in zip(manifest["row_layout"], unpacked, strict=True):
        stop = entry["offset"] + math.prod(entry["shape"])
        assert torch.equal(row[entry["offset"] : stop], tensor.flatten())


# What is read of it


@quick
@given(representations(("lg", "lc")), st.data())
def test_reading_rows_asks_for_one_range_per_run_and_no_other_byte(folder, inr, data):
    path = store(inr, folder / "a.safetensors")
    figures = sizes(inr)
    source = load(path).rows.source
    assert source.bytes_read == figures["file"] - figures["local"]
    loaded = load(path)
    chosen = data.draw(st.sets(st.integers(0, len(inr.lattice) - 1)))
    places = np.array(sorted(chosen), dtype=np.int64)
    ranges = []
    source, read = loaded.rows.source, loaded.rows.source.read
    source.read = lambda offset, size: ranges.append((offset, offset + size)) or read(offset, size)
    rows = loaded.rows.read(places)
    assert torch.equal(rows, inr.rows.read(places))
    row_bytes = 4 * inr.parameters["per_partition"]
    first = figures["file"] - figures["local"]
    asked = [(low - first, high - first) for low, high in ranges]
    wanted = []
    for place in places.tolist():
        if wanted and wanted[-1][1] == place * row_bytes:
            wanted[-1] = (wanted[-1][0], (place + 1) * row_bytes)
        else:
            wanted.append((place * row_bytes, (place + 1) * row_bytes))
    assert asked == wanted
    assert source.bytes_read == first + len(places) * row_bytes


@quick
@given(representations(("lg", "lc")), st.data())
def test_selected_rows_are_those_of_the_file_without_a_read(folder, inr, data):
    loaded = load(store(inr, folder / "a.safetensors"))
    places = np.arange(len(inr.lattice))
    expected = MemoryRows(inr.rows.read(places))
    rows, before = loaded.rows, loaded.rows.source.bytes_read
    for _ in range(2):
        chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))))
        rows, expected = rows.select(chosen), expected.select(chosen)
    assert rows.source.bytes_read == before
    assert np.array_equal(rows.crc32(), expected.crc32())
    assert torch.equal(rows.read(np.arange(len(rows))), expected.values)


def test_rows_come_in_chunks_of_bounded_size(monkeypatch):
    inr = representation((20, 20), 1, "lc", (4, 4))
    monkeypatch.setattr("lgsirens.fileformat._WRITE_BYTES", 4 * 3 * inr.parameters["per_partition"] + 1)
    chunks = list(row_chunks(inr.rows))
    assert [len(chunk) for chunk in chunks] == [3] * 8 + [1]
    assert torch.equal(torch.cat(chunks), inr.rows.values)


def test_an_open_file_goes_on_giving_its_old_rows_after_it_was_replaced(tmp_path):
    old, new = representation((8, 8), 1, "lc", (4, 4), 1), representation((8, 8), 1, "lc", (4, 4), 2)
    loaded = load(store(old, tmp_path / "a.safetensors"))
    store(new, tmp_path / "a.safetensors")
    assert contents(loaded) == contents(old)


def test_a_loaded_representation_can_replace_its_own_file(tmp_path):
    inr = representation((8, 8), 1, "lg", (4, 4))
    path = store(inr, tmp_path / "a.safetensors")
    save(load(path).crop("0:4, 0:8"), path, overwrite=True)
    assert contents(load(path)) == contents(inr) | {
        name: contents(load(path))[name] for name in ("lattice", "rows", "extent", "window", "history")
    }
    assert load(path).extent == ((0, 4), (0, 8))


# No damaged file may decode to a wrong answer


class Parts:
    """The parts of a file, to be changed and written back with checksums that match."""

    def __init__(self, path):
        self.path = path
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        self.header = json.loads(content[8 : 8 + length])
        self.metadata = self.header.pop("__metadata__")
        self.manifest = json.loads(self.metadata["lgsirens"])
        types = {"F32": np.float32, "I32": np.int32, "U32": np.uint32}
        self.tensors = {}
        for name, entry in self.header.items():
            low, high = (8 + length + offset for offset in entry["data_offsets"])
            values = np.frombuffer(content[low:high], types[entry["dtype"]]).reshape(entry["shape"])
            self.tensors[name] = values.copy()

    def checksum(self):
        """Make all checksums match the tensors."""
        local = self.tensors["local"]
        self.tensors["row_crc32"] = np.array([zlib.crc32(row.tobytes()) for row in local], np.uint32)
        self.manifest["crc32"] = {n: zlib.crc32(t.tobytes()) for n, t in self.tensors.items() if n != "local"}

    def write(self, manifest_text=None, header_text=None):
        """Write the file, its manifest and header text put through the given functions."""
        text = json.dumps(self.manifest)
        text = manifest_text(text) if manifest_text else text
        self.metadata |= {"lgsirens": text, "lgsirens_crc32": str(zlib.crc32(text.encode()))}
        header = json.dumps({"__metadata__": self.metadata, **self.header})
        header = header_text(header) if header_text else header
        data = header.encode() + b" " * (-len(header.encode()) % 8)
        tensors = b"".join(t.tobytes() for t in self.tensors.values())
        self.path.write_bytes(struct.pack("<Q", len(data)) + data + tensors)


def check_message(error, path):
    assert str(error).startswith(str(path))
    assert len(str(error).splitlines()) == 1


def refused(path, reason=""):
    """Assert that loading and reading all of a file is refused in one line that names it."""
    with pytest.raises(FileFormatError) as caught:
        contents(load(path))
    check_message(caught.value, path)
    assert reason in str(caught.value)


def refused_or_the_same(path, expected, values):
    try:
        loaded = load(path)
        found, decoded = contents(loaded), loaded.decode(full=True).values
    except FileFormatError as error:
        check_message(error, path)
        return
    assert found == expected
    assert np.array_equal(decoded, values)


def tiny(mode="lc"):
    return representation((4,), 1, mode, None if mode == "mlp" else (2,), local_width=1, global_width=1)


@pytest.fixture(scope="module", params=MODES)
def sound(request, folder):
    """A path and the bytes, fields and samples of a sound file."""
    inr = representation((6, 5), 2, request.param, None if request.param == "mlp" else (3, 3))
    path = store(inr, folder / f"sound_{request.param}.safetensors")
    return path, path.read_bytes(), contents(inr), inr.decode().values


@settings(max_examples=100)
@given(data=st.data())
def test_any_byte_changed_anywhere_is_refused_or_changes_nothing(sound, data):
    path, content, expected, values = sound
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    refused_or_the_same(path, expected, values)


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_byte_of_a_tensor_is_refused(sound, data):
    path, content, _, _ = sound
    damaged = bytearray(content)
    first = 8 + int.from_bytes(content[:8], "little")
    damaged[data.draw(st.integers(first, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    refused(path, "damaged (its CRC-32 differs)")


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_byte_of_a_header_is_guarded(tmp_path, mask):
    inr = tiny()
    path = store(inr, tmp_path / "a.safetensors")
    content, expected, values = path.read_bytes(), contents(inr), inr.decode().values
    with open(path, "r+b", buffering=0) as file:
        for offset in range(8 + int.from_bytes(content[:8], "little")):
            os.pwrite(file.fileno(), bytes([content[offset] ^ mask]), offset)
            refused_or_the_same(path, expected, values)
            os.pwrite(file.fileno(), content[offset : offset + 1], offset)
    assert path.read_bytes() == content


def test_a_file_cut_at_any_byte_is_refused(tmp_path):
    path = store(tiny("lg"), tmp_path / "a.safetensors")
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        refused(path)


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=20))
def test_a_file_with_bytes_appended_is_refused(folder, tail):
    path = store(tiny(), folder / "a.safetensors")
    path.write_bytes(path.read_bytes() + tail)
    refused(path, "overlong")


def test_one_damaged_row_leaves_the_others_readable(tmp_path):
    inr = representation((8, 8), 1, "lg", (4, 4))
    path = store(inr, tmp_path / "a.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    loaded = load(path)
    assert np.array_equal(loaded.decode("0:4, 0:8").values, inr.decode("0:4, 0:8").values)
    for region in ("7:8, 7:8", "0:8, 0:8"):
        with pytest.raises(FileFormatError, match="row 3 is damaged"):
            loaded.decode(region)


def test_a_file_cut_while_it_is_open_is_refused(tmp_path):
    path = store(representation((8, 8), 1, "lc", (4, 4)), tmp_path / "a.safetensors")
    loaded = load(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(FileFormatError, match="truncated"):
        loaded.decode()


def at(*keys, value):
    """A function that sets one value in nested JSON."""

    def change(plain):
        for key in keys[:-1]:
            plain = plain[key]
        plain[keys[-1]] = value

    return change


def drop(*keys):
    def change(plain):
        for key in keys[:-1]:
            plain = plain[key]
        del plain[keys[-1]]

    return change


def both(*changes):
    def change(plain):
        for each in changes:
            each(plain)

    return change


def with_layout(*changes):
    """The changes, and the row layout that fits the changed model."""

    def change(plain):
        for each in changes:
            each(plain)
        plain["row_layout"] = to_plain(Manifest.layout_of(ModelConfig(**plain["model"])))

    return change


BIG = 1 << 31

MANIFESTS = {
    "a newer version": (at("format_version", value=2), "format version 2"),
    "no version": (drop("format_version"), "format version"),
    "a version that is true": (at("format_version", value=True), "format_version"),
    "a version that is a float": (at("format_version", value=1.0), "format_version"),
    "a version of two lines": (at("format_version", value="1\n1"), "format version"),
    "an unknown key": (at("extra", value=1), "extra is not known"),
    "an unknown key of two lines": (at("ex\ntra", value=1), "is not known"),
    "an unknown key in the model": (at("model", "extra", value=1), "model.extra is not known"),
    "a missing key": (drop("window"), "window is missing"),
    "a missing key in the frame": (drop("frame", "scale"), "frame.scale is missing"),
    "a missing key in the row layout": (drop("row_layout", 0, "offset"), "offset is missing"),
    "a model that is a list": (at("model", value=[]), "model"),
    "a width that is a float": (at("model", "local_width", value=4.0), "model.local_width"),
    "a width that is true": (at("model", "local_width", value=True), "model.local_width"),
    "a width that is text": (at("model", "local_width", value="4"), "model.local_width"),
    "a mode that is null": (at("model", "mode", value=None), "model.mode"),
    "an origin that is a number": (at("origin", value=7), "origin"),
    "a history that is an object": (at("history", value={}), "history"),
    "a history of text": (at("history", value=["crop"]), "history"),
    "a config that is null": (at("config", value=None), "config"),
    "a tile that is a number": (at("tile", value=3), "tile"),
    "an extent with a float": (at("extent", 0, 1, value=6.0), "extent"),
    "an extent of three ends": (at("extent", 0, value=[0, 3, 6]), "extent has 3 entries"),
    "an unknown mode": (at("model", "mode", value="lgx"), "mode 'lgx' is unknown"),
    "an unknown aggregation": (at("model", "agg_type", value="sum"), "agg_type"),
    "another aggregation": (at("model", "agg_type", value="fc_and_add"), "checksums"),
    "another width": (at("model", "local_width", value=3), "row layout"),
    "another width with its layout": (with_layout(at("model", "local_width", value=3)), "shapes"),
    "another global width": (at("model", "global_width", value=4), "shapes"),
    "another depth": (at("model", "hidden_layers", value=2), "row layout"),
    "a width of zero": (at("model", "local_width", value=0), "local width"),
    "a negative width": (at("model", "local_width", value=-4), "local width"),
    "a width beyond all limits": (at("model", "local_width", value=1 << 40), "local width"),
    "no global width": (at("model", "global_width", value=0), "global width"),
    "a global width beyond all limits": (at("model", "global_width", value=1 << 40), "global width"),
    "a negative depth": (at("model", "hidden_layers", value=-1), "hidden layers"),
    "a depth beyond all limits": (at("model", "hidden_layers", value=10**9), "hidden layers"),
    "w0 of zero": (at("model", "w0", value=0), "w0"),
    "a rank that is not the kind's": (at("signal", "kind", value="audio"), "dimensions"),
    "an unknown kind": (at("signal", "kind", value="smell"), "kind 'smell' is unknown"),
    "a rank of zero": (with_layout(at("model", "dimensions", value=0)), "dimensions"),
    "other channels than the model's": (at("signal", "channels", value=3), "channels"),
    "no channels": (with_layout(at("signal", "channels", value=0), at("model", "channels", value=0)), "channels"),
    "too many channels": (with_layout(at("signal", "channels", value=5), at("model", "channels", value=5)), "channels"),
    "an empty value range": (at("signal", "value_range", value=[5, 5]), "value range"),
    "a reversed value range": (at("signal", "value_range", value=[5, 1]), "value range"),
    "an unknown sample type": (at("signal", "dtype", value="complex64"), "sample type"),
    "a sampling rate of zero": (at("signal", "sampling_rate", value=[0, 1]), "sampling rate"),
    "a row layout in another order": (lambda m: m["row_layout"].reverse(), "row layout"),
    "a row layout with another offset": (at("row_layout", 1, "offset", value=9), "row layout"),
    "a row layout with another name": (at("row_layout", 0, "name", value="x"), "row layout"),
    "a row layout with a transposed weight": (at("row_layout", 0, "shape", value=[2, 4]), "row layout"),
    "a row layout that is empty": (at("row_layout", value=[]), "row layout"),
    "no partitions": (at("partitions", value=0), "partitions"),
    "negative partitions": (at("partitions", value=-4), "partitions"),
    "fewer partitions": (at("partitions", value=3), "shapes"),
    "partitions beyond all limits": (at("partitions", value=10**30), "partitions"),
    "a tile of rank 1": (at("tile", value=[3]), "tile"),
    "a tile of zero": (at("tile", value=[3, 0]), "size"),
    "a negative tile": (at("tile", value=[3, -3]), "size"),
    "a tile beyond all limits": (at("tile", value=[3, BIG]), "size"),
    "a smaller extent": (both(at("extent", 0, value=[0, 3]), at("window", 0, value=[0, 3])), "outside the extent"),
    "a larger tile": (at("tile", value=[6, 6]), "outside the extent"),
    "a negative halo": (at("halo", value=[0, -1]), "halo"),
    "a halo beyond all limits": (at("halo", value=[0, BIG]), "halo"),
    "a halo of rank 3": (at("halo", value=[0, 0, 0]), "halo"),
    "a frame of rank 1": (at("frame", "size", value=[6]), "frame"),
    "a frame of size zero": (at("frame", "size", value=[6, 0]), "size"),
    "a negative frame scale": (at("frame", "scale", value=-1), "frame scale"),
    "a local scale of zero": (at("frame", "local_scale", value=0), "local scale"),
    "an extent of rank 1": (at("extent", value=[[0, 6]]), "extent"),
    "an empty extent": (at("extent", 0, value=[6, 6]), "extent"),
    "an extent beyond all limits": (at("extent", 0, value=[0, BIG + 1]), "extent"),
    "an empty window": (at("window", 0, value=[2, 2]), "window"),
    "a window outside the extent": (at("window", 0, value=[2, 7]), "window"),
    "a window before the extent": (at("window", 1, value=[-1, 2]), "window"),
    "a checksum that is text": (at("crc32", "partitions", value="1"), "crc32.partitions"),
    "a checksum of a tensor that is not there": (at("crc32", "extra", value=1), "checksums"),
    "a checksum that is missing": (drop("crc32", "partitions"), "checksums"),
    "another checksum": (at("crc32", "partitions", value=1), "partitions is damaged"),
    "fit that is null": (at("fit", value=None), "fit"),
    "steps that are text": (at("fit", "steps", value="3"), "fit.steps"),
    "mode lc on a file of lg": (at("model", "mode", value="lc"), "checksums"),
}


@pytest.fixture
def parts(tmp_path):
    inr = representation((6, 5), 2, "lg", (3, 3), local_width=4, global_width=5)
    return Parts(store(inr, tmp_path / "a.safetensors"))


def test_a_file_rewritten_without_a_change_is_sound(parts):
    before = parts.path.read_bytes()
    parts.checksum()
    parts.write()
    assert parts.path.read_bytes() == before


@pytest.mark.parametrize(("change", "reason"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_with_a_matching_checksum_is_refused_if_it_has(parts, change, reason):
    change(parts.manifest)
    parts.write()
    refused(parts.path, reason)


def test_mode_mlp_with_two_partitions_is_refused(tmp_path):
    parts = Parts(store(tiny("lc"), tmp_path / "a.safetensors"))
    parts.manifest["model"]["mode"] = "mlp"
    parts.write()
    refused(parts.path, "exactly one partition")


TEXTS = {
    "NaN": ('"psnr": 31.5', '"psnr": NaN', "NaN"),
    "an infinite number": ('"psnr": 31.5', '"psnr": Infinity', "Infinity"),
    "a negative infinite number": ('"seconds": 0.25', '"seconds": -Infinity', "-Infinity"),
    "a number beyond float64": ('"psnr": 31.5', '"psnr": 1e999', "1e999"),
    "an integer beyond float64": ('"psnr": 31.5', f'"psnr": {10**400}', ""),
    "an integer of 5000 digits": ('"steps": 3', f'"steps": {"9" * 5000}', ""),
    "NaN in the config": ('"config": {', '"config": {"a": NaN, ', "NaN"),
    "a number beyond float64 in the config": ('"config": {', '"config": {"a": 1e999, ', ""),
    "a number beyond float64 in the history": ('"history": [{', '"history": [{"a": [-1e999], ', ""),
    "a key twice": ('"origin":', '"origin": "", "origin":', "'origin' occurs twice"),
    "a key twice in the model": ('"w0":', '"w0": 1.0, "w0":', "'w0' occurs twice"),
    "a key twice in the row layout": ('"offset": 0', '"offset": 0, "offset": 0', "'offset' occurs twice"),
    "a key twice in the checksums": ('"partitions": ', '"partitions": 1, "partitions": ', "occurs twice"),
    "a key twice in the config": ('"config": {', '"config": {"mode": "lc", ', "'mode' occurs twice"),
    "a key twice deep in the config": ('"config": {', '"config": {"a": [{"b": 1, "b": 1}], ', "'b' occurs twice"),
    "nesting without end": ('"config": {', f'"config": {{"a": {"[" * 100_000}', ""),
    "more text after its end": ("}", "}", "Extra data"),
}


@pytest.mark.parametrize(("old", "new", "reason"), TEXTS.values(), ids=TEXTS)
def test_a_manifest_whose_text_has_a_matching_checksum_is_refused_if_it_has(parts, old, new, reason):
    parts.write(lambda text: f"{text} {{}}" if old == new else text.replace(old, new, 1))
    refused(parts.path, reason)


@pytest.mark.parametrize("text", ["", "null", "[]", "1", '"lgsirens"', "{}", "{", "\x00", '{"format_version": 1}'])
def test_a_manifest_that_is_none_is_refused(parts, text):
    parts.write(lambda _: text)
    refused(parts.path)


TABLES = {
    "a tensor renamed": lambda h: h.update(rows=h.pop("local")),
    "a tensor missing": drop("row_crc32"),
    "a tensor too many": lambda h: h.update(extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "another shape": at("local", "shape", value=[1, 1]),
    "a transposed shape": lambda h: h["local"]["shape"].reverse(),
    "a flat shape": lambda h: h["local"].update(shape=[h["local"]["shape"][0] * h["local"]["shape"][1]]),
    "a negative size": at("partitions", "shape", value=[-4, -2]),
    "another type of as many bytes": at("local", "dtype", value="I32"),
    "an unknown type": at("local", "dtype", value="F33"),
    "a type that is null": at("local", "dtype", value=None),
    "a key too many": at("local", "extra", value=1),
    "an entry that is a list": at("local", value=[]),
    "an entry that is null": at("local", value=None),
    "no offsets": drop("local", "data_offsets"),
    "offsets of one number": lambda h: h["local"]["data_offsets"].pop(),
    "overlapping offsets": lambda h: h["row_crc32"].update(data_offsets=h["partitions"]["data_offsets"]),
    "two tensors that changed places": lambda h: swap_offsets(h, "shared.global_0_weight", "shared.global_1_weight"),
    "two tensors of one size that changed places": lambda h: swap_offsets(
        h, "shared.global_1_bias", "shared.global_2_bias"
    ),
    "offsets out of range": at("local", "data_offsets", value=[0, 1 << 60]),
    "negative offsets": at("local", "data_offsets", value=[-8, 0]),
    "offsets that are floats": lambda h: h["local"].update(data_offsets=[float(n) for n in h["local"]["data_offsets"]]),
    "an offset that is false": lambda h: h["shared.global_0_weight"]["data_offsets"].__setitem__(0, False),
    "a size that is a float": lambda h: h["row_crc32"].update(shape=[4.0]),
}


def swap_offsets(header, a, b):
    header[a]["data_offsets"], header[b]["data_offsets"] = header[b]["data_offsets"], header[a]["data_offsets"]


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_a_header_is_refused_if_its_table_has(parts, change):
    change(parts.header)
    parts.write()
    refused(parts.path, "header's names, types, shapes or offsets")


HEADERS = {
    "a tensor twice": ('"local":', '"local": {}, "local":', "'local' occurs twice"),
    "a key of a tensor twice": ('"dtype":', '"dtype": "F32", "dtype":', "'dtype' occurs twice"),
    "metadata twice": ('"__metadata__":', '"__metadata__": {}, "__metadata__":', "'__metadata__' occurs twice"),
    "a manifest twice": ('"lgsirens":', '"lgsirens": "", "lgsirens":', "'lgsirens' occurs twice"),
    "no manifest": ('"lgsirens":', '"other":', "it has no manifest"),
    "a manifest that is a number": ('"lgsirens":', '"lgsirens": 1, "other":', "it has no manifest"),
    "no checksum of its manifest": ('"lgsirens_crc32":', '"other":', "manifest's CRC-32"),
    "another checksum of its manifest": ('"lgsirens_crc32": "', '"lgsirens_crc32": "1', "manifest's CRC-32"),
    "metadata that is a list": ('"__metadata__":', '"__metadata__": [], "other":', "it has no manifest"),
    "NaN": ('"shape": [4]', '"shape": [NaN]', "NaN"),
    "no closing brace": ("}}", "}", ""),
    "text that is not UTF-8": ("local", "\udcff", ""),
}


@pytest.mark.parametrize(("old", "new", "reason"), HEADERS.values(), ids=HEADERS)
def test_a_header_is_refused_if_its_text_has(parts, old, new, reason):
    if new == "\udcff":
        content = parts.path.read_bytes()
        parts.path.write_bytes(content.replace(b'"local"', b'"loc\xffl"', 1))
    else:
        parts.write(header_text=lambda text: new.join(text.rsplit(old, 1) if old == "}}" else text.split(old, 1)))
    refused(parts.path, reason)


@pytest.mark.parametrize("header", [b"", b"[]", b"null", b"1", b'"a"', b"[" * 200_000, b"\xff\xfe", b"{}", b"\x00" * 8])
def test_a_header_that_is_no_table_is_refused(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    refused(path)


def test_unsorted_repeated_and_foreign_partitions_are_refused_though_checksums_match(tmp_path):
    inr = representation((6, 5), 2, "lg", (3, 3))
    for ids, reason in (
        ([[0, 1], [0, 0], [1, 0], [1, 1]], "not unique and in order"),
        ([[0, 0], [0, 0], [1, 0], [1, 1]], "not unique and in order"),
        ([[0, 0], [1, 0], [0, 1], [1, 1]], "not unique and in order"),
        ([[0, 0], [0, 1], [1, 0], [1, 2]], "outside the extent"),
        ([[-1, 0], [0, 1], [1, 0], [1, 1]], "outside the extent"),
        ([[0, 0], [0, 1], [1, 0], [2**31 - 1, 1]], "outside the extent"),
        ([[-(2**31), 0], [0, 1], [1, 0], [2**31 - 1, 1]], "outside the extent"),
    ):
        parts = Parts(store(inr, tmp_path / "a.safetensors"))
        parts.tensors["partitions"] = np.array(ids, np.int32)
        parts.checksum()
        parts.write()
        refused(parts.path, reason)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["local", "shared.global_2_bias", "shared.aggregation_0_weight"])
def test_weights_that_are_not_finite_are_refused_though_checksums_match(parts, name, value):
    parts.tensors[name].flat[-1] = value
    parts.checksum()
    parts.write()
    refused(parts.path, "NaN or infinite")


NOT_FLOAT32 = {
    "value range": at("signal", "value_range", value=[-1e300, 1e300]),
    "w0": at("model", "w0", value=1e300),
    "frame scale": at("frame", "scale", value=1e300),
    "local scale": at("frame", "local_scale", value=1e300),
}


@pytest.mark.parametrize("change", NOT_FLOAT32.values(), ids=NOT_FLOAT32)
def test_a_number_too_large_for_float32_does_not_decode_to_nan(parts, change):
    change(parts.manifest)
    parts.write()
    try:
        values = load(parts.path).decode().values
    except FileFormatError:
        return
    assert np.isfinite(values).all()


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**62, 100_000_001, 99_999_999, 1_000_000])
def test_a_claimed_length_allocates_nothing(tmp_path, length):
    path = store(tiny(), tmp_path / "a.safetensors")
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    tracemalloc.start()
    try:
        refused(path, "claims")
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_a_claimed_number_of_partitions_allocates_nothing(parts):
    partitions = 1 << 39
    parts.manifest["partitions"] = partitions
    offset = 0
    for name, entry in parts.header.items():
        if name in ("local", "partitions", "row_crc32"):
            entry["shape"][0] = partitions
        end = offset + 4 * int(np.prod(entry["shape"], dtype=object))
        entry["data_offsets"] = [offset, end]
        offset = end
    parts.write()
    tracemalloc.start()
    try:
        refused(parts.path, "truncated")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# Files of others


def plain_safetensors(path):
    safetensors.torch.save_file({"local": torch.zeros(4, 4)}, path, {"format": "pt"})


FOREIGN = {
    "an empty file": lambda path: path.write_bytes(b""),
    "seven bytes": lambda path: path.write_bytes(b"\x00" * 7),
    "zeros": lambda path: path.write_bytes(b"\x00" * 4096),
    "text": lambda path: path.write_text("a,b\n1,2\n" * 50),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"local": np.zeros((4, 4))})),
    "a checkpoint of PyTorch": lambda path: torch.save({"local": torch.zeros(4, 4)}, path),
    "a plain safetensors file": plain_safetensors,
}


@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_not_ours_is_refused(tmp_path, write):
    path = tmp_path / "a.safetensors"
    write(path)
    refused(path)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.none() | st.integers(0, 200))
def test_random_bytes_are_refused(folder, content, length):
    path = folder / "random.safetensors"
    path.write_bytes(content if length is None else struct.pack("<Q", length) + content)
    refused(path)


def test_a_path_that_is_no_file_is_refused_in_one_line(tmp_path):
    for path, error in (
        (tmp_path / "missing.safetensors", SignalError),
        (tmp_path / "no" / "such" / "folder.safetensors", SignalError),
        (tmp_path, LgsirensError),
        (tmp_path / ("n" * 300), LgsirensError),
        (tmp_path / "a\0b", LgsirensError),
    ):
        with pytest.raises(error) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_file_serves_reads_within_its_bounds_only(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    source = ByteSource(path)
    assert source.read(3, 4) == b"3456"
    assert source.read(10, 0) == b""
    assert source.bytes_read == 4
    for offset, size in ((8, 3), (10, 1), (100, 1)):
        with pytest.raises(FileFormatError, match="truncated"):
            source.read(offset, size)


# Writing: whole or not at all


@pytest.fixture
def old(tmp_path):
    path = store(representation((8, 8), 1, "lc", (4, 4), 1), tmp_path / "a.safetensors")
    return path, path.read_bytes()


def untouched(old):
    path, content = old
    return path.read_bytes() == content and os.listdir(path.parent) == [path.name]


NEW = representation((64, 64), 3, "lg", (8, 8), 2)


def test_a_file_that_exists_is_kept_unless_overwriting_is_asked_for(old):
    with pytest.raises(OutputError, match="exists already"):
        save(NEW, old[0])
    assert untouched(old)
    save(NEW, old[0], overwrite=True)
    assert contents(load(old[0])) == contents(NEW)


def test_a_full_disk_at_the_last_step_leaves_the_old_file_and_nothing_else(old, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left") as caught:
        save(NEW, old[0], overwrite=True)
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert untouched(old)


@pytest.mark.parametrize("limit", [0, 100, 10_000])
def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(old, limit):
    assert sizes(NEW)["file"] > limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(RunError, match="cannot be written"):
            save(NEW, old[0], overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert untouched(old)


def test_rows_that_cannot_be_read_leave_the_old_file_and_nothing_else(old, tmp_path_factory):
    path = store(NEW, tmp_path_factory.mktemp("other") / "b.safetensors")
    loaded = load(path)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    with pytest.raises(FileFormatError, match="damaged"):
        save(loaded, old[0], overwrite=True)
    assert untouched(old)


@pytest.mark.parametrize("name", ["a.png", "a", "a.pt"])
def test_a_name_with_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"\.safetensors"):
        save(tiny(), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_saved_file_is_the_same_wherever_it_is_moved(tmp_path):
    inr = tiny()
    path = store(inr, tmp_path / "a.safetensors")
    (tmp_path / "sub").mkdir()
    shutil.move(path, tmp_path / "sub" / "ü b.bin")
    assert contents(load(tmp_path / "sub" / "ü b.bin")) == contents(inr)
