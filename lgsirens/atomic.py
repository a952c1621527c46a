"""Output files that appear whole or not at all: written beside the target, then moved over it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lgsirens.errors import OutputError, RunError

_MARK = "lgsirens-"  # in the names of temporary files


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return `path` if a file may be written there.

    Raises:
        OutputError: the folder is missing, the path is a folder, or the file exists and `overwrite` is false.
        RunError: the folder is not writable.
    """
    path = Path(path)
    if "\0" in str(path):
        raise OutputError(f"{str(path)!r}: a name has no NUL byte; choose another name")
    path = Path(os.path.realpath(path))  # a link stays a link
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; choose another name or pass --overwrite (overwrite=True)")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; choose another name") from error
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"{path}: the folder {path.parent} is not writable; choose another one")
    return path


@contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder; move it to `path` if the block succeeds, delete it if not.

    The temporary name keeps the suffix of `path`, because encoders choose their format by it.

    Raises:
        OutputError: as `check_output`.
        RunError: the file cannot be written (disk full, no permission).
    """
    suffix = Path(path).suffix
    path = check_output(path, overwrite)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}.{_MARK}", suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path}: cannot be written: {reason}; free space or choose another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def abandoned(path: Path) -> list[Path]:
    """What a process that was killed while it wrote `path` has left, if none is writing it now; its name may be a
    pattern."""
    return list(path.parent.glob(f".{path.stem[:40]}.{_MARK}????????{path.suffix}"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
