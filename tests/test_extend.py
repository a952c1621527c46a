"""extend and replace in Python: what they refuse, gaps, holes, and that new parts are learnt."""

from dataclasses import replace

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.errors import ConfigError, SignalError
from tests.small import representation

CONFIG = {"steps": 2, "seed": 0}


def image(box, channels=1, seed=0, **more):
    shape = [stop - start for start, stop in box]
    values = np.random.default_rng(seed).integers(0, 256, (*shape, channels), dtype=np.uint8)
    return replace(lg.Signal.from_array(values, "image"), **more)


def parent(**more):
    return representation((20, 20), 1, "lg", (8, 8), config=CONFIG, **more)


BIGGER = ((0, 20), (0, 30))
REFUSED = {
    "no signal": (np.zeros((20, 30)), None, SignalError, "no Signal"),
    "another kind": (lg.Signal.from_array(np.zeros((4, 20, 30), np.uint8), "volume"), None, SignalError, "kind"),
    "channels": (image(BIGGER, 3), None, SignalError, "channels is 3, the file's 1"),
    "sample type": (replace(image(BIGGER), dtype="uint16"), None, SignalError, "sample type is uint16"),
    "value range": (image(BIGGER, value_range=(0.0, 1023.0)), None, SignalError, "0 to 1023, the file's 0 to 255"),
    "a gap": (image(((0, 20), (0, 5))), (0, 21), SignalError, "leaves a gap"),
    "sizes": (image(((0, 19), (0, 5))), (0, 20), SignalError, "no box"),
    "a corner": (image(((0, 5), (0, 5))), (20, 20), SignalError, "no box"),
    "offset": (image(BIGGER), (0, 0, 0), SignalError, "offset has 3 numbers"),
    "offset of floats": (image(BIGGER), (0.0, 1.0), SignalError, "whole numbers"),
    "offset far away": (image(BIGGER), (0, 1 << 40), SignalError, "positions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    signal, offset, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        parent().extend(signal, offset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"finetune": "some"}, "none, shared, all"),
        ({"stepz": 3}, "stepz is not known"),
        ({"steps": 0}, "steps 0"),
        ({"sample_frac": 2.0}, "sample_frac"),
        ({"device": "abacus"}, "abacus"),
        ({"max_memory": "lots"}, "lots"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        parent().extend(image(BIGGER), **options)


def test_rates_must_agree_where_both_are_known():
    inr = representation((200,), 1, "lg", (50,), value_range=(-1.0, 1.0), dtype="float32", sampling_rate=(8000, 1))
    inr = replace(inr, config=CONFIG)
    take = lg.Signal.from_array(np.linspace(-0.5, 0.5, 60, dtype=np.float32), "audio")
    assert inr.extend(replace(take, sampling_rate=8000), (200,)).shape == (260,)
    assert inr.extend(take, (200,)).shape == (260,)
    with pytest.raises(SignalError, match="16000 samples/s, the file 8000"):
        inr.extend(replace(take, sampling_rate=16000), (200,))
    with pytest.raises(SignalError, match="-1 to 1"):
        inr.extend(lg.Signal.from_array(np.full(60, 2.0, dtype=np.float32), "audio"), (200,))


def test_mlp_cannot_grow():
    with pytest.raises(ConfigError, match="lg or lc"):
        representation((20, 20), 1, "mlp").extend(image(BIGGER))


def test_where_float32_cannot_tell_samples_apart_is_refused():
    inr = replace(representation((100,), 1, "lg", (50,)), config=CONFIG)
    far = lg.Signal.from_array(np.zeros(10, np.uint8), "audio", (0.0, 255.0))
    with pytest.raises(ConfigError, match="--local_scale"):
        inr.extend(far, (1 << 24,), allow_gap=True)
    local = replace(representation((100,), 1, "lg", (50,), local_scale=0.5), config=CONFIG)
    assert local.extend(far, (1 << 24,), allow_gap=True).extent == ((0, (1 << 24) + 10),)


def test_what_nobody_gave_is_learnt_as_blank():
    inr = parent()
    gapped = inr.extend(image(((0, 20), (0, 5))), (0, 29), allow_gap=True, steps=80, lr=5e-3)
    decoded = gapped.decode("0:20,16:34")
    assert gapped.history[-1]["refitted"] == [[0, 2], [1, 2], [2, 2]]
    assert decoded.present[:, :8].all()
    assert decoded.present[:, 8:].all()  # 24 to 34: the tile that the new part lies in
    assert np.abs(decoded.values[:, 8:13]).mean() < np.abs(decoded.values[:, 13:]).mean()


def test_dropped_partitions_come_back_where_the_signal_covers_them():
    whole = parent()
    cut = whole.crop(drop_partitions=[(1, 1)])
    again = cut.extend(image(((8, 16), (8, 16))), (8, 8))
    assert again.history[-1]["added"] == 1
    assert again.history[-1]["refitted"] == []
    assert again.decode().present.all()
    with pytest.raises(SignalError, match="neither in the signal nor in the file"):
        cut.extend(image(((8, 16), (8, 12))), (8, 8))
    with pytest.raises(SignalError, match="no partition to replace"):
        cut.replace(image(((4, 12), (4, 12))), (4, 4))


@pytest.mark.parametrize("mode", ["lg", "lc"])
@pytest.mark.parametrize("fraction", [None, 0.5])
def test_new_parts_are_learnt(mode, fraction):
    row, column = np.meshgrid(np.arange(24), np.arange(48), indexing="ij")
    values = np.rint(127 + 60 * np.sin(row / 5) + 60 * np.cos(column / 7)).astype(np.uint8)
    left, right = lg.Signal.from_array(values[:, :24]), lg.Signal.from_array(values[:, 24:])
    inr = lg.encode(left, mode=mode, partition_size=(12, 12), steps=150, overlaps=(1, 1), sample_frac=fraction)
    wider = inr.extend(right, (0, 24))
    assert wider.history[-1]["steps"] == 300
    assert wider.history[-1]["psnr"] > 25
    assert lg.psnr(right, wider.decode("0:24,24:48")) == pytest.approx(wider.history[-1]["psnr"], abs=1e-3)
