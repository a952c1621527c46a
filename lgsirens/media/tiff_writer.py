"""`Signal` -> TIFF: pictures by Pillow where that will do, volumes and all other samples by tifffile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.media import image
from lgsirens.media.segments import tifffile_for
from lgsirens.media.stored import Stored, open_for_writing
from lgsirens.signal import UNSIGNED_TYPES, Array, integer_limits

_TILE, _CLASSIC_BYTES = (256, 256), (1 << 32) - (1 << 25)  # of samples, which leaves room for tags


def needs_tifffile(dtype: str, channels: int) -> bool:
    """Whether writing a picture needs tifffile."""
    return dtype != "uint8" and not (channels == 1 and dtype in ("uint16", "float32"))


def save_tiff(path: Path, stored: Stored) -> None:
    """Write a picture `[H, W, C]`, or a volume `[slices, H, W, C]` in ImageJ's dialect where that holds the samples."""
    spacing, (*sides, channels) = stored.signal.spacing, stored.signal.values.shape
    dtype, size = stored.target or stored.signal.dtype, stored.signal.values.size * stored.dtype.itemsize
    density = None if spacing is None else (1 / spacing[-1], 1 / spacing[-2])
    if stored.signal.kind == "image" and not needs_tifffile(dtype, channels) and not stored.by_region:
        image.save(path, stored.whole(), "TIFF", **({} if density is None else {"dpi": density}))
        return
    options: dict[str, Any] = {"metadata": None}
    if stored.signal.kind == "volume":
        imagej = (channels == 1 and dtype in ("uint8", "uint16", "float32")) or (channels, dtype) == (3, "uint8")
        options = {
            # tifffile takes a width of 1 for channels, and ImageJ's dialect has no place for more bytes or for tiles
            "imagej": imagej and sides[-1] > 1 and size < _CLASSIC_BYTES and not stored.by_region,
            "planarconfig": "contig" if channels > 1 else None,
            "metadata": {"axes": "ZYX" if channels == 1 else "ZYXS", **({"spacing": spacing[0]} if spacing else {})},
        }
    data: Any = stored.whole() if not stored.by_region else None
    if data is None:
        data = (tile for _, part in stored.parts((*(1 for _ in sides[:-2]), *_TILE)) for tile in _tiles(part))
        options |= {"tile": _TILE, "shape": (*sides, channels) if channels > 1 else sides, "dtype": stored.dtype}
    elif channels == 1:
        data = data[..., 0]
    with open_for_writing(path) as file:
        tifffile_for(path).imwrite(
            file,
            data,
            bigtiff=size >= _CLASSIC_BYTES,
            photometric="rgb" if channels > 2 else "minisblack",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            bitspersample=integer_limits(dtype)[1].bit_length() if dtype in UNSIGNED_TYPES[1:-1] else None,
            resolution=density,
            **options,
        )


def _tiles(part: Array) -> Iterator[Array]:
    """The tiles of slices `[n, H, W, C]`, or of a picture `[H, W, C]`, row after row; at the edges filled up by 0."""
    height, width = _TILE
    for page in part.reshape(-1, *part.shape[-3:]):
        for top in range(0, page.shape[0], height):
            for left in range(0, page.shape[1], width):
                tile = page[top : top + height, left : left + width]
                missing = [(0, full - size) for full, size in zip(_TILE, tile.shape, strict=False)]
                filled = np.pad(tile, (*missing, (0, 0)))
                yield filled if filled.shape[-1] > 1 else filled[..., 0]
