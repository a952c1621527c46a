"""Files <-> Signal: the tables of formats, and `.npy` arrays. Pictures: `pictures.py`.

Reading goes by content, writing by suffix. Samples keep their depth; whatever has to be converted on the way is said
in one line of log.
"""

import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lgsirens import pictures
from lgsirens.atomic import check_output, replacing
from lgsirens.errors import LgsirensError, SignalError
from lgsirens.signal import KINDS, Array, Signal, to_sample_type

log = logging.getLogger("lgsirens")

_NPY_MAGIC = b"\x93NUMPY"
_BAND_BYTES = 1 << 20

Reader = Callable[[Path, BinaryIO, str | None], tuple[Array, str | None]]


@dataclass(frozen=True)
class _Format:
    """What a file format can hold, and what writes it.

    Attributes:
        save: writes `[*shape, C]` samples of a stored type to a path.
        kinds: kinds of signal.
        channels: numbers of channels; None for any.
        types: sample types that it keeps exactly; the last one stands in for all others; None for any.
        longest_side: most samples along an axis.
        needs: optional package for a sample type and number of channels; None for none.
    """

    name: str
    save: Callable[[Path, Array], None]
    kinds: tuple[str, ...] = ("image",)
    channels: tuple[int, ...] | None = (1, 2, 3, 4)
    types: tuple[str, ...] | None = ("uint8",)
    longest_side: int = 2**31 - 1
    needs: Callable[[str, int], str | None] = lambda dtype, channels: None

    def holds(self, kind: str, channels: int) -> bool:
        return kind in self.kinds and (self.channels is None or channels in self.channels)

    def stored_type(self, dtype: str) -> str:
        return dtype if self.types is None or dtype in self.types else self.types[-1]


def read(
    path: str | os.PathLike[str], kind: str | None = None, value_range: tuple[float, float] | None = None
) -> Signal:
    """Read a picture (PNG, JPEG, TIFF, WebP, BMP, GIF) or a `.npy` array.

    Args:
        path: a file; its content decides how it is read.
        kind: what a `.npy` array is, settled by its rank when None; a picture is always an image.
        value_range: lowest and highest value; None for the default of `Signal.from_array`.

    Raises:
        SignalError: no such file, damaged, of an unknown format, or no signal of that kind.
        MissingDependencyError: the file needs an optional package.
    """
    path = Path(path)
    with _opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters is raised or logged
        reader = _READERS.get(path.suffix.lower(), pictures.read_picture)
        if file.read(len(_NPY_MAGIC)) == _NPY_MAGIC:
            reader = _read_array
        file.seek(0)
        try:
            values, kind = reader(path, file, kind)
        except LgsirensError:
            raise
        except Exception as error:  # codecs raise errors of any type for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SignalError(f"{path}: cannot be read, it is damaged: {reason}; get or save the file again") from error
    try:
        return Signal.from_array(values, kind, value_range)
    except SignalError as error:
        raise SignalError(f"{path}: {error}") from error


def write(path: str | os.PathLike[str], signal: Signal, overwrite: bool = False) -> None:
    """Write a signal in the format that the suffix names; the file appears whole or not at all.

    Raises:
        SignalError: the format cannot hold the signal.
        OutputError: the file exists and `overwrite` is false, or its folder does not exist.
        RunError: the file cannot be written (disk full, no permission).
        MissingDependencyError: the format needs an optional package.
    """
    path = Path(path)
    check_format(path, signal.kind, signal.channels, signal.dtype)
    check_output(path, overwrite)
    form = _FORMATS[path.suffix.lower()]
    if signal.kind == "image" and max(signal.shape) > form.longest_side:
        size = "x".join(map(str, signal.shape))
        raise SignalError(
            f"{path}: {form.name} holds at most {form.longest_side} samples a side, the image has {size}; "
            "choose .png or .tif"
        )
    samples = _stored(path, signal, form)
    with replacing(path, overwrite) as temporary:
        try:
            form.save(temporary, samples)
        except (LgsirensError, OSError):
            raise
        except Exception as error:  # encoders raise errors of any type; those of PyAV are no OSError
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SignalError(f"{path}: cannot be encoded as {form.name}: {reason}; choose .npy") from error


def check_format(path: str | os.PathLike[str], kind: str, channels: int, dtype: str | None = None) -> None:
    """Check, before any long work, that a file of this suffix can hold such a signal.

    Args:
        path: only its suffix matters.
        kind: a key of `KINDS`.
        channels: number of channels.
        dtype: sample type, where known; then the optional packages that it needs are checked as well.

    Raises:
        SignalError: the suffix is unknown, or its format cannot hold the signal.
        MissingDependencyError: an optional package is needed.
    """
    form = _FORMATS.get(Path(path).suffix.lower())
    if form is None:
        raise SignalError(f"{path}: the suffix names no format that can be written; choose {', '.join(WRITABLE)}")
    fitting = [suffix for suffix, other in _FORMATS.items() if other.holds(kind, channels)]
    if not form.holds(kind, channels):
        what = f"an image of {channels} channels" if kind == "image" else f"a signal of kind {kind}"
        alpha = " (alpha)" if kind == "image" and channels in (2, 4) else ""
        raise SignalError(f"{path}: {form.name} cannot hold {what}{alpha}; choose {', '.join(fitting)}")
    package = dtype and form.needs(form.stored_type(dtype), channels)
    if package:
        pictures.optional(package, path)


# Reading


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SignalError(f"{path}: is a folder or a device; name a file")
        if status.st_size == 0:
            raise SignalError(f"{path}: is empty; get or save the file again")
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise SignalError(f"{path}: cannot be opened: {reason}; check the name and its permissions") from error
    with file:
        yield file


def _read_array(path: Path, file: BinaryIO, kind: str | None) -> tuple[Array, str | None]:
    try:
        return np.lib.format.read_array(file, allow_pickle=False), kind
    except (ValueError, EOFError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise SignalError(
            f"{path}: cannot be read as a .npy array: {reason}; save numbers with numpy.save again"
        ) from error


# Writing


def _save_array(path: Path, samples: Array) -> None:
    with pictures.open_for_writing(path) as file:
        np.save(file, samples, allow_pickle=False)


def _stored(path: Path, signal: Signal, form: _Format) -> Array:
    """The samples in the type that the format stores, converted by bands: a large image has room for one copy."""
    values, target = signal.values, form.stored_type(signal.dtype)
    if form.types is None or str(values.dtype) == target == signal.dtype:
        return np.ascontiguousarray(values)
    scale, offset = _mapping(path, signal, target)
    samples = np.empty(values.shape, target)
    height = max(1, _BAND_BYTES // values[:1].nbytes)
    for top in range(0, len(values), height):
        band = values[top : top + height].astype(np.float64) * scale + offset
        samples[top : top + height] = to_sample_type(band, target)
    return samples


def _mapping(path: Path, signal: Signal, target: str) -> tuple[float, float]:
    """Factor and summand from values to stored numbers; other numbers than the signal's own only for 8 bits."""
    lo, hi = signal.value_range
    if target != "uint8" or signal.dtype == "uint8":
        return 1.0, 0.0
    if signal.dtype == "uint16":
        log.warning("%s: 16-bit samples are written with 8 bits; .png and .tif keep them", path)
        return 1 / 257, 0.0
    log.warning("%s: %s samples in [%g, %g] are written as 0 to 255; .tif keeps them", path, signal.dtype, lo, hi)
    return 255 / (hi - lo), -lo * 255 / (hi - lo)


_READERS: dict[str, Reader] = {".npy": _read_array}

_JPEG = _Format("JPEG", pictures.save_jpeg, channels=(1, 3), longest_side=65500)
_TIFF = _Format(
    "TIFF",
    pictures.save_tiff,
    types=("uint8", "uint16", "int8", "int16", "float32"),
    needs=pictures.package_for_tiff,
)
_FORMATS = {
    ".npy": _Format(".npy", _save_array, tuple(KINDS), channels=None, types=None),
    ".png": _Format("PNG", pictures.save_png, types=("uint16", "uint8"), needs=pictures.package_for_png),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Format("WebP", pictures.save_webp, longest_side=16383),
}
WRITABLE = tuple(_FORMATS)
