"""The published commands, as they are written."""

import json
import pickle
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lgsirens as lg
from lgsirens.cli.main import main as lgsirens
from lgsirens.media import examples
from lgsirens.paper.flags import given_values
from lgsirens.paper.runs import main
from tests import published
from tests.command import last_line

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "experiment_scripts"

IMAGE_LG = (
    "train_img.py --experiment_name test_image_lg --lr 5e-4 --num_epochs 1001 --hidden_features 3584 "
    "--epochs_til_ckpt 1000 --mode lg --global_hidden_features 84 --downsample [16,16]"
)
IMAGE_LC = (
    "train_img.py --experiment_name test_image_lc --lr 5e-4 --num_epochs 1001 --hidden_features 3840 "
    "--epochs_til_ckpt 1000 --mode lc --downsample [16,16]"
)
IMAGE_MLP = (
    "train_img.py --experiment_name test_image_mlp --lr 5e-4 --num_epochs 1001 --hidden_features 256 "
    "--epochs_til_ckpt 1000 --mode mlp"
)
AUDIO_LG = (
    "train_img.py --experiment_name test_audio_lg --lr 1e-4 --num_epochs 1001 --hidden_features 1344 "
    "--epochs_til_ckpt 1000 --mode lg --global_hidden_features 72 --downsample [1,32,1]"
)
AUDIO_LC = (
    "train_img.py --experiment_name test_audio_lc --lr 1e-4 --num_epochs 1001 --hidden_features 1440 "
    "--epochs_til_ckpt 1000 --mode lc --downsample [1,32,1]"
)
AUDIO_MLP = (
    "train_img.py --experiment_name test_audio_siren --lr 1e-4 --num_epochs 1001 --hidden_features 256 "
    "--epochs_til_ckpt 1000 --mode mlp"
)
VIDEO_LG = (
    "train_video.py --experiment_name test_video_lg --num_epochs 5001 --epochs_til_ckpt 1000 --mode lg --dataset cat "
    "--downsample [5,8,8] --overlaps [1,2,2] --hidden_features 17600 --global_hidden_features 180 --sample_frac 0.02"
)
VIDEO_LC = (
    "train_video.py --experiment_name test_video_lc --num_epochs 5001 --epochs_til_ckpt 1000 --mode lc --dataset cat "
    "--downsample [5,8,8] --overlaps [1,2,2] --hidden_features 17920 --sample_frac 0.02"
)
VIDEO_MLP = (
    "train_video.py --experiment_name test_video_siren --num_epochs 5001 --steps_til_summary 1000 "
    "--epochs_til_ckpt 5000 --mode mlp --dataset cat --hidden_features 1030"
)
DECODE = (
    "decode_video.py --experiment_name test_video_lg --mode lg --dataset cat --downsample 5 8 8 --overlaps 2 1 1 "
    "--hidden_features 17600 --global_hidden_features 180 --decode --checkpoint_path model.pth"
)
BUDGET = (
    "train_img.py --experiment_name test_image_lg --dataset_path IMAGE --image_resolution_factor 4 --num_epochs 2001 "
    "--steps_til_summary 200 --epochs_til_ckpt 1000 --mode lg --partition_size [32,32]"
)

# command, what makes it small beside two steps, kind, steps, learning rate, parameters: total, local, shared
SMALL_IMAGE, SMALL_SOUND = "--image_resolution_factor 8", "--wav_path ../sound.wav"
TRAINING = {
    "image lg": (IMAGE_LG, SMALL_IMAGE, "image", 1001, 5e-4, (198_930, 175_872, 23_058)),
    "image lc": (IMAGE_LC, SMALL_IMAGE, "image", 1001, 5e-4, (199_936, 199_936, 0)),
    "image mlp": (IMAGE_MLP, SMALL_IMAGE, "image", 1001, 5e-4, (198_401, 198_401, 0)),
    "audio lg": (AUDIO_LG, SMALL_SOUND, "audio", 1001, 1e-4, (198_182, 177_440, 20_742)),
    "audio lc": (AUDIO_LC, SMALL_SOUND, "audio", 1001, 1e-4, (203_072, 203_072, 0)),
    "audio mlp, as written an image": (AUDIO_MLP, SMALL_IMAGE, "image", 1001, 1e-4, (198_401, 198_401, 0)),
    "audio mlp": (
        *(AUDIO_MLP.replace("img", "audio"), SMALL_SOUND, "audio", 1001, 1e-4),
        (198_145, 198_145, 0),
    ),
    "video lg": (VIDEO_LG, "", "video", 5001, 1e-4, (3_192_400, 3_080_960, 111_440)),
    "video lc": (VIDEO_LC, "", "video", 5001, 1e-4, (3_190_720, 3_190_720, 0)),
    "video mlp": (VIDEO_MLP, "", "video", 5001, 1e-4, (3_193_003, 3_193_003, 0)),
}


def run(monkeypatch, command, *more):
    """Exit code of a command typed in experiment_scripts/."""
    script, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [script, *words, *more])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    return end.value.code


def facts(capsys, path):
    capsys.readouterr()
    assert lgsirens(["info", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# Every command


@pytest.mark.parametrize("case", TRAINING)
def test_training_ends_in_a_file_that_says_all(scripts, monkeypatch, capsys, case):
    command, smaller, kind, steps, rate, parameters = TRAINING[case]
    name = command.split()[2]
    assert given_values(shlex.split(command)[1:])["num_epochs"] == steps
    assert run(monkeypatch, command, *smaller.split(), "--num_epochs", "2") == 0
    result = f"logs/{name}/model_final.safetensors"
    said = facts(capsys, result)
    counts = said["parameters"]
    assert (counts["total"], counts["local"], counts["shared"]) == parameters
    assert (said["kind"], said["fit"]["steps"]) == (kind, 2)
    config = lg.load(result).config
    assert (config["lr"], config["seed"], config["hidden_layers"]) == (rate, 0, 3)
    assert config["sample_frac"] == {"video lg": 0.02, "video lc": 0.02, "video mlp": 0.0038}.get(case)
    assert config["overlaps"] == ([1, 2, 2] if case in ("video lg", "video lc") else [0] * len(said["shape"]))
    assert lgsirens(["decode", result, "out.npy", "--quiet"]) == 0
    assert list(np.load("out.npy").shape[:-1]) == said["shape"]


def test_a_sound_given_to_train_img_is_encoded_as_a_sound(scripts, monkeypatch, capsys):
    for flags in (["--dataset_path", "../sound.wav"], ["--wav_path", "../sound.wav"]):
        assert main("image", [*flags, "--num_epochs", "1", "--hidden_features", "8", "--overwrite"]) == 0
        assert "as train_audio.py does" in capsys.readouterr().err
        config = lg.load("logs/default_audio_experiment/model_final.safetensors").config
        assert (config["kind"], config["lr"]) == ("audio", 1e-4)
    monkeypatch.setattr(examples, "prelude", lambda: lg.read("../sound.wav"))
    assert main("audio", ["--num_epochs", "1", "--hidden_features", "8", "--overwrite"]) == 0
    assert "prelude" in capsys.readouterr().err
    shutil.copy("../sound.wav", "../data/gt_bach.wav")
    assert main("audio", ["--num_epochs", "1", "--hidden_features", "8", "--overwrite"]) == 0
    assert "prelude" not in capsys.readouterr().err


def test_the_budget_command(scripts, monkeypatch, capsys):
    assert run(monkeypatch, BUDGET.replace("IMAGE", "../image.png"), "--num_epochs", "1") == 0
    assert "budget of 200000" in capsys.readouterr().err
    said = facts(capsys, "logs/test_image_lg/model_final.safetensors")
    assert (said["shape"], said["tile"], said["channels"]) == ([75, 130], [32, 32], 3)
    assert said["partitions"] == 3 * 5
    total, local = said["parameters"]["total"], said["parameters"]["local"]
    assert 198_000 < total <= 200_000
    assert 0.85 * 200_000 < local <= 0.9 * 200_000


@pytest.mark.parametrize("more", [[], ["--auto_total_number_of_parameters", "9000"]])
def test_every_note_is_told_once(scripts, capsys, more):
    words = ["--dataset_path", "../image.png", "--image_resolution_factor", "16", "--num_epochs", "1", "--mode", "lc"]
    assert main("image", [*words, "--downsample", "[16,16]", "--hidden_features", "1024", *more]) == 0
    told = capsys.readouterr().err.splitlines()
    assert sorted(set(told)) == sorted(told)
    assert [line for line in told if "asked for 16,16, got 9,16" in line]


def test_decode_as_written(scripts, monkeypatch, capsys):
    assert run(monkeypatch, DECODE) == 2
    assert "logs/test_video_lg/model_final.safetensors" in last_line(capsys)
    assert run(monkeypatch, VIDEO_LG, "--num_epochs", "2") == 0
    assert run(monkeypatch, DECODE) == 2
    assert "training wrote" in last_line(capsys)
    shutil.copy("logs/test_video_lg/model_final.safetensors", "model.pth")
    capsys.readouterr()
    assert run(monkeypatch, DECODE) == 0
    shown = capsys.readouterr()
    assert "--dataset, --overlaps" in shown.err
    assert "logs/test_video_lg/decoded.mp4" in shown.out
    assert lg.read("logs/test_video_lg/decoded.mp4").shape == (10, 16, 16)
    assert run(monkeypatch, DECODE) == 2
    assert "overwrite" in last_line(capsys)
    words = ["--checkpoint_path", "model.pth", "--experiment_name", "b"]
    assert main("video", [*words, "--decode", "False"], decoding=True) == 2
    assert "train_video.py" in last_line(capsys)
    assert main("video", words, decoding=True) == 0
    assert lg.read("logs/b/decoded.mp4").shape == (10, 16, 16)


def test_model_flags_that_contradict_the_file_are_refused(scripts, monkeypatch, capsys):
    assert run(monkeypatch, VIDEO_LG, "--num_epochs", "1") == 0
    shutil.copy("logs/test_video_lg/model_final.safetensors", "model.pth")
    capsys.readouterr()
    for flag, value in (
        ("mode", "lc"),
        ("downsample", "[5,8,4]"),
        ("hidden_features", "17280"),
        ("global_hidden_features", "100"),
        ("num_hidden_layers", "2"),
        ("agg_type", "fc_and_add"),
        ("partition_size", "2,2,3"),
        ("auto_total_number_of_parameters", "100000"),
    ):
        assert run(monkeypatch, DECODE, f"--{flag}", value) == 2
        assert f"--{flag}" in last_line(capsys)


def test_crop_flags_leave_partitions_blank(scripts, monkeypatch, capsys):
    assert run(monkeypatch, VIDEO_LG, "--num_epochs", "2") == 0
    whole = lg.load("logs/test_video_lg/model_final.safetensors")
    shutil.copy("logs/test_video_lg/model_final.safetensors", "model.pth")
    capsys.readouterr()
    crops = ["--crop_entire_dim_values", "[[],[0,7],[0,7]]", "--crop_partition_indices", "[[0,3,3]]"]
    written = {}
    monkeypatch.setattr("lgsirens.paper.runs.write", lambda path, signal, *a, **b: written.update(film=signal))
    assert run(monkeypatch, DECODE, *crops) == 0
    kept = 5 * 6 * 6 - 1
    local = kept * whole.parameters["per_partition"]
    assert f"{local + 111_440:,}: {local:,} local, 111,440 shared" in capsys.readouterr().out
    film, full = written["film"], whole.decode()
    assert film.shape == (10, 16, 16)
    there = np.zeros(film.shape, dtype=bool)
    there[:, 2:14, 2:14] = True
    there[0:2, 6:8, 6:8] = False
    assert np.array_equal(film.present, there)
    assert np.array_equal(film.values[there], full.values[there])
    assert not film.values[~there].any()
    for flag, value in (
        ("crop_entire_dim_values", "[[],[0]]"),
        ("crop_entire_dim_values", "[[],[8],[]]"),
        ("crop_partition_indices", "[[0,8,0]]"),
        ("crop_partition_indices", "[[0,8]]"),
        ("crop_partition_indices", "[[]]"),
        ("crop_partition_indices", "[0,7,7]"),
        ("crop_entire_dim_values", "[[0,1,2,3,4],[],[]]"),
    ):
        assert run(monkeypatch, DECODE, f"--{flag}", value) == 2
        last_line(capsys)


def test_a_checkpoint_of_the_published_code_decodes(scripts, monkeypatch, capsys):
    state = published.state_dict("lg", 3, 3, 55, 180, 320)
    torch.save(state, "model.pth")
    written = {}
    monkeypatch.setattr("lgsirens.paper.runs.write", lambda path, signal, *a, **b: written.update(film=signal))
    assert run(monkeypatch, DECODE) == 0
    expected = published.decode(state, (10, 16, 16), (5, 8, 8)).clamp(-1, 1).numpy()
    np.testing.assert_allclose(written["film"].values / 127.5 - 1, expected, atol=1e-5)
    for flag, value in (("downsample", "5,8,4"), ("hidden_features", "17280"), ("mode", "lc")):
        assert run(monkeypatch, DECODE, f"--{flag}", value) == 2
        last_line(capsys)
    words = ["import", "model.pth", "a.safetensors", "--like", "../data/cat_video.mp4", "--partitions", "5,8,8"]
    assert lgsirens(words) == 0
    assert np.array_equal(lg.load("a.safetensors").decode().values, written["film"].values)
    torch.save(published.state_dict("lg", 2, 3, 4, 5, 6), "image.pth")
    assert main("video", ["--checkpoint_path", "image.pth", "--downsample", "2,3"], decoding=True) == 2
    assert "lgsirens import" in last_line(capsys)
    for words in ([], ["--downsample", "8"], ["--downsample", "-5,-8,8"]):
        assert main("video", ["--checkpoint_path", "model.pth", "--dataset", "cat", *words], decoding=True) == 2
        assert "--downsample" in last_line(capsys)
    torch.save(torch.nn.Linear(2, 2), "model.pth")
    assert run(monkeypatch, DECODE) == 2
    assert "model.pth" in last_line(capsys)
    for protocol in (2, 3, 4, 5):
        Path("model.pth").write_bytes(pickle.dumps({"a": 1}, protocol))
        assert run(monkeypatch, DECODE) == 2
        assert "is no state_dict of the published code" in last_line(capsys)


def test_the_commands_run_one_after_the_other(scripts, monkeypatch, capsys):
    """The first and the last have one name."""
    shutil.copy("../image.png", "IMAGE")
    for command in (IMAGE_LG, BUDGET):
        assert run(monkeypatch, command, "--num_epochs", "1", "--image_resolution_factor", "4") == 0
    for name, total in (("test_image_lg", 198_930), ("test_image_lg_2", None)):
        found = lg.load(f"logs/{name}/model_final.safetensors").parameters["total"]
        assert found == total if total else 198_000 < found <= 200_000


# Presets


PRESETS = {
    "image_lg": IMAGE_LG,
    "image_lc": IMAGE_LC,
    "image_mlp": IMAGE_MLP,
    "audio_lg": AUDIO_LG,
    "audio_lc": AUDIO_LC,
    "audio_mlp": AUDIO_MLP,
    "video_lg": VIDEO_LG,
    "video_lc": VIDEO_LC,
    "video_mlp": VIDEO_MLP,
    "video_lg_decode": DECODE,
    "image_partition_size": BUDGET.replace("--dataset_path IMAGE ", ""),
}


def test_presets_are_the_commands():
    assert set(PRESETS) == {path.stem for path in (ROOT / "configs").iterdir()}
    for name, command in PRESETS.items():
        assert given_values(["--config_path", str(ROOT / "configs" / f"{name}.yaml")]) == given_values(
            shlex.split(command)[1:]
        )


# In full


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "more", "least"), [(IMAGE_LG, "", 34.0), (IMAGE_LC, "", 32.0), (IMAGE_MLP, "--num_epochs 100", 27.5)]
)
def test_image_commands_in_full(scripts, monkeypatch, capsys, command, more, least):
    assert run(monkeypatch, command, *more.split()) == 0
    name = command.split()[2]
    assert facts(capsys, f"logs/{name}/model_final.safetensors")["fit"]["psnr"] > least
    if not more:
        assert facts(capsys, f"logs/{name}/checkpoints/model_step_1000.safetensors")["fit"]["steps"] == 1000
