"""Encoding with the shared network of another file: rows alone learn, and what goes with the network is settled."""

import numpy as np
import pytest
import torch

import lgsirens as lg
from lgsirens.errors import ConfigError, FileFormatError
from lgsirens.grid.box import box_of_shape
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.encode import dry_run
from lgsirens.training.initial import initial_model
from lgsirens.training.run import prepare
from tests.small import contents, without_times

STEPS = {"steps": 4}
OTHER = {"hidden_layers": 2, "agg_type": "fc_and_add", "overlaps": (0, 2), "shared_scale": 0.5, "local_scale": 0.125}


def image(shape=(16, 24), seed=0, channels=1, kind=None):
    values = np.random.default_rng(seed).integers(0, 256, (*shape, channels), dtype=np.uint8)
    return lg.Signal.from_array(values, kind)


def shared(seed=0, **options):
    options = {"partition_size": (8, 8), "local_width": 5, "global_width": 6, "seed": seed} | options
    return lg.encode(image(), **options, **STEPS)


def tone(peak, dtype=np.float32):
    return lg.Signal.from_array((peak * np.sin(np.arange(200) / 9)).astype(dtype), sampling_rate=8000)


@pytest.mark.parametrize("options", [{}, OTHER])
@pytest.mark.parametrize("sample_frac", [None, 0.5])
def test_rows_alone_learn_and_the_files_merge(options, sample_frac):
    first = shared(**options)
    second = lg.encode(image(seed=1), shared_from=first, sample_frac=sample_frac, **STEPS)
    assert all(torch.equal(second.shared[name], value) for name, value in first.shared.items())
    assert (second.model, second.tile, second.halo) == (first.model, first.tile, first.halo)
    assert (second.origin, second.coordinates) == (first.origin, first.coordinates)
    assert second.lineage != first.lineage
    settled = {name for name in first.config if name not in ("sample_frac", "seed")}
    assert {name: second.config[name] for name in settled} == {name: first.config[name] for name in settled}
    assert second.config["shared_from"] == first.origin
    merged = first.merge(second.move((-16, 24)))
    assert np.array_equal(merged.decode("0:16,0:24").values, first.decode().values)
    assert np.array_equal(merged.decode("-16:0,24:48").values, second.decode().values)
    assert (merged.fit, merged.config) == (first.fit, first.config)


def test_rows_begin_as_those_of_any_encoding_with_the_seed():
    planned = plan(image(), EncodeConfig(seed=3), shared())
    model = prepare(image(), planned, torch.device("cpu"), 1 << 30).model
    assert torch.equal(model.local, initial_model(planned.model, planned.lattice, "tile", 3).local)
    assert [name for name, weights in model.named_parameters() if weights.requires_grad] == ["local"]


@pytest.mark.parametrize("sample_frac", [None, 0.5])
def test_a_run_that_was_stopped_ends_in_the_same_file_and_not_with_another_network(tmp_path, stopping_at, sample_frac):
    options = {"shared_from": shared(), "steps": 9, "sample_frac": sample_frac}
    lg.encode(image(seed=1), **options).save(tmp_path / "whole.safetensors")
    state = {"checkpoint": tmp_path / "state.safetensors"}
    with stopping_at(6, MemoryError), pytest.raises(MemoryError):
        lg.encode(image(seed=1), **options, **state)
    with pytest.raises(FileFormatError, match="another"):
        lg.encode(image(seed=1), **options | {"shared_from": shared(seed=1)}, **state, resume=True)
    lg.encode(image(seed=1), **options, **state, resume=True).save(tmp_path / "resumed.safetensors")
    assert without_times(tmp_path / "resumed.safetensors") == without_times(tmp_path / "whole.safetensors")


def test_a_signal_smaller_than_a_tile_keeps_the_tiles():
    tiny = lg.encode(image((1, 1)), shared_from=shared(), **STEPS)
    assert (tiny.tile, tiny.extent, len(tiny.ids)) == ((8, 8), box_of_shape((1, 1)), 1)


CHANGES = {
    "mode": "lc",
    "partitions": (2, 3),
    "partition_size": (8, 4),
    "parameters": 5000,
    "hidden_layers": 3,
    "agg_type": "fc",
    "overlaps": (1, 1),
    "coordinates": "signal",
    "shared_scale": 1.0,
    "local_scale": 1.0,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_goes_with_the_network_is_not_to_be_changed(name):
    with pytest.raises(ConfigError, match="shared_from brings its own") as caught:
        lg.encode(image(), shared_from=shared(**OTHER), **{name: CHANGES[name]})
    assert caught.value.option == name


def test_widths_go_with_the_network_too():
    with pytest.raises(ConfigError, match="local_width 4"):
        lg.encode(image(), shared_from=shared(), local_width=4, global_width=6)


def test_what_goes_with_the_network_may_be_named():
    first = shared(**OTHER)
    settled = {name: first.config[name] for name in (*CHANGES, "local_width", "global_width")}
    named, plain = (lg.encode(image(), shared_from=first, **STEPS, **options) for options in (settled, {}))
    assert contents(named)["local"] == contents(plain)["local"]


REFUSED = {
    "no network": (image(), lambda: lg.encode(image(), mode="lc", **STEPS), "mode lc has no shared network"),
    "one network": (image(), lambda: lg.encode(image(), mode="mlp", **STEPS), "mode mlp has no shared network"),
    "coordinates": (image(), lambda: shared(coordinates="signal"), "signal coordinates"),
    "channels": (image(channels=3), shared, "it holds image of 1 channel, the signal is image of 3 channels"),
    "kind": (image((4, 8, 8), kind="volume"), shared, "it holds image .*, the signal is volume"),
    "a name": (image(), lambda: "a.safetensors", "is no Representation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused(name):
    signal, shared_from, words = REFUSED[name]
    with pytest.raises(ConfigError, match=words) as caught:
        lg.encode(signal, shared_from=shared_from())
    assert caught.value.option == "shared_from"


@pytest.mark.parametrize(("peak", "clips"), [(0.3, False), (0.9, True)])
def test_a_sound_takes_the_range_of_the_one_whose_network_it_shares(lines, peak, clips):
    first = lg.encode(tone(0.5), partition_size=(50,), **STEPS)
    second = lg.encode(tone(peak), shared_from=first, **STEPS)
    assert second.signal == first.signal
    assert second.config["value_range"] == list(first.signal.value_range)
    assert [name for name in ("that of shared_from", "beyond it") if any(name in line for line in lines())] == [
        "that of shared_from",
        *(["beyond it"] if clips else []),
    ]
    merged = first.merge(second.move((200,)))
    assert np.array_equal(merged.decode("200:400").values, second.decode().values)
    assert np.abs(second.decode().values).max() <= first.signal.value_range[1]


def test_a_sound_of_another_sample_type_keeps_its_range():
    first = lg.encode(tone(0.5), partition_size=(50,), **STEPS)
    assert lg.encode(tone(9000, np.int16), shared_from=first, **STEPS).signal.value_range[1] > 8000


def test_a_dry_run_tells_what_rows_alone_take():
    told = dry_run(image(), EncodeConfig(steps=2), shared_from=shared())
    assert (told["tile"], told["local_width"], told["origin"]) == ([8, 8], 5, shared().origin)
