"""Files of format version 1, written before there was another: they open, say the same, and become version 2."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import lgsirens as lg
from lgsirens.representation.file import FORMAT_VERSION
from lgsirens.representation.version1 import row_edits
from tests.small import blank, contents, fitted
from tests.stored_files import Parts, at, drop, refused

FILES = sorted((Path(__file__).resolve().parents[1] / "data" / "version1").glob("*.safetensors"))


def smooth(rows, columns):
    """What the pictures among the files are encodings of."""
    phase = np.add.outer(np.linspace(0, 6, rows), np.linspace(0, 6, columns))
    return np.stack([np.rint(127 + 100 * np.sin(phase * (k + 1))) for k in range(3)], -1).astype(np.uint8)


def test_a_row_is_blank_since_the_first_of_the_edits_that_left_it_so():
    ids = np.array([[0], [1]], dtype=np.int32)
    history = ({"added": [[0], [1]], "blank": [[0], [1]]}, {"refitted": [[0], [1]], "blank": [[1]]})
    edit, blank = row_edits(history, ids)
    assert (edit.tolist(), blank.tolist()) == ([1, 1], [0, 1])


ORIGINALS = {
    "own_scale_add": lg.Signal.from_array(smooth(65, 48)),
    "sound_lc": lg.Signal.from_array((np.sin(np.arange(5000) / 9) * 20000).astype(np.int16), "audio"),
}


def old_manifest(path):
    manifest = Parts(path).manifest
    assert manifest["format_version"] == 1
    return manifest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tensors_are_equal_before_and_after_and_the_manifest_says_the_same(path, tmp_path):
    loaded, old = lg.load(path), old_manifest(path)
    lg.save(loaded, tmp_path / "new.safetensors")
    before, after = (safetensors.numpy.load_file(file) for file in (path, tmp_path / "new.safetensors"))
    assert before.keys() <= after.keys()
    assert all(np.array_equal(after[name], values) for name, values in before.items())
    assert contents(lg.load(tmp_path / "new.safetensors")) == contents(loaded)
    new = Parts(tmp_path / "new.safetensors").manifest
    assert new["format_version"] == FORMAT_VERSION == 2
    old["signal"]["colour"] = None
    for name in old.keys() - {"format_version", "frame", "crc32", "history"}:
        assert new[name] == old[name], name
    assert new["lineage"] == old["origin"]
    assert new["coordinates"]["kind"] == "signal"
    assert new["coordinates"]["size"] == old["frame"]["size"]
    assert set(new["coordinates"]["shared_scale"]) == {old["frame"]["scale"]}
    assert (new["coordinates"]["local_scale"] or [None])[0] == old["frame"]["local_scale"]


@pytest.mark.parametrize("name", ORIGINALS)
def test_they_decode_as_well_as_they_did(name):
    (path,) = (path for path in FILES if path.stem == name)
    inr, original = lg.load(path), ORIGINALS[name]
    assert lg.psnr(original, inr.decode(device="cpu")) == pytest.approx(inr.fit.psnr, abs=0.01)


def test_what_was_left_blank_is_known_and_filled():
    (path,) = (path for path in FILES if path.stem == "gapped_lg")
    inr, old = lg.load(path), old_manifest(path)["history"][-1]
    assert fitted(inr) == {tuple(name) for name in old["added"] + old["refitted"]}
    assert blank(inr) == {tuple(name) for name in old["blank"]}
    assert [inr.history[-1][key] for key in ("added", "refitted", "blank")] == [
        len(old[key]) for key in ("added", "refitted", "blank")
    ]
    whole = lg.Signal.from_array(smooth(65, 70))
    filled = inr.extend(whole, (0, 0), steps=2)
    assert fitted(filled) >= blank(inr)
    assert blank(filled) == set()
    assert filled.extend(whole, (0, 0)) is filled


@pytest.mark.parametrize(
    "change",
    [at("extra", value=1), at("frame", "extra", value=1), drop("frame"), drop("frame", "scale"), drop("origin")],
)
def test_a_forged_one_is_refused(change, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(FILES[0].read_bytes())
    parts = Parts(path)
    parts.write()
    lg.load(path)
    change(parts.manifest)
    parts.write()
    refused(path)


def test_a_version_1_file_lacks_what_came_later():
    with_edits = json.dumps(old_manifest(FILES[0]))
    assert "row_edit" not in with_edits
    assert lg.load(FILES[0]).overview is None
