"""Files that are read while a signal lives: one that changes meanwhile is told, its old and new content never mixed."""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lgsirens.errors import SignalError


class UnchangedFile:
    """A file that stays open, for one reader at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self._file, self._lock = path, path.open("rb"), threading.RLock()
        self._state = self._found()
        weakref.finalize(self, self._file.close)

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """The open file (raises SignalError: it has changed since it was opened)."""
        with self._lock:
            yield self._file
            if self._found() != self._state:
                raise SignalError(f"{self.path}: was changed while it was read; read it again")

    def _found(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns
