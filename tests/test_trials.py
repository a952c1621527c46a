"""The campaigns of `trials/`, in small; and that they find what they are for."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="the calls of Linux are watched by a library in C"
)


def trial(name, *options, broken="pass"):
    """Run a campaign, with something broken first; returns what it printed."""
    code = f"import sys\nfrom trials import faults, {name}\nfaults.start_with_faults('trials.{name}')\n{broken}\n"
    code += f"sys.exit({name}.main())"
    library = ROOT / "build" / "trials" / "faults.so"
    subprocess.run([sys.executable, "-c", "from trials.faults import build; build()"], cwd=ROOT, check=True)
    return subprocess.run(
        [sys.executable, "-c", code, "--quick", *options],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["kills", "power", "load"])
def test_a_small_campaign_finds_nothing(name):
    done = trial(name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("broken promises +0 times", done.stdout)


_NO_WAIT = "import os; os.fsync = lambda descriptor: None"
_NO_SWEEP = "from lgsirens.system import output; output.sweep = lambda *place: None"
_NO_LOCK = "import fcntl; fcntl.flock = lambda descriptor, how: None"
_NO_MOVE = (
    "from lgsirens.system import output; import shutil; output._move = lambda new, old, over: shutil.copyfile(new, old)"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "broken", "what"),
    [
        ("power", _NO_WAIT, "is lost"),
        ("power", _NO_MOVE, "is damaged|neither whole"),
        ("kills", _NO_SWEEP, "left behind"),
        ("kills", _NO_MOVE, "is damaged|neither whole"),
        ("kills", _NO_LOCK, "cannot be written"),
    ],
)
def test_a_campaign_finds_what_is_broken(name, broken, what):
    options = ["--seed", "1"] if name == "power" else ["--only", "crop", "--points", "120"]
    done = trial(name, *options, broken=broken)
    assert done.returncode == 1
    assert re.search(f"FOUND .*({what})", done.stdout), done.stdout + done.stderr
