"""Pictures by Pillow <-> `Signal`: bands in sRGB, upright, 8 bits (and gray of 16 bits)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from lgsirens.errors import SignalError
from lgsirens.media.icc import Profile
from lgsirens.media.request import Request
from lgsirens.media.stored import open_for_writing
from lgsirens.signal import Array, Signal
from lgsirens.system.console import note

# Modes of Pillow that hold more than 8 bits exactly.
DEEP = ("I;16", "I;16B", "I;16L", "F")
ORIENTATION = 274

_MAX_PIXELS = 1 << 30
_BAND_BYTES = 1 << 22
_CONVERTED = "%s: colours are converted from the embedded profile to sRGB"
_MODE_NAMES = {"P": "a palette", "PA": "a palette with alpha", "1": "1-bit gray"}


def read(request: Request, file: BinaryIO, name: str) -> Signal:
    """Read a picture of the format that Pillow calls `name`: `[H, W, C]`, upright and in sRGB.

    Raises:
        SignalError: too large.
        Exception: of any type, for damaged files.
    """
    with opened(request.path, file, name) as picture:
        return decoded(request, picture)


@contextmanager
def opened(path: Path, file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """A picture before it is decoded; Pillow's own limit is for untrusted uploads and far below a large scan."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        picture = Image.open(file, formats=(name,))  # no other: some of Pillow's plugins start other programs
        with picture:
            check_size(path, *picture.size)
            yield picture
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"Pillow cannot read this {name}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_size(path: Path, width: int, height: int) -> None:
    """Raise SignalError for more samples than a picture is expected to have."""
    if width * height > _MAX_PIXELS:
        raise SignalError(f"{path}: {width}x{height} pixels are more than {_MAX_PIXELS}; cut it into parts")


def say_first_of(path: Path, count: int) -> None:
    """Say that one of several pictures is read."""
    if count > 1:
        note("%s: holds %d pictures, the first is read", path, count)


def decoded(request: Request, picture: Image.Image) -> Signal:
    """The signal of a picture that Pillow decodes without loss."""
    path = request.path
    if picture.format != "MPO":  # the further pictures of a phone's MPO are previews
        say_first_of(path, getattr(picture, "n_frames", 1))
    picture.load()
    turned = orientation(picture.getexif)
    profile = picture.info.get("icc_profile")
    if picture.mode not in DEEP:
        return upright(request, _plain(path, picture, profile), turned)
    samples = np.array(picture)[..., None]
    if samples.dtype.kind == "u":
        samples = samples.astype(np.uint16, copy=False)
        if getattr(picture, "tag_v2", {}).get(262) == 0:  # Pillow inverts WhiteIsZero at 8 bits only
            samples = 65535 - samples
    return upright(request, samples, turned, profile)


def _plain(path: Path, picture: Image.Image, profile: bytes | None) -> Array:
    """The samples of an 8-bit picture as L, LA, RGB or RGBA in sRGB; says what is converted."""
    mode = picture.mode
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    target = ("L" if mode in ("1", "L", "LA", "La") else "RGB") + ("A" if alpha else "")
    if target != mode:
        note("%s: %s is converted to %s", path, _MODE_NAMES.get(mode, mode), target)
    if 0 in getattr(picture, "tag_v2", {}).get(338, ()):
        note("%s: channels of unspecified meaning are left out", path)
    # LAB is the same on all devices, whatever a profile adds.
    colours = _profile(path, profile, mode if mode == "CMYK" else target) if profile and mode != "LAB" else None
    if colours is not None:
        note(_CONVERTED, path)
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


def _profile(path: Path, data: bytes, mode: str) -> Profile | None:
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


def _deep_to_srgb(path: Path, samples: Array, data: bytes) -> None:
    """Convert samples in place."""
    profile = _profile(path, data, ("L", "LA", "RGB", "RGBA")[samples.shape[-1] - 1])
    if profile is None:
        return
    converted = samples.dtype == np.uint16 and profile.convert_deep(samples) is not None
    note(_CONVERTED if converted else "%s: colours stay as they are, its ICC profile applies to 8 bits only", path)


def orientation(exif: Callable[[], Image.Exif]) -> int:
    """The orientation of EXIF data, 1 to 8."""
    try:
        return int(exif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF raises errors of any type, and the picture is good without it
        return 1


def upright(request: Request, samples: Array, orientation: int, profile: bytes | None = None) -> Signal:
    """The signal of samples `[H, W, C]` as a file stores them.

    Args:
        orientation: of EXIF: 5 to 8 mirror at the diagonal, then the flips are those of 1 to 4.
        profile: an ICC profile that is not yet applied.
    """
    if profile:
        _deep_to_srgb(request.path, samples, profile)
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return request.signal(np.ascontiguousarray(samples), "image")


def save(path: Path, samples: Array, name: str, **options: Any) -> None:
    """Write `[H, W, C]` in the format that Pillow calls `name`, with Pillow's options."""
    height, width, channels = samples.shape
    if samples.dtype == np.uint16:
        picture = Image.frombuffer("I;16", (width, height), samples.astype("<u2", copy=False), "raw", "I;16", 0, 1)
    else:
        picture = Image.fromarray(samples if channels > 1 else samples.reshape(height, width))
    with open_for_writing(path) as file:
        picture.save(file, name, **options)
