"""Stacks of pictures of one size: TIFF volumes and folders of numbered pictures <-> arrays `[T, H, W, C]`.

Used by `media.py` and `film.py` only; here is also what films and folders share: which frames are read, how they are
reduced, and FFmpeg's frames as arrays.
"""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from lgsirens import pictures
from lgsirens.errors import ConfigError, LgsirensError, MissingDependencyError, OutputError, RunError, SignalError
from lgsirens.signal import Array, Signal, to_sample_type

log = logging.getLogger("lgsirens")

Frames = tuple[int | None, int | None] | None  # first frame and the one after the last; None for an open end
Progress = Callable[[int, int], None]  # called with the frames done and the frames in all

_BAND_BYTES = 1 << 20
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")
_PACKED = {
    "uint8": {1: "gray", 2: "ya8", 3: "rgb24", 4: "rgba"},
    "uint16": {1: "gray16le", 2: "ya16le", 3: "rgb48le", 4: "rgba64le"},
}


class Stored:
    """A signal in the sample type of a file, converted by bands: a large signal has room for one copy at most.

    Args:
        path: the name for messages.
        signal: values `[*shape, C]`.
        target: the sample type; None for that of the values.
        deeper: what keeps 16-bit integers, and what keeps all other types, for the line that says what is lost.
        progress: told after each of `frames`.
    """

    def __init__(
        self, path: Path, signal: Signal, target: str | None, deeper: tuple[str, str], progress: Progress | None
    ) -> None:
        self.path, self.signal, self._progress = path, signal, progress
        self._target = None if str(signal.values.dtype) == target == signal.dtype else target
        self._mapping = (1.0, 0.0) if self._target is None else _mapping(path, signal, self._target, deeper)

    def _band(self, start: int, stop: int) -> Array:
        values = self.signal.values[start:stop]
        if self._target is None:
            return np.ascontiguousarray(values)
        scale, offset = self._mapping
        return to_sample_type(values.astype(np.float64) * scale + offset, self._target)

    def whole(self) -> Array:
        """All samples `[*shape, C]`."""
        values = self.signal.values
        if self._target is None:
            return np.ascontiguousarray(values)
        samples = np.empty(values.shape, self._target)
        height = max(1, _BAND_BYTES // values[:1].nbytes)
        for top in range(0, len(values), height):
            samples[top : top + height] = self._band(top, top + height)
        return samples

    def frames(self) -> Iterator[Array]:
        """One frame `[H, W, C]` after the other."""
        count = len(self.signal.values)
        for index in range(count):
            yield self._band(index, index + 1)[0]
            if self._progress is not None:
                self._progress(index + 1, count)


def _mapping(path: Path, signal: Signal, target: str, deeper: tuple[str, str]) -> tuple[float, float]:
    """Factor and summand from values to stored numbers; other numbers than the signal's own only for 8 bits."""
    lo, hi = signal.value_range
    if target != "uint8" or signal.dtype == "uint8":
        return 1.0, 0.0
    if signal.dtype == "uint16":
        log.warning("%s: 16-bit samples are written with 8 bits; %s them", path, deeper[0])
        return 1 / 257, 0.0
    log.warning("%s: %s samples in [%g, %g] are written as 0 to 255; %s them", path, signal.dtype, lo, hi, deeper[1])
    return 255 / (hi - lo), -lo * 255 / (hi - lo)


# TIFF volumes


def read_volume(path: Path, file: BinaryIO) -> tuple[Array, tuple[float, ...] | None]:
    """Read all pages of a TIFF file as `[slices, H, W, C]`, and the distance of voxels along each axis.

    Raises:
        SignalError: pages of several sizes, several times or channels, or neither gray nor RGB.
        MissingDependencyError: tifffile or imagecodecs is missing.
        Exception: of any type, for damaged files.
    """
    tifffile = pictures.optional("tifffile", path)
    with _refusing_errors(), tifffile.TiffFile(file) as tiff:
        page, series = tiff.pages[0], tiff.series[0]
        if len(tiff.series) > 1 and sum(len(other) for other in tiff.series) > 1:
            sizes = " and ".join("x".join(map(str, other.shape)) for other in tiff.series[:2])
            raise SignalError(f"{path}: its pages are not of one size ({sizes}); save pages of one size")
        if page.photometric not in (0, 1, 2) or page.imagewidth * page.imagelength == 0:
            colours = int(page.photometric)
            raise SignalError(f"{path}: a TIFF volume of photometric {colours} is not supported; convert it to RGB")
        try:
            values = series.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise MissingDependencyError(f"{path}: {error}: pip install 'lgsirens[tiff]'") from error
            raise
        values = _slices_first(path, values, series.axes)
        if page.photometric == 0 and values.dtype.kind == "u":
            values = (1 << page.bitspersample) - 1 - values
        return values, _spacing(tiff, page)


@contextmanager
def _refusing_errors() -> Iterator[None]:
    """Raise ValueError for what tifffile only logs: of a stack that was cut off it returns the first pages."""
    told: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if told:
        raise ValueError(told[-1])


def _slices_first(path: Path, values: Array, axes: str) -> Array:
    """Axes in the order slice, row, column, channel."""
    letters = [name for name, length in zip(axes, values.shape, strict=True) if length > 1 or name in "YX"]
    values = values.reshape([length for name, length in zip(axes, values.shape, strict=True) if name in letters])
    depth = [name for name in letters if name not in "YXSC"]
    colours = [name for name in letters if name in "SC"]
    if len(depth) > 1 or len(colours) > 1:
        raise SignalError(f"{path}: a TIFF file of axes {axes} is no volume; save one time and one channel of it")
    if not depth:
        values, depth, letters = values[None], ["Z"], ["Z", *letters]
    if not colours:
        values, colours, letters = values[..., None], ["S"], [*letters, "S"]
    order = [letters.index(name) for name in (*depth, "Y", "X", *colours)]
    return np.ascontiguousarray(values.transpose(order))


def _spacing(tiff: Any, page: Any) -> tuple[float, float, float] | None:
    """Distance of slices, rows and columns: of OME, of ImageJ, or of our own description with the resolution tags."""
    if tiff.is_ome:
        pixels = next((e for e in ElementTree.fromstring(tiff.ome_metadata).iter() if e.tag.endswith("}Pixels")), None)
        found = [] if pixels is None else [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
        return _positive([float(size) for size in found if size is not None])
    known = tiff.imagej_metadata or (tiff.shaped_metadata or [{}])[0]
    depth = known.get("spacing")
    rows, columns = (page.tags.valueof(tag) for tag in (283, 282))
    if depth is None or rows is None or columns is None:
        return None
    # Tags hold fractions of pixels per unit; nine digits are what they can give back.
    sides = [float(f"{low / high:.9g}") if high else 0.0 for high, low in (rows, columns)]
    return _positive([float(depth), *sides])


def _positive(sizes: list[float]) -> tuple[float, float, float] | None:
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 and 0 < min(sizes) <= max(sizes) < np.inf else None


def save_volume(path: Path, values: Array, spacing: tuple[float, ...] | None) -> None:
    """Write `[slices, H, W, C]` as a TIFF stack, in ImageJ's dialect where that holds the samples."""
    tifffile = pictures.optional("tifffile", path)
    channels, dtype = values.shape[-1], str(values.dtype)
    imagej = (channels == 1 and dtype in ("uint8", "uint16", "float32")) or (channels, dtype) == (3, "uint8")
    imagej = imagej and values.shape[2] > 1  # tifffile takes a width of 1 for channels
    metadata: dict[str, Any] = {"axes": "ZYX" if channels == 1 else "ZYXS"}
    resolution = None
    if spacing is not None:
        metadata["spacing"] = spacing[0]
        resolution = 1 / spacing[2], 1 / spacing[1]
    with pictures.open_for_writing(path) as file:
        tifffile.imwrite(
            file,
            values if channels > 1 else values[..., 0],
            imagej=imagej,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            resolution=resolution,
            metadata=metadata,
        )


# What films and folders share


def check_options(frames: Frames, max_side: int | None) -> None:
    if max_side is not None and max_side < 1:
        raise ConfigError(f"max_side {max_side} must be at least 1")
    if frames is not None:
        start, stop = frames[0] or 0, frames[1]
        if start < 0 or (stop is not None and stop <= start):
            raise ConfigError(f"frames {start}:{stop} hold no frame; give START:STOP with 0 <= START < STOP")


def bounds(path: Path, frames: Frames, count: int) -> tuple[int, int]:
    start, stop = frames or (0, count)
    start, stop = start or 0, count if stop is None else stop
    if start >= count or stop > count:
        raise SignalError(f"{path}: has {count} frames, not {start}:{stop}; choose frames within 0:{count}")
    return start, stop


def gathered(
    path: Path,
    found: Iterable[tuple[int, Array]],
    wanted: Array,
    progress: Progress | None,
    names: Sequence[Path] | None = None,
) -> Array:
    """Store frames that come with rising indices at all the places that want them; stop after the last one."""
    values: Array | None = None
    done = 0
    for index, samples in found:
        if values is None:
            try:
                values = np.empty((len(wanted), *samples.shape), samples.dtype)
            except MemoryError as error:
                size = len(wanted) * samples.nbytes / 2**30
                message = f"{path}: needs {size:.1f} GiB; read fewer --frames or a smaller --max_side"
                raise SignalError(message) from error
        if samples.shape != values.shape[1:] or samples.dtype != values.dtype:
            raise SignalError(
                f"{names[index] if names else path}: frame {index} is {_form(samples)}, the first one is "
                f"{_form(values[0])}; make all frames alike"
            )
        while done < len(wanted) and wanted[done] == index:
            values[done] = samples
            done += 1
            if progress is not None:
                progress(done, len(wanted))
        if done == len(wanted):
            return values
    raise SignalError(f"{path}: frame {int(wanted[done])} cannot be decoded; get or save the file again")


def _form(samples: Array) -> str:
    height, width, channels = samples.shape
    return f"{width}x{height} with {channels} channels of {samples.dtype}"


def unpacked(frame: Any, max_side: int | None) -> Array:
    """One frame `[H, W, C]` as gray or RGB, with alpha where it has it, of 8 or 16 bits; a view of the frame."""
    parts = [part for part in frame.format.components if not part.is_alpha]
    alpha = len(frame.format.components) - len(parts)
    dtype = "uint16" if max(part.bits for part in parts) > 8 else "uint8"
    gray = len(parts) == 1 and not frame.format.has_palette
    channels = (1 if gray else 3) + alpha
    width, height = reduced(frame.width, frame.height, max_side)
    # Exact rounding and full chroma: the fast way is off by up to 3 levels and differs between processors.
    how = "AREA" if (width, height) != (frame.width, frame.height) else "BICUBIC"
    frame = frame.reformat(width, height, _PACKED[dtype][channels], interpolation=interpolation(how))
    return plane(frame, dtype, channels)[:, : width * channels].reshape(height, width, channels)


def interpolation(name: str) -> int:
    from av.video.reformatter import Interpolation

    flags = (name, "FULL_CHR_H_INT", "FULL_CHR_H_INP", "ACCURATE_RND", "BITEXACT")
    return sum(int(Interpolation[flag]) for flag in flags)


def plane(frame: Any, dtype: str, channels: int) -> Array:
    """Plane of a packed frame `[H, row]`, rows with their padding."""
    plane, item = frame.planes[0], np.dtype(dtype).itemsize
    row = plane.line_size // item
    return np.frombuffer(plane, np.dtype(dtype).newbyteorder("<"))[: frame.height * row].reshape(frame.height, row)


def reduced(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    side = max(width, height)
    if max_side is None or side <= max_side:
        return width, height
    return max(1, round(width * max_side / side)), max(1, round(height * max_side / side))


def packed(av: Any, samples: Array) -> Any:
    """A packed frame of gray or RGB with or without alpha; samples `[H, W, C]` uint8 or uint16."""
    height, width, channels = samples.shape
    dtype = str(samples.dtype)
    frame = av.VideoFrame(width, height, _PACKED[dtype][channels])
    plane(frame, dtype, channels)[:, : width * channels] = samples.reshape(height, -1)
    return frame


# Folders of numbered pictures


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
            samples, _ = pictures.read_picture(path, file, None)
    except LgsirensError:
        raise
    except Exception as error:  # codecs raise errors of any type for damaged files
        raise SignalError(f"{path}: cannot be read: {' '.join(str(error).split())}; save the file again") from error
    height, width = samples.shape[:2]
    if reduced(width, height, max_side) == (width, height):
        return samples
    if str(samples.dtype) not in _PACKED:
        raise SignalError(f"{path}: {samples.dtype} pictures cannot be reduced; leave out --max_side")
    frame = packed(pictures.optional("av", path, "video"), samples)
    return unpacked(frame, max_side)


def save_folder(folder: Path, stored: Stored) -> None:
    """Write frames of 8 or 16 bits as `000000.png` and so on, into a folder that exists."""
    if stored.signal.sampling_rate is not None:
        log.warning("%s: pictures hold no frame rate; .mkv keeps it", stored.path)
    for number, samples in enumerate(stored.frames()):
        pictures.save_png(folder / f"{number:06d}.png", samples)


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
    temporary = old = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        yield temporary
        temporary.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp makes it private
        if path.is_dir():
            check_folder(path, overwrite)  # again: the work took long
            old = temporary.with_name(f"{temporary.name}.old")
            os.rename(path, old)
        os.rename(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{path}: cannot be written: {reason}; free space or choose another folder") from error
    finally:
        if old is not None and not path.exists():
            os.rename(old, path)
        for left in filter(None, (temporary, old)):
            shutil.rmtree(left, ignore_errors=True)
