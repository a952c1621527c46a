"""TIFF pictures and stacks <-> `Signal`: what Pillow would reduce to 8 bits, and all volumes, by tifffile."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
from PIL import UnidentifiedImageError

from lgsirens.errors import MissingDependencyError, SignalError, require
from lgsirens.media import image
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import Array, Signal, to_sample_type
from lgsirens.system.console import note, times


def needs_tifffile(dtype: str, channels: int) -> bool:
    """Whether writing a picture needs tifffile."""
    return dtype != "uint8" and not (channels == 1 and dtype in ("uint16", "float32"))


def read_tiff(request: Request, file: BinaryIO) -> Signal:
    """Read the first page as a picture, or all pages as a volume where that is asked for.

    Raises:
        SignalError: neither gray nor RGB; as a volume also pages of several sizes, several times or channels.
        MissingDependencyError: tifffile or imagecodecs is missing.
        Exception: of any type, for damaged files.
    """
    if request.kind == "volume":
        return _read_volume(request, file)
    with suppress(UnidentifiedImageError), image.opened(request.path, file, "TIFF") as picture:  # it knows not all
        if _pillow_is_exact(picture):
            return image.decoded(request, picture)
    return _read_picture(request, file)


def _pillow_is_exact(picture: Any) -> bool:
    """Whether Pillow keeps the samples of a TIFF file; CMYK is reduced to 8 bits in any case."""
    unsigned = set(picture.tag_v2.get(339, (1,))) == {1}
    shallow = max(picture.tag_v2.get(258, (1,))) <= 8 and picture.mode != "I"
    return picture.mode in (*image.DEEP, "CMYK") or (unsigned and shallow)


def _tifffile(path: Path) -> Any:
    return require("tifffile", f"{path}: this TIFF", "tiff")


def _samples(path: Path, page: Any, pages: Any) -> Array:
    """The samples of a page or a series, whose pages are like `page`."""
    if page.photometric not in (0, 1, 2) or page.imagewidth * page.imagelength == 0:
        colours = f"photometric {int(page.photometric)} and axes {page.axes}"
        raise SignalError(f"{path}: a TIFF file of {colours} is not supported; convert it to gray or RGB")
    try:
        return pages.asarray()  # type: ignore[no-any-return]
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise MissingDependencyError(f"{path}: {error}: pip install 'lgsirens[tiff]'") from error
        raise


def _black_as_zero(page: Any, samples: Array) -> None:
    if page.photometric == 0 and samples.dtype.kind == "u":
        samples[..., 0] = (1 << page.bitspersample) - 1 - samples[..., 0]


# Pictures


def _read_picture(request: Request, file: BinaryIO) -> Signal:
    path = request.path
    file.seek(0)
    with _tifffile(path).TiffFile(file) as tiff:
        page = tiff.pages[0]
        image.check_size(path, page.imagewidth, page.imagelength)
        image.say_first_of(path, len(tiff.pages))
        if page.axes not in ("YX", "YXS", "SYX"):
            raise SignalError(f"{path}: a TIFF page of axes {page.axes} is not supported; convert it to gray or RGB")
        samples = _samples(path, page, page)
        samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples.reshape(*samples.shape[:2], -1)
        samples = _specified_channels(path, page, samples)
        _black_as_zero(page, samples)
        return image.upright(request, samples, page.tags.valueof(image.ORIENTATION, default=1), page.iccprofile)


def _specified_channels(path: Path, page: Any, samples: Array) -> Array:
    """Colour and straight alpha; extra samples without a stated meaning are left out, as Pillow does."""
    colours = 3 if page.photometric == 2 else 1
    extras = [int(extra) for extra in page.extrasamples][: samples.shape[-1] - colours]
    alphas = [colours + i for i, extra in enumerate(extras) if extra in (1, 2)][:1]
    if len(alphas) < samples.shape[-1] - colours:
        note("%s: channels of unspecified meaning are left out", path)
    samples = np.ascontiguousarray(samples[..., [*range(colours), *alphas]])
    if alphas and extras[alphas[0] - colours] == 1:
        note("%s: premultiplied alpha is converted to straight alpha", path)
        full = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1.0
        alpha = np.maximum(samples[..., -1:].astype(np.float64), np.finfo(np.float32).tiny)
        straight = np.minimum(samples[..., :-1] * (full / alpha), full)
        samples[..., :-1] = to_sample_type(straight, str(samples.dtype))
    return samples


# Volumes


def _read_volume(request: Request, file: BinaryIO) -> Signal:
    path, tifffile = request.path, _tifffile(request.path)
    with _refusing_errors(), tifffile.TiffFile(file) as tiff:
        page, series = tiff.pages[0], tiff.series[0]
        if len(tiff.series) > 1 and sum(len(other) for other in tiff.series) > 1:
            sizes = " and ".join(times(other.shape) for other in tiff.series[:2])
            raise SignalError(f"{path}: its pages are not of one size ({sizes}); save pages of one size")
        values = _slices_first(path, _samples(path, page, series), series.axes)
        _black_as_zero(page, values)
        return replace(request.signal(values, "volume"), spacing=_spacing(tiff, page))


@contextmanager
def _refusing_errors() -> Iterator[None]:
    """Raise ValueError for what tifffile only logs: of a stack that was cut off it returns the first pages."""
    handler = BufferingHandler(1 << 20)
    handler.setLevel(logging.ERROR)
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if handler.buffer:
        raise ValueError(handler.buffer[-1].getMessage())


def _slices_first(path: Path, values: Array, axes: str) -> Array:
    """Axes in the order slice, row, column, channel."""
    kept = [(name, length) for name, length in zip(axes, values.shape, strict=True) if length > 1 or name in "YX"]
    letters = "".join(name for name, _ in kept)
    depth, colours = re.sub("[YXSC]", "", letters), re.sub("[^SC]", "", letters)
    if len(depth) > 1 or len(colours) > 1:
        raise SignalError(f"{path}: a TIFF file of axes {axes} is no volume; save one time and one channel of it")
    values = values.reshape([length for _, length in kept])
    order = f"{depth or 'Z'}YX{colours or 'S'}"
    return np.ascontiguousarray(_tifffile(path).transpose_axes(values, letters, order))


def _spacing(tiff: Any, page: Any) -> tuple[float, float, float] | None:
    """Distance of slices, rows and columns: of OME, of ImageJ, or of our own description with the resolution tags."""
    if tiff.is_ome:
        pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
        known = {} if pixels is None else pixels.attrib
        sizes = [float(known.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX"]
    else:
        known = tiff.imagej_metadata or (tiff.shaped_metadata or [{}])[0]
        # Tags hold fractions of pixels per unit; nine digits are what they can give back.
        tags = [page.tags.valueof(tag, default=(0, 0)) for tag in (283, 282)]
        sides = [float(f"{low / high:.9g}") if high else 0.0 for high, low in tags]
        sizes = [float(known.get("spacing") or 0), *sides]
    return (sizes[0], sizes[1], sizes[2]) if 0 < min(sizes) <= max(sizes) < np.inf else None


# Writing


def save_tiff(path: Path, stored: Stored) -> None:
    """Write a picture `[H, W, C]`, or a volume `[slices, H, W, C]` in ImageJ's dialect where that holds the samples."""
    samples, spacing = stored.whole(), stored.signal.spacing
    channels, dtype = samples.shape[-1], str(samples.dtype)
    if stored.signal.kind == "image" and not needs_tifffile(dtype, channels):
        image.save(path, samples, "TIFF")
        return
    options: dict[str, Any] = {"metadata": None}
    if stored.signal.kind == "volume":
        imagej = (channels == 1 and dtype in ("uint8", "uint16", "float32")) or (channels, dtype) == (3, "uint8")
        options = {
            "imagej": imagej and samples.shape[2] > 1,  # tifffile takes a width of 1 for channels
            "planarconfig": "contig" if channels > 1 else None,
            "metadata": {"axes": "ZYX" if channels == 1 else "ZYXS"},
        }
        if spacing is not None:
            options["metadata"]["spacing"] = spacing[0]
            options["resolution"] = 1 / spacing[2], 1 / spacing[1]
    with open_for_writing(path) as file:
        _tifffile(path).imwrite(
            file,
            samples if channels > 1 else samples[..., 0],
            photometric="rgb" if channels > 2 else "minisblack",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            **options,
        )
