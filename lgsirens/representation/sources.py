"""Where the bytes of a representation are read from: a file, or a URL (`urls.py`). All that others ask of it is
`read_ranges`."""

import os
import stat
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lgsirens.errors import FileFormatError, RunError, SignalError
from lgsirens.representation.urls import is_url, open_url

PathLike = str | os.PathLike[str]


class Source(Protocol):
    """Bytes that are read in ranges.

    Attributes:
        name: what messages call it.
        size: number of bytes there.
        bytes_read: number of bytes read so far.
    """

    name: str
    size: int
    bytes_read: int

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read ranges, each an offset and a size in bytes."""


def open_source(path: PathLike) -> Source:
    """The source that a path or URL names (raises as `FileSource` and `UrlSource`)."""
    return open_url(str(path)) if is_url(path) else FileSource(path)


class FileSource:
    """A regular file. What was opened stays readable after the file is replaced; a copy opens the file again.

    Attributes:
        name: what messages call it.
        size: number of bytes there.
        bytes_read: number of bytes read so far.

    Raises:
        SignalError: no such file, or no regular one.
        RunError: it cannot be opened.
    """

    def __init__(self, path: PathLike) -> None:
        if not isinstance(path, str | os.PathLike):
            raise SignalError(f"{path!r} is no path; name a .safetensors file")
        self._path = Path(os.path.expanduser(path))
        self.name = str(self._path)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SignalError(f"{self.name}: is no regular file; name a .safetensors file")
        self._path = self._path.absolute()  # a copy may be in another folder
        self._identity = _identity(status)
        self.size = status.st_size
        self.bytes_read = 0

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read ranges, each an offset and a size in bytes.

        Raises:
            FileFormatError: a range ends beyond the file, or the file is no longer what was opened.
            RunError: it cannot be read.
        """
        try:
            found = [self._read(offset, size) for offset, size in ranges]
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise RunError(f"{self.name}: cannot be read: {error.strerror}; name a file on a sound disk") from error
        if _identity(status) != self._identity:  # asked last: a change during the reading counts
            raise FileFormatError(f"{self.name}: was replaced or changed since it was opened; load it again")
        self.bytes_read += sum(map(len, found))
        for (offset, size), data in zip(ranges, found, strict=True):
            if len(data) != size:
                raise FileFormatError(
                    f"{self.name}: truncated: {len(data)} of {size} bytes at {offset}; restore a copy"
                )
        return found

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while 0 < len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    @cached_property
    def _descriptor(self) -> int:
        try:
            # A pipe would block for ever without O_NONBLOCK.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, ValueError):
            raise SignalError(f"{self.name}: no such file; check the name") from None
        except OSError as error:
            raise RunError(f"{self.name}: cannot be read: {error.strerror}; check its permissions") from error
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        # The number of a descriptor may mean another file once this one is closed, and does in another process.
        return {name: value for name, value in vars(self).items() if name != "_descriptor"}


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
