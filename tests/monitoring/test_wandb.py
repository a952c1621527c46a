"""The log at Weights & Biases: the real package, offline, its run file read back."""

import json
import os
import struct
import wave

import numpy as np
import pytest
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

import lgsirens as lg
from lgsirens.monitoring import sinks
from lgsirens.monitoring.sinks import WeightsAndBiases
from tests.watched import PICTURE, encode, events, killed_after, steps_of


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """The real package, without key and settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "absent"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


def warnings(caplog):
    """What a user is told; wandb's own lines go to its files."""
    return [record.getMessage() for record in caplog.records if record.name == "lgsirens"]


def run_files(folder):
    wandb.teardown()  # its service writes on after a run
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def records(path):
    """The records of a run file: blocks of 32 KiB of pieces, as in a LevelDB log."""
    data, at, whole = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, part = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # all of a record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def history(path):
    """`{step: {name: value}}`; of media, the path."""
    rows = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            rows.setdefault(row["_step"], {}).update(row)
    return rows


def test_weights_and_biases_gets_the_same_offline_with_one_line_of_warning(tmp_path, no_account, caplog, capfd):
    encode(log=lg.RunLog(tmp_path / "log", every=3, use_wandb=True, name="mine"))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    (warning,) = warnings(caplog)
    assert "no API key; logged offline, `wandb sync" in warning
    assert "\n" not in warning
    (path,) = run_files(tmp_path / "log")
    (run,) = [record.run for record in records(path) if record.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.project) == ("mine", "lgsirens")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["local_width"] == 6
    rows = history(path)
    log = events(tmp_path / "log")
    for name in log.Tags()["scalars"]:
        for event in log.Scalars(name):
            assert rows[event.step][name] == pytest.approx(event.value)
    media = path.parent / "files"
    with Image.open(media / rows[3]["pictures/original/path"]) as picture:
        assert np.array_equal(np.asarray(picture), PICTURE.values)
    assert {f"pictures/{name}/path" for name in ("reconstruction", "error")} <= set(rows[7])
    options = (tmp_path / "log" / "config.yaml").read_text().split("\n", 2)[2]
    assert options in (media / rows[1]["config/path"]).read_text()


def test_weights_and_biases_gets_sounds(tmp_path, no_account):
    sound = lg.Signal.from_array(np.random.default_rng(0).normal(size=900), "audio", sampling_rate=8000)
    encode(sound, partitions=(3,), steps=1, log=lg.RunLog(tmp_path / "log", use_wandb=True))
    (path,) = run_files(tmp_path / "log")
    with wave.open(str(path.parent / "files" / history(path)[1]["clips/original/path"])) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 900)


def test_without_a_network_a_run_is_logged_offline(tmp_path, no_account, caplog, capfd):
    no_account.setenv("WANDB_API_KEY", "0" * 40)
    no_account.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    no_account.setenv("WANDB_HTTP_TIMEOUT", "1")
    final = encode(steps=2, log=lg.RunLog(tmp_path / "log", use_wandb=True))
    assert final.origin == encode(steps=2).origin
    (warning,) = warnings(caplog)
    assert "127.0.0.1:9" in warning
    assert "logged offline" in warning
    assert capfd.readouterr().out == ""
    (path,) = run_files(tmp_path / "log")
    assert history(path)[2]["decoded/psnr"] == pytest.approx(final.fit.psnr, abs=1e-3)


def test_the_users_own_mode_is_kept_without_a_warning(tmp_path, no_account, caplog):
    no_account.setenv("WANDB_MODE", "offline")
    encode(steps=2, log=lg.RunLog(tmp_path / "log", use_wandb=True))
    assert not warnings(caplog)
    assert len(run_files(tmp_path / "log")) == 1


def test_a_resumed_run_is_the_same_at_weights_and_biases(tmp_path, no_account, stopping_at):
    log, checkpoint = lg.RunLog(tmp_path / "log", every=1, use_wandb=True), tmp_path / "state.safetensors"
    killed_after(stopping_at, 5, log=log, checkpoint=checkpoint)
    (first,) = run_files(log.folder)
    encode(log=log, checkpoint=checkpoint, resume=True)
    (second,) = set(run_files(log.folder)) - {first}
    assert first.name == second.name
    assert sorted(history(second)) == [4, 5, 6, 7]


def test_what_is_told_last_of_a_step_ends_it(tmp_path, no_account):
    """Else a page would show a summary only when there is the next one, and a killed run would lose its last."""
    no_account.setenv("WANDB_MODE", "offline")
    sink = WeightsAndBiases(tmp_path, "mine", {}, resuming=False)
    sink.image("pictures/original", PICTURE.values, 3)
    sink.scalars({"train/loss": 1.0}, 3)
    assert sink._run.step == 4
    sink.close()


def test_a_replaced_run_is_another_one_at_weights_and_biases(tmp_path, no_account):
    no_account.setenv("WANDB_MODE", "offline")
    encode(steps=2, log=lg.RunLog(tmp_path / "log", use_wandb=True))
    (first,) = run_files(tmp_path / "log")
    encode(steps=3, log=lg.RunLog(tmp_path / "log", overwrite=True))
    assert sinks._last_run(tmp_path / "log") == ""
    (tmp_path / "mine" / "wandb").mkdir(parents=True)
    link = tmp_path / "mine" / "wandb" / "latest-run"
    link.symlink_to(first.parent)
    encode(steps=1, log=lg.RunLog(tmp_path / "mine"))
    assert link.is_symlink()
    assert run_files(tmp_path / "log") == [first]


def test_a_run_survives_weights_and_biases(tmp_path, no_account, caplog):
    def fail(*arguments, **options):
        raise RuntimeError("service died")

    no_account.setattr(wandb.Run, "log", fail)
    final = encode(log=lg.RunLog(tmp_path / "log", every=3, use_wandb=True))
    assert final.origin == encode().origin
    assert len([warning for warning in warnings(caplog) if "service died" in warning]) == 1
    assert steps_of(tmp_path / "log") == [3, 6, 7]
