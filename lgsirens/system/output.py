"""Output files that appear whole or not at all: written beside the target, then moved over it."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lgsirens.errors import OutputError, RunError

_MARK = "lgsirens-"  # in the names of temporary files
# What file systems answer that move no file, or none over another.
_NO_MOVES = (errno.EPERM, errno.EACCES, errno.EEXIST, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS)


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return `path`, links followed, if a file may be written there.

    Raises:
        OutputError: the folder is missing, the path is a folder or device, or the file exists and `overwrite` is false.
        RunError: the folder is not writable.
    """
    try:
        path = Path(os.path.realpath(os.path.expanduser(path)))
        if not path.parent.is_dir():
            raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.is_symlink():  # none is left but in a circle
            raise OutputError(f"{path}: is a link in a circle; name a file")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is {'a folder' if path.is_dir() else 'a device'}; name a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; choose another name or overwrite it")
    except (OSError, ValueError) as error:  # a name that is too long, or that has a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(path)!r}: {reason}; choose another name") from error
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"{path}: the folder {path.parent} is not writable; choose another one")
    return path


@contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder; move it to `path` if the block succeeds, delete it if not.

    The temporary name keeps the suffix of `path`, because encoders choose their format by it. A link stays a link, an
    existing file keeps its permissions and, where the process may give it away, its owner; other names of that file
    (hard links) keep the old content. Of several writers each has its own temporary file. Where the file system moves
    no files, the content is copied; should that fail, it stays under the temporary name.

    Raises:
        OutputError: as `check_output`, also of what came to `path` meanwhile.
        RunError: the file cannot be written (disk full, no permission).
    """
    suffix = Path(path).suffix
    path = check_output(path, overwrite)
    temporary, copying = temporary_beside(path, suffix), False
    try:
        exists = path.exists()
        # Permissions are the kernel's affair: to ask for the umask is to change it, for all threads.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if exists else 0o666))
        before = (path if exists else temporary).stat()
        yield temporary
        # The content before the name: after a crash there is the old file or the whole new one.
        settle(temporary, before)
        check_output(path, overwrite)
        try:
            _move(temporary, path, overwrite)
        except OSError as error:
            if error.errno not in _NO_MOVES:
                raise
            with temporary.open("rb") as source, path.open("wb") as target:
                copying = True
                shutil.copyfileobj(source, target)
            settle(path)
            copying = False
        with suppress(OSError):  # it is in place already, and some platforms open no folder
            settle(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = f"the whole file is {temporary}" if copying else "free space or choose another folder"
        raise RunError(f"{path}: cannot be written: {reason}; {remedy}") from error
    finally:
        if not copying:
            with suppress(OSError):
                temporary.unlink()


def _move(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a file its name; of several writers that replace nothing the first one wins (raises OutputError)."""
    if not overwrite:
        try:
            os.link(temporary, path)
            temporary.unlink()
            return
        except FileExistsError:
            raise OutputError(f"{path}: exists already; choose another name or overwrite it") from None
        except OSError:  # not every file system has links
            pass
    os.replace(temporary, path)


def temporary_beside(path: Path, suffix: str) -> Path:
    """A new name in the folder of `path`."""
    return path.with_name(f".{path.stem[:40]}.{_MARK}{secrets.token_hex(4)}{suffix}")


def settle(path: Path, before: os.stat_result | None = None) -> None:
    """Wait until a file or folder is on the disk, and give it the permissions and the owner that another had `before`,
    where the file system and the process can do that."""
    # A folder is opened to be read; a file, on some systems, has to be opened to be written.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        if before is not None:
            now = path.stat()
            with suppress(OSError):
                if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                    os.chown(path, before.st_uid, before.st_gid)
            with suppress(OSError):  # last: to give a file away clears bits of its permissions
                os.chmod(path, stat.S_IMODE(before.st_mode))
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def abandoned(path: Path) -> list[Path]:
    """What a process that was killed while it wrote `path` has left, if none is writing it now; its name may be a
    pattern."""
    return list(path.parent.glob(f".{path.stem[:40]}.{_MARK}????????{path.suffix}"))
