"""The log of a run: its folder, TensorBoard's events, Weights & Biases' run file; and that it changes nothing."""

import numpy as np
import pytest

import lgsirens as lg

PICTURE = lg.Signal.from_array(np.random.default_rng(0).integers(0, 256, (40, 33, 3), dtype=np.uint8))
OPTIONS = {"partitions": (3, 2), "local_width": 6, "global_width": 8, "steps": 7}


def encode(signal=PICTURE, **options):
    return lg.encode(signal, **(OPTIONS | options))


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
@pytest.mark.parametrize("what", ["every", "checkpoint_every"])
def test_a_log_counts_whole_steps(tmp_path, what, steps):
    with pytest.raises(lg.ConfigError, match=what):
        lg.RunLog(tmp_path, **{what: steps})


def test_checkpoints_decode_by_themselves(tmp_path):
    final = encode(log=lg.RunLog(tmp_path, checkpoint_every=3))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["model_step_3.safetensors", "model_step_6.safetensors"]
    on_the_way = lg.load(tmp_path / "checkpoints" / names[0])
    assert (on_the_way.fit.steps, on_the_way.fit.stopped) == (3, "running")
    assert on_the_way.fit.psnr == pytest.approx(lg.psnr(PICTURE, on_the_way.decode()), abs=1e-4)
    assert lg.load(tmp_path / "model_final.safetensors").origin == final.origin
