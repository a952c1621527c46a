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
