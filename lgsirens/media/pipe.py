"""Standard input and pipes as files: what they give is kept, because readers go back and forth."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lgsirens.errors import LgsirensError, SignalError

_STANDARD_INPUT = Path("-")


@contextmanager
def kept(path: Path) -> Iterator[Path]:
    """The path of a file with the content of `path`: itself, or a temporary one for a pipe or `-`, standard input.

    Raises:
        SignalError: the pipe cannot be read, or its content kept.
    """
    if path != _STANDARD_INPUT and not _is_pipe(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lgsirens-") as folder:
        file = Path(folder, "input")
        try:
            with _opened(path) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SignalError(f"{path}: cannot be read: {reason}; name a file") from error
        try:
            yield file
        except LgsirensError as error:
            raise type(error)(error.message.replace(str(file), str(path)), error.option) from error


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _opened(path: Path) -> BinaryIO:
    if path != _STANDARD_INPUT:
        return path.open("rb")
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("there is nothing in standard input")
    return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
