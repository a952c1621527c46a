"""The folder of a run: what is in it, whose it is, and how a stopped run goes on with it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lgsirens as lg
from lgsirens.monitoring import watcher
from lgsirens.monitoring.log import FINISHED, RUNNING, STOPPED, keep_state, state_of
from lgsirens.monitoring.sinks import TensorBoard
from lgsirens.system.config_file import config_yaml
from tests.small import contents
from tests.watched import PICTURE, encode, killed_after, series, steps_of


def contents_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# What is there


def test_the_folder_of_a_run(tmp_path):
    final = encode(log=lg.RunLog(tmp_path / "a" / "run", every=3, checkpoint_every=2))
    folder = tmp_path / "a" / "run"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names.pop(4).startswith("events.out.tfevents")
    assert names == [
        *(f"checkpoints/model_step_{step}.safetensors" for step in (2, 4, 6)),
        "config.yaml",
        *("model_final.safetensors", "pictures/step_000003.png", "pictures/step_000006.png"),
        "pictures/step_000007.png",
    ]
    kept = lg.load(folder / "model_final.safetensors")
    assert contents(kept) == contents(final)
    with Image.open(folder / "pictures" / "step_000007.png") as picture:
        assert picture.size[0] > 3 * 33 + 2 * 4
        assert picture.size[1] == 40 + 14


def test_checkpoints_decode_by_themselves(tmp_path):
    encode(log=lg.RunLog(tmp_path, checkpoint_every=3))
    on_the_way = lg.load(tmp_path / "checkpoints" / "model_step_3.safetensors")
    assert (on_the_way.fit.steps, on_the_way.fit.stopped) == (3, "running")
    assert on_the_way.fit.psnr == pytest.approx(lg.psnr(PICTURE, on_the_way.decode()), abs=1e-4)
    cut = on_the_way.crop("0:20,0:20").decode()
    assert np.array_equal(cut.values, on_the_way.decode("0:20,0:20").values)


def test_two_runs_are_not_mixed(tmp_path):
    log = lg.RunLog(tmp_path, every=2, checkpoint_every=2)
    encode(log=log)
    (tmp_path / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(lg.OutputError, match="a finished run is logged there already.*overwrite"):
        encode(log=log, steps=3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    encode(log=lg.RunLog(tmp_path, every=2, checkpoint_every=2, overwrite=True), steps=3)
    assert steps_of(tmp_path) == [2, 3]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["model_step_2.safetensors"]
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_result_of_an_earlier_run_stays_until_there_is_a_new_one(tmp_path):
    first = encode(log=lg.RunLog(tmp_path))
    again = lg.RunLog(tmp_path, overwrite=True)
    with pytest.raises(lg.RunError, match="diverged"):
        encode(log=again, lr=1e38)
    assert contents(lg.load(again.final)) == contents(first)
    encode(log=again, seed=1)
    assert lg.load(again.final).config["seed"] == 1


def test_options_that_info_prints_make_no_run_of_a_folder(tmp_path):
    """Nor does what looks like files of a run, in a run of ours."""
    encode().save(tmp_path / "a.safetensors")
    (tmp_path / "config.yaml").write_text(config_yaml(lg.load(tmp_path / "a.safetensors").config))
    with pytest.raises(lg.OutputError, match="of others"):
        encode(log=lg.RunLog(tmp_path, overwrite=True))
    log = lg.RunLog(tmp_path / "log", overwrite=True, every=3, checkpoint_every=3)
    encode(log=log)
    mine = {"pictures/step_by_step.png", "checkpoints/model_step_best.safetensors", "pictures/step_1.png/mine"}
    (log.folder / "pictures" / "step_1.png").mkdir()
    for name in mine:
        (log.folder / name).write_text("mine")
    encode(log=log)
    assert {name for name, content in contents_of(log.folder).items() if content == b"mine"} == mine


@pytest.mark.parametrize("name", ["config.yaml", "events.out.tfevents.1.host", "model_final.safetensors", "flags.yaml"])
def test_files_of_others_are_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine: 1\n")
    for overwrite in (False, True):
        with pytest.raises(lg.OutputError, match="of others"):
            encode(log=lg.RunLog(tmp_path, overwrite=overwrite, texts={"flags.yaml": "a"}))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine: 1\n"


def test_a_folder_that_cannot_be_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("a\0b")):
        with pytest.raises(lg.OutputError, match="choose another folder"):
            encode(log=lg.RunLog(folder))


# Going on


def test_a_resumed_run_goes_on_with_its_log(tmp_path, stopping_at):
    log, checkpoint = lg.RunLog(tmp_path / "log", every=1), tmp_path / "state.safetensors"
    killed_after(stopping_at, 5, log=log, checkpoint=checkpoint)
    assert steps_of(log.folder) == [1, 2, 3, 4, 5]
    resumed = encode(log=log, checkpoint=checkpoint, resume=True)
    whole = encode(log=lg.RunLog(tmp_path / "whole", every=1))
    assert resumed.origin == whole.origin
    assert steps_of(log.folder) == [1, 2, 3, 4, 5, 6, 7]  # what came after the checkpoint is not there twice
    for name in ("train/loss", "decoded/psnr"):
        assert series(log.folder, name) == series(tmp_path / "whole", name)
    assert len(list((log.folder / "pictures").iterdir())) == 7


def test_a_resumed_run_does_not_go_on_with_the_log_of_another(tmp_path, stopping_at):
    checkpoint = tmp_path / "state.safetensors"
    killed_after(stopping_at, 5, log=lg.RunLog(tmp_path / "log"), checkpoint=checkpoint)
    encode(log=lg.RunLog(tmp_path / "other"), steps=2)
    with pytest.raises(lg.OutputError, match="other options"):
        encode(log=lg.RunLog(tmp_path / "other"), checkpoint=checkpoint, resume=True)


def test_resuming_without_a_checkpoint_does_not_mix_runs(tmp_path):
    encode(log=lg.RunLog(tmp_path / "log"))
    with pytest.raises(lg.OutputError, match="already"):
        encode(log=lg.RunLog(tmp_path / "log"), checkpoint=tmp_path / "absent.safetensors", resume=True)


def test_an_interrupted_and_resumed_run_has_the_log_of_one_that_never_stopped(tmp_path, stopping_at):
    log, checkpoint = lg.RunLog(tmp_path / "log", every=2), tmp_path / "state.safetensors"
    with stopping_at(4):
        assert encode(log=log, checkpoint=checkpoint).fit.stopped == "interrupted"
    assert lg.load(log.final).fit.steps == 4
    encode(log=log, checkpoint=checkpoint, resume=True)
    encode(log=lg.RunLog(tmp_path / "whole", every=2))
    for name in ("train/loss", "decoded/psnr"):
        assert steps_of(log.folder, name) == [2, 4, 6, 7]
        assert series(log.folder, name) == series(tmp_path / "whole", name)


def test_what_is_logged_later_is_read_later_whatever_the_clock_and_the_process(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.99999999999.of.another").touch()
    for process, hour, steps in ((99_999, 9, (2, 4)), (100_000, 9, (3, 5)), (7, 8, (4, 6))):
        monkeypatch.setattr("os.getpid", lambda number=process: number)
        monkeypatch.setattr("time.time", lambda hour=hour: hour * 3600.0)
        sink = TensorBoard(tmp_path, steps[0])
        for step in steps:
            sink.scalars({"loss": float(process)}, step)
        sink.close()
    assert steps_of(tmp_path, "loss") == [2, 3, 4, 6]
    assert series(tmp_path, "loss") == [99_999, 100_000, 7, 7]


def test_a_run_killed_before_its_result_was_kept_ends_with_the_whole_log(tmp_path, monkeypatch, checkpoint_each_step):
    log, checkpoint = lg.RunLog(tmp_path / "log", every=3), tmp_path / "state.safetensors"
    with monkeypatch.context() as context:
        context.setattr(watcher.Watcher, "finish", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encode(log=log, checkpoint=checkpoint)
    encode(log=log, checkpoint=checkpoint, resume=True)
    encode(log=lg.RunLog(tmp_path / "whole", every=3))
    for name in ("train/loss", "train/psnr", "train/learning_rate", "decoded/psnr"):
        assert steps_of(log.folder, name) == [3, 6, 7]
        assert series(log.folder, name) == series(tmp_path / "whole", name)


def test_what_was_killed_before_it_had_kept_anything_starts_again(tmp_path):
    log, checkpoint = lg.RunLog(tmp_path / "log", every=3), tmp_path / "state.safetensors"
    encode(log=log)
    keep_state(log.folder, RUNNING)
    options = {"log": log, "checkpoint": checkpoint, "resume": True}
    turned = lg.Signal.from_array(PICTURE.values[::-1])
    for other, named in (
        ({"checkpoint": None}, "already; go on"),
        ({"seed": 3}, "other options"),
        ({"signal": turned}, "another input"),
    ):
        before = contents_of(log.folder)
        with pytest.raises(lg.OutputError, match=named):
            encode(**(options | other))
        assert contents_of(log.folder) == before
    encode(**options)
    assert steps_of(log.folder) == [3, 6, 7]


@pytest.mark.parametrize("name", ["model_final.checkpoint.safetensors", "checkpoints/model_step_1.safetensors"])
def test_a_killed_run_that_kept_something_is_not_started_again(tmp_path, name):
    encode(log=lg.RunLog(tmp_path, checkpoint_every=1))
    keep_state(tmp_path, RUNNING)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(lg.OutputError, match="but no checkpoint"):
        encode(log=lg.RunLog(tmp_path), checkpoint=tmp_path / "absent.safetensors", resume=True)
    assert (tmp_path / name).read_bytes() == b"weights"


def test_the_result_of_an_earlier_run_is_none_of_the_one_that_was_to_replace_it(tmp_path, stopping_at):
    log, checkpoint = lg.RunLog(tmp_path / "log"), tmp_path / "state.safetensors"
    encode(log=log)
    with stopping_at(1, MemoryError), pytest.raises(MemoryError):
        encode(log=lg.RunLog(log.folder, overwrite=True))
    assert state_of(log.folder) == RUNNING
    assert lg.load(log.final).fit.steps == 7
    encode(log=log, checkpoint=checkpoint, resume=True)
    assert state_of(log.folder) == FINISHED


def test_a_stopped_run_without_its_checkpoint_is_not_replaced(tmp_path, stopping_at):
    log, checkpoint = lg.RunLog(tmp_path / "log"), tmp_path / "state.safetensors"
    with stopping_at(1):
        assert encode(log=log, checkpoint=checkpoint).fit.stopped == "interrupted"
    checkpoint.unlink()
    assert state_of(log.folder) == STOPPED
    with pytest.raises(lg.OutputError, match="a stopped run is logged there already, but no checkpoint"):
        encode(log=log, checkpoint=checkpoint, resume=True)


def test_a_run_does_not_go_on_in_the_folder_of_another_input(tmp_path, stopping_at):
    """Although the options are the same."""
    other, checkpoint = lg.Signal.from_array(PICTURE.values[::-1]), tmp_path / "state.safetensors"
    encode(log=lg.RunLog(tmp_path / "log"))
    killed_after(stopping_at, 5, signal=other, log=lg.RunLog(tmp_path / "other"), checkpoint=checkpoint)
    before = contents_of(tmp_path / "log")
    with pytest.raises(lg.OutputError, match="another input"):
        encode(other, log=lg.RunLog(tmp_path / "log"), checkpoint=checkpoint, resume=True)
    assert contents_of(tmp_path / "log") == before


def test_a_finished_run_whose_output_could_not_be_written_goes_on(tmp_path, checkpoint_each_step):
    """The log is finished before that, but the checkpoint is still there."""
    log, checkpoint = lg.RunLog(tmp_path / "log", every=3), tmp_path / "state.safetensors"
    first = encode(log=log, checkpoint=checkpoint)
    assert state_of(log.folder) == FINISHED
    assert encode(log=log, checkpoint=checkpoint, resume=True).origin == first.origin
    assert state_of(log.folder) == FINISHED


def test_a_target_that_the_first_weights_meet_is_logged_too(tmp_path):
    final = encode(target_psnr=1.0, log=lg.RunLog(tmp_path, every=1))
    assert (final.fit.stopped, final.fit.steps) == ("target_psnr", 0)
    assert steps_of(tmp_path) == [0]


def test_a_target_ends_the_log_with_one_summary_of_its_step(tmp_path):
    error = [encode(steps=steps, lr=1e-3, log=lg.RunLog(tmp_path / str(steps))).fit.psnr for steps in (1, 5)]
    final = encode(steps=50, lr=1e-3, target_psnr=error[1] - 1e-3, log=lg.RunLog(tmp_path / "log", every=1))
    assert final.fit.stopped == "target_psnr"
    assert steps_of(tmp_path / "log") == list(range(1, final.fit.steps + 1))
    final = encode(steps=50, lr=1e-3, target_psnr=error[1] - 1e-3, log=lg.RunLog(tmp_path / "other"))
    assert series(tmp_path / "other", "train/psnr")[-1] >= error[1] - 1e-2


def test_what_a_killed_process_left_half_written_goes_with_its_run(tmp_path):
    log = lg.RunLog(tmp_path, every=3, checkpoint_every=3, overwrite=True, texts={"flags.yaml": "a"})
    encode(log=log)
    mark, models = "lgsirens-abcd_123", (".model_final.", ".model_final.checkpoint.", "checkpoints/.model_step_3.")
    names = [*(f"{name}{mark}.safetensors" for name in models), f"pictures/.step_000003.{mark}.png"]
    for name in (*names, f".flags.{mark}.yaml"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".config.personal.yaml").write_text("mine")
    encode(log=log)
    assert [path.name for path in tmp_path.rglob(".*")] == [".config.personal.yaml"]


def test_a_checkpoint_that_cannot_go_on_leaves_the_folder_as_it_is(tmp_path, stopping_at):
    log, checkpoint = lg.RunLog(tmp_path / "log"), tmp_path / "state.safetensors"
    killed_after(stopping_at, 5, log=log, checkpoint=checkpoint)
    keep_state(log.folder, STOPPED)
    before = contents_of(log.folder)
    with pytest.raises(lg.FileFormatError, match="other options"):
        encode(log=lg.RunLog(tmp_path / "new"), checkpoint=checkpoint, resume=True, seed=2)
    assert not (tmp_path / "new").exists()
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(lg.FileFormatError, match="damaged"):
        encode(log=log, checkpoint=checkpoint, resume=True)
    assert contents_of(log.folder) == before


def test_a_run_whose_result_is_not_kept_is_not_finished(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise lg.RunError("disk full")

    monkeypatch.setattr(watcher, "save", fail)
    encode(log=lg.RunLog(tmp_path))
    assert state_of(tmp_path) == RUNNING
