"""Ctrl-C before a program of ours runs: while PyTorch is imported, which takes seconds."""

import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def console_script():
    """What an installer writes into the executable `lgsirens`."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["lgsirens"].split(":")
    return f"import sys\nfrom {module} import {function}\nsys.exit({function}())"


ENTRIES = {
    "console script": ["-c", console_script(), "info", "absent.safetensors"],
    "module": ["-m", "lgsirens", "info", "absent.safetensors"],
    "script": [str(ROOT / "experiment_scripts" / "train_img.py"), "--dataset_path", "absent.png"],
}


@pytest.mark.parametrize("imports", [1, 500])
@pytest.mark.parametrize("entry", ENTRIES)
def test_ctrl_c_among_the_imports_is_one_line(entry, imports):
    command = [sys.executable, "-X", "importtime", *ENTRIES[entry]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        of_torch = (line for line in program.stderr if "torch" in line)
        for _ in range(imports):
            next(of_torch)
        program.send_signal(signal.SIGINT)
        lines = [line for line in program.stderr if not line.startswith("import time:")]
        assert (program.wait(), program.stdout.read()) == (130, "")
    assert lines == ["lgsirens: interrupted\n"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_ignores_ctrl_c_still_does(entry):
    """A shell starts `command &` of a script with SIGINT ignored."""
    command = [sys.executable, *ENTRIES[entry]]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with program:
        while True:
            program.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                assert program.wait(0.1) == 2
                break
        assert "interrupted" not in program.stderr.read()
