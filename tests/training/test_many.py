"""Many files: what becomes of each, and of a run that is gone on with."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lgsirens as lg
from lgsirens.training.checkpoint import claimed
from lgsirens.training.manifest import FileRecord, Manifest
from tests.ranks import on_ranks
from tests.small import without_times

SMALL = {"local_width": 5, "global_width": 6, "partition_size": (8, 8), "steps": 3}


def write_picture(path, shape=(16, 16), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def network():
    """A representation whose network is shared."""
    return lg.encode(np.random.default_rng(9).integers(0, 256, (24, 24), dtype=np.uint8), **SMALL)


@pytest.fixture
def pictures(folder):
    """A current folder with `in`: pictures of several sizes, one in a sub-folder."""
    for number, (name, shape) in enumerate([("a.png", (16, 16)), ("b.png", (20, 9)), ("sub/a.png", (5, 33))]):
        write_picture(Path("in", name), shape, number)
    return folder


def statuses(records):
    return {record.input: record.status for record in records}


def manifest_lines(folder="out"):
    return [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


def encoded(options=SMALL, **how):
    return lg.encode_many("in", "out", **options, **how)


def times_of(folder="out"):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in Path(folder).rglob("*.safetensors")
    }


FILES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "sub/a", "sub/deep/c", ".hidden", ".h/a"]),
        st.sampled_from([".png", ".npy", ".txt", ""]),
        st.sampled_from(["picture", "sound", "text", "nothing", "cut"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda file: file[:2],
)


def content(what, place):
    if what == "picture":
        write_picture(place.with_suffix(".tmp.png"), (9, 8))
        return place.with_suffix(".tmp.png").read_bytes()
    if what == "sound":
        np.save(place.with_suffix(".tmp.npy"), np.sin(np.arange(50)))
        return place.with_suffix(".tmp.npy").read_bytes()
    return {"text": b"some words", "nothing": b"", "cut": b"\x89PNG\r\n\x1a\n\0\0"}[what]


@given(FILES)
@settings(max_examples=20)
def test_of_any_folder_each_file_is_encoded_fails_or_is_no_signal(files):
    with TemporaryDirectory() as name:
        folder, scratch = Path(name, "in"), Path(name, "scratch")
        scratch.mkdir()
        expected, no_signals = {}, 0
        for stem, suffix, what in files:
            path = folder / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(what, scratch / "x"))
            if stem.startswith("."):
                continue
            known, begins = suffix in (".png", ".npy"), what in ("picture", "sound", "cut")
            if known or begins:
                expected[f"{stem}{suffix}"] = "done" if what in ("picture", "sound") else "failed"
            else:
                no_signals += 1
        out = folder / "out"  # below the inputs: it is passed over
        run = lambda **how: lg.encode_many(folder, out, steps=1, parameters=2000, **how)  # noqa: E731
        if not expected:
            with pytest.raises(lg.SignalError, match=f"holds no signals, {no_signals} other file"):
                run()
            return
        records = run()
        assert statuses(records) == expected
        made = {path.relative_to(out).as_posix() for path in out.rglob("*.safetensors")}
        assert made == {f"{name}.safetensors" for name, status in expected.items() if status == "done"}
        assert all(lg.load(out / made_one).fit.steps == 1 for made_one in made)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
        assert statuses(run(resume=True)) == expected
        assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


def test_law_8_files_are_those_of_encode(pictures):
    for record in encoded():
        lg.encode(lg.read(f"in/{record.input}"), **SMALL).save("alone.safetensors", overwrite=True)
        assert without_times(Path("out", record.output)) == without_times(Path("alone.safetensors"))


def test_with_one_network_files_are_those_of_encode_with_it(pictures):
    records = encoded(share_network=True)
    shared = lg.load("out/.shared.safetensors")
    options = {"steps": SMALL["steps"]}
    origins = set()
    for record in records:
        alone = lg.encode(lg.read(f"in/{record.input}"), shared_from=shared, **options)
        alone.save("alone.safetensors", overwrite=True)
        assert without_times(Path("out", record.output)) == without_times(Path("alone.safetensors"))
        origins.add(alone.origin)
    assert origins == {shared.origin}
    first, second, _ = (lg.load(f"out/{record.output}") for record in records)
    assert len(first.merge(second.move((0, 64))).lattice) == len(first.lattice) + len(second.lattice)
    again = encoded(share_network=True, overwrite=True)
    assert [(record.input, record.psnr) for record in again] == [(record.input, record.psnr) for record in records]
    assert lg.load("out/.shared.safetensors").origin == shared.origin


WAYS = [{"steps": 3}, {"steps": 12, "sample_frac": 0.3}, {"steps": 70}, {"steps": 9, "target_psnr": 12.0}]
WAYS += [{"steps": 13, "recipe": "adam"}]


@given(
    st.lists(st.sampled_from([(16, 16), (20, 9), (9, 9, 3), (33, 40)]), min_size=2, max_size=7),
    st.sampled_from(WAYS),
    st.integers(1, 40) | st.just(4000),
    st.integers(1, 3),
    st.sampled_from([1 << 20, 1 << 11]),
)
@settings(max_examples=20, deadline=None)
def test_law_9_files_fitted_in_the_same_steps_are_those_of_encode(shapes, options, kilobytes, size, block):
    """To the bit by the fused kernel; PyTorch's batched products round otherwise in batches of other sizes."""
    shared_from = network()
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        folder = Path(name)
        for number, shape in enumerate(shapes):
            write_picture(folder / "in" / f"{number}.png", shape, number)
        patched.setattr("lgsirens.training.many.GROUP_BYTES", kilobytes * 1000)
        patched.setattr("lgsirens.nn.memory._FUSED_SAMPLES", block)
        records = on_ranks(
            size, lambda r: lg.encode_many(folder / "in", folder / "out", shared_from=shared_from, ranks=r, **options)
        )[0]
        for record, shape in zip(records, shapes, strict=True):
            if len(shape) == 3:
                assert "holds image of 1 channel, the signal is image of 3 channels" in record.error
                continue
            alone = lg.encode(lg.read(folder / "in" / record.input), shared_from=shared_from, **options)
            alone.save(folder / "alone.safetensors", overwrite=True)
            if alone.fit.device == "cpu, eager":
                assert record.psnr == pytest.approx(alone.fit.psnr, abs=0.1)
            else:
                assert without_times(folder / "out" / record.output) == without_times(folder / "alone.safetensors")


def test_a_batch_that_fails_is_fitted_file_by_file(pictures, monkeypatch):
    for number in range(3):
        write_picture(Path(f"in/same{number}.png"), (16, 16), number)
    shared_from = network()
    batches = []

    def fail(signals, *_, **__):
        batches.append(len(signals))
        raise MemoryError("too much")

    monkeypatch.setattr("lgsirens.training.many.encode_batch", fail)
    records = lg.encode_many("in", "out", shared_from=shared_from, steps=2)
    assert batches == [4]
    assert {record.status for record in records} == {"done"}


def test_ctrl_c_in_a_batch_leaves_nothing_half_done(pictures, stopping_at):
    for number in range(3):
        write_picture(Path(f"in/same{number}.png"), (16, 16), number)
    options = {"shared_from": network(), "steps": 6}
    timeless = {"seconds": None, "bytes": None}
    expected = [replace(record, **timeless) for record in lg.encode_many("in", "whole", **options)]
    with stopping_at(4), pytest.raises(KeyboardInterrupt):
        lg.encode_many("in", "out", **options)
    assert not list(Path("out").rglob("*.safetensors"))
    found = lg.encode_many("in", "out", resume=True, **options)
    assert [replace(record, **timeless) for record in found] == expected


def test_the_manifest_says_what_became_of_each(pictures):
    Path("in/c.png").write_bytes(b"broken")
    records = encoded()
    head, *lines = manifest_lines()
    assert head["lgsirens_manifest"] == 1
    assert head["options"]["steps"] == SMALL["steps"]
    assert [FileRecord(**line) for line in lines] == records
    for record in records[:2]:
        made = lg.load(f"out/{record.output}")
        assert (record.psnr, record.bytes) == (made.fit.psnr, os.stat(f"out/{record.output}").st_size)
        assert (record.size, record.error) == (os.stat(f"in/{record.input}").st_size, None)
        assert made.fit.seconds <= record.seconds < made.fit.seconds + 60
    assert records[2].status == "failed"
    assert "in/c.png: its content is none of" in records[2].error
    assert not list(Path("out").glob("manifest-*"))


def test_resume_encodes_what_is_new_changed_or_lost_and_nothing_else(pictures):
    encoded()
    before = times_of()
    write_picture(Path("in/b.png"), (8, 8), 7)
    write_picture(Path("in/new.png"))
    Path("out/sub/a.png.safetensors").unlink()
    assert set(statuses(encoded(resume=True)).values()) == {"done"}
    after = times_of()
    assert after.keys() == before.keys() | {"new.png.safetensors"}
    assert lg.load("out/b.png.safetensors").shape == (8, 8)
    assert {name for name in before if after[name] == before[name]} == {"a.png.safetensors"}
    with pytest.raises(lg.OutputError, match="holds a run already"):
        encoded()
    with pytest.raises(lg.ConfigError, match=r"steps cannot change: out was begun with 3, not 4"):
        encoded(SMALL | {"steps": 4}, resume=True)
    assert times_of() == after
    encoded(SMALL | {"steps": 4}, overwrite=True)
    assert lg.load("out/a.png.safetensors").fit.steps == 4


def test_files_that_are_not_the_runs_stay(pictures):
    Path("out").mkdir()
    Path("out/b.png.safetensors").write_bytes(b"precious")
    for _ in range(2):
        assert statuses(encoded(resume=True)) == {"a.png": "done", "b.png": "failed", "sub/a.png": "done"}
        assert Path("out/b.png.safetensors").read_bytes() == b"precious"
    assert encoded(overwrite=True)[1].status == "done"


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on_from_the_step(pictures, stopping_at):
    options = SMALL | {"steps": 6}
    encoded(options)
    expected = {path.name: without_times(path) for path in Path("out").glob("*.safetensors")}
    Path("out").rename("whole")
    with stopping_at(6 + 3), pytest.raises(KeyboardInterrupt):
        encoded(options)
    assert [line["status"] for line in manifest_lines()[1:]] == ["done", "started"]
    assert times_of().keys() == {"a.png.safetensors", "b.png.checkpoint.safetensors"}
    assert set(statuses(encoded(options, resume=True)).values()) == {"done"}
    assert {path.name: without_times(path) for path in Path("out").glob("*.safetensors")} == expected


def test_a_killed_run_leaves_a_part_that_the_next_one_takes(pictures):
    encoded()
    head, first, *others = Path("out/manifest.jsonl").read_bytes().splitlines(keepends=True)
    Path("out/manifest.jsonl").write_bytes(head)
    Path("out/manifest-0.jsonl").write_bytes(first)
    Path("out/manifest-3.jsonl").write_bytes(others[0] + others[1][:30])  # killed while it wrote a line
    Path("out/sub/a.png.safetensors").unlink()
    before = times_of()
    assert set(statuses(encoded(resume=True)).values()) == {"done"}
    assert times_of() == before | {"sub/a.png.safetensors": times_of()["sub/a.png.safetensors"]}
    assert not list(Path("out").glob("manifest-*"))


DAMAGED = [b"", b"x\n", b"{}\n", b'{"lgsirens_manifest": 1}\n{"input": 3}\n', b"[" * 9999 + b"\n"]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_manifests_are_told(pictures, text):
    Path("out").mkdir()
    Path("out/manifest.jsonl").write_bytes(text)
    with pytest.raises(lg.FileFormatError, match=r"out/manifest.jsonl: .*; overwrite it or choose another folder"):
        encoded(resume=True)


def test_a_file_of_another_kind_is_refused_alone(pictures):
    np.save("in/sound.npy", np.sin(np.arange(99)))
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save("in/z.png")
    records = {record.input: record for record in encoded(share_network=True)}
    assert [name for name, record in records.items() if record.status == "failed"] == ["sound.npy", "z.png"]
    assert "it holds image of 1 channel, the signal is image of 3 channels" in records["z.png"].error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "lc"}, "mode lc: has no shared network"),
        ({"coordinates": "signal"}, "coordinates signal: belong to one signal"),
        ({"partitions": (2, 2)}, "partitions differ from file to file"),
    ],
)
def test_options_that_no_network_for_all_can_have(pictures, options, message):
    with pytest.raises(lg.ConfigError, match=message):
        lg.encode_many("in", "out", share_network=True, **options)
    assert not Path("out").exists()


def test_sounds_need_one_range_to_share_a_network(folder):
    Path("in").mkdir()
    for number in range(2):
        np.save(f"in/{number}.npy", (number + 1) * np.sin(np.arange(99)))
    with pytest.raises(lg.ConfigError, match="value_range must be one for all files of kind audio"):
        lg.encode_many("in", "out", share_network=True, steps=2)
    records = lg.encode_many("in", "out", share_network=True, steps=2, overwrite=True, reading={"value_range": (-2, 2)})
    assert {lg.load(f"out/{record.output}").signal.value_range for record in records} == {(-2, 2)}


def test_wrong_folders(pictures):
    for inputs, out, error, message in (
        ("in", "in", lg.ConfigError, "is the folder of the inputs"),
        ("nowhere", "out", lg.SignalError, "nowhere: is no folder"),
        ([], "out", lg.SignalError, "no inputs"),
        ("in", "in/a.png", lg.OutputError, "a.png: is a file; name a folder"),
        ("in", "in/a.png/out", lg.OutputError, "a.png: is a file; name a folder"),
    ):
        with pytest.raises(error, match=message):
            lg.encode_many(inputs, out, **SMALL)


def test_files_are_named_below_the_folder_of_all(pictures):
    records = lg.encode_many([Path("in/sub/a.png"), "in/a.png", "in/../in/a.png"], "out", **SMALL)
    assert [record.output for record in records] == ["a.png.safetensors", "sub/a.png.safetensors"]


def test_ranks_share_the_files_and_one_manifest(pictures):
    for number in range(6):
        write_picture(Path(f"in/{number}.png"), (9, 9), number)
    expected = {r.input: without_times(Path("out", r.output)) for r in encoded()}
    first, second = on_ranks(2, lambda ranks: lg.encode_many("in", "two", ranks=ranks, **SMALL))
    assert first == second
    assert {r.input: without_times(Path("two", r.output)) for r in first} == expected
    assert [line["input"] for line in manifest_lines("two")[1:]] == sorted(expected)


def test_only_one_run_at_a_time_writes_a_folder(pictures):
    Path("out").mkdir()
    with claimed(Path("out/manifest")), pytest.raises(lg.OutputError, match="a run is under way there"):
        encoded()


def test_a_record_that_cannot_be_kept_ends_the_run(pictures, monkeypatch):
    manifest = Manifest(pictures, {}, False, False)
    with manifest.part(0) as part:
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(lg.RunError, match=r"manifest-0.jsonl: cannot be written: No space left on device"):
            part.add(FileRecord("a", "b", "done"))


@pytest.mark.slow
def test_killed_at_any_time_the_command_goes_on(folder):
    for number in range(12):
        write_picture(Path(f"in/{number:02d}.png"), (32, 32), number)
    command = [
        sys.executable,
        "-m",
        "lgsirens",
        "encode-many",
        "in",
        "out",
        "--steps",
        "60",
        "--threads",
        "1",
        "--quiet",
    ]
    ends = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    whole = ["whole" if word == "out" else word for word in command]
    subprocess.run(whole, check=True, timeout=300, **ends)
    expected = {path.name: without_times(path) for path in Path("whole").glob("*.safetensors")}
    for kind, pause in ((9, 0.3), (2, 0.5), (15, 0.7), (9, 0.1)):
        process = subprocess.Popen([*command, "--resume"], **ends)
        before = len(times_of())
        deadline = time.monotonic() + 120
        while process.poll() is None and len(times_of()) <= before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(pause / 10)
        process.send_signal(kind)
        _, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        assert process.returncode in (0, -9, 130), err
        for path in Path("out").glob("*.png.safetensors"):
            assert without_times(path) == expected[path.name]
    subprocess.run([*command, "--resume"], check=True, timeout=300, **ends)
    assert {path.name: without_times(path) for path in Path("out").glob("*.safetensors")} == expected
