"""TIFF pictures and stacks <-> `Signal`: what Pillow would reduce to 8 bits, volumes and series by tifffile."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

from lgsirens.errors import MissingDependencyError, SignalError, require
from lgsirens.media import image
from lgsirens.media.animation import shrunk
from lgsirens.media.frames import bounds
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.media.units import METRES, SECONDS, scale
from lgsirens.signal import UNSIGNED_TYPES, Array, Signal, integer_limits, to_sample_type
from lgsirens.system.console import note, times

_REDUCED, _MASK, _RAW = 1, 4, (32803, 34892)  # kinds of page, and photometrics of a sensor's samples
_BY_PILLOW = (2, 3, 4, 6, 7, 32809)  # compressions that tifffile knows not in all their forms: fax, JPEG, ThunderScan
# What tifffile logs of damaged tags that no samples need: texts, and those of other programs.
_HARMLESS = re.compile("TiffTag (269|27[012]|30[56]|31[56]|[0-9]{5}) ")
_MAKE, _KIND, _SUB_PAGES, _DNG = 271, 254, 330, 50706


def needs_tifffile(dtype: str, channels: int) -> bool:
    """Whether writing a picture needs tifffile."""
    return dtype != "uint8" and not (channels == 1 and dtype in ("uint16", "float32"))


def read_tiff(request: Request, file: BinaryIO) -> Signal:
    """Read the first full page as a picture, or all pages as a volume or a film where that is asked for.

    Raises:
        SignalError: neither gray nor RGB; of all pages also several sizes, or several times and channels.
        MissingDependencyError: tifffile or imagecodecs is missing.
        Exception: of any type, for damaged files.
    """
    if request.kind in ("volume", "video"):
        return read_stack(request, file)
    if all(map(find_spec, ("tifffile", "imagecodecs"))) and not _needs_pillow(request.path, file):
        return _read_picture(request, file)
    # Pillow knows not all, takes no large strips, and warns of tags.
    with (
        suppress(UnidentifiedImageError, Image.DecompressionBombError, Warning),
        image.opened(request, file, "TIFF") as picture,
    ):
        if _pillow_is_exact(picture):
            if picture.mode == "CMYK" and 16 in picture.tag_v2.get(258, ()):
                note("%s: CMYK of 16 bits is reduced to 8", request.path)
            if picture.tag_v2.get(image.ORIENTATION, 1) > 4:  # Pillow turns the samples, not the densities
                picture.info |= {name: picture.info[name][::-1] for name in image.DENSITIES if name in picture.info}
            return image.decoded(request, picture)
    return _read_picture(request, file)


def _needs_pillow(path: Path, file: BinaryIO) -> bool:
    """Whether Pillow has to convert the samples, none of which is missing: libtiff prints what is wrong with a file."""
    with _refusing_errors(), _tifffile(path).TiffFile(file) as tiff:
        page, _ = tiff.pages.first, len(tiff.pages)
        if page.photometric in (0, 1, 2) and np.min(page.bitspersample) >= 8 and page.compression not in _BY_PILLOW:
            return False
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if page.compression != 1 and max(ends) > tiff.filehandle.size:
            raise ValueError("its samples end early")
        if page.compression not in (1, *_BY_PILLOW) and page.photometric != 6:
            page.asarray()  # raises what libtiff would print
    file.seek(0)
    return True


def _pillow_is_exact(picture: Any) -> bool:
    """Whether Pillow keeps the samples of a TIFF file; CMYK is reduced to 8 bits in any case."""
    tags = picture.tag_v2
    if tags.get(_KIND, 0) & _REDUCED or _DNG in tags or {_SUB_PAGES, _MAKE} <= set(tags):
        return False  # perhaps a preview
    unsigned, bits = set(tags.get(339, (1,))) == {1}, max(tags.get(258, (1,)))
    deep = picture.mode in image.DEEP and bits >= 16
    return deep or picture.mode == "CMYK" or (unsigned and bits <= 8 and picture.mode != "I")


def _tifffile(path: Path) -> Any:
    return require("tifffile", f"{path}: this TIFF", "tiff")


def _samples(path: Path, page: Any, pages: Any) -> tuple[Array, str | None]:
    """The samples of a page or a series, whose pages are like `page`, black as 0; and their type, if NumPy has none."""
    if page.photometric not in (0, 1, 2) or page.imagewidth * page.imagelength == 0:
        colours = f"photometric {int(page.photometric)} and axes {page.axes}"
        raise SignalError(f"{path}: a TIFF file of {colours} is not supported; convert it to gray or RGB")
    try:
        samples = pages.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise MissingDependencyError(f"{path}: {error}: pip install 'lgsirens[tiff]'") from error
        raise
    bits = page.bitspersample
    samples = samples.view(np.uint8) if samples.dtype == bool else samples
    if page.photometric == 0 and samples.dtype.kind == "u":
        gray = samples[tuple(0 if name == "S" else slice(None) for name in pages.axes)]
        np.subtract((1 << bits) - 1, gray, out=gray)
    if bits < 8:
        samples = to_sample_type(samples * (255 / ((1 << bits) - 1)), "uint8")
    partial = f"uint{bits}" if samples.dtype == np.uint16 and bits < 16 else None
    return samples, partial


# Pictures


def _read_picture(request: Request, file: BinaryIO) -> Signal:
    path = request.path
    file.seek(8)
    canon = file.read(2) == b"CR"
    file.seek(0)
    with _refusing_errors(), _tifffile(path).TiffFile(file) as tiff:
        pages = [page for top in tiff.pages for page in (top, *(top.pages or ()))]
        full = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)]
        if canon or not full or any(page.photometric in _RAW for page in pages):
            raise SignalError(f"{path}: is a camera's raw file, or a mere preview; develop it to TIFF or PNG first")
        page = full[0]
        image.check_size(request, page.imagewidth, page.imagelength, page.samplesperpixel)
        image.say_first_of(path, len(full))
        if page.axes not in ("YX", "YXS", "SYX"):
            raise SignalError(f"{path}: a TIFF page of axes {page.axes} is not supported; convert it to gray or RGB")
        samples, dtype = _samples(path, page, page)
        samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples.reshape(*samples.shape[:2], -1)
        samples = _specified_channels(path, page, samples, dtype or str(samples.dtype))
        profile = page.iccprofile
        if profile and samples.dtype == np.uint8:
            samples, profile = image.plain(path, Image.fromarray(samples.squeeze()), profile), None
        turned = page.tags.valueof(image.ORIENTATION, default=1)
        info = {"aspect": [1 / side if side else 0 for side in _sides(page)[::-1]]}
        return image.upright(request, samples, turned, profile, info, dtype)


def _specified_channels(path: Path, page: Any, samples: Array, dtype: str) -> Array:
    """Colour and straight alpha; extra samples without a stated meaning are left out, as Pillow does."""
    colours = 3 if page.photometric == 2 else 1
    extras = [int(extra) for extra in page.extrasamples][: samples.shape[-1] - colours]
    alphas = [colours + i for i, extra in enumerate(extras) if extra in (1, 2)][:1]
    if len(alphas) < samples.shape[-1] - colours:
        note("%s: channels of unspecified meaning are left out", path)
    samples = np.ascontiguousarray(samples[..., [*range(colours), *alphas]])
    if alphas and extras[alphas[0] - colours] == 1:
        note("%s: premultiplied alpha is converted to straight alpha", path)
        full = integer_limits(dtype)[1] if samples.dtype.kind in "iu" else 1.0
        alpha = np.maximum(samples[..., -1:].astype(np.float64), np.finfo(np.float32).tiny)
        straight = np.minimum(samples[..., :-1] * (full / alpha), full)
        samples[..., :-1] = to_sample_type(straight, str(samples.dtype))
    return samples


# Volumes and films


def read_stack(request: Request, file: BinaryIO) -> Signal:
    path, tifffile = request.path, _tifffile(request.path)
    with _refusing_errors(), tifffile.TiffFile(file) as tiff:
        len(tiff.pages)  # refuses a page that names an earlier one as the next: `series` would go round for ever
        stacks = [series for series in tiff.series if not series.keyframe.subfiletype & (_REDUCED | _MASK)]
        stacks = stacks or tiff.series
        if len(stacks) != 1:
            sizes = " and ".join(times(other.shape) for other in stacks[:2])
            raise SignalError(f"{path}: its pages are not of one size ({sizes}); save pages of one size")
        page, axes = stacks[0].keyframe, stacks[0].axes
        request.check_bytes(2 * stacks[0].nbytes)
        samples, dtype = _samples(path, page, stacks[0])
        if tiff.is_imagej and axes == "CYX":
            note("%s: its %d channels are taken for slices", path, len(samples))  # so tifffile writes them
            axes = "ZYX"
        values = _slices_first(path, samples, axes, request.kind)
        if request.kind == "volume":
            return replace(request.signal(values, "volume", None, dtype), spacing=_spacing(path, tiff, page))
        if len(values) == 1:
            request.check(("image",))
        start, stop = bounds(path, request.frames, len(values))
        frames = np.stack([shrunk(path, frame, request.max_side) for frame in values[start:stop]])
        return request.signal(frames, "video", _rate(path, tiff), dtype)


def _rate(path: Path, tiff: Any) -> Fraction | None:
    """Frames per second of ImageJ or OME."""
    known = dict(tiff.imagej_metadata or _ome_pixels(tiff))
    interval = float(known.get("finterval") or known.get("TimeIncrement") or 0)
    unit = str(known.get("tunit") or known.get("TimeIncrementUnit") or "s")
    seconds = interval * float(scale(unit, SECONDS)) if interval > 0 else 1 / (float(known.get("fps") or 0) or np.inf)
    if interval > 0 and not seconds:
        note("%s: its frame rate is left out, its unit of time (%s) is not known", path, unit)
    if not 0 < seconds < np.inf:
        return None
    rate = Fraction(1 / seconds).limit_denominator(1001)
    return rate if rate > 1 else 1 / Fraction(seconds).limit_denominator(1001)


def _ome_pixels(tiff: Any) -> Any:
    pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels") if tiff.is_ome else None
    return {} if pixels is None else pixels.attrib


@contextmanager
def _refusing_errors() -> Iterator[None]:
    """Raise ValueError for what tifffile only logs: of a stack that was cut off it returns the first pages."""
    handler = BufferingHandler(1 << 20)
    handler.setLevel(logging.ERROR)
    thread = threading.get_ident()  # the logger is of all threads
    handler.addFilter(lambda record: record.thread == thread and not _HARMLESS.search(record.getMessage()))
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if handler.buffer:
        raise ValueError(handler.buffer[-1].getMessage())


def _slices_first(path: Path, values: Array, axes: str, kind: str | None) -> Array:
    """Axes in the order slice, row, column, channel."""
    kept = [(name, length) for name, length in zip(axes, values.shape, strict=True) if length > 1 or name in "YX"]
    letters = "".join(name for name, _ in kept)
    depth, colours = re.sub("[YXSC]", "", letters), re.sub("[^SC]", "", letters)
    if len(depth) > 1 or len(colours) > 1:
        raise SignalError(f"{path}: a TIFF file of axes {axes} is no {kind}; save one time and one channel of it")
    values = values.reshape([length for _, length in kept])
    order = f"{depth or 'Z'}YX{colours or 'S'}"
    return np.ascontiguousarray(_tifffile(path).transpose_axes(values, letters, order))


def _spacing(path: Path, tiff: Any, page: Any) -> tuple[float, ...] | None:
    """Distance of slices, rows and columns: of OME, of ImageJ, or of our own description with the resolution tags."""
    if tiff.is_ome:
        known = _ome_pixels(tiff)
        sizes = [float(known.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX"]
        units = [known.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
    else:
        known = tiff.imagej_metadata or (tiff.shaped_metadata or [{}])[0]
        sizes = [float(known.get("spacing") or 0), *_sides(page)]
        units = [str(known.get(name, known.get("unit"))) for name in ("zunit", "yunit", "unit")]
    if not 0 < min(sizes) <= max(sizes) < np.inf:
        return None
    scales = [scale(unit, METRES) if len(set(units)) > 1 else Fraction(1) for unit in units]
    if not all(scales):
        note("%s: its spacing is left out, its units of length (%s) are not all known", path, ", ".join(units))
        return None
    return tuple(float(Fraction(size) * factor / scales[2]) for size, factor in zip(sizes, scales, strict=True))


def _sides(page: Any) -> list[float]:
    """Distance of rows and of columns, 0 if unknown: nine digits are what the fractions in tags can give back."""
    tags = (page.tags.valueof(tag, default=(0, 0)) for tag in (283, 282))
    return [float(f"{low / high:.9g}") if high else 0.0 for high, low in tags]


# Writing


def save_tiff(path: Path, stored: Stored) -> None:
    """Write a picture `[H, W, C]`, or a volume `[slices, H, W, C]` in ImageJ's dialect where that holds the samples."""
    samples, spacing = stored.whole(), stored.signal.spacing
    channels, dtype = samples.shape[-1], stored.target or stored.signal.dtype
    density = None if spacing is None else (1 / spacing[-1], 1 / spacing[-2])
    if stored.signal.kind == "image" and not needs_tifffile(dtype, channels):
        image.save(path, samples, "TIFF", **({} if density is None else {"dpi": density}))
        return
    options: dict[str, Any] = {"metadata": None}
    if stored.signal.kind == "volume":
        imagej = (channels == 1 and dtype in ("uint8", "uint16", "float32")) or (channels, dtype) == (3, "uint8")
        options = {
            "imagej": imagej and samples.shape[2] > 1,  # tifffile takes a width of 1 for channels
            "planarconfig": "contig" if channels > 1 else None,
            "metadata": {"axes": "ZYX" if channels == 1 else "ZYXS", **({"spacing": spacing[0]} if spacing else {})},
        }
    with open_for_writing(path) as file:
        _tifffile(path).imwrite(
            file,
            samples if channels > 1 else samples[..., 0],
            photometric="rgb" if channels > 2 else "minisblack",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            bitspersample=integer_limits(dtype)[1].bit_length() if dtype in UNSIGNED_TYPES[1:-1] else None,
            resolution=density,
            **options,
        )
