"""The table of file formats: how each is recognised, read and written, and what it can hold.

A new format is one entry here. Files are read by their content (`magic`) and written by their suffix; checks and
messages come from the other columns, so nothing else names a format.
"""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lgsirens.media import animation, array, audio, avif, folder, heif, image, png, store, tiff, tiff_writer, video
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored
from lgsirens.signal import KINDS, SAMPLE_TYPES, UNSIGNED_TYPES, Signal, integer_limits
from lgsirens.system.output import check_output, replacing


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        suffixes: of its files; the first one stands for it in messages, none is a folder.
        kinds: kinds of signal.
        magic: regular expression of how a file begins, as far as 4 KiB.
        read: reads an open file; None if the format is only written.
        write: writes what is `Stored` to a path; None if the format is only read.
        film: reads an open file as a film, where that is asked for; None if it can be none.
        keeps: attributes of a signal that are written; others that it has are said to be lost.
        has_no_magic: of some files the beginning does not tell; then the suffix or the kind asked for does.
        channels: numbers of channels that can be written.
        types: the sample type in which each one is written; None writes all as they are.
        longest_side: most samples along an axis.
        package: optional package and the extra that installs it.
        needs_package: whether writing a sample type and number of channels needs the package.
        options: names of what `write` takes besides.
        streams: whether a signal that is read by region is written part by part; else it is gathered first.
        datasets: whether it may hold several arrays, of which `FILE::NAME` names one.
        check_target: raises OutputError or RunError where a file may not be written.
        replacing: as `output.replacing`.
    """

    name: str
    suffixes: tuple[str, ...]
    kinds: tuple[str, ...]
    magic: bytes
    read: Callable[[Request, BinaryIO], Signal]
    write: Callable[..., None] | None = None
    film: Callable[[Request, BinaryIO], Signal] | None = None
    keeps: tuple[str, ...] = ("spacing", "colour")
    has_no_magic: bool = False
    channels: Container[int] = range(1, 5)
    types: Mapping[str, str] | None = None
    longest_side: int = 2**31 - 1
    package: tuple[str, str] | None = None
    needs_package: Callable[[str, int], bool] = lambda dtype, channels: True
    options: tuple[str, ...] = ()
    streams: bool = False
    datasets: bool = False
    check_target: Callable[[Path, bool], Any] = check_output
    replacing: Callable[[Path, bool], AbstractContextManager[Path]] = replacing

    def begins(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""
        return re.match(self.magic, head, re.DOTALL) is not None

    def holds(self, kind: str, channels: int) -> bool:
        """Whether such a signal can be written."""
        return self.write is not None and kind in self.kinds and channels in self.channels

    def stored_type(self, dtype: str) -> str | None:
        """The sample type in which `dtype` is written; None if there is none."""
        return dtype if self.types is None else self.types.get(dtype)


def _kept(*types: str, others: str) -> dict[str, str]:
    """Types that are kept exactly, and the one in which all others are written; unsigned ones of pictures in one of
    no fewer bits, or of the most bits that are kept."""
    wide = sorted((dtype for dtype in types if dtype in UNSIGNED_TYPES), key=UNSIGNED_TYPES.index)
    able = {dtype: [kept for kept in wide if integer_limits(kept) >= integer_limits(dtype)] for dtype in UNSIGNED_TYPES}
    instead = {dtype: found[0] if found else wide[-1] for dtype, found in able.items()}
    return {dtype: dtype if dtype in types else instead.get(dtype, others) for dtype in SAMPLE_TYPES}


def _writes(save: Callable[..., None], **options: Any) -> Callable[[Path, Stored], None]:
    return lambda path, stored: save(path, stored.whole(), **options)


_8_BITS = _kept("uint8", others="uint8")
_FLAC_INSTEAD = {"uint8": "int16", **dict.fromkeys(("uint16", "int32", "float16", "float32", "float64"), "int24")}
_ANY = range(1, KINDS["audio"].max_channels + 1)
# MPEG audio of layer II or III with a bit rate and a sampling rate; a header of layer I could also begin a text.
_RATES = "".join(f"\\x{high}0-\\x{high}b" for high in "0123456789abcde").encode()
_MPEG_AUDIO = rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][" + _RATES + rb"]."
_MPEG = (".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts", ".h264")
# The brands in the first box of an ISO file, the main one and the compatible ones: some stand for pictures.
_ISO_AVIF = rb".{4}ftyp(.{4}){0,60}?avi[fs]"
_ISO_HEIF = rb".{4}ftyp(.{4}){0,60}?(hei[cmsx]|hev[cmsx]|mif[12]|msf1|miaf|avc[is])"
_ISO_FILM = rb".{4}(ftyp(?!crx )|moov|mdat|wide|free)"  # crx: raw pictures, beside films of previews


def _picture(
    name: str, suffixes: tuple[str, ...], magic: bytes, longest_side: int, channels: Container[int], **options: Any
) -> Format:
    """Pictures of 8 bits that Pillow writes with these options."""
    read, write = partial(image.read, name=name.upper()), _writes(image.save, name=name.upper(), **options)
    form = Format(name, suffixes, ("image",), magic, read, write, partial(animation.read, name=name.upper()), ())
    return replace(form, channels=channels, types=_8_BITS, longest_side=longest_side)


def _sound(name: str, magic: bytes, channels: Container[int], instead: dict[str, str]) -> Format:
    """Sounds that libsndfile writes; `instead` are the types of those that the format has not."""
    return Format(
        name,
        (f".{name.lower()}",),
        ("audio",),
        magic,
        audio.read_sound,
        partial(audio.save_sound, container=name),
        channels=channels,
        types=instead | {dtype: dtype for dtype in audio.SUBTYPES[name]},
        package=("soundfile", "audio"),
        streams=True,
    )


_PNG = Format(
    "PNG",
    (".png",),
    ("image",),
    rb"\x89PNG",
    png.read_png,
    png.write_png,
    png.read_animation,
    types=_kept("uint8", "uint16", others="uint8"),
    package=("av", "png16"),
    needs_package=png.needs_av,
    streams=True,
)
_TIFF = Format(
    "TIFF",
    (".tif", ".tiff"),
    ("image", "volume"),
    rb"II[*+]\0|MM\0[*+]",
    tiff.read_tiff,
    tiff_writer.save_tiff,
    lambda request, file: tiff.read_stack(request),
    ("spacing",),
    types=_kept(*UNSIGNED_TYPES, "int8", "int16", "float32", others="float32"),
    package=("tifffile", "tiff"),
    needs_package=tiff_writer.needs_tifffile,
    streams=True,
)
_MP4 = Format(
    "H.264",
    (".mp4",),
    ("video",),
    _ISO_FILM,
    video.read_film,
    video.save_mp4,
    channels=(1, 3),
    types=_8_BITS,
    package=("av", "video"),
    options=("crf",),
    streams=True,
)
_MKV = replace(
    _MP4,
    name="FFV1",
    suffixes=(".mkv",),
    magic=rb"\x1a\x45\xdf\xa3",
    write=video.save_mkv,
    channels=(1, 3, 4),
    types=_PNG.types,
    options=(),
)
_PICTURES = (
    _PNG,
    _TIFF,
    _picture("JPEG", (".jpg", ".jpeg"), rb"\xff\xd8\xff", 65500, (1, 3), quality=95, subsampling="4:4:4"),
    _picture("WebP", (".webp",), rb"RIFF.{4}WEBP", 16383, range(1, 5), lossless=True, exact=True),
    replace(
        _picture("AVIF", (".avif",), _ISO_AVIF, 32768, range(1, 5), quality=100, subsampling="4:4:4"),
        read=avif.read_avif,
        film=partial(avif.read_avif, reads=animation.film),
    ),
    Format(
        "HEIF",
        (".heic", ".heif", ".hif"),
        ("image",),
        _ISO_HEIF,
        heif.read_heif,
        heif.save_heif,
        types=_kept("uint8", "uint10", "uint12", others="uint8"),
        longest_side=16384,
        package=("pillow_heif", "heif"),
    ),
    Format("BMP", (".bmp",), ("image",), rb"BM", partial(image.read, name="BMP")),
    Format(
        "GIF",
        (".gif",),
        ("image",),
        rb"GIF8",
        partial(image.read, name="GIF"),
        film=partial(animation.read, name="GIF"),
    ),
)
_PICTURE_SUFFIXES = tuple(suffix for form in _PICTURES for suffix in form.suffixes)

FOLDER = replace(
    _PNG,
    name="a folder of PNG",
    suffixes=("",),
    kinds=("video",),
    film=None,
    magic=rb"(?!)",
    read=lambda request, file: folder.read_folder(request, _PICTURE_SUFFIXES),
    write=folder.save_folder,
    check_target=folder.check_folder,
    replacing=folder.replacing_folder,
)
ZARR = Format(
    "Zarr",
    (".zarr",),
    tuple(KINDS),
    rb"PK\x03\x04",
    store.read_zarr,
    store.save_zarr,
    keeps=("spacing",),
    channels=_ANY,
    types={dtype: dtype for dtype in SAMPLE_TYPES},
    package=("zarr", "zarr"),
    streams=True,
    datasets=True,
    check_target=store.check_store,
    replacing=store.replacing_store,
)
FORMATS = (
    Format(
        ".npy",
        (".npy",),
        tuple(KINDS),
        rb"\x93NUMPY",
        array.read_array,
        array.save_array,
        keeps=(),
        channels=_ANY,
        streams=True,
    ),
    ZARR,
    Format("HDF5", (".h5", ".hdf5"), tuple(KINDS), rb"\x89HDF\r\n\x1a\n", store.read_hdf5, keeps=(), datasets=True),
    *_PICTURES,
    _sound("WAV", rb"(RIFF|RIFX|RF64).{4}WAVE", _ANY, {"uint8": "int16", "uint16": "int24", "float16": "float32"}),
    _sound("FLAC", rb"fLaC", range(1, 9), _FLAC_INSTEAD),
    Format(
        "Ogg, MP3, AIFF, AU or CAF",
        (".ogg", ".mp3", ".aiff", ".au", ".caf"),
        ("audio",),
        rb"OggS(?!.*\x80theora)|ID3|FORM.{4}AIF[FC]|\.snd|caff|" + _MPEG_AUDIO,
        audio.read_sound,
    ),
    _MP4,
    _MKV,
    FOLDER,
    Format(
        "AVI, MPEG or another film",
        (*_MPEG, ".m4v", ".mov", ".webm", ".avi", ".wmv", ".flv", ".ogv", ".mxf", ".y4m"),
        ("video",),
        rb"FLV\x01|\0\0\x01\xba|\x30\x26\xb2\x75|.{8}AVI |OggS.*\x80theora",
        video.read_film,
        has_no_magic=True,
    ),
)


def recognised(head: bytes, suffix: str = "", kind: str | None = None) -> Format | None:
    """The format of a file that begins with `head`; suffix and kind count only where the content does not tell."""
    certain = (form for form in FORMATS if form.begins(head))
    likely = (form for form in FORMATS if form.has_no_magic and (suffix in form.suffixes or kind in form.kinds))
    return next(chain(certain, likely), None)


def named(path: Path) -> Format | None:
    """The format in which a file of this name is written."""
    suffix = path.suffix.lower()
    return next((form for form in FORMATS if form.write is not None and suffix in form.suffixes), None)


def suffixes(forms: Iterable[Format]) -> str:
    """How formats are listed in messages."""
    return ", ".join(suffix or "a name without suffix" for form in forms for suffix in form.suffixes)
