"""Folders of numbered pictures <-> arrays `[T, H, W, C]`. Used by `media.py` and `formats.py` only."""

import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from lgsirens.errors import LgsirensError, OutputError, RunError, SignalError
from lgsirens.media import image
from lgsirens.media.frames import PACKED, Frames, Progress, bounds, check_options, gathered, packed, reduced, unpacked
from lgsirens.media.stored import Stored
from lgsirens.signal import Array
from lgsirens.system.output import settle, temporary_beside

log = logging.getLogger("lgsirens")

_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")


def read_folder(path: Path, frames: Frames, max_side: int | None, progress: Progress | None) -> Array:
    """Read the numbered pictures of a folder as `film.read_film` does."""
    check_options(frames, max_side)
    names = _numbered_pictures(path)
    start, stop = bounds(path, frames, len(names))
    found = enumerate(_picture(name, max_side) for name in names[start:stop])
    return gathered(path, found, np.arange(stop - start), progress, names[start:])


def _numbered_pictures(path: Path) -> list[Path]:
    """The pictures of a folder in the order of the last number in their names."""
    names = [name for name in sorted(path.iterdir()) if name.suffix.lower() in _PICTURE_SUFFIXES and name.is_file()]
    numbered: dict[int, Path] = {}
    for name in names:
        numbers = re.findall(r"\d+", name.stem)
        if not numbers:
            raise SignalError(f"{name}: has no number in its name; number the pictures of a film")
        if int(numbers[-1]) in numbered:
            raise SignalError(f"{name}: has the number of {numbered[int(numbers[-1])].name}; keep one of them")
        numbered[int(numbers[-1])] = name
    if not numbered:
        raise SignalError(f"{path}: is a folder without numbered pictures; name a file, or a folder of .png files")
    missing = max(numbered) - min(numbered) + 1 - len(numbered)
    if missing:
        log.warning("%s: %d numbers are missing; the other pictures follow one another", path, missing)
    return [numbered[number] for number in sorted(numbered)]


def _picture(path: Path, max_side: int | None) -> Array:
    try:
        with path.open("rb") as file:
            samples, _ = image.read_picture(path, file, None)
    except LgsirensError:
        raise
    except Exception as error:  # codecs raise errors of any type for damaged files
        raise SignalError(f"{path}: cannot be read: {' '.join(str(error).split())}; save the file again") from error
    height, width = samples.shape[:2]
    if reduced(width, height, max_side) == (width, height):
        return samples
    if str(samples.dtype) not in PACKED:
        raise SignalError(f"{path}: {samples.dtype} pictures cannot be reduced; leave out --max_side")
    frame = packed(image.optional("av", path, "video"), samples)
    return unpacked(frame, max_side)


def save_folder(folder: Path, stored: Stored) -> None:
    """Write frames of 8 or 16 bits as `000000.png` and so on, into a folder that exists."""
    if stored.signal.sampling_rate is not None:
        log.warning("%s: pictures hold no frame rate; .mkv keeps it", stored.path)
    for number, samples in enumerate(stored.frames()):
        image.save_png(folder / f"{number:06d}.png", samples)


def check_folder(path: Path, overwrite: bool) -> None:
    """Check that a folder that exists may be replaced: an empty one, or, if `overwrite`, one that `save_folder` wrote.

    Raises:
        OutputError: it may not.
        RunError: the folder above is not writable.
    """
    names = sorted(path.iterdir())
    others = [name for name in names if not (re.fullmatch(r"\d{6,}\.png", name.name) and name.is_file())]
    if path.is_symlink() or others:
        what = f"holds {others[0].name}" if others else "is a link"
        raise OutputError(f"{path}: {what}, so the folder is not replaced; choose another name")
    if names and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or pass --overwrite (overwrite=True)")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"{path}: the folder {path.parent} is not writable; choose another one")


@contextmanager
def replacing_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """As `atomic.replacing`, for a folder."""
    temporary, old = temporary_beside(path, ""), None
    try:
        exists = path.is_dir()
        temporary.mkdir(0o700 if exists else 0o777)
        mode = stat.S_IMODE((path if exists else temporary).stat().st_mode)
        yield temporary
        for name in temporary.iterdir():
            settle(name)
        settle(temporary, mode)
        if path.is_dir():
            check_folder(path, overwrite)  # again: the work took long
            old = temporary.with_name(f"{temporary.name}.old")
            os.rename(path, old)
        os.rename(temporary, path)
        with suppress(OSError):  # it is in place already
            settle(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{path}: cannot be written: {reason}; free space or choose another folder") from error
    finally:
        if old is not None and not path.exists():
            os.rename(old, path)
        for left in filter(None, (temporary, old)):
            shutil.rmtree(left, ignore_errors=True)
