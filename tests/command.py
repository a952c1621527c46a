"""The command line in this process, for tests."""

import errno
import os
from typing import Any

from lgsirens.cli.main import main
from lgsirens.system import output


def run(*words: Any) -> int:
    """The exit code of `lgsirens` with these words."""
    return main([str(word) for word in words])


def assert_one_line(capsys: Any, *named: Any) -> None:
    """Standard error is one clear line that has all of `named` in it."""
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("lgsirens: partitions: asked")]
    assert len(lines) == 1, err
    assert lines[0].startswith("lgsirens: ")
    assert all(str(part) in lines[0] for part in named), err
    assert "Traceback" not in err


def last_line(capsys: Any) -> str:
    """The last line of standard error, which alone is no note."""
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if line]
    assert lines
    assert all(line.startswith("lgsirens: ") for line in lines)
    assert not any("Traceback" in line for line in lines)
    return str(lines[-1])


def full_disk(monkeypatch: Any) -> None:
    """From now on no file can be moved to its place."""

    def replace(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for move in ("replace", "link"):
        monkeypatch.setattr(output.os, move, replace)
    monkeypatch.setattr(output, "_renamed", lambda *arguments: False)
