"""TIFF stacks <-> arrays `[slices, H, W, C]`. Used by `media.py` and `formats.py` only."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.media import image
from lgsirens.signal import Array
from lgsirens.system.console import times


def read_volume(path: Path, file: BinaryIO) -> tuple[Array, tuple[float, ...] | None]:
    """Read all pages of a TIFF file as `[slices, H, W, C]`, and the distance of voxels along each axis.

    Raises:
        SignalError: pages of several sizes, several times or channels, or neither gray nor RGB.
        MissingDependencyError: tifffile or imagecodecs is missing.
        Exception: of any type, for damaged files.
    """
    tifffile = image.optional("tifffile", path)
    with _refusing_errors(), tifffile.TiffFile(file) as tiff:
        page, series = tiff.pages[0], tiff.series[0]
        if len(tiff.series) > 1 and sum(len(other) for other in tiff.series) > 1:
            sizes = " and ".join(times(other.shape) for other in tiff.series[:2])
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
    tifffile = image.optional("tifffile", path)
    channels, dtype = values.shape[-1], str(values.dtype)
    imagej = (channels == 1 and dtype in ("uint8", "uint16", "float32")) or (channels, dtype) == (3, "uint8")
    imagej = imagej and values.shape[2] > 1  # tifffile takes a width of 1 for channels
    metadata: dict[str, Any] = {"axes": "ZYX" if channels == 1 else "ZYXS"}
    resolution = None
    if spacing is not None:
        metadata["spacing"] = spacing[0]
        resolution = 1 / spacing[2], 1 / spacing[1]
    with image.open_for_writing(path) as file:
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
