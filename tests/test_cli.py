"""The command line: its contract, and every wrong use that we could think of."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lgsirens as lg
from lgsirens import atomic, cli, fit
from lgsirens.cli import main
from tests.small import without_times

encode_module = importlib.import_module("lgsirens.encode")  # `lg.encode` is the function


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory):
    """A picture and its encoding, made once."""
    path = tmp_path_factory.mktemp("shared")
    rows, columns = np.mgrid[:65, :64]
    picture = np.stack([rows * 3, columns * 3, (rows + columns) * 2], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(path / "photo.png")
    command = ["encode", str(path / "photo.png"), str(path / "a.safetensors"), "--partitions", "5,4", "--steps", "30"]
    assert main([*command, "--quiet"]) == 0
    return path


@pytest.fixture
def files(folder, shared_files):
    for name in ("photo.png", "a.safetensors"):
        (folder / name).write_bytes((shared_files / name).read_bytes())
    return folder


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def run(*words):
    return main([str(word) for word in words])


# What works


def test_encode_decode_crop_and_info_end_to_end(files, capsys):
    assert run("decode", "a.safetensors", "b.png") == 0
    assert np.asarray(Image.open("b.png")).shape == (65, 64, 3)
    assert run("crop", "a.safetensors", "c.safetensors", "--region", "10:20,30:") == 0
    out = capsys.readouterr().out
    assert "beyond the window remain decodable" in out
    assert run("decode", "c.safetensors", "c.npy") == 0
    assert run("decode", "a.safetensors", "a.npy", "--region", "10:20,30:64") == 0
    assert np.array_equal(np.load("c.npy"), np.load("a.npy"))
    assert np.load("c.npy").dtype == np.float32
    assert np.load("c.npy").shape == (10, 34, 3)


def test_info_json_has_the_promised_keys(files, capsys):
    assert run("info", "a.safetensors", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["shape"], facts["window"]) == ("image", [65, 64], [[0, 65], [0, 64]])
    assert (facts["channels"], facts["mode"], facts["partitions"], facts["tile"]) == (3, "lg", 20, [13, 16])
    assert set(facts["parameters"]) == {"total", "local", "shared", "per_partition"}
    assert set(facts["bytes"]) == {"file", "local", "shared", "index", "header"}
    assert facts["bytes"]["file"] == os.path.getsize("a.safetensors")
    assert facts["bits_per_sample"] == 8 * facts["bytes"]["file"] / (65 * 64)
    assert facts["fit"]["steps"] == 30
    assert facts["fit"]["seconds"] > 0
    assert facts["format_version"] == 1
    decoded = lg.load("a.safetensors").decode()
    assert facts["fit"]["psnr"] == pytest.approx(lg.psnr(lg.read("photo.png"), decoded), abs=1e-4)


def test_info_against_the_original_names_the_five_worst_partitions(files, capsys):
    assert run("info", "a.safetensors", "--json", "--against", "photo.png") == 0
    against = json.loads(capsys.readouterr().out)["against"]
    assert against["psnr"] == pytest.approx(lg.psnr(lg.read("photo.png"), lg.load("a.safetensors").decode()))
    assert 0 < against["ssim"] < 1
    worst = [entry["psnr"] for entry in against["worst"]]
    assert len(worst) == 5
    assert worst == sorted(worst)
    assert worst[0] < against["psnr"]
    assert run("info", "a.safetensors", "--against", "photo.png") == 0
    assert "worst" in capsys.readouterr().out


def test_info_against_the_original_works_for_a_crop(files, capsys):
    run("crop", "a.safetensors", "c.safetensors", "--region", "10:40,30:")
    with Image.open("photo.png") as picture:
        picture.crop((30, 10, 64, 40)).save("part.png")
    capsys.readouterr()
    results = []
    for original in ("photo.png", "part.png"):
        assert run("info", "c.safetensors", "--json", "--against", original) == 0
        results.append(json.loads(capsys.readouterr().out)["against"])
    assert results[0] == results[1]


def test_the_config_that_info_prints_makes_the_run_again(files, capsys):
    assert run("info", "a.safetensors", "--config") == 0
    Path("run.yaml").write_text(capsys.readouterr().out)
    assert run("encode", "photo.png", "again.safetensors", "--config_path", "run.yaml", "--quiet") == 0
    a, b = (lg.load(name) for name in ("a.safetensors", "again.safetensors"))
    assert a.origin == b.origin
    assert np.array_equal(a.decode().values, b.decode().values)


def test_a_config_file_takes_5e_4_for_a_number(files):
    Path("run.yaml").write_text("lr: 5e-4\nsteps: 1\n")
    assert run("encode", "photo.png", "b.safetensors", "--config_path", "run.yaml", "--quiet") == 0
    assert lg.load("b.safetensors").config["lr"] == 5e-4


def test_the_command_line_overrides_the_config_file(files, capsys):
    Path("run.yaml").write_text("partition_size: [13, 16]\nsteps: 1\nlocal_width: 9\nglobal_width: 9\n")
    command = ["encode", "photo.png", "b.safetensors", "--config_path", "run.yaml", "--quiet"]
    assert run(*command, "--partitions", "2,2", "--parameters", "5000") == 0
    inr = lg.load("b.safetensors")
    assert (len(inr.lattice), inr.fit.steps) == (4, 1)
    assert 4000 < inr.parameters["total"] <= 5000


@pytest.mark.parametrize(
    ("shape", "flags", "total", "local", "shared"),
    [
        ((32, 32, 1), "--partitions 16,16 --local_width 14 --global_width 84", 198_930, 175_872, 23_058),
        ((32, 32, 3), "--partitions 16,16 --local_width 14 --global_width 84", 206_610, 183_552, 23_058),
        ((32, 32, 1), "--partitions 16,16 --mode lc --local_width 15", 199_936, 199_936, 0),
        ((32, 32, 3), "--partitions 16,16 --mode lc --local_width 15", 208_128, 208_128, 0),
        ((32, 32, 1), "--mode mlp --local_width 256", 198_401, 198_401, 0),
        ((32, 32, 3), "--mode mlp --local_width 256", 198_915, 198_915, 0),
        ((64,), "--partitions 32 --local_width 42 --global_width 72", 198_182, 177_440, 20_742),
        ((64,), "--partitions 1,32,1 --local_width 42 --global_width 72", 198_182, 177_440, 20_742),
        ((64,), "--partitions 32 --mode lc --local_width 45", 203_072, 203_072, 0),
        ((64,), "--mode mlp --local_width 256", 198_145, 198_145, 0),
        (
            (10, 8, 8, 3),
            "--partitions 5,8,8 --overlaps 1,2,2 --local_width 55 --global_width 180",
            3_192_400,
            3_080_960,
            111_440,
        ),
        ((10, 8, 8, 3), "--partitions 5,8,8 --overlaps 1,2,2 --mode lc --local_width 56", 3_190_720, 3_190_720, 0),
        ((10, 8, 8, 3), "--mode mlp --local_width 1030", 3_193_003, 3_193_003, 0),
    ],
)
def test_parameter_counts_of_the_published_commands(folder, capsys, shape, flags, total, local, shared):
    np.save("a.npy", np.zeros(shape, dtype=np.uint8))
    assert run("encode", "a.npy", "a.safetensors", *flags.split(), "--steps", 1, "--quiet") == 0
    capsys.readouterr()
    run("info", "a.safetensors", "--json")
    counts = json.loads(capsys.readouterr().out)["parameters"]
    assert (counts["total"], counts["local"], counts["shared"]) == (total, local, shared)


def test_three_numbers_for_a_sound_as_the_published_commands_have_them(folder):
    np.save("a.npy", np.sin(np.arange(99)))
    for name, partitions, overlaps in (("a", "32", "2"), ("b", "1,32,1", "1,2,1")):
        options = ["--partitions", partitions, "--overlaps", overlaps, "--steps", 2, "--quiet"]
        assert run("encode", "a.npy", f"{name}.safetensors", *options) == 0
    assert without_times(Path("a.safetensors")) == without_times(Path("b.safetensors"))


def test_a_dry_run_prints_figures_and_writes_nothing(files, capsys):
    before = sorted(os.listdir())
    assert run("encode", "photo.png", "new.safetensors", "--dry_run") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("parameters", "bytes", "time", "memory"))
    assert sorted(os.listdir()) == before


def test_scale_and_size_change_the_resolution(files):
    assert run("decode", "a.safetensors", "b.png", "--scale", "2") == 0
    assert size_of("b.png") == (128, 130)
    assert run("decode", "a.safetensors", "c.png", "--size", "100,37") == 0
    assert size_of("c.png") == (37, 100)
    assert run("decode", "a.safetensors", "d.npy", "--scale", "0.5,3/2", "--region", "0:10,0:10") == 0
    assert np.load("d.npy").shape == (5, 15, 3)


def test_several_regions_and_partitions_can_be_kept_or_dropped(files, capsys):
    assert run("crop", "a.safetensors", "b.safetensors", "--region", "0:3,0:3", "--region", "60:65,60:64") == 0
    assert lg.load("b.safetensors").lattice.ids.tolist() == [[0, 0], [4, 3]]
    assert lg.load("b.safetensors").decode().present.sum() == 2 * 13 * 16
    assert run("crop", "a.safetensors", "c.safetensors", "--keep_partitions", "2:4,0:1") == 0
    assert lg.load("c.safetensors").window == ((26, 52), (0, 16))
    assert run("crop", "a.safetensors", "d.safetensors", "--drop_partitions", "0,0;4,3") == 0
    assert len(lg.load("d.safetensors").lattice) == 18
    capsys.readouterr()
    assert run("decode", "d.safetensors", "d.npy") == 0
    assert "416 samples without a partition" in capsys.readouterr().out
    assert (np.load("d.npy")[:13, :16] == 0).all()


def test_full_decodes_the_extent_of_a_crop(files):
    run("crop", "a.safetensors", "c.safetensors", "--region", "14:20,17:20")
    assert run("decode", "c.safetensors", "full.png", "--full") == 0
    assert size_of("full.png") == (16, 13)


def test_cropping_mlp_says_that_no_byte_is_saved(folder, capsys):
    np.save("a.npy", np.zeros((9, 9), dtype=np.uint8))
    run("encode", "a.npy", "a.safetensors", "--mode", "mlp", "--steps", 1, "--quiet")
    capsys.readouterr()
    assert run("crop", "a.safetensors", "c.safetensors", "--region", "2:4,2:4") == 0
    assert "saves no byte" in capsys.readouterr().err
    assert lg.load("c.safetensors").parameters == lg.load("a.safetensors").parameters
    assert lg.load("c.safetensors").shape == (2, 2)


def test_target_psnr_ends_a_run_early(files):
    command = ["encode", "photo.png", "b.safetensors", "--partitions", "5,4", "--quiet"]
    assert run(*command, "--steps", 300, "--target_psnr", 15) == 0
    inr = lg.load("b.safetensors")
    assert inr.fit.stopped == "target_psnr"
    assert 0 < inr.fit.steps < 300
    assert inr.fit.psnr >= 15


def test_target_psnr_is_that_of_what_is_decoded_with_halos_too(files):
    command = ["encode", "photo.png", "b.safetensors", "--partitions", "3,3", "--overlaps", "12,12", "--quiet"]
    assert run(*command, "--steps", 300, "--target_psnr", 20) == 0
    inr = lg.load("b.safetensors")
    assert inr.fit.stopped == "target_psnr"
    assert inr.fit.psnr >= 20


def test_results_go_to_stdout_and_a_log_off_a_terminal_is_not_flooded(files, capsys):
    assert run("encode", "photo.png", "b.safetensors", "--steps", "40") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert out.startswith("b.safetensors: image 65x64, 3 channels, lg")
    assert err.count("\n") <= 3
    assert "\r" not in err


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (65, 64), (300, 451)])
def test_any_size_comes_back_as_its_own_size(folder, shape):
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(values).save("a.png")
    assert run("encode", "a.png", "a.safetensors", "--steps", 2, "--quiet") == 0
    assert run("decode", "a.safetensors", "b.png") == 0
    assert np.asarray(Image.open("b.png")).shape == (*shape, 3)


def test_sixteen_bits_stay_sixteen_bits(folder):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    lg.write("a.png", lg.Signal.from_array(values))
    assert run("encode", "a.png", "a.safetensors", "--steps", 2, "--quiet") == 0
    assert run("decode", "a.safetensors", "b.png") == 0
    decoded = lg.read("b.png")
    assert decoded.dtype == "uint16"
    assert np.array_equal(decoded.values, np.rint(lg.load("a.safetensors").decode().values))


# Stopping and going on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_what_it_has_and_resume_goes_on(folder, number):
    np.save("a.npy", np.random.default_rng(0).random((64, 64)).astype(np.float32))
    command = [sys.executable, "-c", "import sys; from lgsirens.cli import main; sys.exit(main())"]
    command += ["encode", "a.npy", "a.safetensors", "--partitions", "2,2", "--steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not _fits(process.pid):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED, err
    assert "saved what there is" in err
    assert "Traceback" not in err
    inr = lg.load("a.safetensors")
    assert inr.fit.stopped == "interrupted"
    assert sorted(os.listdir()) == ["a.checkpoint.safetensors", "a.npy", "a.safetensors"]
    assert out.startswith("a.safetensors: image 64x64")
    # a changed input and a changed option are refused
    assert run("encode", "a.npy", "a.safetensors", "--partitions", "2,2", "--steps", "9", "--resume", "--quiet") == 2
    np.save("b.npy", np.zeros((64, 64), dtype=np.float32))
    assert run("encode", "b.npy", "a.safetensors", "--partitions", "2,2", "--steps", "100000", "--resume") == 2
    assert lg.load("a.safetensors").fit.steps == inr.fit.steps


def _fits(pid):
    """Whether a process has begun to fit, seen by its handling SIGTERM (Linux)."""
    caught = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(caught and int(caught[0].split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_resume_without_a_checkpoint_starts_at_the_beginning(files, capsys):
    assert run("encode", "photo.png", "b.safetensors", "--steps", 2, "--resume", "--quiet") == 0
    assert lg.load("b.safetensors").fit.steps == 2


def _left_checkpoint(monkeypatch, *command):
    """A run whose result could not be saved, so that its checkpoint is left."""

    def full(*arguments):
        raise lg.RunError("full")

    with monkeypatch.context() as failing:
        failing.setattr(fit, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        failing.setattr(cli, "save", full)
        assert run(*command) == 1


def test_a_damaged_checkpoint_is_refused(files, capsys, monkeypatch):
    Path("b.checkpoint.safetensors").write_bytes(b"nonsense")
    command = ["encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet"]
    assert run(*command, "--resume") == 2
    _assert_one_line(capsys, "b.checkpoint.safetensors")
    os.remove("b.checkpoint.safetensors")
    _left_checkpoint(monkeypatch, *command)
    content = bytearray(Path("b.checkpoint.safetensors").read_bytes())
    content[-5] ^= 1
    Path("b.checkpoint.safetensors").write_bytes(content)
    capsys.readouterr()
    assert run(*command, "--resume") == 2
    _assert_one_line(capsys, "CRC-32")
    assert not Path("b.safetensors").exists()


def test_a_file_that_is_no_checkpoint_is_neither_replaced_nor_deleted(files, capsys):
    content = Path("a.safetensors").read_bytes()
    Path("b.checkpoint.safetensors").write_bytes(content)
    Path("c.checkpoint.safetensors").mkdir()
    for output in ("b.safetensors", "c.safetensors", "d.checkpoint.safetensors"):
        assert run("encode", "photo.png", output, "--steps", 2, "--quiet") == 2
        _assert_one_line(capsys, "checkpoint")
    assert Path("b.checkpoint.safetensors").read_bytes() == content


def test_ctrl_c_while_the_result_is_measured_does_not_lose_it(files, monkeypatch):
    real = encode_module.psnr

    def psnr(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(encode_module, "psnr", psnr)
    assert run("encode", "photo.png", "b.safetensors", "--steps", 2, "--quiet") == 0
    assert lg.load("b.safetensors").fit.steps == 2


def test_resume_with_another_block_size_is_refused(files, monkeypatch, capsys):
    command = ["encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet"]
    _left_checkpoint(monkeypatch, *command)
    assert run(*command, "--resume", "--max_memory", "300kB") == 2
    assert run(*command, "--resume") == 0


# What does not work says so in one line, and leaves nothing behind


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
    _assert_one_line(capsys, name)
    assert sorted(os.listdir()) == before


BAD_OPTIONS = {
    "no partitions": (["--partitions", "0,16"], "0,16"),
    "one number for an image": (["--partitions", "16"], "2 dimensions"),
    "three numbers for an image": (["--partitions", "4,4,4"], "2 dimensions"),
    "more partitions than pixels": (["--partitions", "66,4"], "65,64"),
    "partitions that are no numbers": (["--partitions", "a,b"], "'a,b'"),
    "empty partitions": (["--partitions", ""], "partitions"),
    "zero partition size": (["--partition_size", "0,4"], "0,4"),
    "both kinds of partitions": (["--partitions", "4,4", "--partition_size", "4,4"], "partition_size"),
    "steps with a fraction": (["--steps", "3.5"], "3.5"),
    "no steps": (["--steps", "0"], "steps"),
    "negative steps": (["--steps", "-3"], "-3"),
    "lr nan": (["--lr", "nan"], "lr"),
    "lr infinite": (["--lr", "inf"], "lr"),
    "lr negative": (["--lr", "-1e-3"], "lr"),
    "lr zero": (["--lr", "0"], "lr"),
    "seed negative": (["--seed", "-1"], "seed"),
    "unknown option": (["--frobnicate", "3"], "--frobnicate"),
    "abbreviated option": (["--step", "3"], "--step"),
    "unknown mode": (["--mode", "xyz"], "xyz"),
    "unknown device": (["--device", "tpu"], "tpu"),
    "unknown kind": (["--kind", "smell"], "smell"),
    "another kind": (["--kind", "audio"], "photo.png"),
    "unknown aggregation": (["--agg_type", "sum"], "sum"),
    "budget too small": (["--parameters", "100"], "at least"),
    "budget and widths": (["--parameters", "9999", "--local_width", "4", "--global_width", "4"], "exclude"),
    "local width alone": (["--local_width", "4"], "global_width"),
    "global width in lc": (["--mode", "lc", "--global_width", "4"], "global_width"),
    "partitions in mlp": (["--mode", "mlp", "--partitions", "2,2"], "mlp"),
    "overlaps as large as the signal": (["--overlaps", "65,0"], "65,0"),
    "negative overlaps": (["--overlaps", "-1,0"], "-1,0"),
    "one overlap for an image": (["--overlaps", "1"], "2 dimensions"),
    "empty value range": (["--value_range", "5,5"], "5,5"),
    "value range of one number": (["--value_range", "5"], "value_range"),
    "value range nan": (["--value_range", "0,nan"], "nan"),
    "memory without a number": (["--max_memory", "lots"], "lots"),
    "memory below one block": (["--max_memory", "1kB"], "at least"),
    "no threads": (["--threads", "0"], "threads"),
    "config file missing": (["--config_path", "absent.yaml"], "absent.yaml"),
    "target psnr nan": (["--target_psnr", "nan"], "target_psnr"),
    "local scale zero": (["--local_scale", "0"], "local_scale"),
    "option without a value": (["--steps"], "--steps"),
    "local scale that no file may hold": (["--local_scale", "1e7"], "local_scale"),
    "width that no file may hold": (["--mode", "mlp", "--local_width", "9999999999999"], "local_width"),
    "budget beyond this machine": (["--parameters", "99999999999999999999999999"], "memory"),
    "more threads than sense": (["--threads", "100000"], "threads"),
    "overlaps in mlp": (["--mode", "mlp", "--overlaps", "1,1"], "mlp"),
    "sample fraction 0": (["--sample_frac", "0"], "sample_frac"),
    "sample fraction 1.5": (["--sample_frac", "1.5"], "sample_frac"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_option_is_one_line_and_exit_code_2(files, capsys, case):
    options, named = BAD_OPTIONS[case]
    before = sorted(os.listdir())
    assert run("encode", "photo.png", "out.safetensors", *options) == 2
    _assert_one_line(capsys, named)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    "content", ["steps: 3.5", "step: 3", "steps: yes", "- 1", "a: [", "", "partitions: 16", "value_range: 3", "kind: 7"]
)
def test_bad_config_file_is_one_line_and_exit_code_2(files, capsys, content):
    Path("run.yaml").write_text(content)
    assert run("encode", "photo.png", "out.safetensors", "--config_path", "run.yaml") == 2
    _assert_one_line(capsys, "")


BAD_REQUESTS = {
    "decode a missing file": (["decode", "absent.safetensors", "b.png"], "absent.safetensors"),
    "decode a picture": (["decode", "photo.png", "b.png"], "photo.png"),
    "decode into an unknown format": (["decode", "a.safetensors", "b.xyz"], "b.xyz"),
    "decode into no format": (["decode", "a.safetensors", "b"], "b"),
    "decode onto a file that exists": (["decode", "a.safetensors", "photo.png"], "--overwrite"),
    "decode into a missing folder": (["decode", "a.safetensors", "absent/b.png"], "absent"),
    "region outside": (["decode", "a.safetensors", "b.png", "--region", "0:66,0:64"], "0:65,0:64"),
    "negative region": (["decode", "a.safetensors", "b.png", "--region", "-5:10,0:3"], "0:65,0:64"),
    "empty region": (["decode", "a.safetensors", "b.png", "--region", "5:5,0:3"], "empty"),
    "region of one range": (["decode", "a.safetensors", "b.png", "--region", "0:5"], "2 dimensions"),
    "region of words": (["decode", "a.safetensors", "b.png", "--region", "a:b,c:d"], "a:b"),
    "region and full": (["decode", "a.safetensors", "b.png", "--region", "0:5,0:5", "--full"], "--full"),
    "scale zero": (["decode", "a.safetensors", "b.png", "--scale", "0"], "0"),
    "scale negative": (["decode", "a.safetensors", "b.png", "--scale", "-2"], "-2"),
    "scale nan": (["decode", "a.safetensors", "b.png", "--scale", "nan"], "nan"),
    "scale infinite": (["decode", "a.safetensors", "b.png", "--scale", "inf"], "inf"),
    "scale over zero": (["decode", "a.safetensors", "b.png", "--scale", "1/0"], "1/0"),
    "scale that leaves nothing": (["decode", "a.safetensors", "b.png", "--scale", "0.001"], "0.001"),
    "scale with a huge exponent": (["decode", "a.safetensors", "b.png", "--scale", "1e999999999"], "1e999999999"),
    "scale of nothing": (["decode", "a.safetensors", "b.png", "--scale", ""], "scale"),
    "size beyond this machine": (["decode", "a.safetensors", "b.npy", "--size", "2000000000,2000000000"], "memory"),
    "three scales": (["decode", "a.safetensors", "b.png", "--scale", "1,2,3"], "3"),
    "size zero": (["decode", "a.safetensors", "b.png", "--size", "0,5"], "0,5"),
    "size of one number": (["decode", "a.safetensors", "b.png", "--size", "5"], "5"),
    "scale and size": (["decode", "a.safetensors", "b.png", "--size", "5,5", "--scale", "2"], "--size"),
    "memory below one evaluation": (["decode", "a.safetensors", "b.png", "--max_memory", "1MB"], "at least"),
    "crop outside": (["crop", "a.safetensors", "c.safetensors", "--region", "0:1000,0:5"], "0:65,0:64"),
    "crop of nothing": (["crop", "a.safetensors", "c.safetensors"], "--region"),
    "crop by two means": (
        ["crop", "a.safetensors", "c.safetensors", "--region", "0:5,0:5", "--keep_partitions", "0:1,0:1"],
        "--region",
    ),
    "crop to another suffix": (["crop", "a.safetensors", "c.png", "--region", "0:5,0:5"], "c.png"),
    "crop onto a file that exists": (["crop", "a.safetensors", "a.safetensors", "--region", "0:5,0:5"], "--overwrite"),
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
    "info against other channels": (["info", "a.safetensors", "--against", "gray.npy"], "1 channels"),
    "no command": ([], "COMMAND"),
    "unknown command": (["compress"], "compress"),
    "encode onto a file that exists": (["encode", "photo.png", "a.safetensors"], "--overwrite"),
    "encode into a missing folder": (["encode", "photo.png", "absent/a.safetensors"], "absent"),
    "encode to another suffix": (["encode", "photo.png", "b.png"], "b.png"),
    "encode without an output": (["encode", "photo.png"], "OUTPUT"),
    "encode an empty name": (["encode", "", "b.safetensors"], "INPUT: '' is no file name"),
    "encode to an empty name": (["encode", "photo.png", ""], "OUTPUT.safetensors: '' is no file name"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request_is_one_line_and_exit_code_2(files, capsys, case):
    np.save("other.npy", np.zeros((9, 9, 3), dtype=np.uint8))
    np.save("gray.npy", np.zeros((65, 64), dtype=np.uint8))
    words, named = BAD_REQUESTS[case]
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    assert run(*words) == 2
    _assert_one_line(capsys, named)
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


def test_a_damaged_row_is_found_where_it_is_read(files, capsys):
    content = bytearray(Path("a.safetensors").read_bytes())
    content[-10] ^= 1  # in the last row
    Path("bad.safetensors").write_bytes(content)
    for words in (["decode", "bad.safetensors", "b.png"], ["info", "bad.safetensors"]):
        assert run(*words) == 2
        _assert_one_line(capsys, "bad.safetensors")
    assert run("decode", "bad.safetensors", "b.png", "--region", "0:10,0:10") == 0


def _full_disk(monkeypatch):
    def replace(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "replace", replace)


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
    _full_disk(monkeypatch)
    assert run(*words) == 1
    _assert_one_line(capsys, words[2])
    assert sorted(os.listdir()) == before


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(files, capsys, monkeypatch):
    monkeypatch.setattr(fit, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with monkeypatch.context() as full:
        _full_disk(full)
        assert run("encode", "photo.png", "b.safetensors", "--steps", 2, "--quiet") == 1
    assert "goes on without a checkpoint" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_not_lost(files, capsys, monkeypatch):
    monkeypatch.setattr(fit, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    real = cli.save

    def full_disk(*arguments):
        _full_disk(monkeypatch)
        real(*arguments)

    with monkeypatch.context() as full:
        full.setattr(cli, "save", full_disk)
        assert run("encode", "photo.png", "b.safetensors", "--steps", 3, "--quiet") == 1
    monkeypatch.undo()
    os.chdir(files)
    steps = []
    monkeypatch.setattr(fit, "accumulate_gradients", lambda *arguments: steps.append(1))
    assert run("encode", "photo.png", "b.safetensors", "--steps", 3, "--quiet", "--resume") == 0
    assert not steps
    assert lg.load("b.safetensors").fit.steps == 3
    assert sorted(os.listdir()) == ["a.safetensors", "b.safetensors", "photo.png"]


def test_a_real_full_disk_leaves_the_old_file(files):
    """A limit on file sizes fails a real write in the middle, as a full disk does."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); from lgsirens.cli import main; sys.exit(main())"
    )
    old = Path("a.safetensors").read_bytes()
    words = ["crop", "a.safetensors", "a.safetensors", "--overwrite", "--region", "0:60,0:60"]
    result = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1
    assert Path("a.safetensors").read_bytes() == old
    assert sorted(os.listdir()) == ["a.safetensors", "photo.png"]


def test_a_diverging_fit_is_one_line_and_exit_code_1(files, capsys):
    assert run("encode", "photo.png", "b.safetensors", "--steps", 50, "--lr", "1e30", "--quiet") == 1
    _assert_one_line(capsys, "--lr")
    assert not Path("b.safetensors").exists()


def test_a_fit_whose_last_step_diverges_is_no_result(files, capsys):
    assert run("encode", "photo.png", "b.safetensors", "--steps", 1, "--lr", "1e38", "--quiet") == 1
    _assert_one_line(capsys, "--lr")
    assert not Path("b.safetensors").exists()


@pytest.mark.parametrize("closed", [">&-", ">&- <&-", ">/dev/full"])
@pytest.mark.parametrize("words", ["info a.safetensors", "info a.safetensors --json", "crop --help"])
def test_a_result_that_cannot_be_printed_is_one_line_and_exit_code_1(files, words, closed):
    program = f"'{sys.executable}' -c 'import sys; from lgsirens.cli import main; sys.exit(main())'"
    done = subprocess.run(["sh", "-c", f"{program} {words} {closed}"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("lgsirens: the result cannot be printed: ")
    assert done.stderr.count("\n") == 1


def test_help_and_version_exit_with_0(capsys):
    for words in (["--version"], ["--help"], ["encode", "--help"], ["crop", "--help"]):
        with pytest.raises(SystemExit) as stop:
            run(*words)
        assert stop.value.code == 0
    assert f"lgsirens {lg.__version__}" in capsys.readouterr().out


def test_an_interrupted_step_can_be_resumed_from_its_checkpoint(files, monkeypatch):
    """`encode --resume` through the command line ends as a run that was never stopped."""
    options = ["--partitions", "5,4", "--steps", "8", "--quiet"]
    assert run("encode", "photo.png", "whole.safetensors", *options) == 0
    real, calls = fit.accumulate_gradients, iter(range(99))

    def step(*arguments):
        if next(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(fit, "accumulate_gradients", step)
    assert run("encode", "photo.png", "b.safetensors", *options) == cli.INTERRUPTED
    monkeypatch.setattr(fit, "accumulate_gradients", real)
    assert lg.load("b.safetensors").fit.steps == 5
    assert run("encode", "photo.png", "b.safetensors", *options, "--resume") == 0
    whole, resumed = lg.load("whole.safetensors"), lg.load("b.safetensors")
    assert whole.origin == resumed.origin
    assert resumed.fit.steps == 8
    assert not Path("b.checkpoint.safetensors").exists()


def _assert_one_line(capsys, named):
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("lgsirens: partitions: asked")]
    assert len(lines) == 1, err
    assert lines[0].startswith("lgsirens: ")
    assert str(named) in lines[0]
    assert "Traceback" not in err


def test_a_checkpoint_whose_record_was_changed_is_refused(files, capsys, monkeypatch):
    command = ["encode", "photo.png", "b.safetensors", "--steps", 4, "--quiet"]
    _left_checkpoint(monkeypatch, *command)
    checkpoint = Path("b.checkpoint.safetensors")
    content = checkpoint.read_bytes()
    for old, new in ((b'\\"step\\": 4', b'\\"step\\": 2'), (b"generator", b"gemerator"), (b"best.0", b"best.9")):
        assert old in content
        checkpoint.write_bytes(content.replace(old, new))
        capsys.readouterr()
        assert run(*command, "--resume") == 2
        _assert_one_line(capsys, "b.checkpoint.safetensors")


@pytest.mark.parametrize("stem", ["n" * 240, "é" * 120])
def test_the_longest_names_can_be_encoded_to(files, stem):
    assert run("encode", "photo.png", f"{stem}.safetensors", "--steps", 2, "--quiet") == 0
    assert lg.load(f"{stem}.safetensors").fit.steps == 2


def test_broken_yaml_scalars_are_one_line(files, capsys):
    for content in ("lr: 2020-13-45", "lr: !!int abc", "lr: !!bool abc", "partitions: &a [*a]"):
        Path("run.yaml").write_text(content)
        assert run("encode", "photo.png", "b.safetensors", "--config_path", "run.yaml") == 2
        _assert_one_line(capsys, "")
