"""Picture files: PNG, JPEG, TIFF, WebP (and BMP, GIF) <-> arrays `[H, W, C]`. Used by `media.py` only.

Pillow reduces 16-bit colour to 8 bits without a word, so those files take another route: PNG through PyAV, TIFF
through tifffile, both optional.
"""

import importlib
import io
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.media.icc import Profile
from lgsirens.signal import Array, to_sample_type

log = logging.getLogger("lgsirens")

# Not all that Pillow opens: some of its plugins start other programs, others reduce 16 bits to 8.
_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
_PICTURES = "PNG, JPEG, TIFF, WebP, BMP or GIF"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PIXELS = 1 << 30
_BAND_BYTES = 1 << 22
_ORIENTATION = 274

# Modes of Pillow that hold a file's samples exactly and need no conversion.
_PLAIN = ("L", "LA", "RGB", "RGBA")
_DEEP = ("I;16", "I;16B", "I;16L", "F")
_MODE_NAMES = {"P": "a palette", "PA": "a palette with alpha", "1": "1-bit gray"}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_PURPOSES = {"png16": "16-bit PNG with colour or alpha", "tiff": "this TIFF", "video": "film", "audio": "sound"}
_PNG16 = {1: "gray16be", 2: "ya16be", 3: "rgb48be", 4: "rgba64be"}


class _Picture(NamedTuple):
    """What a file holds: samples `[H, W, C]` as stored, the EXIF orientation and the profile not yet applied."""

    samples: Array
    orientation: int = 1
    profile: bytes | None = None


def read_picture(path: Path, file: BinaryIO, kind: str | None) -> tuple[Array, str]:
    """Samples `[H, W, C]`, upright and in sRGB, and the kind, always "image".

    Raises:
        SignalError: of another kind, of an unknown format, or too large.
        MissingDependencyError: an optional package is needed.
        Exception: of any type, for damaged files.
    """
    with _our_pixel_limit():
        picture = _decode(path, file, kind)
    samples = picture.samples
    if picture.profile:
        samples = _deep_to_srgb(path, samples, picture.profile)
    return _upright(samples, picture.orientation), "image"


def _decode(path: Path, file: BinaryIO, kind: str | None) -> _Picture:
    magic = file.read(4)
    file.seek(0)
    try:
        image = Image.open(file, formats=_PILLOW_FORMATS)
    except UnidentifiedImageError as error:
        if magic in TIFF_MAGIC:
            _check_kind(path, kind)
            return _decode_tiff(path, file)
        raise SignalError(
            f"{path}: its content is no {_PICTURES} picture and no .npy array; convert it to one of them"
        ) from error
    with image:
        _check_kind(path, kind)
        _check_size(path, *image.size)
        if image.format == "PNG":
            depth, colour = _png_depth_and_colour(file)
            if depth == 16 and (image.mode not in _DEEP or "transparency" in image.info):
                return _decode_png16(path, file, image.info.get("icc_profile"))
            if depth < 8 and colour == 0 and "transparency" in image.info:  # Pillow scales the samples only
                image.info["transparency"] = min(255, image.info["transparency"] * (255 // (2**depth - 1)))
        if image.format == "TIFF" and not _pillow_is_exact(image):
            return _decode_tiff(path, file)
        return _decode_with_pillow(path, image)


def _check_kind(path: Path, kind: str | None) -> None:
    if kind not in (None, "image"):
        raise SignalError(
            f"{path}: is an image, not a signal of kind {kind!r}; name a file of that kind, or give no kind"
        )


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise SignalError(f"{path}: {width}x{height} pixels are more than {_MAX_PIXELS}; cut it into parts")


def _decode_with_pillow(path: Path, image: Image.Image) -> _Picture:
    if image.format != "MPO":  # the further pictures of a phone's MPO are previews
        _say_first_of(path, getattr(image, "n_frames", 1))
    image.load()
    orientation = _orientation(image.getexif)
    profile = image.info.get("icc_profile")
    if image.mode in _DEEP:
        samples = np.array(image)[..., None]
        if samples.dtype.kind == "u":
            samples = samples.astype(np.uint16, copy=False)
            if getattr(image, "tag_v2", {}).get(262) == 0:  # Pillow inverts WhiteIsZero at 8 bits only
                samples = 65535 - samples
        return _Picture(samples, orientation, profile)
    return _Picture(_as_array(image, _plain_bands(path, image, profile)), orientation)


def _plain_bands(path: Path, image: Image.Image, profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    """How to turn bands of an 8-bit image into L, LA, RGB or RGBA in sRGB; says what will be converted."""
    mode = image.mode
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    target = ("L" if mode in ("1", "L", "LA", "La") else "RGB") + ("A" if alpha else "")
    if target != mode:
        log.warning("%s: %s is converted to %s", path, _MODE_NAMES.get(mode, mode), target)
    if 0 in getattr(image, "tag_v2", {}).get(338, ()):
        log.warning("%s: channels of unspecified meaning are left out", path)
    if mode == "LAB":  # the same on all devices, whatever a profile adds
        profile = None
    colours = _profile(path, profile, mode if mode == "CMYK" else target) if profile else None
    if colours is None:
        return lambda band: band.convert(target)
    log.warning("%s: colours are converted from the embedded profile to sRGB", path)
    return lambda band: colours.convert(band if mode == "CMYK" else band.convert(target))


def _as_array(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Array:
    """Convert by bands: Pillow's own conversions and exports would hold several copies of a large image."""
    height = max(1, _BAND_BYTES // (4 * image.width))
    samples: Array | None = None
    for top in range(0, image.height, height):
        band = convert(image.crop((0, top, image.width, min(top + height, image.height))))
        if samples is None:
            samples = np.empty((image.height, image.width, len(band.getbands())), np.uint8)
        samples[top : top + band.height] = np.asarray(band).reshape(band.height, band.width, -1)
    assert samples is not None
    return samples


def _png_depth_and_colour(file: BinaryIO) -> tuple[int, int]:
    """Bits per sample and colour type of IHDR, always the first chunk: Pillow tells neither."""
    position = file.tell()
    file.seek(24)
    depth, colour = file.read(2)
    file.seek(position)
    return depth, colour


def _decode_png16(path: Path, file: BinaryIO, profile: bytes | None) -> _Picture:
    av = optional("av", path)
    file.seek(0)
    data = file.read()
    orientation, inflater, inflated, needed = 1, zlib.decompressobj(), 0, [data[:8]]
    for name, chunk in _png_chunks(data):
        if name == b"eXIf":
            orientation = _orientation(partial(_parsed_exif, chunk[8:-4]))
        elif name == b"IDAT":
            inflated += len(inflater.decompress(chunk[8:-4]))
        if name in (b"IHDR", b"tRNS", b"IDAT", b"IEND"):  # FFmpeg refuses pictures for damage in the others
            needed.append(chunk)
    codec = av.CodecContext.create("png", "r")
    frame = (codec.decode(av.Packet(b"".join(needed))) + codec.decode(None))[0]
    channels = {name: count for count, name in _PNG16.items()}[frame.format.name]
    rows = np.frombuffer(frame.planes[0], ">u2").reshape(-1, frame.planes[0].line_size // 2)
    if inflated < frame.height * (1 + 2 * frame.width * _PNG_CHANNELS[data[25]]):  # FFmpeg fills the rest silently
        raise ValueError("truncated picture data")
    samples = rows[: frame.height, : frame.width * channels].reshape(frame.height, frame.width, channels)
    return _Picture(samples.astype(np.uint16), orientation, profile)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk to the last chunk, because FFmpeg decodes cut and altered files silently."""
    offset, name = 8, b""
    while name != b"IEND":
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if end > len(data):
            raise ValueError("truncated PNG file")
        chunk, name, offset = data[offset:end], data[offset + 4 : offset + 8], end
        if int.from_bytes(chunk[-4:], "big") != zlib.crc32(chunk[4:-4]):
            raise ValueError(f"wrong checksum in chunk {name!r}")
        yield name, chunk


def _pillow_is_exact(image: Any) -> bool:
    """Whether Pillow keeps the samples of a TIFF file; CMYK is reduced to 8 bits in any case."""
    unsigned = set(image.tag_v2.get(339, (1,))) == {1}
    return image.mode in (*_DEEP, "CMYK") or (unsigned and max(image.tag_v2.get(258, (1,))) <= 8 and image.mode != "I")


def _decode_tiff(path: Path, file: BinaryIO) -> _Picture:
    tifffile = optional("tifffile", path)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        _check_size(path, page.imagewidth, page.imagelength)
        _say_first_of(path, len(tiff.pages))
        if page.photometric not in (0, 1, 2) or page.axes not in ("YX", "YXS", "SYX"):
            raise SignalError(
                f"{path}: a TIFF file of photometric {int(page.photometric)}, axes {page.axes} and "
                f"{page.bitspersample} bits is not supported; convert it to gray or RGB"
            )
        try:
            samples = page.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise MissingDependencyError(f"{path}: {error}: pip install 'lgsirens[tiff]'") from error
            raise
        samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples.reshape(*samples.shape[:2], -1)
        samples = _specified_channels(path, page, samples)
        if page.photometric == 0 and samples.dtype.kind == "u":
            samples[..., 0] = (1 << page.bitspersample) - 1 - samples[..., 0]
        return _Picture(samples, page.tags.valueof(_ORIENTATION, default=1), page.iccprofile)


def _specified_channels(path: Path, page: Any, samples: Array) -> Array:
    """Colour and straight alpha; extra samples without a stated meaning are left out, as Pillow does."""
    colours = 3 if page.photometric == 2 else 1
    extras = [int(extra) for extra in page.extrasamples][: samples.shape[-1] - colours]
    alphas = [colours + i for i, extra in enumerate(extras) if extra in (1, 2)][:1]
    if len(alphas) < samples.shape[-1] - colours:
        log.warning("%s: channels of unspecified meaning are left out", path)
    samples = np.ascontiguousarray(samples[..., [*range(colours), *alphas]])
    if alphas and extras[alphas[0] - colours] == 1:
        log.warning("%s: premultiplied alpha is converted to straight alpha", path)
        full = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1.0
        alpha = np.maximum(samples[..., -1:].astype(np.float64), np.finfo(np.float32).tiny)
        straight = np.minimum(samples[..., :-1] * (full / alpha), full)
        samples[..., :-1] = to_sample_type(straight, str(samples.dtype))
    return samples


def _profile(path: Path, data: bytes, mode: str) -> Profile | None:
    """The profile, if there is something to convert."""
    try:
        profile = Profile(data)
        same = profile.is_srgb()
    except Exception:  # LittleCMS raises errors of any type for damaged profiles
        log.warning("%s: the embedded ICC profile is damaged and ignored", path)
        return None
    if not profile.fits(mode):
        log.warning("%s: the embedded ICC profile is for %s, not for %s, and ignored", path, profile.space, mode)
        return None
    return None if same else profile


def _deep_to_srgb(path: Path, samples: Array, data: bytes) -> Array:
    profile = _profile(path, data, _PLAIN[samples.shape[-1] - 1])
    if profile is None:
        return samples
    converted = profile.convert_deep(samples) if samples.dtype == np.uint16 else None
    if converted is None:
        log.warning("%s: colours stay as they are, its ICC profile applies to 8 bits only", path)
        return samples
    log.warning("%s: colours are converted from the embedded profile to sRGB", path)
    return converted


def _parsed_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


def _orientation(exif: Callable[[], Image.Exif]) -> int:
    try:
        return int(exif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises errors of any type, and the picture is good without it
        return 1


def _upright(samples: Array, orientation: int) -> Array:
    """Undo the EXIF orientation: 5 to 8 mirror at the diagonal, then the flips are those of 1 to 4."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def _say_first_of(path: Path, frames: int) -> None:
    if frames > 1:
        log.warning("%s: holds %d pictures, the first is read", path, frames)


@contextmanager
def _our_pixel_limit() -> Iterator[None]:
    """Pillow's limit is for untrusted uploads and far below a large scan; `_check_size` sets ours."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def optional(name: str, path: str | os.PathLike[str], extra: str | None = None) -> Any:
    """Import an optional package, by default for a picture (raises MissingDependencyError, which names the extra)."""
    extra = extra or {"av": "png16", "tifffile": "tiff", "soundfile": "audio"}[name]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{path}: {_PURPOSES[extra]} needs {name}: pip install 'lgsirens[{extra}]'"
        raise MissingDependencyError(message) from error


def save_jpeg(path: Path, samples: Array) -> None:
    _save_with_pillow(path, samples, "JPEG", quality=95, subsampling="4:4:4")


def save_webp(path: Path, samples: Array) -> None:
    _save_with_pillow(path, samples, "WEBP", lossless=True, exact=True)


def save_png(path: Path, samples: Array) -> None:
    height, width, channels = samples.shape
    if package_for_png(str(samples.dtype), channels) is None:
        _save_with_pillow(path, samples, "PNG")
        return
    av = optional("av", path)
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, _PNG16[channels]
    codec.time_base, codec.sample_aspect_ratio = Fraction(1), Fraction(1)
    codec.options = {"pred": "mixed"}
    frame = av.VideoFrame(width, height, _PNG16[channels])
    plane = frame.planes[0]
    rows = np.frombuffer(plane, ">u2")[: height * (plane.line_size // 2)].reshape(height, -1)
    rows[:, : width * channels] = samples.reshape(height, -1)
    with path.open("wb") as file:
        for packet in [*codec.encode(frame), *codec.encode(None)]:
            file.write(packet)


def save_tiff(path: Path, samples: Array) -> None:
    channels = samples.shape[-1]
    if package_for_tiff(str(samples.dtype), channels) is None:
        _save_with_pillow(path, samples, "TIFF")
        return
    tifffile = optional("tifffile", path)
    with open_for_writing(path) as file:
        tifffile.imwrite(
            file,
            samples if channels > 1 else samples[..., 0],
            photometric="rgb" if channels > 2 else "minisblack",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            metadata=None,
        )


def package_for_png(dtype: str, channels: int) -> str | None:
    """Name of the optional package that writing needs."""
    return "av" if dtype == "uint16" and channels > 1 else None


def package_for_tiff(dtype: str, channels: int) -> str | None:
    """Name of the optional package that writing needs."""
    return None if dtype == "uint8" or (channels == 1 and dtype in ("uint16", "float32")) else "tifffile"


class _Unnumbered(io.FileIO):
    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def open_for_writing(path: Path) -> BinaryIO:
    """Open a file without a descriptor: codecs that write to it themselves miss a full disk."""
    return io.BufferedWriter(_Unnumbered(path, "wb"))


def _save_with_pillow(path: Path, samples: Array, name: str, **options: Any) -> None:
    height, width, channels = samples.shape
    if samples.dtype == np.uint16:
        image = Image.frombuffer("I;16", (width, height), samples.astype("<u2", copy=False), "raw", "I;16", 0, 1)
    else:
        image = Image.fromarray(samples if channels > 1 else samples.reshape(height, width))
    with open_for_writing(path) as file:
        image.save(file, name, **options)
