"""The campaigns of `trials/`, in small; and that they find what they are for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trials.faults import build

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="the calls of Linux are watched by a library in C"
)


def trial(name, *options, broken="pass"):
    """Run a campaign, with something broken first."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{broken}\nfrom trials import {name}\nsys.exit({name}.main())", *options],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(build()), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("asked", ["kills", "power", "load", "power --only encode-many"])
def test_a_small_campaign_finds_nothing(asked):
    done = trial(*asked.split(), "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("broken promises +0 times", done.stdout)


_NO_WAIT = "import os; os.fsync = lambda descriptor: None"
_NO_SWEEP = "from lgsirens.system import output; output.sweep = lambda *place: None"
_NO_LOCK = "import fcntl; fcntl.flock = lambda descriptor, how: None"
_NO_MOVE = "from lgsirens.system import output; output._move = lambda new, old, over: old.write_bytes(new.read_bytes())"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "broken", "what"),
    [
        ("power", _NO_WAIT, "is lost"),
        ("power", _NO_MOVE, "is damaged|neither whole"),
        ("kills", _NO_SWEEP, "left behind"),
        ("kills", _NO_MOVE, "is damaged|neither whole"),
        ("kills", _NO_LOCK, "beside another"),
    ],
)
def test_a_campaign_finds_what_is_broken(name, broken, what):
    options = ["--quick", "--only", "crop", *(["--points", "120"] if name == "kills" else [])]
    done = trial(name, *options, broken=broken)
    assert done.returncode == 1
    assert re.search(f"FOUND .*({what})", done.stdout), done.stdout + done.stderr
