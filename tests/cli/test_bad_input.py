"""The command line: every wrong use that we could think of is one line, and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.command import assert_one_line, full_disk, run


def _npy(values, **options):
    def make():
        np.save("in.npy", values, **options)
        return "in.npy"

    return make


def _file(name, content):
    def make():
        Path(name).write_bytes(content)
        return name

    return make


def _truncated_png():
    content = Path("photo.png").read_bytes()
    Path("cut.png").write_bytes(content[: len(content) // 2])
    return "cut.png"


BAD_INPUTS = {
    "missing file": lambda: "absent.png",
    "folder": lambda: ".",
    "empty file": _file("empty.png", b""),
    "text named png": _file("text.png", b"this is not a picture\n"),
    "truncated png": _truncated_png,
    "unknown suffix": _file("a.xyz", b"\x00\x01"),
    "NaN samples": _npy(np.array([[0.0, np.nan]])),
    "infinite samples": _npy(np.array([[0.0, np.inf]])),
    "zero-sized array": _npy(np.zeros((0, 4), dtype=np.uint8)),
    "object array": _npy(np.array([[None, 1]], dtype=object), allow_pickle=True),
    "complex array": _npy(np.zeros((4, 4), dtype=complex)),
    "text array": _npy(np.array([["a", "b"]])),
    "five axes": _npy(np.zeros((1, 1, 1, 1, 1), dtype=np.uint8)),
    "wide integers without a range": _npy(np.zeros((4, 4), dtype=np.int64)),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_one_line_and_exit_code_2(files, capsys, case):
    name = BAD_INPUTS[case]()
    before = sorted(os.listdir())
    assert run("encode", name, "out.safetensors", "--steps", 2) == 2
    assert_one_line(capsys, name)
    assert sorted(os.listdir()) == before


BAD_OPTIONS = {
    "no partitions": (["--partitions", "0,16"], "--partitions"),
    "one number for an image": (["--partitions", "16"], "--partitions"),
    "three numbers for an image": (["--partitions", "4,4,4"], "--partitions"),
    "more partitions than pixels": (["--partitions", "66,4"], "--partitions"),
    "partitions that are no numbers": (["--partitions", "a,b"], "--partitions"),
    "empty partitions": (["--partitions", ""], "--partitions"),
    "zero partition size": (["--partition_size", "0,4"], "--partition_size"),
    "both kinds of partitions": (["--partitions", "4,4", "--partition_size", "4,4"], "--partitions"),
    "steps with a fraction": (["--steps", "3.5"], "--steps"),
    "no steps": (["--steps", "0"], "--steps"),
    "negative steps": (["--steps", "-3"], "--steps"),
    "lr nan": (["--lr", "nan"], "--lr"),
    "lr infinite": (["--lr", "inf"], "--lr"),
    "lr negative": (["--lr", "-1e-3"], "--lr"),
    "lr zero": (["--lr", "0"], "--lr"),
    "seed negative": (["--seed", "-1"], "--seed"),
    "unknown option": (["--frobnicate", "3"], "--frobnicate"),
    "abbreviated option": (["--step", "3"], "--step"),
    "unknown mode": (["--mode", "xyz"], "--mode"),
    "unknown device": (["--device", "tpu"], "--device"),
    "unknown kind": (["--kind", "smell"], "--kind"),
    "another kind": (["--kind", "audio"], "photo.png"),
    "unknown aggregation": (["--agg_type", "sum"], "--agg_type"),
    "budget too small": (["--parameters", "100"], "--parameters"),
    "budget and widths": (["--parameters", "9999", "--local_width", "4", "--global_width", "4"], "--parameters"),
    "local width alone": (["--local_width", "4"], "--mode"),
    "global width in lc": (["--mode", "lc", "--global_width", "4"], "--global_width"),
    "partitions in mlp": (["--mode", "mlp", "--partitions", "2,2"], "--partitions"),
    "overlaps as large as the signal": (["--overlaps", "65,0"], "--overlaps"),
    "negative overlaps": (["--overlaps", "-1,0"], "--overlaps"),
    "one overlap for an image": (["--overlaps", "1"], "--overlaps"),
    "empty value range": (["--value_range", "5,5"], "--value_range 5,5"),
    "value range of one number": (["--value_range", "5"], "--value_range"),
    "value range nan": (["--value_range", "0,nan"], "--value_range"),
    "memory without a number": (["--max_memory", "lots"], "--max_memory"),
    "memory below one block": (["--max_memory", "99B"], "--max_memory"),
    "no threads": (["--threads", "0"], "--threads"),
    "config file missing": (["--config_path", "absent.yaml"], "absent.yaml"),
    "target psnr nan": (["--target_psnr", "nan"], "--target_psnr"),
    "local scale zero": (["--local_scale", "0"], "--local_scale"),
    "shared scale of three axes": (["--shared_scale", "1,2,3"], "--shared_scale"),
    "shared scale along one axis zero": (["--shared_scale", "1,0"], "--shared_scale"),
    "local scale that is none": (["--local_scale", "1,x"], "--local_scale"),
    "option without a value": (["--steps"], "--steps"),
    "local scale that no file may hold": (["--local_scale", "1e7"], "--local_scale"),
    "width that no file may hold": (["--mode", "mlp", "--local_width", "9999999999999"], "--local_width"),
    "budget beyond this machine": (["--parameters", "99999999999999999999999999"], "memory"),
    "more threads than sense": (["--threads", "100000"], "--threads"),
    "overlaps in mlp": (["--mode", "mlp", "--overlaps", "1,1"], "--overlaps"),
    "sample fraction 0": (["--sample_frac", "0"], "--sample_frac"),
    "sample fraction 1.5": (["--sample_frac", "1.5"], "--sample_frac"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_option_is_one_line_and_exit_code_2(files, capsys, case):
    options, named = BAD_OPTIONS[case]
    before = sorted(os.listdir())
    assert run("encode", "photo.png", "out.safetensors", *options) == 2
    assert_one_line(capsys, named)
    assert sorted(os.listdir()) == before


BAD_FILES = {
    **dict.fromkeys(("steps: 3.5", "steps: yes", "steps: 0"), "--steps"),
    **dict.fromkeys(("- 1", "a: [", "", "lr: 2020-13-45", "lr: !!int abc", "lr: !!bool abc"), "run.yaml"),
    "step: 3": "--step ",
    "partitions: 16": "--partitions",
    "partitions: &a [*a]": "--partitions",
    "value_range: 3": "--value_range",
    "kind: 7": "--kind",
    "kind: smell": "--kind",
}


@pytest.mark.parametrize(("content", "named"), BAD_FILES.items())
def test_bad_config_file_is_one_line_and_exit_code_2(files, capsys, content, named):
    Path("run.yaml").write_text(content)
    assert run("encode", "photo.png", "out.safetensors", "--config_path", "run.yaml") == 2
    assert_one_line(capsys, named)


BAD_REQUESTS = {
    "decode a missing file": (["decode", "absent.safetensors", "b.png"], "absent.safetensors"),
    "decode a picture": (["decode", "photo.png", "b.png"], "photo.png"),
    "decode into an unknown format": (["decode", "a.safetensors", "b.xyz"], "b.xyz"),
    "decode into no format": (["decode", "a.safetensors", "b"], "b"),
    "decode onto a file that exists": (["decode", "a.safetensors", "photo.png"], "photo.png: "),
    "decode into a missing folder": (["decode", "a.safetensors", "absent/b.png"], "absent"),
    "region outside": (["decode", "a.safetensors", "b.png", "--region", "0:66,0:64"], "0:65,0:64"),
    "negative region": (["decode", "a.safetensors", "b.png", "--region", "-5:10,0:3"], "0:65,0:64"),
    "empty region": (["decode", "a.safetensors", "b.png", "--region", "5:5,0:3"], "5:5"),
    "region of one range": (["decode", "a.safetensors", "b.png", "--region", "0:5"], "0:5"),
    "region of words": (["decode", "a.safetensors", "b.png", "--region", "a:b,c:d"], "a:b"),
    "region and full": (["decode", "a.safetensors", "b.png", "--region", "0:5,0:5", "--full"], "full"),
    "scale zero": (["decode", "a.safetensors", "b.png", "--scale", "0"], "0"),
    "scale negative": (["decode", "a.safetensors", "b.png", "--scale", "-2"], "-2"),
    "scale nan": (["decode", "a.safetensors", "b.png", "--scale", "nan"], "nan"),
    "scale infinite": (["decode", "a.safetensors", "b.png", "--scale", "inf"], "inf"),
    "scale over zero": (["decode", "a.safetensors", "b.png", "--scale", "1/0"], "1/0"),
    "scale that leaves nothing": (["decode", "a.safetensors", "b.png", "--scale", "0.001"], "0.001"),
    "scale with a huge exponent": (["decode", "a.safetensors", "b.png", "--scale", "1e999999999"], "1e999999999"),
    "scale of nothing": (["decode", "a.safetensors", "b.png", "--scale", ""], "scale"),
    "size beyond this machine": (
        ["decode", "a.safetensors", "b.npy", "--size", "2000000000,2000000000"],
        "2000000000x2000000000",
    ),
    "three scales": (["decode", "a.safetensors", "b.png", "--scale", "1,2,3"], "3"),
    "size zero": (["decode", "a.safetensors", "b.png", "--size", "0,5"], "0,5"),
    "size of one number": (["decode", "a.safetensors", "b.png", "--size", "5"], "5"),
    "scale and size": (["decode", "a.safetensors", "b.png", "--size", "5,5", "--scale", "2"], "--scale"),
    "memory below one evaluation": (["decode", "a.safetensors", "b.png", "--max_memory", "9kB"], "--max_memory"),
    "crop outside": (["crop", "a.safetensors", "c.safetensors", "--region", "0:1000,0:5"], "0:65,0:64"),
    "crop of nothing": (["crop", "a.safetensors", "c.safetensors"], "region"),
    "crop by two means": (
        ["crop", "a.safetensors", "c.safetensors", "--region", "0:5,0:5", "--keep_partitions", "0:1,0:1"],
        "keep_partitions",
    ),
    "crop to another suffix": (["crop", "a.safetensors", "c.png", "--region", "0:5,0:5"], "c.png"),
    "crop onto its input": (["crop", "a.safetensors", "a.safetensors", "--region", "0:5,0:5"], "a.safetensors: "),
    "keep partitions outside": (["crop", "a.safetensors", "c.safetensors", "--keep_partitions", "0:9,0:1"], "0:5,0:4"),
    "drop a partition that is not there": (
        ["crop", "a.safetensors", "c.safetensors", "--drop_partitions", "9,9"],
        "9,9",
    ),
    "drop nothing": (["crop", "a.safetensors", "c.safetensors", "--drop_partitions", ""], "partitions"),
    "drop a huge id": (
        ["crop", "a.safetensors", "c.safetensors", "--drop_partitions", "99999999999999999999,0"],
        "9999",
    ),
    "config and json": (["info", "a.safetensors", "--config", "--json"], "--config"),
    "drop words": (["crop", "a.safetensors", "c.safetensors", "--drop_partitions", "a;b"], "a;b"),
    "info of a missing file": (["info", "absent.safetensors"], "absent.safetensors"),
    "info against another size": (["info", "a.safetensors", "--against", "other.npy"], "9x9"),
    "info against other channels": (["info", "a.safetensors", "--against", "gray.npy"], "channel"),
    "no command": ([], "COMMAND"),
    "unknown command": (["compress"], "compress"),
    "encode onto a file that exists": (["encode", "photo.png", "a.safetensors"], "a.safetensors: "),
    "encode into a missing folder": (["encode", "photo.png", "absent/a.safetensors"], "absent"),
    "encode to another suffix": (["encode", "photo.png", "b.png"], "b.png"),
    "encode without an output": (["encode", "photo.png"], "OUTPUT"),
    "encode an empty name": (["encode", "", "b.safetensors"], "INPUT"),
    "encode to an empty name": (["encode", "photo.png", ""], "OUTPUT.safetensors"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request_is_one_line_and_exit_code_2(files, capsys, case):
    np.save("other.npy", np.zeros((9, 9, 3), dtype=np.uint8))
    np.save("gray.npy", np.zeros((65, 64), dtype=np.uint8))
    words, named = BAD_REQUESTS[case]
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    assert run(*words) == 2
    assert_one_line(capsys, named)
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


def test_a_damaged_row_is_found_where_it_is_read(files, capsys):
    content = bytearray(Path("a.safetensors").read_bytes())
    content[-10] ^= 1  # in the last row
    Path("bad.safetensors").write_bytes(content)
    for words in (["decode", "bad.safetensors", "b.png"], ["info", "bad.safetensors"]):
        assert run(*words) == 2
        assert_one_line(capsys, "bad.safetensors")
    assert run("decode", "bad.safetensors", "b.png", "--region", "0:10,0:10") == 0


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "photo.png", "b.safetensors", "--steps", "2", "--quiet"],
        ["decode", "a.safetensors", "b.png"],
        ["decode", "a.safetensors", "b.npy"],
        ["crop", "a.safetensors", "b.safetensors", "--region", "0:5,0:5"],
    ],
)
def test_a_full_disk_is_one_line_and_exit_code_1(files, capsys, monkeypatch, words):
    before = sorted(os.listdir())
    full_disk(monkeypatch)
    assert run(*words) == 1
    assert_one_line(capsys, words[2])
    assert sorted(os.listdir()) == before


def test_a_real_full_disk_leaves_the_old_file(files):
    """A limit on file sizes fails a real write in the middle, as a full disk does."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); from lgsirens.cli.main import main; sys.exit(main())"
    )
    old = Path("a.safetensors").read_bytes()
    shutil.copy("a.safetensors", "b.safetensors")
    words = ["crop", "a.safetensors", "b.safetensors", "--overwrite", "--region", "0:60,0:60"]
    result = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1
    assert Path("b.safetensors").read_bytes() == old
    assert sorted(os.listdir()) == ["a.safetensors", "b.safetensors", "photo.png"]


def test_a_diverging_fit_is_one_line_and_exit_code_1(files, capsys):
    assert (
        run("encode", "photo.png", "b.safetensors", "--steps", 50, "--recipe", "paper", "--lr", "1e30", "--quiet") == 1
    )
    assert_one_line(capsys, "lr")
    assert not Path("b.safetensors").exists()


def test_a_fit_whose_last_step_diverges_is_no_result(files, capsys):
    assert (
        run("encode", "photo.png", "b.safetensors", "--steps", 1, "--recipe", "paper", "--lr", "1e38", "--quiet") == 1
    )
    assert_one_line(capsys, "lr")
    assert not Path("b.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "closed"),
    [
        ("info a.safetensors", ">&-"),
        ("info a.safetensors --json", ">/dev/full"),
        ("crop --help", ">&- <&-"),
        ("crop --help", ">/dev/full"),
    ],
)
def test_a_result_that_cannot_be_printed_is_one_line_and_exit_code_1(files, words, closed):
    program = f"'{sys.executable}' -c 'import sys; from lgsirens.cli.main import main; sys.exit(main())'"
    done = subprocess.run(["sh", "-c", f"{program} {words} {closed}"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("lgsirens: the result cannot be printed: ")
    assert done.stderr.count("\n") == 1
