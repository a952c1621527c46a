"""Files <-> Signal: reading goes by content, writing by suffix, both over the table in `formats.py`.

Samples keep their depth; whatever has to be converted on the way is said in one line of log.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lgsirens.errors import ConfigError, LgsirensError, SignalError, require
from lgsirens.media.formats import FOLDER, FORMATS, ZARR, Format, named, recognised, suffixes
from lgsirens.media.frames import Frames, check_options
from lgsirens.media.pipe import kept
from lgsirens.media.request import DEFAULT_LIMIT, Request
from lgsirens.media.store import is_store
from lgsirens.media.stored import Stored
from lgsirens.signal import UNSIGNED_TYPES, Signal, check_signal, integer_limits
from lgsirens.system.console import Progress, counted, note, times
from lgsirens.system.hardware import as_bytes, default_memory, format_bytes
from lgsirens.system.output import check_output

_HEAD_BYTES = 4096
_BYTES_OF_A_VALUE, _MOST_AT_ONCE = 32, 1 << 24  # of a signal that is decoded and converted part by part


def read(
    path: str | os.PathLike[str],
    kind: str | None = None,
    value_range: tuple[float, float] | None = None,
    *,
    frames: Frames = None,
    max_side: int | None = None,
    max_memory: int | str | None = None,
    progress: Progress | None = None,
) -> Signal:
    """Read a picture, a sound, a film, a folder of numbered pictures (a film too) or a `.npy` array.

    Args:
        path: a file, whose content decides how it is read, a folder, a pipe, or `-`, standard input; `FILE::NAME` for
            one of several arrays in HDF5 or Zarr. What is large is read by region, where the format can.
        kind: what a `.npy` array is, settled by its rank when None; "volume" reads all pages of a TIFF file.
        value_range: lowest and highest value; None for the default of `Signal.from_array`.
        frames: of a film, the first frame and the one after the last; None for an open end.
        max_side: of a film, the largest height and width; larger frames are reduced as they are read.
        max_memory: bytes that it may take to read a file of less than a thousandth of that; 1 GiB at least.
        progress: told of the frames of a film.

    Raises:
        SignalError: no such file, damaged, of an unknown format, or no signal of that kind.
        ConfigError: no such `frames` or `max_side`.
        MissingDependencyError: the file needs an optional package.
    """
    path, progress = _as_path(path), progress or Progress("read", "frame", quiet=True)
    check_options(frames, max_side)
    path, dataset = _parted(path)
    limit = max(DEFAULT_LIMIT, as_bytes(max_memory or 0))
    with kept(path) as file:
        picture, stays = partial(read, kind="image", max_memory=limit), file == path
        request = Request(file, kind, value_range, frames, max_side, progress, picture, dataset, stays, limit)
        return _read(request)


def _read(request: Request) -> Signal:
    path = request.path
    with _one_line(path, "cannot be read, it is damaged", "get or save the file again"), _opened(path) as file:
        form = _recognised(request, file)
        if request.kind == "video" and form.film is not None:
            return form.film(request, file)
        if request.dataset is not None and not form.datasets:
            raise SignalError(f"{path}: is {form.name}, which holds no arrays by name; leave ::{request.dataset} out")
        request.check(form.kinds)
        return form.read(request, file)


def write(
    path: str | os.PathLike[str],
    signal: Signal,
    overwrite: bool = False,
    *,
    crf: int | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> None:
    """Write a signal in the format that the suffix names; the file appears whole or not at all.

    Args:
        path: a name without suffix is a folder of numbered PNG pictures.
        signal: what to write.
        overwrite: replace what is there. A folder is replaced only if it holds nothing but such pictures.
        crf: quality of H.264 (.mp4): 0 (best) to 51, 18 by default.
        progress: told of the frames of a film.
        max_memory: bytes that may be taken by a signal that is read by region; None: half of this machine's memory.

    Raises:
        SignalError: the format cannot hold the signal.
        ConfigError: `crf` out of range, or for another format.
        OutputError: the file exists and `overwrite` is false, or its folder does not exist.
        RunError: the file cannot be written (disk full, no permission).
        MissingDependencyError: the format needs an optional package.
    """
    path, signal = _as_path(path), check_signal(signal)
    form = check_format(path, signal.kind, signal.channels, signal.dtype)
    assert form.write is not None  # it holds the signal
    form.check_target(path, overwrite)
    if crf is not None and "crf" not in form.options:
        raise ConfigError(f"{crf}: is for .mp4, not for {path}; leave it out", "crf")
    if max(signal.shape) > form.longest_side:
        raise SignalError(
            f"{path}: {form.name} holds at most {form.longest_side} samples a side, the {signal.kind} has "
            f"{times(signal.shape)}; choose .npy"
        )
    target = None if form.types is None else form.stored_type(signal.dtype)
    if target not in (None, signal.dtype):
        _say_converted(path, signal, target)
    for name in ("spacing", "colour"):
        if getattr(signal, name) is not None and name not in form.keeps:
            what = "distance of samples" if name == "spacing" else "colour space (primaries, transfer)"
            note("%s: %s does not hold the %s %s of the signal", path, form.name, what, getattr(signal, name))
    at_once = max(1, min((max_memory or default_memory()) // _BYTES_OF_A_VALUE, _MOST_AT_ONCE))
    stored = Stored(path, signal, target, progress or Progress("write", "frame", quiet=True), at_once)
    if stored.by_region and not form.streams:
        size = format_bytes(signal.values.size * stored.dtype.itemsize)
        note(
            "%s: %s is written at once, so all of it is held, %s and more; .tif takes it in parts",
            path,
            form.name,
            size,
        )
    options = {} if crf is None else {"crf": crf}
    with (
        form.replacing(path, overwrite) as temporary,
        _one_line(path, f"cannot be encoded as {form.name}", "choose .npy", OSError),
    ):
        form.write(temporary, stored, **options)


def check_format(path: str | os.PathLike[str], kind: str, channels: int, dtype: str | None = None) -> Format:
    """Find the format of a file of this suffix and check, before any long work, that it can hold such a signal.

    Args:
        path: only its suffix matters; none stands for a folder of pictures.
        kind: a key of `KINDS`.
        channels: number of channels.
        dtype: sample type, where known; then the optional packages that it needs are checked as well.

    Raises:
        SignalError: the suffix is unknown, or its format cannot hold the signal.
        MissingDependencyError: an optional package is needed.
    """
    form = named(Path(path))
    fitting = suffixes(other for other in FORMATS if other.holds(kind, channels))
    if form is None or (form is FOLDER and kind not in form.kinds):
        raise SignalError(f"{path}: the suffix names no format that can be written; choose {fitting}")
    target = None if dtype is None else form.stored_type(dtype)
    if not form.holds(kind, channels) or (dtype is not None and target is None):
        what = f"a signal of kind {kind} with {counted(channels, 'channel')}" + (f" of type {dtype}" if dtype else "")
        raise SignalError(f"{path}: {form.name} cannot hold {what}; choose {fitting}")
    if target is not None and form.package is not None and form.needs_package(target, channels):
        module, extra = form.package
        require(module, f"{path}: {form.name}", extra)
    return form


def check_target(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Check, before any long work, that a file, or for a name without suffix a folder, may be written there.

    Raises:
        OutputError: as `output.check_output`; a folder that holds other things than numbered PNG pictures.
        RunError: the folder above is not writable.
    """
    form = named(Path(path))
    (form.check_target if form else check_output)(Path(path), overwrite)


def _as_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise SignalError(f"{path!r} is no path; name a file")
    return Path(os.path.expanduser(path))


def _parted(path: Path) -> tuple[Path, str | None]:
    """A file and what `FILE::NAME` names in it."""
    file, parts, name = str(path).partition("::")
    return (path, None) if not parts or path.exists() else (Path(file), name.strip("/"))


def _say_converted(path: Path, signal: Signal, target: str) -> None:
    dtype, (lo, hi), how = signal.dtype, signal.value_range, ""
    if dtype in UNSIGNED_TYPES and target in UNSIGNED_TYPES and (dtype, target) != ("uint16", "uint8"):
        how = f", 0 to {integer_limits(dtype)[1]} as 0 to {integer_limits(target)[1]}"
    elif target == "uint8" and dtype != "uint16":
        how = f", [{lo:g}, {hi:g}] as 0 to 255"
    if dtype.startswith("float") and target.startswith("int") and max(-lo, hi) > 1:
        how = ", those beyond [-1, 1] are cut"
    able = (form for form in FORMATS if form.holds(signal.kind, signal.channels))
    keeping = suffixes(form for form in able if form.stored_type(dtype) == dtype)
    note("%s: %s samples are written as %s%s; choose %s to keep them", path, dtype, target, how, keeping)


@contextmanager
def _one_line(path: Path, what: str, remedy: str, passing: type[Exception] = LgsirensError) -> Iterator[None]:
    """Make one SignalError of the errors of codecs, which are of any type."""
    try:
        yield
    except (LgsirensError, passing):
        raise
    except MemoryError as error:
        raise SignalError(f"{path}: {error}; take less of it: fewer frames, or a smaller max_side") from error
    except Exception as error:
        raise SignalError(f"{path}: {what}: {_words(error)}; {remedy}") from error


def _words(error: Exception) -> str:
    words = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return " ".join(words.split()).removeprefix("Error : ").rstrip(".") or type(error).__name__


def _opened(path: Path) -> BinaryIO:
    """The file; an empty one in place of a folder."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return io.BytesIO()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SignalError(f"{path}: is a device; name a file")
        if status.st_size == 0:
            raise SignalError(f"{path}: is empty; get or save the file again")
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise SignalError(f"{path}: cannot be opened: {_words(error)}; check the name and its permissions") from error


def _recognised(request: Request, file: BinaryIO) -> Format:
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    suffix, folder = request.path.suffix.lower(), ZARR if is_store(request.path) else FOLDER
    form = recognised(head, suffix, request.kind) if head else folder
    if form is None:
        known = ", ".join(form.name for form in FORMATS if form is not FOLDER)
        raise SignalError(
            f"{request.path}: its content is none of {known}; convert it, or give --kind video for a film"
        )
    return form
