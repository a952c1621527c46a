"""Colours of an embedded ICC profile -> sRGB: 8 bits by LittleCMS, 16 bits by the profile's own matrix and curves."""

import io
import struct
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Floats = NDArray[np.float64]

# Linear sRGB to CIE XYZ at the D50 white of ICC profiles.
_SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045  # of function type 3
_COLUMNS, _CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")
_BAND_SAMPLES = 1 << 20
# sRGB profiles of different makers differ by rounding; 2 of 255 tells them from a plain gamma of 2.2.
_SAME_COLOUR = 2


class Profile:
    """A parsed ICC profile.

    Attributes:
        space: "GRAY", "RGB", "CMYK" or another four-letter name of the ICC specification.
    """

    def __init__(self, data: bytes) -> None:
        """Raises OSError or another error of LittleCMS for bytes that are no profile."""
        self._data = data
        self._cms = ImageCms.ImageCmsProfile(io.BytesIO(data))
        self.space = self._cms.profile.xcolor_space.strip()
        self._transforms: dict[str, ImageCms.ImageCmsTransform] = {}

    def fits(self, mode: str) -> bool:
        """Whether the profile can describe an image of a Pillow mode (an RGB profile has grays as well)."""
        spaces = {"CMYK": ("CMYK",), "RGB": ("RGB",), "RGBA": ("RGB",)}.get(mode, ("GRAY", "RGB"))
        return self.space in spaces

    def is_srgb(self) -> bool:
        """Whether converting changes no colour visibly, judged by colours, not by the profile's name."""
        levels = np.linspace(0, 255, 17).round().astype(np.uint8)
        if self.space not in ("GRAY", "RGB"):
            return False
        grid = [levels[None]] if self.space == "GRAY" else np.meshgrid(levels, levels, levels)
        probe = np.stack(grid, axis=-1).reshape(17, -1, len(grid))
        image = Image.fromarray(probe[..., 0] if len(grid) == 1 else probe)
        difference = np.asarray(self._apply(image)).astype(int).reshape((*probe.shape[:2], -1)) - probe
        return bool(np.abs(difference).max() <= _SAME_COLOUR)

    def convert(self, image: Image.Image) -> Image.Image:
        """Convert an image of mode L, LA, RGB, RGBA or CMYK to sRGB; gray stays gray, alpha stays as it is."""
        if image.mode not in ("LA", "RGBA"):
            return self._apply(image)
        converted = self._apply(image.convert(image.mode[:-1]))
        converted.putalpha(image.getchannel("A"))
        return converted

    def convert_deep(self, samples: NDArray[np.uint16], highest: int = 65535) -> NDArray[np.uint16] | None:
        """Convert `[H, W, C]` samples up to `highest` in place, because LittleCMS in Pillow has 8 bits only.

        Returns:
            `samples`, or None, with nothing changed, if the profile is no matrix with curves.
        """
        tags = _tags(self._data)
        names = (b"kTRC",) if self.space == "GRAY" else _CURVES
        if b"A2B0" in tags or not {*names, *(_COLUMNS if len(names) == 3 else ())} <= tags.keys():
            return None
        gray = samples.shape[-1] <= 2
        curves = [_curve(tags[name])(np.arange(highest + 1) / highest) for name in names]
        if gray:
            matrix, curves = np.eye(1), [curves[len(curves) // 2]]
        else:
            matrix = np.linalg.solve(_SRGB_TO_XYZ, np.stack([_numbers(tags[name], 8, 3) for name in _COLUMNS], axis=1))
        rows = max(1, _BAND_SAMPLES // samples.shape[1])
        for top in range(0, len(samples), rows):
            band = samples[top : top + rows, :, : len(curves)]
            linear = np.stack([curve[band[..., i]] for i, curve in enumerate(curves)], axis=-1) @ matrix.T
            band[...] = np.rint(_srgb_encode(np.clip(linear, 0, 1)) * highest)
        return samples

    def _apply(self, image: Image.Image) -> Image.Image:
        """To sRGB without alpha; the grays of sRGB have three equal channels, so one of them is the gray."""
        source = image.convert("RGB") if image.mode == "L" and self.space == "RGB" else image
        if source.mode not in self._transforms:
            srgb = ImageCms.createProfile("sRGB")
            # LittleCMS speeds up gray by a coarse table, 10 of 255 wrong in the shadows of a linear profile.
            flags = ImageCms.Flags.NOOPTIMIZE if source.mode == "L" else ImageCms.Flags.NONE
            self._transforms[source.mode] = ImageCms.buildTransform(
                self._cms, srgb, source.mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags
            )
        converted = self._transforms[source.mode].apply(source)
        return converted.getchannel("G") if image.mode == "L" else converted


def declared(chromaticities: NDArray[np.float64], gamma: float | None) -> bytes:
    """A profile of three primaries and one curve.

    Args:
        chromaticities: x and y of white, red, green and blue, in the order of PNG.
        gamma: from encoded to linear; None for the curve of sRGB.

    Raises:
        ArithmeticError, LinAlgError: no such primaries can be.
    """
    x, y = chromaticities.reshape(4, 2).T
    with np.errstate(all="raise"):
        xyz, d50 = np.stack([x / y, np.ones(4), (1 - x - y) / y]), _SRGB_TO_XYZ.sum(axis=1)
    matrix = xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])
    cones = (_BRADFORD @ d50) / (_BRADFORD @ xyz[:, 0])
    adapted = np.linalg.solve(_BRADFORD, cones[:, None] * (_BRADFORD @ matrix))
    curve = (3, _SRGB_CURVE) if gamma is None else (0, (gamma,))
    tags = [b"XYZ \0\0\0\0" + _fixed(column) for column in adapted.T]
    tags += 3 * [b"para\0\0\0\0" + struct.pack(">Hxx", curve[0]) + _fixed(curve[1])]
    starts = np.cumsum([132 + 12 * len(tags), *map(len, tags)]).tolist()
    entries = zip((*_COLUMNS, *_CURVES), starts, map(len, tags), strict=False)
    header = struct.pack(">I4x12s4s12x4s28x12s48x", starts[-1], b"\4\0\0\0mntrRGB ", b"XYZ ", b"acsp", _fixed(d50))
    table = b"".join(struct.pack(">4sII", *entry) for entry in entries)
    return header + struct.pack(">I", len(tags)) + table + b"".join(tags)


def _fixed(numbers: Iterable[float]) -> bytes:
    """Write numbers as ICC type s15Fixed16."""
    return np.rint(np.multiply(list(numbers), 65536)).astype(">i4").tobytes()


def _tags(data: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", data, 128)
    entries = (struct.unpack_from(">4sII", data, 132 + 12 * i) for i in range(count))
    return {name: data[offset : offset + size] for name, offset, size in entries}


def _numbers(tag: bytes, offset: int, count: int) -> Floats:
    """Read numbers of ICC type s15Fixed16."""
    return np.frombuffer(tag, ">i4", count, offset).astype(np.float64) / 65536


def _curve(tag: bytes) -> Callable[[Floats], Floats]:
    """The tone curve of a `curv` or `para` tag, from encoded to linear, both in [0, 1]."""
    if tag[:4] == b"para":
        kind = struct.unpack_from(">H", tag, 8)[0]
        return _parametric(kind, *_numbers(tag, 12, (1, 3, 4, 5, 7)[kind]))
    (count,) = struct.unpack_from(">I", tag, 8)
    table = np.frombuffer(tag, ">u2", count, 12).astype(np.float64)
    if count == 0:
        return lambda x: x
    if count == 1:
        return lambda x: x ** (table[0] / 256)
    return lambda x: np.interp(x, np.linspace(0, 1, count), table / 65535)


def _parametric(
    kind: int, g: float, a: float = 1.0, b: float = 0.0, c: float = 0.0, d: float = 0.0, e: float = 0.0, f: float = 0.0
) -> Callable[[Floats], Floats]:
    """The five function types of `para`, all written as type 4: (ax + b)^g + e from d on, cx + f below."""
    if kind in (1, 2):
        c, d, e, f = 0.0, -b / a, c, c
    return lambda x: np.where(x >= d, np.maximum(a * x + b, 0.0) ** g + e, c * x + f)


def _srgb_encode(linear: Floats) -> Floats:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
