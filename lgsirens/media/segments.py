"""TIFF files by region: only the tiles or strips that meet it are read and decoded."""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import SignalError, require
from lgsirens.media.unchanged import UnchangedFile
from lgsirens.signal import Array

# What tifffile logs of damaged tags that no samples need: texts, and those of other programs.
_HARMLESS = re.compile("TiffTag (269|27[012]|30[56]|31[56]|[0-9]{5}) ")


def tifffile_for(path: Path) -> Any:
    return require("tifffile", f"{path}: this TIFF", "tiff")


class Segments:
    """Samples `[H, W, C]` of a page, or `[pages, H, W, C]` of several that are alike, as they are stored; each chunk is
    a segment, or one of each plane.

    Args:
        file: what the pages are of.
        pages: of tifffile.
        stacked: whether there is an axis of pages.

    Raises:
        SignalError: samples are missing at the end of the file.
    """

    def __init__(self, file: UnchangedFile, pages: Sequence[Any], stacked: bool) -> None:
        self._file, self._pages = file, pages
        self._page = page = pages[0].keyframe
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        height, width = page.chunks[:2]
        self._across, self._down = -(-page.imagewidth // width), -(-page.imagelength // height)
        stack = (len(pages),) if stacked else ()
        self.dtype, self.shape = page.dtype, (*stack, page.imagelength, page.imagewidth, page.samplesperpixel)
        self.chunks = (*(1 for _ in stack), height, width, page.samplesperpixel)
        with refusing_errors():
            end = max(max(map(sum, zip(p.dataoffsets, p.databytecounts, strict=True))) for p in pages)
        if end > page.parent.filehandle.size:
            raise SignalError(f"{file.path}: is cut off: its samples end early; get or save the file again")

    def __getitem__(self, chunk: tuple[slice, ...]) -> Array:
        *stack, rows, columns, _ = chunk
        page, (height, width) = self._pages[stack[0].start if stack else 0], self._page.chunks[:2]
        place = rows.start // height * self._across + columns.start // width
        count = self._across * self._down
        planes = [self._decoded(page, place + plane * count) for plane in range(self._planes)]
        samples = np.concatenate(planes, axis=-1)[: rows.stop - rows.start, : columns.stop - columns.start]
        return samples[None] if stack else samples

    def _decoded(self, page: Any, number: int) -> Array:
        """One segment `[h, w, S]`, to its full size where it lies at the edge."""
        with self._file.reading() as file, refusing_errors():
            file.seek(page.dataoffsets[number])
            data = file.read(page.databytecounts[number])
            # An empty segment is one that was never written.
            segment = page.decode(data or None, number, jpegtables=page.jpegtables, jpegheader=self._page.jpegheader)[0]
        if segment is None:
            channels = self._page.samplesperpixel // self._planes
            return np.full((*self._page.chunks[:2], channels), self._page.nodata, self._page.dtype)
        return np.asarray(segment[0])


@contextmanager
def refusing_errors() -> Iterator[None]:
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
