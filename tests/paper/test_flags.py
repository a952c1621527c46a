"""What the published flags accept, reject and mean."""

import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lgsirens as lg
from lgsirens.errors import ConfigError
from lgsirens.nn.siren import parameter_counts
from lgsirens.paper.flags import AudioFlags, ImageFlags, VideoFlags, build, encode_config, given_values
from lgsirens.paper.inputs import read_signal
from lgsirens.paper.runs import main
from lgsirens.system.schema import declared
from lgsirens.training.config import plan
from tests.command import last_line

ROOT = Path(__file__).resolve().parents[2]

# The file of --config_path


def test_flags_override_the_file(scripts, capsys):
    preset = ["--config_path", str(ROOT / "configs" / "image_mlp.yaml")]
    assert main("image", [*preset, "--num_epochs", "1", "--image_resolution_factor=32"]) == 0
    assert lg.load("logs/test_image_mlp/model_final.safetensors").fit.steps == 1


@pytest.mark.parametrize(
    "content", ["num_epochs: 3.7", "experiment_name: 0010", "no_flag: 1", "- 1", "use_wandb: maybe", "a: [", "lr: true"]
)
def test_bad_files_are_one_line(scripts, capsys, content):
    Path("a.yaml").write_text(content)
    assert main("image", ["--config_path", "a.yaml"]) == 2
    last_line(capsys)


# Strict parsing

ACCEPTED = [
    ("--num_epochs 7", "num_epochs", 7),
    ("--num_epochs=7", "num_epochs", 7),
    ("--num_epochs 3 --num_epochs 7", "num_epochs", 7),
    ("--experiment_name 0010", "experiment_name", "0010"),
    ("--experiment_name yes", "experiment_name", "yes"),
    ("--experiment_name=a=b", "experiment_name", "a=b"),
    ("--experiment_name 'two words'", "experiment_name", "two words"),
    ("--lr 5e-4", "lr", 5e-4),
    ("--lr 1", "lr", 1.0),
    ("--lr .0005", "lr", 5e-4),
    ("--lr +1.e-4", "lr", 1e-4),
    ("--downsample [16,16]", "downsample", [16, 16]),
    ("--downsample [16, 16]", "downsample", [16, 16]),
    ("--downsample '[16, 16]'", "downsample", [16, 16]),
    ("--downsample 16,16", "downsample", [16, 16]),
    ("--downsample 16, 16", "downsample", [16, 16]),
    ("--downsample 16 16", "downsample", [16, 16]),
    ("--downsample=[16,16]", "downsample", [16, 16]),
    ("--downsample None", "downsample", None),
    ("--use_wandb", "use_wandb", True),
    ("--use_wandb True", "use_wandb", True),
    ("--use_wandb False", "use_wandb", False),
    ("--use_wandb false --lr 1", "use_wandb", False),
    ("--show_grads --debug", "show_grads", True),
    ("--debug --show_grads", "debug", True),
    ("--seed 3", "seed", 3),
]
REJECTED = [
    *("--num_epochs 3.7", "--num_epochs 1e3", "--num_epochs", "--num_epochs many", "--num_epochs 0", "--num_epochs -1"),
    *("--num_epochs True", "--num_epochs 0x10", "--num_epochs 1 2"),
    *("--use_wandb maybe", "--use_wandb 1", "--debug 2", "--show_grads on off"),
    *("--downsample [16", "--downsample [16,", "--downsample 16]", "--downsample [16,1.5]", "--downsample a,b"),
    *("--downsample [[16,16]]", "--downsample 16,,16", "--downsample [16 16]", "--downsample", "--downsample 16"),
    *("--downsample 5,8,8,8", "--downsample 0,4", "--downsample -4,4", "--downsample 1000,1"),
    *("--no_flag 1", "--kind image", "--num_epoch 1", "--overlaps [1,1]", "--sample_frac 0.1"),
    *("-lr 1", "word", "--", "--=1"),
    *("--lr fast", "--lr 1_0", "--lr 0x1p-3", "--lr nan", "--lr inf", "--lr 0", "--lr -1", "--lr 1e999"),
    *("--mode xx", "--agg_type siren", "--activation_type relu", "--activation_type", "--experiment_name a b"),
    *("--experiment_name ''", "--image_channels 2", "--image_channels 0", "--image_resolution_factor 0"),
    *("--image_resolution_factor 1000", "--image_resolution_factor 0.5", "--num_hidden_layers 65"),
    *("--num_hidden_layers -1", "--hidden_features 0", "--steps_til_summary 0", "--epochs_til_ckpt 0"),
    *("--batch_size 0", "--seed -1", "--device gpu9", "--dataset_path absent.png", "--checkpoint_path a.pth"),
    *("--mode lg --downsample [4,4] --hidden_features 100", "--mode lc --downsample [4,4] --hidden_features 5"),
    *("--mode mlp --downsample [4,4]", "--mode mlp --partition_size [32,32]"),
    *("--mode lg --downsample [4,4] --partition_size [32,32]", "--auto_global_weights_factor 1"),
    *("--mode lg --auto_total_number_of_parameters 10", "--mode lg --partition_size [4]"),
    *("--mode lg --auto_total_number_of_parameters 0", f"--downsample {'[' * 100_000}"),
]


@pytest.mark.parametrize(("words", "name", "expected"), ACCEPTED)
def test_accepted(words, name, expected):
    flags = build(ImageFlags, given_values(shlex.split(words)))
    value = getattr(flags, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("--decode --frames 0:50", "decode", True),
        ("--decode True", "decode", True),
        ("--decode False", "decode", False),
        ("--overlaps 2 1 1", "overlaps", [2, 1, 1]),
        ("--overlaps [2, 1, 1]", "overlaps", [2, 1, 1]),
        ("--crop_entire_dim_values [[],[0,7],[0,7]]", "crop_entire_dim_values", [[], [0, 7], [0, 7]]),
        ("--crop_entire_dim_values [[], [0, 7], [0, 7]]", "crop_entire_dim_values", [[], [0, 7], [0, 7]]),
        ("--crop_partition_indices [[0,7,7]]", "crop_partition_indices", [[0, 7, 7]]),
    ],
)
def test_accepted_for_films(words, name, expected):
    assert getattr(build(VideoFlags, given_values(shlex.split(words))), name) == expected


@pytest.mark.parametrize("words", REJECTED)
def test_rejected_with_exit_code_2_and_one_line(scripts, capsys, words):
    small = ["--image_resolution_factor", "8"] if "factor" not in words else []
    assert main("image", [*small, *shlex.split(words)]) == 2
    last_line(capsys)
    assert not Path("logs").exists()


@pytest.mark.parametrize("mode", ["lg", "lc", "mlp"])
@pytest.mark.parametrize("more", [{}, {"auto_total_number_of_parameters": 2000}])
def test_without_a_grid_there_is_one_partition(mode, more):
    signal = lg.Signal.from_array(np.zeros((70, 90), np.uint8), "image")
    flags = build(ImageFlags, {"mode": mode, "hidden_features": 12, "global_hidden_features": 8, **more})
    planned = plan(signal, encode_config(flags, signal))
    assert planned.lattice.tile == (70, 90)
    assert len(planned.lattice) == 1
    if not more:
        assert planned.model.local_width == 12


def test_totals_that_partitions_do_not_divide_name_the_nearest_that_they_do(scripts, capsys):
    for total, nearest in ((100, "96 or 112"), (5, "16 or 32"), (10**7, "262128 or 262144")):
        words = ["--mode", "lc", "--downsample", "4,4", "--hidden_features", str(total)]
        assert main("image", words) == 2
        assert nearest in last_line(capsys)


def test_defaults_are_the_published_ones():
    image, audio, video = build(ImageFlags, {}), build(AudioFlags, {}), build(VideoFlags, {})
    assert (image.lr, image.num_epochs, image.epochs_til_ckpt, image.steps_til_summary) == (5e-4, 2001, 1000, 200)
    assert (audio.lr, audio.num_epochs, audio.epochs_til_ckpt, audio.steps_til_summary) == (1e-4, 1001, 1000, 200)
    assert (video.lr, video.num_epochs, video.epochs_til_ckpt, video.steps_til_summary) == (1e-4, 5001, 5000, 1000)
    assert (image.hidden_features, audio.hidden_features, video.hidden_features) == (256, 256, 1030)
    assert {flags.global_hidden_features for flags in (image, audio, video)} == {32}
    assert {flags.mode for flags in (image, audio, video)} == {"mlp"}
    assert (image.dataset_path, video.dataset, video.sample_frac) == ("cameraman", "bikes", 0.0038)
    assert not any(flags.use_wandb for flags in (image, audio, video))
    assert {flags.logging_root for flags in (image, audio, video)} == {"./logs"}


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_help_has_every_flag_with_its_default(capsys, kind):
    assert main(kind, ["--mode", "lg", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    cls = {"image": ImageFlags, "audio": AudioFlags, "video": VideoFlags}[kind]
    for field in fields(cls):
        rule = declared(cls)[field.name]
        assert rule.help
        assert f"{rule.text(field.default)} " in f"{shown} "
        assert f"--{field.name} " in shown
    assert shown.count("(default: ") == len(fields(cls)) + 1  # and --config_path


# Signals


def test_images_are_converted_and_reduced(scripts, caplog):
    rows, columns = np.mgrid[:8, :16]
    gray = (rows * 16 + columns).astype(np.uint8)
    Image.fromarray(gray).save("gray.png")
    Image.fromarray(np.dstack([gray, gray, gray, 255 - gray])).save("alpha.png")
    Image.fromarray(np.dstack([gray, gray // 2, gray // 3])).save("rgb.png")

    def read(name, **more):
        caplog.clear()
        return read_signal(build(ImageFlags, {"dataset_path": name, **more})).values

    assert np.array_equal(read("gray.png"), np.dstack([gray] * 3))
    assert "gray is taken as RGB" in caplog.text
    assert np.array_equal(read("gray.png", image_channels=1)[..., 0], gray)
    assert not caplog.text
    assert np.array_equal(read("alpha.png"), np.dstack([gray] * 3))
    assert "alpha" in caplog.text
    with Image.open("rgb.png") as picture:
        expected = np.asarray(picture.convert("L"))
    assert np.abs(read("rgb.png", image_channels=1)[..., 0].astype(int) - expected).max() <= 1
    assert "taken as gray" in caplog.text
    half = read("gray.png", image_channels=1, image_resolution_factor=2)
    assert (half.shape, half.dtype) == ((4, 8, 1), np.uint8)
    assert np.abs(half[1:3, 1:7, 0].astype(float) - (gray[2:6:2, 2:14:2].astype(float) + 8.5)).max() <= 1


def test_flags_that_do_not_fit_are_refused_in_one_line(scripts, capsys):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save("gray.png")
    too_many = ["--downsample", "[40,1]", "--mode", "lc", "--hidden_features", "40"]
    for kind, words, named in (
        ("image", [*too_many, "--dataset_path", "gray.png", "--image_channels", "1"], "--downsample 40,1"),
        ("image", ["--auto_total_number_of_parameters", "5"], "--auto_total_number_of_parameters 5"),
        ("image", ["--config_path", str(ROOT / "configs" / "video_lg.yaml")], "--dataset"),
        ("image", ["--downsample", "[1,4,1]", "--dataset_path", "gray.png", "--mode", "lc"], "--downsample 1,4,1"),
        ("audio", ["--dataset_path", "../sound.wav"], "--dataset_path"),
    ):
        assert main(kind, words) == 2
        assert named in last_line(capsys)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--mode LG", "--mode 'LG'"),
        ("--lr 0", "--lr 0"),
        ("--seed -1", "--seed -1"),
        ("--downsample [0,4] --mode lc", "--downsample 0,4"),
        ("--downsample 4,4 --mode mlp", "--downsample"),
        ("--partition_size 0 8 --mode lc", "--partition_size 0,8"),
        ("--partition_size 8,8 --downsample 4,4 --mode lc", "--downsample"),
        ("--num_hidden_layers -1", "--num_hidden_layers -1"),
        ("--hidden_features 100000", "--hidden_features 100000"),
        ("--hidden_features 10000000 --downsample 2,2 --mode lc", "--hidden_features 10000000"),
        ("--partition_size 8,8", "--partition_size"),
        ("--experiment_name .", "--experiment_name"),
        ("--experiment_name x/..", "--experiment_name"),
        ("--hidden_features 100 --downsample 4,4 --mode lc", "--hidden_features 100"),
    ],
)
def test_what_no_signal_fits_is_said_before_it_is_read(scripts, capsys, words, named):
    """In the words of the flags: the file is not there."""
    assert main("image", ["--dataset_path", "absent.png", *shlex.split(words)]) == 2
    assert named in last_line(capsys)


def test_a_sound_that_is_not_there_is_named(scripts, capsys):
    assert main("image", ["--dataset_path", "typo.wav", "--downsample", "[1,4,1]", "--mode", "lc"]) == 2
    assert "typo.wav" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("place", ["data", "../data"])
def test_a_film_and_a_recording_are_looked_for_in_data(scripts, place):
    shutil.move("../data/cat_video.mp4", "../cat.mp4")
    Path(place).mkdir(exist_ok=True)
    shutil.copy("../cat.mp4", f"{place}/cat_video.mp4")
    shutil.copy("../sound.wav", f"{place}/gt_bach.wav")
    assert read_signal(build(VideoFlags, {"dataset": "cat"})).shape == (10, 16, 16)
    assert read_signal(build(AudioFlags, {})).shape == lg.read("../sound.wav").shape


def test_a_sound_and_an_image_at_once_are_refused(scripts, capsys):
    shutil.copy("../sound.wav", "b.wav")
    for flags in (["--dataset_path", "../image.png"], ["--dataset_path", "b.wav"]):
        assert main("image", ["--wav_path", "../sound.wav", *flags]) == 2
        assert "--dataset_path" in last_line(capsys)


@pytest.mark.parametrize("flag", ["--dataset_path", "--wav_path", "--dataset"])
def test_files_of_another_kind_are_one_line(scripts, capsys, flag):
    Path("a.txt").write_text("text")
    np.save("a.npy", np.zeros((2, 2, 2, 2, 2), np.uint8))
    kind = {"--dataset_path": "image", "--wav_path": "audio", "--dataset": "video"}[flag]
    others = {"../image.png": "image", "../sound.wav": "audio", "../data/cat_video.mp4": "video"}
    for name in ("a.txt", "a.npy", ".", "absent", *(name for name, other in others.items() if other != kind)):
        if (flag, name) != ("--dataset_path", "../sound.wav"):  # which is encoded as a sound
            assert main(kind, [flag, name]) == 2
            last_line(capsys)


def test_partition_sizes_count_from_the_longer_side(scripts):
    flags = build(ImageFlags, {"mode": "lc", "partition_size": [8, 4], "auto_total_number_of_parameters": 5000})
    for shape, tile in (((16, 32), (4, 8)), ((32, 16), (8, 4)), ((16, 16), (8, 4))):
        signal = lg.Signal.from_array(np.zeros(shape, np.uint8), "image")
        assert encode_config(flags, signal).partition_size == tile


@pytest.mark.parametrize("factor", [0.05, 0.1, 0.3])
def test_the_shared_network_gets_its_share_of_a_budget(factor):
    values = {"mode": "lg", "auto_global_weights_factor": factor, "auto_total_number_of_parameters": 100_000}
    flags = build(ImageFlags, {**values, "downsample": [4, 4]})
    signal = lg.Signal.from_array(np.zeros((64, 64), np.uint8), "image")
    planned = plan(signal, encode_config(flags, signal))
    local, shared = parameter_counts(planned.model, 16)
    assert local <= (1 - factor) * 100_000 < local + shared <= 100_000
    assert local + shared > 98_000
    with pytest.raises(ConfigError, match="at least"):
        encode_config(
            build(ImageFlags, {**values, "downsample": [4, 4], "auto_total_number_of_parameters": 50}), signal
        )
