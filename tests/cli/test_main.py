"""The command line: its contract."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lgsirens as lg
from tests.command import run
from tests.small import without_times


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def test_encode_decode_crop_and_info_end_to_end(files, capsys):
    assert run("decode", "a.safetensors", "b.png") == 0
    assert np.asarray(Image.open("b.png")).shape == (65, 64, 3)
    assert run("crop", "a.safetensors", "c.safetensors", "--region", "10:20,30:") == 0
    out = capsys.readouterr().out
    assert "beyond the window" in out
    assert run("decode", "c.safetensors", "c.npy") == 0
    assert run("decode", "a.safetensors", "a.npy", "--region", "10:20,30:64") == 0
    assert np.array_equal(np.load("c.npy"), np.load("a.npy"))
    assert np.load("c.npy").dtype == np.float32
    assert np.load("c.npy").shape == (10, 34, 3)


def test_the_number_of_hidden_layers_is_an_option(files, capsys):
    words = ("--mode", "lc", "--local_width", "4", "--partition_size", "32,32", "--steps", "1", "--quiet")
    for hidden in (0, 2):
        assert run("encode", "photo.png", "h.safetensors", *words, "--hidden_layers", hidden, "--overwrite") == 0
        inr = lg.load("h.safetensors")
        assert inr.model.hidden_layers == inr.config["hidden_layers"] == hidden
        assert inr.parameters["per_partition"] == 3 * 4 + hidden * 5 * 4 + 5 * 3
    capsys.readouterr()
    assert run("info", "h.safetensors", "--config") == 0
    assert "hidden_layers: 2" in capsys.readouterr().out
    for hidden in ("65", "-1", "1.5"):
        assert run("encode", "photo.png", "i.safetensors", *words, "--hidden_layers", hidden) == 2
        assert "hidden_layers" in capsys.readouterr().err


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
    assert facts["format_version"] == 2
    decoded = lg.load("a.safetensors").decode()
    assert facts["fit"]["psnr"] == pytest.approx(lg.psnr(lg.read("photo.png"), decoded), abs=1e-4)


def test_info_against_the_original_names_the_five_worst_partitions(files, capsys):
    assert run("info", "a.safetensors", "--json", "--against", "photo.png") == 0
    against = json.loads(capsys.readouterr().out)["against"]
    assert against["psnr"] == round(lg.psnr(lg.read("photo.png"), lg.load("a.safetensors").decode()), 4)
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


def test_what_python_decodes_the_command_decodes(files, monkeypatch):
    module = importlib.import_module("lgsirens.representation.decode")
    large = module.Call((8, 8), 64, 1, 1 << 31)  # as if one evaluation took 2 GiB
    monkeypatch.setattr(module.Call, "of", lambda *_: large)
    lg.write("a.npy", lg.load("a.safetensors").decode())
    assert run("decode", "a.safetensors", "b.npy") == 0
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
    assert run("decode", "a.safetensors", "c.npy", "--max_memory", "1GiB") == 2


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
    assert run(*command, "--steps", 300, "--target_psnr", 32) == 0
    inr = lg.load("b.safetensors")
    assert inr.fit.stopped == "target_psnr"
    assert 0 < inr.fit.steps < 300
    assert inr.fit.psnr >= 32


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


def test_help_and_version_exit_with_0(capsys):
    for words in (["--version"], ["--help"], ["encode", "--help"], ["crop", "--help"]):
        with pytest.raises(SystemExit) as stop:
            run(*words)
        assert stop.value.code == 0
    assert f"lgsirens {lg.__version__}" in capsys.readouterr().out


@pytest.mark.parametrize("stem", ["n" * 240, "é" * 120])
def test_the_longest_names_can_be_encoded_to(files, stem):
    assert run("encode", "photo.png", f"{stem}.safetensors", "--steps", 2, "--quiet") == 0
    assert lg.load(f"{stem}.safetensors").fit.steps == 2


def test_a_terminal_that_cannot_spell_a_name_is_no_failure(files):
    shutil.copy("a.safetensors", "é.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "lgsirens", "crop", "é.safetensors", "ü.safetensors", "--region", "0:13,0:16"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xfc.safetensors" in done.stdout


@pytest.mark.parametrize("module", ["lgsirens", "lgsirens.cli.main"])
def test_python_m_is_the_command(folder, module):
    done = subprocess.run([sys.executable, "-m", module, "info", "absent.safetensors"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lgsirens: absent.safetensors: ")
