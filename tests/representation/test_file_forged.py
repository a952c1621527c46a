"""A file whose checksums match what is wrong in it is refused."""

import struct
import tracemalloc

import numpy as np
import pytest

from lgsirens.errors import FileFormatError
from lgsirens.nn.siren import LARGEST_WEIGHT, MODES, ModelConfig
from lgsirens.representation.file import load, row_entries
from lgsirens.representation.representation import LARGEST_FACTOR
from tests.kernels import needs_compiled
from tests.small import representation
from tests.stored_files import Parts, at, drop, refused, store, tiny


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
        plain["row_layout"] = row_entries(ModelConfig(**plain["model"]))

    return change


BIG = 1 << 31

MANIFESTS = {
    "a newer version": (at("format_version", value=3), "format version 3"),
    "no version": (drop("format_version"), "format version"),
    "a version that is true": (at("format_version", value=True), "format version"),
    "a version that is a float": (at("format_version", value=1.5), "format version"),
    "a version of two lines": (at("format_version", value="1\n1"), "format version"),
    "an unknown key": (at("extra", value=1), "extra is not known"),
    "an unknown key of two lines": (at("ex\ntra", value=1), "is not known"),
    "an unknown key in the model": (at("model", "extra", value=1), "model.extra is not known"),
    "a missing key": (drop("window"), "window is missing"),
    "a missing key in the coordinates": (drop("coordinates", "size"), "coordinates.size is missing"),
    "a missing key in the row layout": (drop("row_layout", 0, "offset"), "row layout"),
    "a model that is a list": (at("model", value=[]), "model"),
    "a width that is a float": (at("model", "local_width", value=4.5), "model.local_width"),
    "a width that is true": (at("model", "local_width", value=True), "model.local_width"),
    "a width that is text": (at("model", "local_width", value="4"), "model.local_width"),
    "a mode that is null": (at("model", "mode", value=None), "model.mode"),
    "an origin that is a number": (at("origin", value=7), "origin"),
    "a history that is an object": (at("history", value={}), "history"),
    "a history of text": (at("history", value=["crop"]), "history"),
    "a config that is null": (at("config", value=None), "config"),
    "a tile that is a number": (at("tile", value=3), "tile"),
    "an extent with a float": (at("extent", 0, 1, value=6.5), "extent"),
    "an extent of three ends": (at("extent", 0, value=[0, 3, 6]), "extent has 3 entries"),
    "an unknown mode": (at("model", "mode", value="lgx"), "model.mode 'lgx'"),
    "an unknown aggregation": (at("model", "agg_type", value="sum"), "agg_type"),
    "another aggregation": (at("model", "agg_type", value="fc_and_add"), "checksums"),
    "another width": (at("model", "local_width", value=3), "row layout"),
    "another width with its layout": (with_layout(at("model", "local_width", value=3)), "shapes"),
    "another global width": (at("model", "global_width", value=4), "shapes"),
    "another depth": (at("model", "hidden_layers", value=2), "row layout"),
    "a width of zero": (at("model", "local_width", value=0), "model.local_width"),
    "a negative width": (at("model", "local_width", value=-4), "model.local_width"),
    "a width beyond all limits": (at("model", "local_width", value=1 << 40), "model.local_width"),
    "no global width": (at("model", "global_width", value=0), "global width"),
    "a global width beyond all limits": (at("model", "global_width", value=1 << 40), "model.global_width"),
    "a negative depth": (at("model", "hidden_layers", value=-1), "model.hidden_layers"),
    "a depth beyond all limits": (at("model", "hidden_layers", value=10**9), "model.hidden_layers"),
    "w0 of zero": (at("model", "w0", value=0), "model.w0"),
    "a rank that is not the kind's": (at("signal", "kind", value="audio"), "dimensions"),
    "an unknown kind": (at("signal", "kind", value="smell"), "signal.kind 'smell'"),
    "a rank of zero": (with_layout(at("model", "dimensions", value=0)), "dimensions"),
    "other channels than the model's": (at("signal", "channels", value=3), "channels"),
    "no channels": (with_layout(at("signal", "channels", value=0), at("model", "channels", value=0)), "channels"),
    "too many channels": (with_layout(at("signal", "channels", value=5), at("model", "channels", value=5)), "channels"),
    "an empty value range": (at("signal", "value_range", value=[5, 5]), "value range"),
    "a reversed value range": (at("signal", "value_range", value=[5, 1]), "value range"),
    "an unknown sample type": (at("signal", "dtype", value="complex64"), "signal.dtype"),
    "a sampling rate of zero": (at("signal", "sampling_rate", value=[0, 1]), "signal.sampling_rate"),
    "a row layout in another order": (lambda m: m["row_layout"].reverse(), "row layout"),
    "a row layout with another offset": (at("row_layout", 1, "offset", value=9), "row layout"),
    "a row layout with an offset that is false": (at("row_layout", 0, "offset", value=False), "row layout"),
    "a row layout with another name": (at("row_layout", 0, "name", value="x"), "row layout"),
    "a row layout with a transposed weight": (at("row_layout", 0, "shape", value=[2, 4]), "row layout"),
    "a row layout that is empty": (at("row_layout", value=[]), "row layout"),
    "no partitions": (at("partitions", value=0), "partitions"),
    "negative partitions": (at("partitions", value=-4), "partitions"),
    "fewer partitions": (at("partitions", value=3), "shapes"),
    "partitions beyond all limits": (at("partitions", value=10**30), "partitions"),
    "a tile of rank 1": (at("tile", value=[3]), "tile"),
    "a tile of zero": (at("tile", value=[3, 0]), "tile"),
    "a negative tile": (at("tile", value=[3, -3]), "tile"),
    "a tile beyond all limits": (at("tile", value=[3, BIG]), "tile"),
    "a smaller extent": (both(at("extent", 0, value=[0, 3]), at("window", 0, value=[0, 3])), "outside the extent"),
    "a larger tile": (at("tile", value=[6, 6]), "outside the extent"),
    "a negative halo": (at("halo", value=[0, -1]), "halo"),
    "a halo beyond all limits": (at("halo", value=[0, BIG]), "halo"),
    "a halo of rank 3": (at("halo", value=[0, 0, 0]), "halo"),
    "coordinates of rank 1": (at("coordinates", "size", value=[6]), "coordinates.size"),
    "coordinates of size zero": (at("coordinates", "size", value=[6, 0]), "coordinates.size"),
    "coordinates of another kind": (at("coordinates", "kind", value="polar"), "coordinates 'polar'"),
    "tile coordinates without a local scale": (at("coordinates", "kind", value="tile"), "local scale"),
    "a negative scale": (at("coordinates", "shared_scale", value=[-1, 1]), "coordinates.shared_scale"),
    "a scale of rank 1": (at("coordinates", "shared_scale", value=[1]), "coordinates.shared_scale"),
    "a local scale of zero": (at("coordinates", "local_scale", value=[0, 1]), "coordinates.local_scale"),
    "an unknown row codec": (at("codec", value="float8"), "row codec 'float8'"),
    "no history": (at("history", value=[]), "history"),
    "a history with a box of rank 1": (at("history", 0, "given", value=[[[0, 6]]]), "given"),
    "a history with a box of text": (at("history", 0, "given", value=[[["0", 6], [0, 6]]]), "given"),
    "a history that held a box of rank 1": (at("history", 0, "held", value=[[0, 6]]), "held"),
    "a history that does not say when": (drop("history", 0, "date"), "lacks date"),
    "a history whose window is text": (at("history", 0, "window", value="all"), "window in the history"),
    "a history whose window is of rank 1": (at("history", 0, "window", value=[[0, 6]]), "window in the history"),
    "a history whose partitions are null": (at("history", 0, "partitions", value=None), "partitions in the history"),
    "a history of a fit that says no PSNR": (at("history", 0, "refitted", value=1), "lacks added"),
    "a history of a movement of nothing": (at("history", 0, "moved", value={"psnr": 1}), "largest is missing"),
    "a history that gave null": (at("history", 0, "given", value=None), "given in the history"),
    "a local scale of rank 0": (at("coordinates", "local_scale", value=[]), "coordinates.local_scale"),
    "a spacing of rank 0": (at("signal", "spacing", value=[]), "signal.spacing"),
    "no lineage": (drop("lineage"), "lineage is missing"),
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
    "NaN": ('"psnr":31.5', '"psnr":NaN', "NaN"),
    "an infinite number": ('"psnr":31.5', '"psnr":Infinity', "Infinity"),
    "a negative infinite number": ('"seconds":0.25', '"seconds":-Infinity', "-Infinity"),
    "a number beyond float64": ('"psnr":31.5', '"psnr":1e999', "1e999"),
    "an integer beyond float64": ('"psnr":31.5', f'"psnr":{10**400}', ""),
    "an integer of 5000 digits": ('"steps":3', f'"steps":{"9" * 5000}', ""),
    "NaN in the config": ('"config":{', '"config":{"a":NaN, ', "NaN"),
    "a number beyond float64 in the config": ('"config":{', '"config":{"a":1e999, ', ""),
    "a number beyond float64 in the history": ('"history":[{', '"history":[{"a":[-1e999], ', ""),
    "a key twice": ('"origin":', '"origin":"", "origin":', "'origin' occurs twice"),
    "a key twice in the model": ('"w0":', '"w0":1.0, "w0":', "'w0' occurs twice"),
    "a key twice in the row layout": ('"offset":0', '"offset":0, "offset":0', "'offset' occurs twice"),
    "a key twice in the checksums": ('"partitions":', '"partitions":1, "partitions":', "occurs twice"),
    "a key twice in the config": ('"config":{', '"config":{"mode":"lc", ', "'mode' occurs twice"),
    "a key twice deep in the config": ('"config":{', '"config":{"a":[{"b":1, "b":1}], ', "'b' occurs twice"),
    "nesting without end": ('"config":{', f'"config":{{"a":{"[" * 100_000}', ""),
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
    "offsets that are floats": lambda h: h["local"].update(data_offsets=[n + 0.5 for n in h["local"]["data_offsets"]]),
    "an offset that is false": lambda h: h["shared.global_0_weight"]["data_offsets"].__setitem__(0, False),
    "a size that is a float": lambda h: h["row_crc32"].update(shape=[4.5]),
}


def swap_offsets(header, a, b):
    header[a]["data_offsets"], header[b]["data_offsets"] = header[b]["data_offsets"], header[a]["data_offsets"]


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_a_header_is_refused_if_its_table_has(parts, change):
    change(parts.header)
    parts.write()
    refused(parts.path, "header's names, types, shapes or offsets")


HEADERS = {
    "a tensor twice": ('"local":', '"local":{}, "local":', "'local' occurs twice"),
    "a key of a tensor twice": ('"dtype":', '"dtype":"F32", "dtype":', "'dtype' occurs twice"),
    "metadata twice": ('"__metadata__":', '"__metadata__":{}, "__metadata__":', "'__metadata__' occurs twice"),
    "a manifest twice": ('"lgsirens":', '"lgsirens":"", "lgsirens":', "'lgsirens' occurs twice"),
    "no manifest": ('"lgsirens":', '"other":', "it has no manifest"),
    "a manifest that is a number": ('"lgsirens":', '"lgsirens":1, "other":', "it has no manifest"),
    "no checksum of its manifest": ('"lgsirens_crc32":', '"other":', "manifest's CRC-32"),
    "another checksum of its manifest": ('"lgsirens_crc32":"', '"lgsirens_crc32":"1', "manifest's CRC-32"),
    "metadata that is a list": ('"__metadata__":', '"__metadata__":[], "other":', "it has no manifest"),
    "NaN": ('"shape":[4]', '"shape":[NaN]', "NaN"),
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
@pytest.mark.parametrize("name", ["local", "overview", "shared.global_2_bias", "shared.aggregation_0_weight"])
def test_weights_that_are_not_finite_are_refused_though_checksums_match(parts, name, value):
    parts.tensors[name].flat[-1] = value
    parts.checksum()
    parts.write()
    refused(parts.path, "NaN or infinite")


@pytest.mark.parametrize("name", ["local", "shared.global_0_weight", "shared.aggregation_0_weight"])
def test_weights_whose_products_float32_cannot_hold_are_refused(parts, name):
    parts.tensors[name].flat[-1] = 3e38
    parts.checksum()
    parts.write()
    refused(parts.path, "beyond 1e+09")


@pytest.mark.parametrize("kernel", ["eager", pytest.param("fused", marks=needs_compiled)])
@pytest.mark.parametrize("mode", MODES)
def test_weights_and_factors_as_large_as_can_be_decode_to_finite_values(tmp_path, mode, kernel):
    parts = Parts(store(representation((6, 5), 2, mode, None if mode == "mlp" else (3, 3)), tmp_path / "a.safetensors"))
    for name, values in parts.tensors.items():
        if values.dtype == np.float32 and name != "overview":
            values[...] = LARGEST_WEIGHT
    parts.manifest["model"]["w0"] = LARGEST_FACTOR
    parts.manifest["coordinates"]["shared_scale"] = [LARGEST_FACTOR] * 2
    parts.manifest["coordinates"]["local_scale"] = [LARGEST_FACTOR] * 2
    parts.checksum()
    parts.write()
    assert np.isfinite(load(parts.path).decode(kernel=kernel).values).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("row_edit", -1), ("row_edit", 1), ("row_blank", 2), ("row_blank", -1), ("row_blank", -(1 << 31))],
)
def test_a_row_that_names_an_edit_which_is_not_there_is_refused_though_checksums_match(parts, name, value):
    parts.tensors[name][-1] = value
    parts.checksum()
    parts.write()
    refused(parts.path, "history" if (name, value) == ("row_blank", -1) else "edit")


NOT_FLOAT32 = {
    "value range": at("signal", "value_range", value=[-1e300, 1e300]),
    "w0": at("model", "w0", value=1e300),
    "shared scale": at("coordinates", "shared_scale", value=[1e300, 1e300]),
    "local scale": at("coordinates", "local_scale", value=[1e300, 1e300]),
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


def test_a_claimed_number_of_partitions_allocates_nothing(parts):
    partitions = 1 << 39
    parts.manifest["partitions"] = partitions
    offset = 0
    for name, entry in parts.header.items():
        if not name.startswith("shared."):
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
