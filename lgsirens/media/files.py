"""Files <-> Signal, and `.npy` arrays. What each format can hold is in `formats.py`.

Pictures are in `image.py`, sounds in `audio.py`, films in `video.py`, folders of numbered pictures in `folder.py`,
TIFF stacks in `volume.py`.

Reading goes by content, writing by suffix. Samples keep their depth; whatever has to be converted on the way is said
in one line of log.
"""

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lgsirens.errors import ConfigError, LgsirensError, SignalError
from lgsirens.media import audio, folder, image, video, volume
from lgsirens.media.formats import FOLDER, FORMATS, MP4, SOUND
from lgsirens.media.frames import Frames, Progress, bounds
from lgsirens.media.stored import Stored
from lgsirens.signal import Array, Signal, check_signal
from lgsirens.system.console import times
from lgsirens.system.output import check_output, replacing

_NPY_MAGIC = b"\x93NUMPY"
_HEAD_BYTES = 4096
_PICTURE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", *image.TIFF_MAGIC)


@dataclass(frozen=True)
class _Order:
    """What a reader is asked for; see `read`."""

    path: Path
    kind: str | None
    value_range: tuple[float, float] | None
    frames: Frames
    max_side: int | None
    progress: Progress | None

    def check(self, kind: str) -> None:
        """Raise SignalError if another kind of signal is asked for, or a part that only films have."""
        if self.kind not in (None, kind):
            raise SignalError(
                f"{self.path}: is of kind {kind}, not {self.kind!r}; name a file of that kind, or give no kind"
            )
        option = "frames" if self.frames is not None else "max_side" if self.max_side is not None else None
        if kind != "video" and option:
            raise SignalError(f"{self.path}: {option} is for films, this is of kind {kind}; leave it out")


Reader = Callable[[_Order, BinaryIO], Signal]


def read(
    path: str | os.PathLike[str],
    kind: str | None = None,
    value_range: tuple[float, float] | None = None,
    *,
    frames: Frames = None,
    max_side: int | None = None,
    progress: Progress | None = None,
) -> Signal:
    """Read a picture, a sound, a film, a folder of numbered pictures (a film too) or a `.npy` array.

    Args:
        path: a file, whose content decides how it is read, or a folder.
        kind: what a `.npy` array is, settled by its rank when None; "volume" reads all pages of a TIFF file.
        value_range: lowest and highest value; None for the default of `Signal.from_array`.
        frames: of a film, the first frame and the one after the last; None for an open end.
        max_side: of a film, the largest height and width; larger frames are reduced as they are read.
        progress: told the frames of a film that are done, and all.

    Raises:
        SignalError: no such file, damaged, of an unknown format, or no signal of that kind.
        ConfigError: no such `frames` or `max_side`.
        MissingDependencyError: the file needs an optional package.
    """
    path = _as_path(path)
    order = _Order(path, kind, value_range, frames, max_side, progress)
    with warnings.catch_warnings(), _one_line(path):
        warnings.simplefilter("ignore")  # what matters is raised or logged
        if _is_folder(path):
            return _read_folder(order)
        with _opened(path) as file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            return _reader(order, head)(order, file)


def write(
    path: str | os.PathLike[str],
    signal: Signal,
    overwrite: bool = False,
    *,
    crf: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a signal in the format that the suffix names; the file appears whole or not at all.

    Args:
        path: a name without suffix is a folder of numbered PNG pictures.
        signal: what to write.
        overwrite: replace what is there. A folder is replaced only if it holds nothing but such pictures.
        crf: quality of H.264 (.mp4): 0 (best) to 51, 18 by default.
        progress: told the frames of a film that are done, and all.

    Raises:
        SignalError: the format cannot hold the signal.
        ConfigError: `crf` out of range, or for another format.
        OutputError: the file exists and `overwrite` is false, or its folder does not exist.
        RunError: the file cannot be written (disk full, no permission).
        MissingDependencyError: the format needs an optional package.
    """
    check_signal(signal)
    path = _as_path(path)
    check_format(path, signal.kind, signal.channels, signal.dtype)
    check_target(path, overwrite)
    suffix = path.suffix.lower()
    form = FORMATS[suffix]
    if crf is not None and form is not MP4:
        raise ConfigError(f"{path}: crf is for .mp4, not for {form.name}; leave it out")
    if signal.kind == "image" and max(signal.shape) > form.longest_side:
        size = times(signal.shape)
        raise SignalError(
            f"{path}: {form.name} holds at most {form.longest_side} samples a side, the image has {size}; "
            "choose .png or .tif"
        )
    target = None if form.types is None else form.stored_type(signal.dtype)
    stored = Stored(path, signal, target, form.deeper, progress)
    with folder.replacing_folder(path, overwrite) if suffix == FOLDER else replacing(path, overwrite) as temporary:
        try:
            form.save(temporary, stored, **({} if crf is None else {"crf": crf}))
        except (LgsirensError, OSError):
            raise
        except Exception as error:  # encoders raise errors of any type; those of PyAV are no OSError
            message = f"{path}: cannot be encoded as {form.name}: {_words(error)}; choose .npy"
            raise SignalError(message) from error


def check_format(path: str | os.PathLike[str], kind: str, channels: int, dtype: str | None = None) -> None:
    """Check, before any long work, that a file of this suffix can hold such a signal.

    Args:
        path: only its suffix matters; none stands for a folder of pictures.
        kind: a key of `KINDS`.
        channels: number of channels.
        dtype: sample type, where known; then the optional packages that it needs are checked as well.

    Raises:
        SignalError: the suffix is unknown, or its format cannot hold the signal.
        MissingDependencyError: an optional package is needed.
    """
    path = _as_path(path)
    suffix = path.suffix.lower()
    form = FORMATS.get(suffix)
    names = [name or "a name without suffix" for name, other in FORMATS.items() if other.holds(kind, channels)]
    fitting = ", ".join(names)
    if form is None or (suffix == FOLDER and not form.holds(kind, 1)):
        raise SignalError(f"{path}: the suffix names no format that can be written; choose {fitting}")
    if not form.holds(kind, channels):
        other_kind = kind not in form.kinds
        article = "an" if kind == "image" else "a"
        what = f"a signal of kind {kind}" if other_kind else f"{article} {kind} of {channels} channels"
        alpha = " (alpha)" if not other_kind and channels in (2, 4) else ""
        raise SignalError(f"{path}: {form.name} cannot hold {what}{alpha}; choose {fitting}")
    if dtype is None:
        return
    if form is SOUND:
        audio.check_sound(path, channels, dtype)
    package = form.needs(form.stored_type(dtype), channels)
    if package:
        image.optional(package, path, form.extra)


def check_target(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Check, before any long work, that a file, or for a name without suffix a folder, may be written there.

    Raises:
        OutputError: as `atomic.check_output`; a folder that holds other things than numbered PNG pictures.
        RunError: the folder above is not writable.
    """
    path = _as_path(path)
    if path.suffix == FOLDER and _is_folder(path):
        folder.check_folder(path, overwrite)
    else:
        check_output(path, overwrite)


def _as_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise SignalError(f"{path!r} is no path; name a file")
    return Path(path)


# Reading


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # told when it is opened
        return False


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except LgsirensError:
        raise
    except Exception as error:  # codecs raise errors of any type for damaged files
        message = f"{path}: cannot be read, it is damaged: {_words(error)}; get or save the file again"
        raise SignalError(message) from error


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SignalError(f"{path}: is a device; name a file")
        if status.st_size == 0:
            raise SignalError(f"{path}: is empty; get or save the file again")
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise SignalError(f"{path}: cannot be opened: {reason}; check the name and its permissions") from error
    with file:
        yield file


def _reader(order: _Order, head: bytes) -> Reader:
    """What reads a file that begins with `head`; the suffix counts only where the content does not tell."""
    suffix = order.path.suffix.lower()
    if head.startswith(_NPY_MAGIC) or suffix == ".npy":
        return _read_array
    if order.kind == "volume" and head.startswith(image.TIFF_MAGIC):
        return _read_volume
    if head.startswith(_PICTURE_MAGIC):
        return _read_picture
    if video.looks_like_film(head):
        return _read_film
    if audio.looks_like_sound(head):
        if suffix in video.FILM_SUFFIXES:
            raise SignalError(f"{order.path}: is a sound, it holds no video stream; give it the suffix of a sound")
        return _read_sound
    if suffix in video.FILM_SUFFIXES or order.kind == "video":
        return _read_film
    return _read_sound if suffix in audio.FORMATS or order.kind == "audio" else _read_picture


def _signal(order: _Order, values: Array, kind: str | None) -> Signal:
    try:
        return Signal.from_array(values, kind, order.value_range)
    except SignalError as error:
        raise SignalError(f"{order.path}: {error}") from error


def _read_array(order: _Order, file: BinaryIO) -> Signal:
    try:
        values = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        message = f"{order.path}: cannot be read as a .npy array: {_words(error)}; save numbers with numpy.save again"
        raise SignalError(message) from error
    signal = _signal(order, values, order.kind)
    replace(order, max_side=None).check(signal.kind)
    if order.max_side is not None:
        raise SignalError(f"{order.path}: max_side is for films in other files than .npy; reduce the array first")
    start, stop = bounds(order.path, order.frames, len(signal.values))
    return replace(signal, values=signal.values[start:stop])


def _read_picture(order: _Order, file: BinaryIO) -> Signal:
    values, kind = image.read_picture(order.path, file, order.kind)
    order.check(kind)
    return _signal(order, values, kind)


def _read_volume(order: _Order, file: BinaryIO) -> Signal:
    order.check("volume")
    values, spacing = volume.read_volume(order.path, file)
    return replace(_signal(order, values, "volume"), spacing=spacing)


def _read_sound(order: _Order, file: BinaryIO) -> Signal:
    order.check("audio")
    signal = audio.read_sound(order.path)
    if order.value_range is None:
        return signal
    return replace(signal, value_range=_signal(order, signal.values, "audio").value_range)


def _read_film(order: _Order, file: BinaryIO) -> Signal:
    order.check("video")
    values, rate = video.read_film(order.path, order.frames, order.max_side, order.progress)
    return replace(_signal(order, values, "video"), sampling_rate=rate)


def _read_folder(order: _Order) -> Signal:
    order.check("video")
    return _signal(order, folder.read_folder(order.path, order.frames, order.max_side, order.progress), "video")
