"""`faults.c` from Python: compile it, start again with it, tell it what to do, and read what it has recorded."""

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_LIBRARY = _HERE.parent / "build" / "trials" / "faults.so"
_NUMBERS = struct.Struct("<8s5Q")


@dataclass(frozen=True)
class Call:
    """A call that has changed a folder.

    Attributes:
        what: create, open, write, size (cut or grown), fsync, rename, swap, link, unlink, mkdir, chmod, flock.
        path: of what; for rename and link the old name.
        other: the new name.
        inode: of what.
        offset: of what is written; the new size; of a rename the inode of what was replaced.
        data: what is written.
    """

    what: str
    path: str
    other: str
    inode: int
    offset: int
    data: bytes

    def __str__(self) -> str:
        names = [Path(path).name for path in (self.path, self.other) if path]
        return f"{self.what} {' '.join(names)}"


def build() -> Path:
    """The library, compiled if it is not there."""
    _LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    source = _HERE / "faults.c"
    if not _LIBRARY.exists() or _LIBRARY.stat().st_mtime < source.stat().st_mtime:
        new = _LIBRARY.with_name(f"{os.getpid()}.so")
        subprocess.run(["gcc", "-Wall", "-O1", "-shared", "-fPIC", "-o", new, source, "-ldl"], check=True)
        new.replace(_LIBRARY)
    return _LIBRARY


def start_with_faults(module: str) -> None:
    """Start this process again with the library and one thread, unless that has been done."""
    if not hasattr(ctypes.CDLL(None), "faults_begin"):
        more = {"LD_PRELOAD": str(build()), "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | more)


def begin(folder: Path, descriptor: int = -1, at: int = 0, what: int = 0, lasting: bool = False) -> None:
    """Watch a folder from now on: record calls on a descriptor, and at one of them do `what`.

    Args:
        at: the number of the call, from 1; 0: none.
        what: minus a signal, or an error number.
        lasting: later calls fail too.
    """
    path = os.fsencode(os.path.realpath(folder))
    ctypes.CDLL(None).faults_begin(path, descriptor, ctypes.c_long(at), what, int(lasting))


def recorded(path: Path) -> Iterator[Call]:
    """The calls in a record."""
    content, place = path.read_bytes(), 0

    def taken(size: int) -> bytes:
        nonlocal place
        place += size
        return content[place - size : place]

    while place < len(content):
        what, inode, offset, size, *lengths = _NUMBERS.unpack(taken(_NUMBERS.size))
        names = [os.fsdecode(taken(length)) for length in lengths]
        name = what.rstrip(b"\0").decode()
        yield Call(name, *names, inode, offset, taken(size) if name == "write" else b"")
