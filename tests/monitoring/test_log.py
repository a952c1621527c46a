"""The log of a run: its folder, TensorBoard's events, Weights & Biases' run file; and that it changes nothing."""

import importlib
import io
import os
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lgsirens as lg
from lgsirens.cli.main import main
from lgsirens.monitoring import sinks, watcher
from lgsirens.monitoring.log import RUNNING, keep_state
from lgsirens.system.config_file import read_settings
from lgsirens.training import loop
from lgsirens.training.loop import StopRule
from lgsirens.training.optimizers import RECIPES
from tests.small import contents
from tests.watched import OPTIONS, PICTURE, encode, events, series, steps_of

encode_module = importlib.import_module("lgsirens.training.encode")  # `lg.encode` is the function

# What is asked for


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("option", ["every", "checkpoint_every"])
def test_a_log_counts_steps_from_one(tmp_path, option, value):
    with pytest.raises(lg.ConfigError) as caught:
        lg.RunLog(tmp_path, **{option: value})
    assert caught.value.option == option


def test_the_folder_of_a_log_has_a_name():
    with pytest.raises(lg.ConfigError) as caught:
        lg.RunLog("")
    assert caught.value.option == "folder"
    assert lg.RunLog("logs/a") == lg.RunLog(Path("logs/a"))


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorboard", "[tensorboard]"), ("wandb", "[wandb]"), ("yaml", "[cli]")]
)
def test_a_missing_package_is_named_before_anything_is_done(tmp_path, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(lg.MissingDependencyError) as missing:
        encode(log=lg.RunLog(tmp_path / "run", use_wandb=True))
    assert extra in str(missing.value)
    assert not list(tmp_path.iterdir())


# It changes nothing


@pytest.mark.parametrize("options", [{}, {"sample_frac": 0.3, "overlaps": (1, 2)}, {"mode": "mlp", "partitions": None}])
def test_the_result_is_the_same_with_and_without_a_log(tmp_path, options):
    if options.get("mode") == "mlp":
        options = options | {"global_width": None}
    plain = encode(**options)
    logged = encode(**options, log=lg.RunLog(tmp_path, every=1, checkpoint_every=1, show_grads=True))
    ours, theirs = contents(plain), contents(logged)
    for facts in (ours, theirs):
        del facts["fit"]["seconds"], facts["history"]
    assert ours == theirs


def test_the_seconds_of_a_fit_are_not_those_of_who_watches(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    run = encode_module.prepare(
        PICTURE, encode_module.plan(PICTURE, lg.EncodeConfig(**OPTIONS)), torch.device("cpu"), 1 << 30
    )

    seen = []

    def watcher(state):
        seen.append((state.step, state.rate))
        now[0] += 100

    state = loop.fit(run.model, run.samples, StopRule(3), 1e-3, 1.0, run.generator, watch=watcher)
    assert state.seconds == 0
    assert seen == [(1, 1e-3), (2, 1e-3), (3, 1e-3)]


# TensorBoard, read by its own reader


def test_tensorboard_gets_figures_pictures_and_the_config(tmp_path):
    final = encode(log=lg.RunLog(tmp_path, every=3))
    log = events(tmp_path)
    scalars = {name: [event.value for event in log.Scalars(name)] for name in log.Tags()["scalars"]}
    assert set(scalars) == {
        *(f"train/{name}" for name in ("loss", "psnr", "learning_rate", "steps_per_second")),
        *("decoded/psnr", "decoded/ssim"),
        *(f"parameters/{name}" for name in ("total", "local", "shared")),
    }
    assert steps_of(tmp_path) == [3, 6, 7]
    assert scalars["decoded/psnr"][-1] == pytest.approx(final.fit.psnr, abs=1e-3)
    assert scalars["decoded/ssim"][-1] == pytest.approx(lg.ssim(PICTURE, final.decode()), abs=1e-4)
    assert scalars["parameters/total"] == [final.parameters["total"]] * 3
    assert scalars["train/learning_rate"] == pytest.approx(
        [RECIPES["fast"].peak(final.model) * step / 20 for step in (3, 6, 7)]
    )
    assert scalars["train/psnr"] == pytest.approx([10 * np.log10(4 / loss) for loss in scalars["train/loss"]])
    assert min(scalars["train/steps_per_second"]) > 0
    for name in ("original", "reconstruction", "error"):
        assert [image.step for image in log.Images(f"pictures/{name}")] == [3, 6, 7]
    with Image.open(io.BytesIO(log.Images("pictures/original")[0].encoded_image_string)) as picture:
        assert np.array_equal(np.asarray(picture), PICTURE.values)
    with Image.open(io.BytesIO(log.Images("pictures/reconstruction")[-1].encoded_image_string)) as picture:
        assert np.abs(np.asarray(picture) - np.rint(final.decode().values)).max() <= 1
    (text,) = log.Tensors("config/text_summary")
    told = text.tensor_proto.string_val[0].decode()
    assert [line.strip() for line in told.splitlines()] == [
        line.strip() for line in (tmp_path / "config.yaml").read_text().splitlines()[2:]
    ]


def test_gradients_are_shown_where_asked_for(tmp_path):
    encode(log=lg.RunLog(tmp_path, show_grads=True))
    assert {"pictures/gradient", "pictures/laplacian"} <= set(events(tmp_path).Tags()["images"])


def test_the_last_summary_is_of_the_best_weights(tmp_path, monkeypatch):
    """At a rate this high the error rises and falls."""
    final = encode(log=lg.RunLog(tmp_path, every=100), lr=0.02, steps=12, recipe="adam")
    assert steps_of(tmp_path) == [12]
    assert series(tmp_path, "decoded/psnr") == pytest.approx([final.fit.psnr], abs=1e-3)
    assert series(tmp_path, "decoded/psnr")[0] >= series(tmp_path, "train/psnr")[0]


def test_a_log_of_a_run_bounded_by_seconds_alone(tmp_path):
    final = encode(steps=None, seconds=0.5, log=lg.RunLog(tmp_path, every=1))
    assert steps_of(tmp_path) == list(range(1, final.fit.steps + 1))


def test_a_sound_can_be_heard(tmp_path):
    values = np.random.default_rng(0).normal(size=(900, 2))
    sound = lg.Signal.from_array(values, "audio", sampling_rate=8000)
    encode(sound, partitions=(3,), log=lg.RunLog(tmp_path))
    log = events(tmp_path)
    assert set(log.Tags()["images"]) == {"pictures/waveform", "pictures/spectrogram"}
    (clip,) = log.Audio("clips/original")
    assert (clip.sample_rate, clip.length_frames, clip.content_type) == (8000, 900, "audio/wav")
    with wave.open(io.BytesIO(clip.encoded_audio_string)) as file:
        heard = np.frombuffer(file.readframes(999), "<i2").reshape(-1, 2)
    assert np.abs(heard / 32767 - values / np.abs(values).max()).max() < 1 / 32767
    assert len(log.Audio("clips/reconstruction")) == 1


@pytest.mark.parametrize(
    ("kind", "parts"), [("video", ("frame_00000", "frame_00004")), ("volume", ("slice_00002", "column_00008"))]
)
def test_films_and_volumes_are_shown_in_pieces(tmp_path, kind, parts):
    values = np.random.default_rng(0).integers(0, 256, (5, 12, 16), dtype=np.uint8)
    encode(lg.Signal.from_array(values, kind), partitions=(1, 2, 2), log=lg.RunLog(tmp_path))
    tags = events(tmp_path).Tags()
    assert {f"decoded/psnr_{part}" for part in parts} <= set(tags["scalars"])
    assert set(tags["images"]) == {"pictures/original", "pictures/reconstruction", "pictures/error"}


# What goes wrong on the way does not end a run


def test_a_sink_that_fails_is_told_no_more(tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise ValueError("out of\npaper")

    monkeypatch.setattr(sinks.TensorBoard, "image", fail)
    final = encode(log=lg.RunLog(tmp_path, every=2))
    assert final.origin == encode().origin
    assert [record.getMessage() for record in caplog.records] == [
        "the run goes on with less of a log: ValueError: out of paper"
    ]
    assert (tmp_path / "pictures" / "step_000002.png").exists()


@pytest.mark.parametrize("error", [RuntimeError("CUDA out\nof memory"), ValueError("odd"), MemoryError()])
def test_a_summary_that_fails_does_not_end_the_run(tmp_path, monkeypatch, caplog, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(watcher, "of_planes", fail)
    final = encode(log=lg.RunLog(tmp_path, every=4))
    assert contents(lg.load(tmp_path / "model_final.safetensors")) == contents(final)
    assert [record.getMessage()[:52] for record in caplog.records] == [
        "the run goes on without what was to be kept at step "
    ] * 2


def test_a_sink_that_cannot_be_opened_is_done_without(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sinks.TensorBoard, "__init__", lambda *arguments: 1 / 0)
    encode(log=lg.RunLog(tmp_path, every=2))
    assert len(caplog.records) == 1


def test_a_picture_or_checkpoint_that_cannot_be_written_is_done_without(tmp_path, caplog):
    for name in ("pictures", "checkpoints"):
        (tmp_path / name).write_text("in the way")
    encode(log=lg.RunLog(tmp_path, every=5, checkpoint_every=5))
    assert [record.getMessage()[:52] for record in caplog.records] == [
        "the run goes on without what was to be kept at step "
    ] * 3
    assert steps_of(tmp_path) == [5, 7]
    assert (tmp_path / "model_final.safetensors").exists()


def test_a_result_that_the_log_cannot_keep_is_not_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE.values).save("a.png")
    real = watcher.Watcher.finish

    def finish(self, *arguments):
        os.mkdir("log/model_final.safetensors")
        real(self, *arguments)

    monkeypatch.setattr(watcher.Watcher, "finish", finish)
    assert main(["encode", "a.png", "a.safetensors", "--steps", "2", "--quiet", "--log_dir", "log"]) == 0
    assert lg.load("a.safetensors").fit.steps == 2
    assert "is a folder" in capsys.readouterr().err


def test_gradients_are_drawn_of_images_alone_which_is_said(tmp_path, caplog):
    sound = lg.Signal.from_array(np.ones(99), "audio")
    encode(sound, partitions=(3,), steps=1, log=lg.RunLog(tmp_path, show_grads=True))
    assert [record.getMessage() for record in caplog.records] == [
        "show_grads: gradients are drawn of images alone, not of kind audio"
    ]


def test_a_run_that_diverges_says_so_with_a_log_too(tmp_path):
    with pytest.raises(lg.RunError, match="diverged"):
        encode(log=lg.RunLog(tmp_path, every=1, checkpoint_every=1), lr=1e38, recipe="paper")
    assert not (tmp_path / "checkpoints").exists()


# The command


def test_the_command_keeps_a_log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE.values).save("a.png")
    command = ["encode", "a.png", "a.safetensors", "--partitions", "3,2", "--steps", "4", "--quiet", "--log_dir", "log"]
    assert main([*command, "--summary_every", "2", "--checkpoint_every", "3", "--show_grads"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert contents(lg.load("a.safetensors")) == contents(lg.load("log/model_final.safetensors"))
    assert steps_of("log") == [2, 4]
    assert os.listdir("log/checkpoints") == ["model_step_3.safetensors"]
    assert main(["info", "a.safetensors", "--config"]) == 0
    Path("again.yaml").write_text(capsys.readouterr().out)
    assert read_settings(Path("again.yaml")) == read_settings(Path("log/config.yaml"))
    os.remove("a.safetensors")
    assert main(command) == 2
    assert "overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert steps_of("log") == [4]


def test_the_config_of_a_film_says_what_was_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    lg.write("a.mkv", lg.Signal.from_array(frames, "video", sampling_rate=25))
    command = ["encode", "a.mkv", "a.safetensors", "--frames", "2:4", "--steps", "1", "--quiet", "--log_dir", "log"]
    assert main(command) == 0
    assert "frames: [2, 4]" in Path("log/config.yaml").read_text()
    assert lg.load("a.safetensors").config["frames"] == [2, 4]


def test_the_command_starts_again_what_was_killed_before_its_first_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE.values).save("a.png")
    command = ["encode", "a.png", "a.safetensors", "--steps", "2", "--quiet", "--log_dir", "log"]
    assert main(command) == 0
    os.remove("a.safetensors")
    assert main([*command, "--resume"]) == 2
    keep_state(Path("log"), RUNNING)
    assert main(command) == 2
    assert main([*command, "--resume"]) == 0
    assert steps_of("log") == [2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--log_dir", ""], "--log_dir"),
        (["--log_dir", "n" * 300], "choose another folder"),
        (["--summary_every", "5"], "--summary_every"),
        (["--use_wandb"], "--use_wandb"),
        (["--log_dir", "log", "--summary_every", "0"], "--summary_every 0"),
        (["--log_dir", "log", "--checkpoint_every", "-3"], "--checkpoint_every -3"),
        (["--log_dir", "log", "--checkpoint_every", "x"], "--checkpoint_every"),
        (["--log_dir", "a.png"], "a.png"),
        (["--log_dir"], "--log_dir"),
    ],
)
def test_a_log_that_cannot_be_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, options, named):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE.values).save("a.png")
    assert main(["encode", "a.png", "a.safetensors", "--steps", "1", "--quiet", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert named in err
    assert os.listdir() == ["a.png"]


def test_the_result_is_not_written_over_the_log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE.values).save("a.png")
    os.mkdir("log")
    assert main(["encode", "a.png", "log/model_final.safetensors", "--log_dir", "log"]) == 2
    assert "choose another OUTPUT" in capsys.readouterr().err
