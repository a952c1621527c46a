"""TIFF pictures and stacks -> `Signal`: what Pillow would reduce to 8 bits, volumes and series by tifffile."""

import math
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.lazy import Converted, LazyValues
from lgsirens.media import image
from lgsirens.media.animation import shrunk
from lgsirens.media.frames import bounds, reduced
from lgsirens.media.request import Request
from lgsirens.media.segments import Segments, refusing_errors, tifffile_for
from lgsirens.media.unchanged import UnchangedFile
from lgsirens.media.units import METRES, SECONDS, scale
from lgsirens.signal import Array, Signal, integer_limits, to_sample_type
from lgsirens.system.console import note, times

_REDUCED, _MASK, _RAW = 1, 4, (32803, 34892)  # kinds of page, and photometrics of a sensor's samples
_BY_PILLOW = (2, 3, 4, 6, 7, 32809)  # compressions that tifffile knows not in all their forms: fax, JPEG, ThunderScan
_MAKE, _KIND, _SUB_PAGES, _DNG = 271, 254, 330, 50706
_GRAY_OR_RGB, _YCBCR, _JPEG = (0, 1, 2), 6, 7
_AT_ONCE = 1 << 20
_PICTURE_AXES = ("YX", "YXS", "SYX")


def read_tiff(request: Request, file: BinaryIO) -> Signal:
    """Read the first full page as a picture, or all pages as a volume or a film where that is asked for.

    Raises:
        SignalError: neither gray nor RGB; of all pages also several sizes, or several times and channels.
        MissingDependencyError: tifffile or imagecodecs is missing.
        Exception: of any type, for damaged files.
    """
    if request.kind in ("volume", "video"):
        return read_stack(request)
    if all(map(find_spec, ("tifffile", "imagecodecs"))):
        if (signal := _read_large(request)) is not None:
            return signal
        if not _needs_pillow(request.path, file):
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


def _opened(path: Path, file: BinaryIO) -> Any:
    """A TIFF file as tifffile knows it.

    Raises:
        ValueError: a page names an earlier one as the next, round which tifffile may go for ever, or the first page's
            sides are no numbers.
    """
    tiff = tifffile_for(path).TiffFile(file)
    form, handle, seen = tiff.tiff, tiff.filehandle, set[int]()
    handle.seek(4 if form.version == 42 else 8)
    with suppress(struct.error, OSError):  # which tifffile tells
        while offset := struct.unpack(form.offsetformat, handle.read(form.offsetsize))[0]:
            if offset in seen:
                raise ValueError("its pages go in a circle")
            seen.add(offset)
            handle.seek(offset)
            (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
            handle.seek(tags * form.tagsize, 1)
    len(tiff.pages)  # what is wrong with them is told in `refusing_errors`
    _shape(tiff.pages.first)
    return tiff


def _shape(page: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = page.shape
    if not all(isinstance(side, int) for side in shape):
        raise ValueError(f"its sides are {shape}")
    return shape


def _needs_pillow(path: Path, file: BinaryIO) -> bool:
    """Whether Pillow has to convert the samples, none of which is missing: libtiff prints what is wrong with a file."""
    with refusing_errors(), _opened(path, file) as tiff:
        page = tiff.pages.first
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


def _samples(path: Path, page: Any, pages: Any) -> tuple[Array, str | None]:
    """The samples of a page or a series, whose pages are like `page`, black as 0; and their type, if NumPy has none."""
    if page.photometric not in _GRAY_OR_RGB or page.imagewidth * page.imagelength == 0:
        colours = f"photometric {int(page.photometric)} and axes {page.axes}"
        raise SignalError(f"{path}: a TIFF file of {colours} is not supported; convert it to gray or RGB")
    if len(page.dataoffsets) < math.prod(page.chunked) and not page.is_contiguous:
        raise ValueError("its table of segments is too short")
    try:
        samples = pages.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise MissingDependencyError(f"{path}: {error}: pip install 'lgsirens[tiff]'") from error
        raise
    return _from_black(page, samples, pages.axes), _partial_type(page)


def _partial_type(page: Any) -> str | None:
    """The sample type of a page, if NumPy has none."""
    return f"uint{page.bitspersample}" if 8 < page.bitspersample < 16 and page.dtype == np.uint16 else None


def _from_black(page: Any, samples: Array, axes: str) -> Array:
    """Samples with 0 for black, those of less than 8 bits with 255 for white; changed in place where that will do."""
    samples, highest = samples.view(np.uint8) if samples.dtype == bool else samples, (1 << page.bitspersample) - 1
    if page.photometric == 0 and samples.dtype.kind == "u":
        gray = samples[tuple(0 if name == "S" else slice(None) for name in axes)]
        np.subtract(highest, gray, out=gray)
    if page.bitspersample < 8:
        table, flat = to_sample_type(np.arange(highest + 1) * (255 / highest), "uint8"), samples.reshape(-1)
        for start in range(0, flat.size, _AT_ONCE):  # places take eight bytes each
            part = flat[start : start + _AT_ONCE]
            part[...] = table.take(part, mode="clip")
        return flat.reshape(samples.shape)
    return samples


# Pictures


def _full_page(path: Path, tiff: Any) -> Any:
    """The first page that is no preview (raises SignalError: there is none)."""
    file = tiff.filehandle
    file.seek(8)
    canon = file.read(2) == b"CR"
    pages = [page for top in tiff.pages for page in (top, *(top.pages or ()))]
    full = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)]
    if canon or not full or any(page.photometric in _RAW for page in pages):
        raise SignalError(f"{path}: is a camera's raw file, or a mere preview; develop it to TIFF or PNG first")
    image.say_first_of(path, len(full))
    return full[0]


def _read_picture(request: Request, file: BinaryIO) -> Signal:
    path = request.path
    file.seek(0)
    with refusing_errors(), _opened(path, file) as tiff:
        page = _full_page(path, tiff)
        image.check_size(request, page.imagewidth, page.imagelength, page.samplesperpixel)
        if page.axes not in _PICTURE_AXES:
            raise SignalError(f"{path}: a TIFF page of axes {page.axes} is not supported; convert it to gray or RGB")
        samples, dtype = _samples(path, page, page)
        samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples.reshape(*samples.shape[:2], -1)
        _say_channels(path, page)
        samples = _specified_channels(page, samples)
        profile = page.iccprofile
        if profile and samples.dtype == np.uint8:
            samples, profile = image.plain(path, Image.fromarray(samples.squeeze()), profile), None
        turned = page.tags.valueof(image.ORIENTATION, default=1)
        return image.upright(request, samples, turned, profile, _shape_of_pixels(page), dtype)


def _read_large(request: Request) -> Signal | None:
    """A large picture, to be read by region; None: it is to be read whole."""
    path = request.path
    kept = UnchangedFile(path)
    with refusing_errors(), kept.reading() as file:
        tiff = _opened(path, file)
        if not any(request.is_large(_shape(page), page.dtype or np.uint8) for page in tiff.pages):
            return None
        page = _full_page(path, tiff)
        turned, profile = page.tags.valueof(image.ORIENTATION, default=1), page.iccprofile
    jpeg = (page.photometric, page.compression, page.bitspersample) == (_YCBCR, _JPEG, 8)
    plain = page.photometric in _GRAY_OR_RGB and page.axes in _PICTURE_AXES and page.bitspersample >= 8
    if turned != 1 or not (plain or jpeg) or (profile and page.dtype != np.uint8):
        return None
    values = _by_region(kept, [page], False, page.dataoffsets[0] if page.is_memmappable else None)
    if values is None or not request.is_large(values.shape, values.dtype):
        return None
    request.check(("image",))
    _say_channels(path, page)
    like = _specified_channels(page, np.zeros((1, 1, values.shape[-1]), values.dtype))
    colours = image.profile_of(path, profile, image.MODES[like.shape[-1]]) if profile else None
    if colours is not None:
        note(image.CONVERTED, path)

    def convert(samples: Array) -> Array:
        samples = _specified_channels(page, _from_black(page, samples, "YXS"))
        return samples if colours is None else image.in_srgb(samples, colours)

    values = LazyValues(Converted(values, convert), str(path), keeps=False)
    return image.with_spacing(request.signal(values, "image", dtype=_partial_type(page)), _shape_of_pixels(page))


def _by_region(file: UnchangedFile, pages: Sequence[Any], stacked: bool, start: int | None) -> LazyValues | None:
    """Stored samples `[H, W, S]` of a page, or `[pages, H, W, S]` of several that are alike, to be read by region.

    Args:
        start: where in the file all of them lie as they are, one after the other; None: in segments.

    Returns:
        None where the segments are too large.
    """
    page = pages[0].keyframe
    if start is None:
        values = LazyValues(Segments(file, pages, stacked), str(file.path))
        return values if values.chunks else None
    kind, stack = page.dtype.newbyteorder(page.parent.byteorder), (len(pages),) if stacked else ()
    mapped = np.memmap(file.path, kind, "r", start, (*stack, *page.shape))
    if page.axes == "SYX":
        return LazyValues(np.moveaxis(mapped, -3, -1), str(file.path))
    return LazyValues(mapped if page.axes == "YXS" else mapped[..., None], str(file.path))


def _shape_of_pixels(page: Any) -> dict[str, Any]:
    return {"aspect": [1 / side if side else 0 for side in _sides(page)[::-1]]}


def _say_channels(path: Path, page: Any) -> None:
    """Say what `_specified_channels` does."""
    kept, premultiplied = _channels(page)
    if len(kept) < page.samplesperpixel:
        note("%s: channels of unspecified meaning are left out", path)
    if premultiplied:
        note("%s: premultiplied alpha is converted to straight alpha", path)


def _specified_channels(page: Any, samples: Array) -> Array:
    """Colour and straight alpha; extra samples without a stated meaning are left out, as Pillow does."""
    kept, premultiplied = _channels(page)
    samples = np.ascontiguousarray(samples[..., kept])
    if premultiplied:
        dtype = _partial_type(page) or str(samples.dtype)
        full = integer_limits(dtype)[1] if samples.dtype.kind in "iu" else 1.0
        alpha = np.maximum(samples[..., -1:].astype(np.float64), np.finfo(np.float32).tiny)
        straight = np.minimum(samples[..., :-1] * (full / alpha), full)
        samples[..., :-1] = to_sample_type(straight, str(samples.dtype))
    return samples


def _channels(page: Any) -> tuple[list[int], bool]:
    """The channels that are colours or the first alpha, and whether that is premultiplied."""
    colours = 1 if page.photometric in (0, 1) else 3
    extras = [int(extra) for extra in page.extrasamples][: page.samplesperpixel - colours]
    alphas = [colours + i for i, extra in enumerate(extras) if extra in (1, 2)][:1]
    return [*range(colours), *alphas], bool(alphas) and extras[alphas[0] - colours] == 1


# Volumes and films


def read_stack(request: Request) -> Signal:
    path, kept = request.path, UnchangedFile(request.path)
    with refusing_errors(), kept.reading() as file, _opened(path, file) as tiff:
        stacks = [series for series in tiff.series if not series.keyframe.subfiletype & (_REDUCED | _MASK)]
        stacks = stacks or tiff.series
        if len(stacks) != 1:
            sizes = " and ".join(times(other.shape) for other in stacks[:2])
            raise SignalError(f"{path}: its pages are not of one size ({sizes}); save pages of one size")
        page, axes = stacks[0].keyframe, stacks[0].axes
        if tiff.is_imagej and axes == "CYX":
            note("%s: its %d channels are taken for slices", path, stacks[0].shape[0])  # so tifffile writes them
            axes = "ZYX"
        values: Array | LazyValues | None = _read_large_stack(request, kept, stacks[0], axes)
        if values is None:
            request.check_bytes(2 * stacks[0].nbytes)
            samples, _ = _samples(path, page, stacks[0])
            values = _slices_first(path, samples, axes, request.kind)
            if request.kind == "video":
                if len(values) == 1:
                    request.check(("image",))
                start, stop = bounds(path, request.frames, len(values))
                values = np.stack([shrunk(path, frame, request.max_side) for frame in values[start:stop]])
        dtype = _partial_type(page)
        if request.kind == "volume":
            return replace(request.signal(values, "volume", None, dtype), spacing=_spacing(path, tiff, page))
        return request.signal(values, "video", _rate(path, tiff), dtype)


def _read_large_stack(request: Request, file: UnchangedFile, series: Any, axes: str) -> LazyValues | None:
    """The slices or frames of a large series, to be read by region; None: they are to be read whole."""
    page, sides = series.keyframe, zip(axes, series.shape, strict=True)
    order = "".join(name for name, length in sides if length > 1 or name in "YX")
    plain = page.photometric in _GRAY_OR_RGB and page.axes in _PICTURE_AXES and page.bitspersample >= 8
    if not (plain and re.fullmatch("[^SC]YXS?", order) and request.is_large(series.shape, page.dtype)):
        return None
    count = series.size // page.size
    first, last = bounds(file.path, request.frames, count)
    if reduced(page.imagewidth, page.imagelength, request.max_side) != (page.imagewidth, page.imagelength):
        return None
    start = None if series.dataoffset is None else series.dataoffset + first * page.nbytes
    pages = [page] * (last - first) if start is not None else list(series.pages)[first:last]
    values = None if None in pages else _by_region(file, pages, True, start)
    if values is None or page.photometric != 0:
        return values
    return LazyValues(
        Converted(values, lambda samples: _from_black(page, samples, "ZYXS")), str(file.path), keeps=False
    )


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


def _slices_first(path: Path, values: Array, axes: str, kind: str | None) -> Array:
    """Axes in the order slice, row, column, channel."""
    kept = [(name, length) for name, length in zip(axes, values.shape, strict=True) if length > 1 or name in "YX"]
    letters = "".join(name for name, _ in kept)
    depth, colours = re.sub("[YXSC]", "", letters), re.sub("[^SC]", "", letters)
    if len(depth) > 1 or len(colours) > 1:
        raise SignalError(f"{path}: a TIFF file of axes {axes} is no {kind}; save one time and one channel of it")
    values = values.reshape([length for _, length in kept])
    order = f"{depth or 'Z'}YX{colours or 'S'}"
    return np.ascontiguousarray(tifffile_for(path).transpose_axes(values, letters, order))


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
