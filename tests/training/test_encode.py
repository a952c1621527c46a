"""Encoding: what is told and refused before the fit."""

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.errors import ConfigError
from lgsirens.representation.file import sizes
from lgsirens.training.config import EncodeConfig
from lgsirens.training.encode import dry_run
from lgsirens.training.run import Run
from tests.small import picture


@pytest.mark.parametrize("source", [{"name": "\udcff"}, {"frame": np.int64(3)}, {"rate": float("nan")}])
def test_what_a_file_cannot_say_is_refused_before_the_fit(monkeypatch, source):
    monkeypatch.delattr(Run, "fit")
    with pytest.raises(ConfigError, match="source"):
        lg.encode(picture(), source=source)


def test_a_dry_run_tells_the_bytes_of_the_file(tmp_path):
    told = dry_run(picture(), EncodeConfig(steps=2))["bytes"]
    found = sizes(lg.encode(picture(), EncodeConfig(steps=2)))
    assert {key: told[key] for key in ("local", "shared", "index")} == {
        key: found[key] for key in ("local", "shared", "index")
    }
    assert abs(told["header"] - found["header"]) <= 24  # digits of PSNR and seconds


@pytest.mark.parametrize(("value_range", "beyond"), [((0, 100), 155), ((0, 255), 0), ((10, 300), 10), ((10, 20), 245)])
def test_values_beyond_the_range_are_counted(value_range, beyond, lines):
    signal = lg.Signal.from_array(np.arange(256, dtype=np.uint8).reshape(16, 16), value_range=value_range)
    lg.encode(signal, steps=1)
    said = f"{beyond} of 256 values are beyond it, and decode to its ends, {value_range[0]} and {value_range[1]}"
    assert [line for line in lines() if "beyond" in line] == ([said] if beyond else [])
