"""`lgsirens encode-many`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lgsirens as lg
from tests.command import assert_one_line, run
from tests.small import without_times

OPTIONS = ["--partition_size", "8,8", "--local_width", "5", "--global_width", "6", "--steps", "3", "--quiet"]


@pytest.fixture
def pictures(folder):
    Path("in").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 256, (16, 9 + number), dtype=np.uint8)
        Image.fromarray(values).save(f"in/{number}.png")
    return folder


def test_files_are_those_of_encode(pictures, capsys):
    assert run("encode-many", "in", "out", *OPTIONS) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("out: 3 files encoded, ")
    assert printed.err == ""
    for number in range(3):
        assert run("encode", f"in/{number}.png", "alone.safetensors", "--overwrite", *OPTIONS) == 0
        assert without_times(Path(f"out/{number}.png.safetensors")) == without_times(Path("alone.safetensors"))


def test_a_file_that_fails_is_one_line_and_the_exit_code(pictures, capsys):
    Path("in/1.png").write_bytes(Path("in/1.png").read_bytes()[:60])
    assert run("encode-many", "in", "out", *OPTIONS) == 1
    printed = capsys.readouterr()
    assert "out: 2 files encoded, 1 failed (manifest.jsonl says why)" in printed.out
    (line,) = printed.err.splitlines()
    assert line.startswith("lgsirens: in/1.png: ")
    assert "lgsirens: " + json.loads(Path("out/manifest.jsonl").read_text().splitlines()[2])["error"] == line


def test_other_files_are_counted_in_one_line(pictures, capsys):
    for number in range(3):
        Path(f"in/{number}.txt").write_text("words")
    assert run("encode-many", "in", "out", *OPTIONS) == 0
    assert capsys.readouterr().err == "lgsirens: in: 3 files left out, no signals\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nowhere", "out"], "nowhere: is no folder"),
        (["in", "in"], "in: is the folder of the inputs"),
        (["in", "in/0.png"], "in/0.png: is a file"),
        (["in", "out", "--steps", "0"], "--steps 0: must be at least 1"),
        (["in", "out", "--share_network", "--mode", "lc"], "--mode lc: has no shared network"),
        (["in", "out", "--shared_from", "in/0.png"], "in/0.png: "),
    ],
)
def test_wrong_use(pictures, capsys, words, named):
    assert run("encode-many", *words, "--quiet") == 2
    assert_one_line(capsys, named)
    assert not list(Path().rglob("*.safetensors"))


def test_later_files_join_by_the_network_of_any(pictures):
    assert run("encode-many", "in", "out", "--share_network", *OPTIONS) == 0
    Path("in/3.png").write_bytes(Path("in/0.png").read_bytes())
    assert run("encode-many", "in", "more", "--shared_from", "out/1.png.safetensors", "--steps", 3, "--quiet") == 0
    assert len(lg.RowDataset("more")) == 4
    assert lg.RowDataset("more").origin == lg.RowDataset("out").origin


def test_options_of_an_earlier_run(pictures):
    Path("run.yaml").write_text("steps: 2\npartition_size: [8, 8]\nlocal_width: 5\nglobal_width: 6\n")
    assert run("encode-many", "in", "out", "--config_path", "run.yaml", "--quiet") == 0
    assert {lg.load(path).fit.steps for path in Path("out").glob("*.safetensors")} == {2}
