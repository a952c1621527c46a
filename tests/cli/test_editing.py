"""extend, replace and merge from the command line, on real pictures, sounds and films: what they do and refuse."""

import json
import os

import numpy as np
import pytest
import soundfile
from PIL import Image

import lgsirens as lg
from tests.command import assert_one_line, full_disk, run
from tests.small import refitted, representation, without_times

STEPS = ("--steps", 3, "--quiet")
SMALL = ("--partition_size", "8,8", "--local_width", 5, "--global_width", 6, *STEPS)


def pixels(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels)[: 2 + (channels > 1)], dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """whole.png 20x30, its left 22 columns as left.png and encoded as left.safetensors, and the rest as right.png."""
    monkeypatch.chdir(tmp_path)
    whole = pixels(20, 30)
    for name, part in {"whole": whole, "left": whole[:, :22], "right": whole[:, 22:], "patch": whole[:5, :6]}.items():
        Image.fromarray(np.ascontiguousarray(part)).save(f"{name}.png")
    Image.fromarray(whole[..., 0]).save("gray.png")
    np.save("deep.npy", whole.astype(np.uint16) * 256)
    assert run("encode", "left.png", "left.safetensors", *SMALL) == 0
    return tmp_path


def test_the_whole_or_its_new_part_extends(folder, capsys):
    before = (folder / "left.safetensors").read_bytes()
    assert run("extend", "left.safetensors", "a.safetensors", "--signal", "whole.png", *STEPS) == 0
    assert run("extend", "left.safetensors", "b.safetensors", "--signal", "right.png", "--offset", "0,22", *STEPS) == 0
    out = capsys.readouterr().out
    assert "6 partitions added, 3 fitted anew (0,2; 1,2; 2,2)" not in out  # 22..30: ids 2 and 3
    assert "3 partitions added, 3 fitted anew (0,2; 1,2; 2,2)" in out
    a, b = lg.load("a.safetensors"), lg.load("b.safetensors")
    old = lg.load("left.safetensors")
    assert a.window == b.window == ((0, 20), (0, 30))
    for inr in (a, b):
        assert np.array_equal(inr.decode("0:20,0:16").values, old.decode("0:20,0:16").values)
    assert (folder / "left.safetensors").read_bytes() == before
    assert run("info", "a.safetensors", "--against", "whole.png", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [entry["action"] for entry in facts["history"]] == ["encode", "extend"]
    assert (facts["history"][1]["added"], facts["history"][1]["refitted"]) == (3, 3)
    assert facts["against"]["psnr"] > 5


def test_negative_offsets_extend_to_the_left_and_pieces_merge(folder, capsys):
    assert run("extend", "left.safetensors", "a.safetensors", "--signal", "right.png", "--offset", "0,-8", *STEPS) == 0
    assert run("extend", "left.safetensors", "b.safetensors", "--signal", "right.png", "--offset", "0,22", *STEPS) == 0
    assert run("merge", "a.safetensors", "b.safetensors", "both.safetensors") == 0
    both = lg.load("both.safetensors")
    assert both.window == ((0, 20), (-8, 30))
    assert both.lattice.ids[0].tolist() == [0, -1]
    assert run("decode", "both.safetensors", "both.png", "--quiet") == 0
    assert lg.read("both.png").shape == (20, 38)
    assert run("info", "both.safetensors") == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()][-4:] == ["encode", "extend", "extend", "merge"]


def test_a_signal_lies_at_position_0_if_not_told_otherwise(folder, capsys):
    assert run("crop", "left.safetensors", "piece.safetensors", "--region", "8:20,8:22") == 0
    assert run("extend", "piece.safetensors", "a.safetensors", "--signal", "left.png", *STEPS) == 0
    assert (
        "lgsirens: no offset: the signal is taken to lie at 0:20,0:22; the file holds 8:20,8:22"
        in capsys.readouterr().err
    )
    assert lg.load("a.safetensors").extent == ((0, 20), (0, 22))
    assert run("replace", "piece.safetensors", "b.safetensors", "--signal", "patch.png", *STEPS) == 2
    assert_one_line(capsys, "0:5,0:6", "8:20,8:22")


def test_a_patch_replaces_what_it_meets(folder):
    replaced = ("replace", "left.safetensors", "new.safetensors", "--signal", "patch.png", "--offset", "10,2")
    assert run(*replaced, "--steps", 60, "--quiet") == 0
    new, old = lg.load("new.safetensors"), lg.load("left.safetensors")
    assert refitted(new, old) == {(1, 0)}
    assert np.array_equal(new.decode("0:8,0:22").values, old.decode("0:8,0:22").values)
    patch = lg.read("patch.png")
    assert lg.psnr(patch, new.decode("10:15,2:8")) > lg.psnr(patch, old.decode("10:15,2:8")) + 1


def test_finetuning_says_how_far_the_old_region_moved(folder, capsys):
    words = ("extend", "left.safetensors", "a.safetensors", "--signal", "whole.png", "--finetune", "all", *STEPS)
    assert run(*words) == 0
    assert "the old region moved: " in capsys.readouterr().out
    assert lg.load("a.safetensors").origin != lg.load("left.safetensors").origin


def test_a_gap_is_blank_where_it_is_allowed(folder):
    words = ("extend", "left.safetensors", "a.safetensors", "--signal", "right.png", "--offset", "0,40")
    assert run(*words, "--allow_gap", *STEPS) == 0
    decoded = lg.load("a.safetensors").decode()
    assert decoded.shape == (20, 48)
    assert not decoded.present[:, 24:40].any()
    assert (decoded.values[:, 24:40] == 0).all()
    assert decoded.present[:, :24].all()


def test_nothing_to_add_is_a_copy_and_said(folder, capsys):
    assert run("extend", "left.safetensors", "a.safetensors", "--signal", "left.png", *STEPS) == 0
    assert "nothing to add" in capsys.readouterr().err
    assert (folder / "a.safetensors").read_bytes() == (folder / "left.safetensors").read_bytes()


def test_nothing_to_add_leaves_a_stopped_extension_and_its_result_alone(folder, stopping_at, capsys):
    words = ("extend", "left.safetensors", "a.safetensors", "--signal")
    with stopping_at(1):
        assert run(*words, "whole.png", *STEPS) == 130
    files = {name: (folder / name).read_bytes() for name in ("a.safetensors", "a.checkpoint.safetensors")}
    capsys.readouterr()
    assert run(*words, "left.png", *STEPS, "--resume") == 2
    assert "exists already" in capsys.readouterr().err
    assert run(*words[:2], "b.safetensors", "--signal", "left.png", *STEPS, "--resume") == 0
    assert {name: (folder / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(("name", "value"), [("steps", 1.5), ("seed", "0"), ("sample_frac", 2.0), ("seed", [1])])
def test_a_file_whose_config_cannot_be_is_one_line(folder, capsys, name, value):
    representation((20, 30), tile=(8, 8), config={name: value}).save("forged.safetensors")
    words = ("--signal", "gray.png", "--offset", "0,30", "--quiet")
    assert run("extend", "forged.safetensors", "a.safetensors", *words) == 2
    assert_one_line(capsys, name)


REFUSED = {
    "another number of channels": (("extend", "--signal", "gray.png"), ("channels",)),
    "another sample type": (("extend", "--signal", "deep.npy"), ("sample type",)),
    "a gap": (("extend", "--signal", "right.png", "--offset", "0,23"), ("0:20,23:31",)),
    "sizes that disagree": (("extend", "--signal", "patch.png", "--offset", "0,22"), ("0:5,22:28",)),
    "too few offsets": (("extend", "--signal", "whole.png", "--offset", "3"), ("offset",)),
    "an offset that is none": (("extend", "--signal", "whole.png", "--offset", "a,b"), ("--offset", "a,b")),
    "no signal": (("extend",), ("--signal",)),
    "a signal that is not there": (("extend", "--signal", "nothing.png"), ("nothing.png",)),
    "a signal of another kind": (("extend", "--signal", "sound.wav"), ("sound.wav",)),
    "an unknown finetune": (("extend", "--signal", "whole.png", "--finetune", "most"), ("most",)),
    "no steps": (("extend", "--signal", "whole.png", "--steps", "0"), ("--steps 0",)),
    "a fraction above 1": (("extend", "--signal", "whole.png", "--sample_frac", "1.5"), ("--sample_frac 1.5",)),
    "a patch beyond the file": (("replace", "--signal", "whole.png"), ("0:20,0:30",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_use_is_one_line_and_writes_nothing(folder, capsys, name):
    (command, *words), named = REFUSED[name]
    soundfile.write("sound.wav", np.zeros(100), 8000)
    before = sorted(os.listdir())
    capsys.readouterr()
    assert run(command, "left.safetensors", "out.safetensors", *words) == 2
    assert_one_line(capsys, *named)
    assert sorted(os.listdir()) == before


def test_an_edit_never_writes_over_its_input(folder, capsys):
    before = (folder / "left.safetensors").read_bytes()
    os.link("left.safetensors", "same.safetensors")
    for words in (
        ("extend", "left.safetensors", "left.safetensors", "--signal", "whole.png"),
        ("replace", "left.safetensors", "same.safetensors", "--signal", "patch.png"),
        ("crop", "left.safetensors", "left.safetensors", "--region", "0:8,0:8"),
        ("merge", "left.safetensors", "left.safetensors", "left.safetensors"),
    ):
        assert run(*words, "--overwrite") == 2
        assert_one_line(capsys, "is the input")
    assert (folder / "left.safetensors").read_bytes() == before


def test_outputs_are_kept_unless_overwritten_and_never_half_written(folder, capsys, monkeypatch):
    words = ("extend", "left.safetensors", "out.safetensors", "--signal", "whole.png", *STEPS)
    assert run(*words) == 0
    first = (folder / "out.safetensors").read_bytes()
    capsys.readouterr()
    assert run(*words) == 2
    assert_one_line(capsys, "out.safetensors", "exists", "overwrite")
    with monkeypatch.context() as context:
        full_disk(context)
        assert run(*words, "--overwrite") == 1
    assert (folder / "out.safetensors").read_bytes() == first
    assert run(*words, "--overwrite") == 0


MERGES = {
    "one piece": (("left", "out"), ("merge",)),
    "another origin": (("left", "other", "out"), ("other.safetensors",)),
    "a piece that is not there": (("left", "nothing", "out"), ("nothing.safetensors",)),
}


@pytest.mark.parametrize("name", MERGES)
def test_what_cannot_merge_is_one_line(folder, capsys, name):
    files, named = MERGES[name]
    assert run("encode", "left.png", "other.safetensors", *SMALL, "--seed", 1) == 0
    capsys.readouterr()
    assert run("merge", *(f"{file}.safetensors" for file in files)) == 2
    assert_one_line(capsys, *named)
    assert not (folder / "out.safetensors").exists()


def test_rows_that_disagree_need_a_preference(folder, capsys):
    for seed in (1, 2):
        Image.fromarray(pixels(5, 6, seed=seed)).save(f"{seed}.png")
        assert run("replace", "left.safetensors", f"{seed}.safetensors", "--signal", f"{seed}.png", *STEPS[2:]) == 0
    capsys.readouterr()
    assert run("merge", "1.safetensors", "2.safetensors", "out.safetensors") == 2
    assert_one_line(capsys, "partition 0,0", "1.safetensors", "2.safetensors", "prefer")
    assert run("merge", "1.safetensors", "2.safetensors", "out.safetensors", "--prefer", "left.safetensors") == 2
    assert_one_line(capsys, "--prefer left.safetensors")
    assert run("merge", "1.safetensors", "2.safetensors", "out.safetensors", "--prefer", "2.safetensors") == 0
    assert np.array_equal(lg.load("out.safetensors").decode().values, lg.load("2.safetensors").decode().values)


@pytest.mark.parametrize("fraction", [(), ("--sample_frac", 0.5)])
def test_an_interrupted_extension_resumes_to_the_same_file(folder, stopping_at, fraction):
    words = ("extend", "left.safetensors", "{}.safetensors", "--signal", "whole.png", "--steps", 9, "--quiet")

    def extend(name, *more):
        return run(*(str(word).format(name) for word in words), *fraction, *more)

    assert extend("whole") == 0
    with stopping_at(6, KeyboardInterrupt):
        assert extend("resumed") == 130
    assert (folder / "resumed.checkpoint.safetensors").exists()
    assert extend("resumed", "--resume") == 0
    assert without_times(folder / "resumed.safetensors") == without_times(folder / "whole.safetensors")
    assert not (folder / "resumed.checkpoint.safetensors").exists()


def tone(samples, peak, channels=2):
    wave = np.sin(np.arange(samples)[:, None] / (5 + np.arange(channels)))
    return (peak * wave / np.abs(wave).max()).astype(np.float32)


SOUND = ("--partition_size", 100, "--local_width", 5, "--global_width", 6, *STEPS)


def test_a_take_is_appended_to_a_sound(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, samples, peak in (("first", 350, 0.8), ("take", 120, 0.5), ("loud", 120, 0.9)):
        soundfile.write(f"{name}.wav", tone(samples, peak), 8000, subtype="FLOAT")
    soundfile.write("rate.wav", tone(120, 0.5), 16000, subtype="FLOAT")
    assert run("encode", "first.wav", "a.safetensors", *SOUND) == 0
    capsys.readouterr()
    assert run("extend", "a.safetensors", "b.safetensors", "--signal", "take.wav", "--offset", 350, *STEPS) == 0
    assert "1 partition added, 1 fitted anew (3)" in capsys.readouterr().out
    assert run("decode", "b.safetensors", "b.wav", "--quiet") == 0
    values, rate = soundfile.read("b.wav", dtype="float32")
    assert (values.shape, rate) == ((470, 2), 8000)
    assert np.array_equal(
        lg.load("b.safetensors").decode("0:300").values, lg.load("a.safetensors").decode("0:300").values
    )
    capsys.readouterr()
    for name, words in (("loud", ("0.9", "value_range")), ("rate", ("16000", "8000"))):
        assert run("extend", "a.safetensors", "c.safetensors", "--signal", f"{name}.wav", "--offset", 350, *STEPS) == 2
        assert_one_line(capsys, *words)


def test_absent_sound_is_silence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(300, 0.8), 8000, subtype="FLOAT")
    assert run("encode", "a.wav", "a.safetensors", *SOUND) == 0
    assert run("crop", "a.safetensors", "b.safetensors", "--drop_partitions", "1") == 0
    assert run("decode", "b.safetensors", "b.wav", "--quiet") == 0
    values, _ = soundfile.read("b.wav", dtype="float32")
    assert (values[100:200] == 0).all()
    assert (values[:100] != 0).any()


def test_frames_are_appended_to_a_film(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    film = lg.Signal.from_array(rng.integers(0, 256, (9, 12, 14, 3), dtype=np.uint8), "video", sampling_rate=25)
    lg.write("film.mkv", film)
    small = ("--partition_size", "3,6,7", "--local_width", 5, "--global_width", 6, *STEPS)
    assert run("encode", "film.mkv", "a.safetensors", "--frames", "0:6", *small) == 0
    assert run("extend", "a.safetensors", "b.safetensors", "--signal", "film.mkv", *STEPS) == 0
    words = ("--signal", "film.mkv", "--frames", "6:9", "--offset", "6,0,0")
    assert run("extend", "a.safetensors", "c.safetensors", *words, *STEPS) == 0
    assert run("decode", "b.safetensors", "b.mkv", "--quiet") == 0
    again = lg.read("b.mkv")
    assert (again.shape, again.sampling_rate) == ((9, 12, 14), 25)
    kept = [lg.load(f"{name}.safetensors").decode("0:6,:,:").values for name in "abc"]
    assert np.array_equal(kept[0], kept[1])
    assert np.array_equal(kept[0], kept[2])
