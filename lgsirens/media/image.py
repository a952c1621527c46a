"""Pictures by Pillow <-> `Signal`: bands in sRGB, upright, 8 bits (and gray of 16 bits)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from lgsirens.errors import SignalError
from lgsirens.media.icc import Profile
from lgsirens.media.request import Request
from lgsirens.media.stored import open_for_writing
from lgsirens.signal import Array, Signal, integer_limits
from lgsirens.system.console import note

# Modes of Pillow that hold more than 8 bits exactly.
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
DEEP = ("I;16", "I;16B", "I;16L", "F")
ORIENTATION = 274
# What Pillow, and we ourselves, call pairs of pixels per unit of length, across and down.
DENSITIES = "aspect", "dpi", "jfif_density", "resolution", "exif_density"

_MAX_PIXELS = 1 << 30
_BAND_BYTES = 1 << 22
_BYTES = 8  # of memory for each number: a decoder's own and Pillow's, which may have four channels for three, and ours
CONVERTED = "%s: colours are converted from those that the file declares to sRGB"
# Of ITU-T H.273: BT.709 or unspecified, and the curves of sRGB and BT.709 under all their numbers, or unspecified.
_SRGB_PRIMARIES, _SRGB_TRANSFERS = (1, 2), (1, 2, 6, 13, 14, 15)
_MODE_NAMES = {"P": "a palette", "PA": "a palette with alpha", "1": "1-bit gray"}


def read(request: Request, file: BinaryIO, name: str) -> Signal:
    """Read a picture of the format that Pillow calls `name`: `[H, W, C]`, upright and in sRGB.

    Raises:
        SignalError: too large.
        Exception: of any type, for damaged files.
    """
    try:
        with opened(request, file, name) as picture:
            return decoded(request, picture)
    except Image.DecompressionBombError:
        raise SignalError(f"{request.path}: has more pixels than Pillow takes; convert it to TIFF or PNG") from None


@contextmanager
def opened(request: Request, file: BinaryIO, name: str) -> Iterator[Any]:
    """A picture before it is decoded: not by `Image.open`, whose limit is for uploads, far below a large scan."""
    plugin = "WebP" if name == "WEBP" else name.title()
    try:
        with getattr(import_module(f"PIL.{plugin}ImagePlugin"), f"{plugin}ImageFile")(file) as picture:
            check_size(request, picture.width, picture.height, len(picture.getbands()))
            yield picture
    except SyntaxError as error:
        raise UnidentifiedImageError(f"Pillow cannot read this {name}: {error}") from None


def check_size(request: Request, width: int, height: int, channels: int) -> None:
    """Raise SignalError for more samples than a picture, or one in a file of that size, is expected to have."""
    if width * height > _MAX_PIXELS:
        raise SignalError(f"{request.path}: {width}x{height} pixels are more than {_MAX_PIXELS}; cut it into parts")
    request.check_bytes(width * height * channels * _BYTES)


def say_first_of(path: Path, count: int) -> None:
    """Say that one of several pictures is read."""
    if count > 1:
        note("%s: holds %d pictures, the first is read", path, count)


def decoded(request: Request, picture: Image.Image) -> Signal:
    """The signal of a picture that Pillow decodes without loss."""
    path, info = request.path, picture.info
    say_first_of(path, getattr(picture, "n_frames", 1))
    picture.load()
    turned, info["exif_density"] = exif(picture)
    profile = info.get("icc_profile")
    if picture.mode not in DEEP:
        return upright(request, plain(path, picture, profile), turned, None, info)
    samples = np.array(picture)[..., None]
    if samples.dtype.kind == "u":
        samples = samples.astype(np.uint16, copy=False)
        if getattr(picture, "tag_v2", {}).get(262) == 0:  # Pillow inverts WhiteIsZero at 8 bits only
            samples = 65535 - samples
    return upright(request, samples, turned, profile, info)


def plain(path: Path, picture: Image.Image, profile: bytes | None) -> Array:
    """The samples of an 8-bit picture as L, LA, RGB or RGBA in sRGB; says what is converted."""
    mode = picture.mode
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    target = ("L" if mode in ("1", "L", "LA", "La") else "RGB") + ("A" if alpha else "")
    if target != mode:
        note("%s: %s is converted to %s", path, _MODE_NAMES.get(mode, mode), target)
    if 0 in getattr(picture, "tag_v2", {}).get(338, ()):
        note("%s: channels of unspecified meaning are left out", path)
    # LAB is the same on all devices, whatever a profile adds.
    colours = profile_of(path, profile, mode if mode == "CMYK" else target) if profile and mode != "LAB" else None
    if colours is not None:
        note(CONVERTED, path)
    samples = np.empty((picture.height, picture.width, len(target)), np.uint8)
    height = max(1, _BAND_BYTES // (4 * picture.width))
    for top in range(0, picture.height, height):  # Pillow's own conversions would hold several copies of a large one
        band = picture.crop((0, top, picture.width, min(top + height, picture.height)))
        if colours is None or mode != "CMYK":
            band = band.convert(target)
        if colours is not None:
            band = colours.convert(band)
        samples[top : top + height] = np.asarray(band).reshape(band.height, band.width, -1)
    return samples


def profile_of(path: Path, data: bytes, mode: str) -> Profile | None:
    """The profile, if there is something to convert."""
    try:
        profile = Profile(data)
        same = profile.is_srgb()
    except Exception:  # LittleCMS raises errors of any type for damaged profiles
        note("%s: the embedded ICC profile is damaged and ignored", path)
        return None
    if not profile.fits(mode):
        note("%s: the embedded ICC profile is for %s, not for %s, and ignored", path, profile.space, mode)
        return None
    return None if same else profile


def in_srgb(samples: Array, profile: Profile) -> Array:
    """A part `[H, W, C]` of a picture of 8 bits, converted."""
    height, width, channels = samples.shape
    picture = Image.fromarray(samples if channels > 1 else samples.reshape(height, width))
    return np.asarray(profile.convert(picture)).reshape(samples.shape)


def _deep_to_srgb(path: Path, samples: Array, data: bytes, dtype: str | None) -> None:
    """Convert samples in place."""
    profile = profile_of(path, data, MODES[samples.shape[-1]])
    if profile is None:
        return
    highest = integer_limits(dtype or "uint16")[1]
    converted = samples.dtype == np.uint16 and profile.convert_deep(samples, highest) is not None
    note(CONVERTED if converted else "%s: colours stay as they are, its ICC profile applies to 8 bits only", path)


def exif(picture: Image.Image) -> tuple[int, tuple[float, float]]:
    """Of EXIF data, the orientation, 1 to 8, and the pixels per unit of length across and down, 0 if unknown."""
    try:
        tags = picture.getexif()
        return int(tags.get(ORIENTATION, 1)), (float(tags.get(282, 0)), float(tags.get(283, 0)))
    except Exception:  # damaged EXIF raises errors of any type, and the picture is good without it
        return 1, (0, 0)


def declared_colour(primaries: int, transfer: int) -> tuple[int, int] | None:
    """What a `Signal` keeps of primaries and transfer characteristics: those that are not of sRGB or BT.709."""
    return None if primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS else (primaries, transfer)


def _spacing(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    """Distance of rows and of columns, where a pair of densities differs by more than by rounding."""
    for name in DENSITIES:
        across, down = (float(density) for density in info.get(name, (0, 0)))
        if across > 0 and down > 0 and abs(across / down - 1) > 0.01:
            return 1 / down, 1 / across
    return None


def upright(
    request: Request,
    samples: Array,
    orientation: int,
    profile: bytes | None = None,
    info: Mapping[Any, Any] | None = None,
    dtype: str | None = None,
) -> Signal:
    """The signal of samples `[H, W, C]` as a file stores them.

    Args:
        orientation: of EXIF: 5 to 8 mirror at the diagonal, then the flips are those of 1 to 4.
        profile: an ICC profile that is not yet applied.
        info: what Pillow knows besides: densities, and "colour" as in `Signal`.
        dtype: the sample type, if it is not that of the array.
    """
    request.check(("image",))
    if profile:
        _deep_to_srgb(request.path, samples, profile, dtype)
    signal = with_spacing(request.signal(turned_upright(samples, orientation), "image", dtype=dtype), info or {})
    if signal.spacing and orientation in (5, 6, 7, 8):
        return replace(signal, spacing=signal.spacing[::-1])
    return signal


def with_spacing(signal: Signal, info: Mapping[Any, Any]) -> Signal:
    """A picture with the distance of its samples and the colour that Pillow, or its like, knows of it."""
    return replace(signal, spacing=_spacing(info), colour=info.get("colour"))


def turned_upright(samples: Array, orientation: int) -> Array:
    """Samples `[H, W, C]`, turned as EXIF says."""
    samples = samples.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else samples
    samples = samples[::-1] if orientation in (3, 4, 7, 8) else samples
    return np.ascontiguousarray(samples[:, ::-1] if orientation in (2, 3, 6, 7) else samples)


def save(path: Path, samples: Array, name: str, **options: Any) -> None:
    """Write `[H, W, C]` in the format that Pillow calls `name`, with Pillow's options."""
    with open_for_writing(path) as file:
        encode(file, samples, name, **options)


def encode(file: BinaryIO, samples: Array, name: str, **options: Any) -> None:
    """As `save`, into an open file."""
    height, width, channels = samples.shape
    if samples.dtype == np.uint16:
        picture = Image.frombuffer("I;16", (width, height), samples.astype("<u2", copy=False), "raw", "I;16", 0, 1)
    else:
        picture = Image.fromarray(samples if channels > 1 else samples.reshape(height, width))
    picture.save(file, name, **options)
