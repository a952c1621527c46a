"""Networks that the published code has trained: the same values, in our file."""

import json

import numpy as np
import pytest
import torch

import lgsirens as lg
from lgsirens.cli.main import main
from lgsirens.paper.checkpoints import is_pickle, read_checkpoint
from tests import published
from tests.small import representation

CASES = {
    "lg image": ("image", "lg", (32, 48), (2, 3), {}),
    "lg image, added features": ("image", "lg", (32, 48), (2, 3), {"agg_type": "fc_and_add"}),
    "lc image": ("image", "lc", (32, 48), (4, 4), {"hidden": 2}),
    "mlp image": ("image", "mlp", (31, 17), (1, 1), {}),
    "lg audio": ("audio", "lg", (640,), (32,), {}),
    "mlp audio": ("audio", "mlp", (641,), (1,), {"hidden": 1}),
    "lg video": ("video", "lg", (10, 16, 24), (5, 2, 3), {}),
    "lc video with a tail": ("video", "lc", (7, 10, 11), (3, 4, 2), {}),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder, case):
    """The checkpoint model.pth of a case, a signal like.npy or like.safetensors, and what the network decodes to."""
    kind, mode, shape, grid, more = CASES[case]
    channels = {"image": 3, "audio": 1, "video": 3}[kind]
    partitions = int(np.prod(grid))
    state = published.state_dict(mode, len(shape), channels, 6, 7 if mode == "lg" else 0, partitions, **more)
    torch.save(state, folder / "model.pth")
    representation(shape, channels, "lc", kind=kind).save(folder / "like.safetensors")
    return published.decode(state, shape, grid, 100.0 if kind == "audio" else 1.0)


@pytest.mark.parametrize("case", CASES)
def test_an_imported_network_decodes_to_the_published_values(folder, case, capsys):
    expected = made(folder, case).clamp(-1, 1).numpy()
    _, mode, shape, grid, _ = CASES[case]
    given = ",".join(map(str, grid))
    assert main(["import", "model.pth", "a.safetensors", "--like", "like.safetensors", "--partitions", given]) == 0
    inr = lg.load("a.safetensors")
    assert (inr.model.mode, len(inr.lattice), inr.fit.stopped) == (mode, np.prod(grid), "imported")
    decoded = inr.decode().values / 127.5 - 1
    covered = tuple(slice(size // parts * parts) for size, parts in zip(shape, grid, strict=True))
    # The phases of a sound reach 30 * 100, where float32 has steps of 2e-4.
    np.testing.assert_allclose(decoded, expected[covered], atol=1e-4 if "audio" in case else 1e-5)
    assert main(["info", "a.safetensors"]) == 0
    assert "not measured" in capsys.readouterr().out


def test_the_psnr_is_measured_on_the_signal_itself(folder, capsys):
    values = made(folder, "lg image").clamp(-1, 1).numpy()
    np.save("like.npy", np.rint((values + 1) * 127.5).astype(np.uint8))
    assert main(["import", "model.pth", "a.safetensors", "--like", "like.npy", "--partitions", "2,3"]) == 0
    assert lg.load("a.safetensors").fit.psnr > 50
    assert main(["info", "a.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["fit"]["steps"] == 0


def test_a_folder_of_pictures_is_the_film(folder):
    values = made(folder, "lg video")
    film = np.rint((values.clamp(-1, 1).numpy() + 1) * 127.5).astype(np.uint8)
    lg.write("film", lg.Signal.from_array(film, "video"))
    assert main(["import", "model.pth", "a.safetensors", "--like", "film", "--partitions", "5,2,3"]) == 0
    assert lg.load("a.safetensors").fit.psnr > 45  # what rounding to 8 bits leaves


def test_a_stereo_sound_is_the_mean_of_its_channels(folder):
    made(folder, "lg audio")
    stereo = np.random.default_rng(0).uniform(-1, 1, (640, 2)).astype(np.float32)
    lg.write("like.wav", lg.Signal.from_array(stereo, "audio", None, 8000))
    assert main(["import", "model.pth", "a.safetensors", "--like", "like.wav"]) == 0
    inr = lg.load("a.safetensors")
    assert (inr.signal.channels, inr.signal.rate) == (1, 8000)
    assert inr.signal.value_range[1] == pytest.approx(np.abs(stereo.mean(axis=1)).max())
    assert inr.fit.psnr > 0


def test_images_of_other_sizes_are_resized_as_the_published_code_does(folder):
    made(folder, "lc image")
    for size, resized in (((33, 47), (32, 48)), ((34, 49), (36, 48)), ((30, 32), (32, 32))):
        np.save("like.npy", np.zeros((*size, 3), np.uint8))
        assert (
            main(["import", "model.pth", "a.safetensors", "--like", "like.npy", "--partitions", "4,4", "--overwrite"])
            == 0
        )
        assert lg.load("a.safetensors").shape == resized


def _one_line(capsys, *named):
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    for name in named:
        assert name in error


def test_other_files_are_refused(folder, capsys):
    made(folder, "lg image")
    state = torch.load("model.pth", weights_only=True)
    others = {
        "module.pth": torch.nn.Linear(2, 2),
        "list.pth": [1, 2],
        "linear.pth": torch.nn.Linear(2, 2).state_dict(),
        "more.pth": {**state, "net.more": torch.zeros(1)},
        "shape.pth": {**state, "net.net.1.0.bias": torch.zeros(6, 5)},
        "less.pth": {name: value for name, value in state.items() if name != "net.global_net.1.0.bias"},
        "nan.pth": {name: value * float("nan") for name, value in state.items()},
        "nested.pth": {"model_state_dict": state},
        "whole.pth": {name: value.int() for name, value in state.items()},
        "complex.pth": {name: value.to(torch.complex64) for name, value in state.items()},
        "sparse.pth": {name: value.to_sparse() for name, value in state.items()},
        "meta.pth": {name: value.to("meta") for name, value in state.items()},
        "number.pth": {**state, "net.net.4.0.bias": torch.tensor(1.0)},
        "shared number.pth": {**state, "net.global_net.0.0.weight": torch.tensor(1.0)},
        "no partition.pth": {name: v[:0] if name.startswith("net.net") else v for name, v in state.items()},
    }
    for name, content in others.items():
        torch.save(content, name)
        words = ["import", name, "b.safetensors", "--like", "like.safetensors", "--partitions", "2,3"]
        assert main(words) == 2, name
        _one_line(capsys, name, "published code")
    (folder / "zip.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    (folder / "text.pth").write_text("no pickle")
    (folder / "pickle.pth").write_bytes(b"\x80\x04N.")
    for name in ("zip.pth", "text.pth", "pickle.pth", "absent.pth"):
        assert main(["import", name, "b.safetensors", "--like", "like.safetensors"]) == 2
        _one_line(capsys, name)


def test_no_damaged_checkpoint_is_a_traceback_or_another_network(tmp_path):
    state = published.state_dict("lg", 2, 3, 4, 5, 2)
    torch.save(state, tmp_path / "sound.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    sound, rng = read_checkpoint(tmp_path / "sound.pth"), np.random.default_rng(0)
    for name in ("sound.pth", "old.pth"):
        content = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(300):
            damaged = content[: rng.integers(1, len(content)) if rng.random() < 0.1 else None].copy()
            damaged[rng.integers(len(damaged), size=rng.integers(1, 4))] ^= np.uint8(1 << rng.integers(8))
            (tmp_path / "damaged.pth").write_bytes(damaged.tobytes())
            try:
                network = read_checkpoint(tmp_path / "damaged.pth")
            except lg.FileFormatError:
                continue
            if name == "sound.pth":  # files from before version 1.6 have no checksum
                assert torch.equal(network.rows, sound.rows)
                assert all(torch.equal(network.shared[key], value) for key, value in sound.shared.items())


def test_the_prefix_of_data_parallel_is_left_out(tmp_path):
    state = published.state_dict("lg", 2, 3, 4, 5, 2)
    for name, prefix in (("plain.pth", ""), ("parallel.pth", "module.")):
        torch.save({prefix + key: value.double() for key, value in state.items()}, tmp_path / name)
    plain, parallel = (read_checkpoint(tmp_path / name) for name in ("plain.pth", "parallel.pth"))
    assert torch.equal(plain.rows, parallel.rows)


def test_grids_and_signals_that_do_not_fit_are_refused(folder, capsys):
    made(folder, "lg image")
    start = ["import", "model.pth", "b.safetensors", "--like"]
    np.save("sound.npy", np.zeros(640, np.float32))
    for words, named in (
        (["like.safetensors"], "6"),
        (["like.safetensors", "--partitions", "2,2"], "2,2"),
        (["like.safetensors", "--partitions", "6"], "6"),
        (["sound.npy", "--partitions", "6"], "dimensions"),
        (["absent.npy", "--partitions", "2,3"], "absent.npy"),
    ):
        assert main([*start, *words]) == 2, words
        _one_line(capsys, named)
    assert main(["import", "model.pth", "b.pth", "--like", "like.safetensors"]) == 2
    _one_line(capsys, ".safetensors")


@pytest.mark.parametrize("channels", [(), (2,), (4,)])
def test_a_picture_is_taken_as_the_published_code_read_it(folder, capsys, channels):
    made(folder, "lg image")
    gray = np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)
    values = gray if not channels else np.repeat(gray[..., None], *channels, axis=-1)
    np.save("a.npy", values)
    np.save("rgb.npy", np.dstack([gray] * 3))
    reached = []
    for name in ("a.npy", "rgb.npy"):
        assert main(["import", "model.pth", f"{name}.safetensors", "--like", name, "--partitions", "2,3"]) == 0
        reached.append(lg.load(f"{name}.safetensors").fit.psnr)
    assert reached[0] == reached[1] is not None
    assert "a.npy: " in capsys.readouterr().err


def test_a_file_of_ours_is_never_taken_for_a_pickle(folder):
    header = (0x80 + 2 * 256).to_bytes(8, "little") + b'{"a":'
    (folder / "ours.pth").write_bytes(header)
    assert not is_pickle(folder / "ours.pth")
    torch.save({}, folder / "new.pth")
    torch.save({}, folder / "old.pth", _use_new_zipfile_serialization=False)
    assert is_pickle(folder / "new.pth")
    assert is_pickle(folder / "old.pth")
