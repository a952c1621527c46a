"""Output files and folders that appear whole or not at all: written beside the target, then moved over it.

What is being written is locked. The lock is the system's: it goes with the process, however that ends, so that the
next run which writes the same target can tell what a killed one has left, and deletes it.
"""

import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lgsirens.errors import OutputError, RunError

_MARK = "lgsirens-"  # in the names of temporary files
# What file systems answer that move no file, or none over another.
_NO_MOVES = (errno.EPERM, errno.EACCES, errno.EEXIST, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS)
# Of Linux's `renameat2`: fail if the target is there; let both change places.
_NO_REPLACE, _EXCHANGE = 1, 2
_CURRENT_FOLDER = -100


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
    (hard links) keep the old content. Of several writers each has its own temporary file; that of a killed one goes.
    Where the file system moves no files, the content is copied; should that fail, it stays under the temporary name.

    Raises:
        OutputError: as `check_output`, also of what came to `path` meanwhile.
        RunError: the file cannot be written (disk full, no permission).
    """
    suffix = Path(path).suffix
    path = check_output(path, overwrite)
    sweep(path.parent, path)
    temporary, descriptor, copying = None, None, False
    try:
        exists = path.exists()
        # Permissions are the kernel's affair: to ask for the umask is to change it, for all threads.
        temporary, descriptor = _begun(path, suffix, 0o600 if exists else 0o666)
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
        remedy = (
            f"the whole file is {temporary}, until the next run" if copying else "free space or choose another folder"
        )
        raise RunError(f"{path}: cannot be written: {reason}; {remedy}") from error
    finally:
        if temporary is not None and not copying:
            with suppress(OSError):
                temporary.unlink()
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def replacing_folder(path: Path, check: Callable[[], object]) -> Iterator[Path]:
    """As `replacing`, for a folder, which changes places with the one that is there.

    Args:
        check: raises OutputError where what is there may not be replaced; called once more when the block is done.
    """
    check()
    sweep(path.parent, path)
    temporary, descriptor = None, None
    try:
        exists = path.is_dir()
        temporary, descriptor = _begun(path, path.suffix, 0o700 if exists else 0o777, folder=True)
        before = (path if exists else temporary).stat()
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                settle(Path(folder, name))
            settle(Path(folder), before if folder == str(temporary) else None)
        check()
        if path.is_dir():
            _swap(temporary, path)
        else:
            try:
                os.rename(temporary, path)
            except OSError:
                check()  # another writer may have been first
                raise
        with suppress(OSError):  # it is in place already
            settle(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{path}: cannot be written: {reason}; free space or choose another folder") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are not there, and wait until they are on the disk."""
    for missing in [folder for folder in (*reversed(path.parents), path) if not folder.is_dir()]:
        missing.mkdir(exist_ok=True)
        with suppress(OSError):
            settle(missing.parent)


def sweep(folder: Path, target: Path | None = None) -> None:
    """Delete what killed processes have left half-written in a folder: of one target, or of all."""
    stem = "*" if target is None else glob.escape(target.stem[:40])
    for left in folder.glob(f".{stem}.{_MARK}????????*"):
        with suppress(OSError):
            descriptor = _opened(left)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(descriptor)


def _begun(path: Path, suffix: str, mode: int, folder: bool = False) -> tuple[Path, int]:
    """A new file or folder beside `path`, and a descriptor: while that is open, `sweep` leaves it alone."""
    while True:
        temporary = path.with_name(f".{path.stem[:40]}.{_MARK}{secrets.token_hex(4)}{suffix}")
        if folder:
            temporary.mkdir(mode)
            descriptor = os.open(temporary, os.O_RDONLY)
        else:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with suppress(OSError):  # some network file systems have no locks; nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():  # else it was swept before it was locked
            return temporary, descriptor
        os.close(descriptor)


def _move(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a file its name; of several writers that replace nothing the first one wins (raises OutputError)."""
    if not overwrite:
        try:
            if not _renamed(temporary, path, _NO_REPLACE):
                os.link(temporary, path)
                temporary.unlink()
            return
        except FileExistsError:
            raise OutputError(f"{path}: exists already; choose another name or overwrite it") from None
        except OSError:  # not every file system has links
            pass
    os.replace(temporary, path)


def _swap(one: Path, other: Path) -> None:
    """Let two folders change places, at once where the system can."""
    if _renamed(one, other, _EXCHANGE):
        return
    aside = one.with_name(f"{one.name}.old")
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _renamed(source: Path, target: Path, flag: int) -> bool:
    """Call Linux's `renameat2`, of which Python knows nothing; False where the system or the file system has none."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_CURRENT_FOLDER, os.fsencode(source), _CURRENT_FOLDER, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(source))


def settle(path: Path, before: os.stat_result | None = None) -> None:
    """Wait until a file or folder is on the disk, and give it the permissions and the owner that another had `before`,
    where the file system and the process can do that."""
    descriptor = _opened(path)
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


def _opened(path: Path) -> int:
    """A descriptor: a folder is opened to be read; a file, on some systems, has to be opened to be written."""
    return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
