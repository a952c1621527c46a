"""The file: what it holds, what is read of it, how it is written."""

import errno
import json
import math
import os
import resource
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsirens.errors import ConfigError, FileFormatError, OutputError, RunError
from lgsirens.nn.siren import count, row_layout, shared_layout
from lgsirens.representation.evaluate import network_of
from lgsirens.representation.file import load, save, sizes
from lgsirens.representation.representation import FitRecord
from lgsirens.representation.rows import MemoryRows, row_chunks
from lgsirens.signal import KINDS
from lgsirens.system.schema import canonical_json
from tests.small import contents, representation
from tests.stored_files import Parts, store, tiny

MODES = ("lg", "lc", "mlp")
quick = settings(max_examples=25)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(-(2.0**53), 2.0**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
# What the format does not name may be of any type.
entries = st.dictionaries(st.text(max_size=8).map(lambda name: f"own {name}"), json_values, max_size=4)


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
        overviewed=draw(st.booleans()),
        config=draw(json_objects),
    )
    fit = FitRecord(
        draw(st.integers(0, 2**40)), draw(st.floats(0, 1e9)), draw(st.none() | st.floats(-99, 99)), "x", "é"
    )
    return replace(
        inr,
        fit=fit,
        history=tuple(draw(st.lists(entries.map(lambda more: more | inr.history[0]), min_size=1, max_size=3))),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fileformat")


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
    each = inr.lattice.dimensions + 3 + (inr.model.channels if inr.overview is not None else 0)
    assert figures["index"] == 4 * len(inr.lattice) * each
    assert sizes(load(path)) == figures


@quick
@given(representations())
def test_plain_safetensors_reads_the_tensors_and_the_metadata(folder, inr):
    path = store(inr, folder / "a.safetensors")
    tensors = safetensors.torch.load_file(path)
    shared = [name for name, _ in shared_layout(inr.model)]
    index = {"partitions", "row_crc32", "row_edit", "row_blank", *(() if inr.overview is None else ("overview",))}
    assert set(tensors) == {"local", *index, *(f"shared.{name}" for name in shared)}
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
    assert manifest["format_version"] == 2
    assert manifest["partitions"] == len(inr.lattice)


@quick
@given(representations())
def test_the_header_is_canonical_and_as_long_as_if_each_checksum_had_ten_digits(folder, inr):
    content = store(inr, folder / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].rstrip(b" ").decode()
    header = json.loads(text)
    manifest = header["__metadata__"]["lgsirens"]
    assert canonical_json(header) == text
    assert canonical_json(json.loads(manifest)) == manifest
    checksums = [header["__metadata__"]["lgsirens_crc32"], *map(str, json.loads(manifest)["crc32"].values())]
    longest = len(text.encode()) + sum(10 - len(checksum) for checksum in checksums)
    assert length == -(-longest // 8) * 8


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
def test_reading_rows_asks_once_for_one_range_per_run_and_no_other_byte(folder, inr, data):
    path = store(inr, folder / "a.safetensors")
    figures = sizes(inr)
    source = load(path).rows.source
    assert source.bytes_read == figures["file"] - figures["local"]
    loaded = load(path)
    chosen = data.draw(st.sets(st.integers(0, len(inr.lattice) - 1)))
    places = np.array(sorted(chosen), dtype=np.int64)
    calls = []
    source, read = loaded.rows.source, loaded.rows.source.read_ranges
    source.read_ranges = lambda ranges: calls.append(ranges) or read(ranges)
    rows = loaded.rows.read(places)
    assert torch.equal(rows, inr.rows.read(places))
    row_bytes = 4 * inr.parameters["per_partition"]
    first = figures["file"] - figures["local"]
    (ranges,) = calls
    asked = [(offset - first, offset - first + size) for offset, size in ranges]
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
    monkeypatch.setattr("lgsirens.representation.rows._CHUNK_BYTES", 4 * 3 * inr.parameters["per_partition"] + 1)
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
        name: contents(load(path))[name]
        for name in ("ids", "local", "row_edit", "row_blank", "overview", "extent", "window", "history")
    }
    assert load(path).extent == ((0, 4), (0, 8))


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
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    loaded = load(path)
    with pytest.raises(FileFormatError, match="damaged"):
        save(loaded, old[0], overwrite=True)
    assert untouched(old)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("model", {"w0": 0.0}),
        ("model", {"local_width": 1 << 40}),
        ("signal", {"dtype": "complex64"}),
        ("signal", {"channels": 0}),
        ("coordinates", {"shared_scale": (0.0, 1.0)}),
    ],
)
def test_what_the_reader_refuses_is_not_written(old, part, changes):
    wrong = replace(NEW, **{part: replace(getattr(NEW, part), **changes)})
    with pytest.raises(ConfigError, match=rf"{part}\.{next(iter(changes))}"):
        save(wrong, old[0], overwrite=True)
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
