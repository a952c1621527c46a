"""What the published scripts do around a run: names, folders, stopping and going on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lgsirens as lg
from lgsirens.cli.main import main as lgsirens
from lgsirens.monitoring import watcher
from lgsirens.monitoring.log import RUNNING, keep_state
from lgsirens.paper.flags import given_values
from lgsirens.paper.runs import main
from lgsirens.system.program import INTERRUPTED
from tests.command import last_line

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "experiment_scripts"


def test_a_run_is_never_mixed_with_an_earlier_one(scripts, capsys):
    words = ["--num_epochs", "1", "--hidden_features", "8", "--image_resolution_factor", "16"]
    names = [f"default_image_experiment{number}" for number in ("", "_2", "_3")]
    for seed, name in enumerate(names):
        assert main("image", [*words, "--seed", str(seed)]) == 0
        shown = capsys.readouterr()
        assert f"logs/{name}/model_final.safetensors: " in shown.out
        assert (f"_experiment: this run is kept in logs/{name}" in shown.err) == (seed > 0)
    assert main("image", [*words, "--seed", "7", "--overwrite"]) == 0
    assert [lg.load(f"logs/{name}/model_final.safetensors").config["seed"] for name in names] == [0, 1, 7]
    assert main("image", [*words, "--resume"]) == 2
    assert "_3: a finished run" in last_line(capsys)
    assert sorted(os.listdir("logs")) == names


def test_a_name_that_ends_in_a_number_is_a_name_of_its_own(scripts, stopping_at):
    words = ["--num_epochs", "3", "--hidden_features", "8", "--image_resolution_factor", "16"]
    assert main("image", [*words, "--experiment_name", "face_2", "--seed", "2"]) == 0
    with stopping_at(1):
        assert main("image", [*words, "--experiment_name", "face"]) == INTERRUPTED
    assert main("image", [*words, "--experiment_name", "face", "--resume"]) == 0
    assert main("image", [*words, "--experiment_name", "face", "--seed", "5", "--overwrite"]) == 0
    assert main("image", [*words, "--experiment_name", "face", "--seed", "6"]) == 0
    seeds = {path.parent.name: lg.load(path).config["seed"] for path in Path("logs").glob("*/model_final.safetensors")}
    assert seeds == {"face": 5, "face_2": 2, "face_3": 6}


@pytest.mark.parametrize("deleted", [(1,), (2,), (1, 2)])
def test_a_deleted_run_leaves_the_last_one_the_last(scripts, stopping_at, deleted):
    words = ["--num_epochs", "3", "--hidden_features", "8", "--image_resolution_factor", "16", "--experiment_name", "a"]
    names = ["a", "a_2", "a_3"]
    for seed in range(2):
        assert main("image", [*words, "--seed", str(seed)]) == 0
    with stopping_at(1):
        assert main("image", [*words, "--seed", "2"]) == INTERRUPTED
    for number in deleted:
        shutil.rmtree(f"logs/{names[number - 1]}")
    left = sorted(set(names) - {names[number - 1] for number in deleted})
    assert main("image", [*words, "--seed", "2", "--resume"]) == 0
    assert sorted(os.listdir("logs")) == left
    assert lg.load("logs/a_3/model_final.safetensors").fit.steps == 3
    assert main("image", [*words, "--seed", "4", "--overwrite"]) == 0
    assert lg.load("logs/a_3/model_final.safetensors").config["seed"] == 4
    assert main("image", [*words, "--seed", "5"]) == 0
    assert sorted(os.listdir("logs")) == [*left, "a_4"]


def test_a_result_is_kept_even_if_the_log_fails_to(scripts, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise lg.RunError("disk full")

    monkeypatch.setattr(watcher, "save", fail)
    assert main("image", ["--num_epochs", "2", "--hidden_features", "8", "--image_resolution_factor", "16"]) == 0
    assert lg.load("logs/default_image_experiment/model_final.safetensors").fit.steps == 2
    assert "disk full" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on(scripts, stopping_at, capsys):
    words = ["--num_epochs", "6", "--hidden_features", "8", "--image_resolution_factor", "16"]
    assert main("image", [*words, "--experiment_name", "whole"]) == 0
    words += ["--experiment_name", "stopped"]
    with stopping_at(3):
        assert main("image", words) == INTERRUPTED
    assert "resume" in last_line(capsys)
    assert lg.load("logs/stopped/model_final.safetensors").fit.steps == 3
    assert main("image", words) == 2
    assert "resume" in last_line(capsys)
    flags = Path("logs/stopped/flags.yaml").read_text()
    for other in (["--seed", "1"], ["--dataset_path", "../image.png", "--image_channels", "1"]):
        assert main("image", [*words, "--resume", *other]) == 2
        assert Path("logs/stopped/flags.yaml").read_text() == flags
    capsys.readouterr()
    assert main("image", [*words, "--resume"]) == 0
    whole, resumed = (lg.load(f"logs/{name}/model_final.safetensors") for name in ("whole", "stopped"))
    assert (resumed.fit.steps, resumed.origin) == (6, whole.origin)
    assert sorted(path.name.split(".")[0] for path in Path("logs/stopped").iterdir()) == [
        *("config", "events", "events", "flags", "model_final", "pictures"),
    ]
    assert main("image", [*words, "--resume"]) == 2
    assert "already" in last_line(capsys)
    for other in ("--overwrite", "--debug"):
        assert main("image", [*words, "--resume", other]) == 2
        assert other in last_line(capsys)
    keep_state(Path("logs/stopped"), RUNNING)  # as if it had been killed before its first checkpoint
    assert main("image", [*words, "--resume"]) == 0
    assert lg.load("logs/stopped/model_final.safetensors").origin == whole.origin


def test_the_flags_of_a_run_make_it_again(scripts):
    words = ["--dataset_path", "../image.png", "--image_channels", "1", "--image_resolution_factor", "8"]
    words += ["--num_epochs", "2", "--mode", "lg", "--downsample", "2,3", "--hidden_features", "24", "--seed", "5"]
    assert main("image", [*words, "--experiment_name", "0010"]) == 0
    again = ["--config_path", "logs/0010/flags.yaml", "--experiment_name", "again"]
    assert main("image", again) == 0
    first, second = (lg.load(f"logs/{name}/model_final.safetensors") for name in ("0010", "again"))
    assert first.origin == second.origin
    assert given_values(["--config_path", "logs/0010/flags.yaml"])["experiment_name"] == "0010"
    assert lgsirens(["encode", "../image.png", "a.safetensors", "--config_path", "logs/0010/config.yaml"]) == 0


def test_checkpoints_decode_by_themselves(scripts):
    words = ["--num_epochs", "3", "--epochs_til_ckpt", "2", "--hidden_features", "8", "--image_resolution_factor", "16"]
    assert main("image", words) == 0
    names = [path.name for path in Path("logs/default_image_experiment/checkpoints").iterdir()]
    assert names == ["model_step_2.safetensors"]
    assert lg.load(f"logs/default_image_experiment/checkpoints/{names[0]}").decode().shape == (32, 32)


def test_names_that_no_folder_can_have_are_one_line(scripts, capsys):
    Path("file").write_text("")
    for more in (["--experiment_name", "n" * 300], ["--logging_root", "file"], ["--logging_root", "/proc/none"]):
        words = ["--num_epochs", "1", "--hidden_features", "8", "--image_resolution_factor", "16", *more]
        assert main("image", words) == 2
        assert "choose another folder" in last_line(capsys)
        assert main("video", ["--checkpoint_path", "n" * 300, *more], decoding=True) == 2
        last_line(capsys)


def test_debug_writes_nothing(scripts, capsys):
    assert (
        main("image", ["--debug", "--num_epochs", "1", "--hidden_features", "8", "--image_resolution_factor", "16"])
        == 0
    )
    assert not Path("logs").exists()
    assert "not saved" in capsys.readouterr().out


def test_the_cat_film_is_asked_for(scripts, capsys):
    os.remove("../data/cat_video.mp4")
    assert main("video", ["--dataset", "cat", "--num_epochs", "1"]) == 2
    error = last_line(capsys)
    assert "SIREN" in error
    assert "--dataset FILM" in error


def test_the_scripts_run_from_their_folder_with_and_without_a_path(tmp_path):
    path = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    small = ["--num_epochs", "1", "--hidden_features", "8", "--logging_root", str(tmp_path)]
    for script, more, environment in (
        ("train_img.py", ["--image_resolution_factor", "32"], {"PYTHONPATH": "../"}),
        ("train_video.py", ["--dataset", "bikes", "--frames", "0:2", "--max_side", "32", "--sample_frac", "1"], {}),
    ):
        words = [sys.executable, script, *small, *more]
        done = subprocess.run(words, cwd=SCRIPTS, env=path | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "model_final.safetensors" in done.stdout
