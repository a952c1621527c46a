"""One input among many: it is read, fitted, and written, and a record says how far that came."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lgsirens.errors import LgsirensError, OtherRunError, OutputError, RunError
from lgsirens.representation.file import save
from lgsirens.representation.representation import Representation
from lgsirens.signal import Signal
from lgsirens.system.console import log
from lgsirens.system.output import make_folder
from lgsirens.training.checkpoint import check_checkpoint, checkpoint_path
from lgsirens.training.encode import encode
from lgsirens.training.manifest import FileRecord, Part

# What ends one input, and not the run; PyTorch's lack of memory is the last.
FAILURES = (LgsirensError, MemoryError, OSError, RuntimeError)


class Job:
    """An input about to be encoded.

    Args:
        path: of the input.
        target: of its representation.
        before: its record, as far as an earlier run came.
        overwrite: replace what is at `target`, if the run has not made it.
        part: where records are kept.

    Attributes:
        signal: of the input, from when it is read until it is written.
        failed: whether it cannot be encoded; that has been told.
    """

    signal: Signal

    def __init__(self, path: Path, target: Path, before: FileRecord, overwrite: bool, part: Part) -> None:
        self.path, self.target, self.failed, self._part = path, target, False, part
        self._checkpoint, self._seconds = checkpoint_path(target), 0.0
        self._mine = overwrite or before.status == "started" or before.bytes is not None
        self._record = FileRecord(before.input, before.output, "started", bytes=before.bytes)

    @property
    def stopped(self) -> bool:
        """Whether an earlier run was stopped while it fitted this input alone."""
        return self._checkpoint.exists()

    @contextmanager
    def told(self) -> Iterator[None]:
        """What fails within is told in one line, and recorded."""
        self._began = time.monotonic()
        try:
            yield
        except FAILURES as error:
            reason = " ".join(str(error).split())
            reason = reason if reason.startswith(str(self.path)) else f"{self.path}: {reason}"
            log.error("%s", reason)  # each rank tells of its own
            self._part.add(replace(self._record, status="failed", error=reason))
            self.failed = True
            self.__dict__.pop("signal", None)
        self._seconds += time.monotonic() - self._began

    def read(self, read: Callable[[Path], Signal], resume: bool) -> None:
        """Read the input.

        Raises:
            FAILURES: it cannot be read, or its output not be written.
        """
        with suppress(OSError):  # reading it tells
            found = os.stat(self.path)
            self._record = replace(self._record, size=found.st_size, modified=found.st_mtime_ns)
        _check_new(self.target, self._mine)
        self._part.add(self._record)
        self.signal = read(self.path)
        check_checkpoint(self._checkpoint, resume)

    def fit(self, resume: bool, **how: Any) -> Representation:
        """Fit it alone.

        Args:
            how: as `encode` takes it.

        Raises:
            FAILURES: it cannot be fitted.
            KeyboardInterrupt: Ctrl-C; its checkpoint has what was done.
        """
        keeper: dict[str, Any] = {"checkpoint": self._checkpoint}
        try:
            result = encode(self.signal, resume=resume and self.stopped, **keeper, **how)
        except OtherRunError:  # the input was changed since
            result = encode(self.signal, **keeper, **how)
        if result.fit.stopped == "interrupted":
            raise KeyboardInterrupt
        return result

    def write(self, result: Representation, seconds: float = 0.0) -> None:
        """Write what was fitted, within `told`.

        Args:
            seconds: that fitting took outside of it.

        Raises:
            FAILURES: it cannot be written.
        """
        save(result, self.target, overwrite=self._mine)
        self._checkpoint.unlink(missing_ok=True)
        taken = round(self._seconds + seconds + time.monotonic() - self._began, 3)
        size = self.target.stat().st_size
        self._part.add(replace(self._record, status="done", psnr=result.fit.psnr, bytes=size, seconds=taken))
        del self.signal  # while the next input is read


def _check_new(target: Path, mine: bool) -> None:
    """Make the folder of an output, which must not be there unless this run may replace it."""
    try:
        make_folder(target.parent)
    except OSError as error:
        raise RunError(f"{target.parent}: cannot be made: {error.strerror}; choose another folder") from error
    if target.exists() and not mine:
        raise OutputError(f"{target}: exists already; choose another folder or overwrite it")
