"""The table of file formats: how each is recognised, read and written, and what it can hold.

A new format is one entry here. Files are read by their content (`magic`) and written by their suffix; checks and
messages come from the other columns, so nothing else names a format.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lgsirens.media import array, audio, avif, folder, image, png, tiff, video
from lgsirens.media.request import Request
from lgsirens.media.stored import Stored
from lgsirens.signal import KINDS, SAMPLE_TYPES, Signal
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
        has_no_magic: of some files the beginning does not tell; then the suffix or the kind asked for does.
        channels: numbers of channels; None for any.
        types: the sample type in which each one is written; None writes all as they are.
        longest_side: most samples along an axis.
        package: optional package and the extra that installs it.
        needs_package: whether writing a sample type and number of channels needs the package.
        options: names of what `write` takes besides.
        check_target: raises OutputError or RunError where a file may not be written.
        replacing: as `output.replacing`.
    """

    name: str
    suffixes: tuple[str, ...]
    kinds: tuple[str, ...]
    magic: bytes
    read: Callable[[Request, BinaryIO], Signal]
    write: Callable[..., None] | None = None
    has_no_magic: bool = False
    channels: tuple[int, ...] | None = (1, 2, 3, 4)
    types: Mapping[str, str] | None = None
    longest_side: int = 2**31 - 1
    package: tuple[str, str] | None = None
    needs_package: Callable[[str, int], bool] = lambda dtype, channels: True
    options: tuple[str, ...] = ()
    check_target: Callable[[Path, bool], Any] = check_output
    replacing: Callable[[Path, bool], AbstractContextManager[Path]] = replacing

    def begins(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""
        return re.match(self.magic, head, re.DOTALL) is not None

    def holds(self, kind: str, channels: int) -> bool:
        """Whether such a signal can be written."""
        fits = self.channels is None or channels in self.channels
        return self.write is not None and kind in self.kinds and fits

    def stored_type(self, dtype: str) -> str | None:
        """The sample type in which `dtype` is written; None if there is none."""
        return dtype if self.types is None else self.types.get(dtype)


def _kept(*types: str, others: str) -> dict[str, str]:
    """Types that are kept exactly, and the one in which all others are written."""
    return {dtype: dtype if dtype in types else others for dtype in SAMPLE_TYPES}


def _sound(name: str, instead: dict[str, str]) -> dict[str, str]:
    return instead | {dtype: dtype for dtype in audio.SUBTYPES[name]}


def _reads(name: str) -> Callable[[Request, BinaryIO], Signal]:
    """A reader of what Pillow calls `name`."""
    return partial(image.read, name=name)


def _writes(save: Callable[..., None], **options: Any) -> Callable[[Path, Stored], None]:
    return lambda path, stored: save(path, stored.whole(), **options)


_8_BITS = _kept("uint8", others="uint8")
_IMAGE, _AUDIO, _VIDEO = ("image",), ("audio",), ("video",)
# MPEG audio of layer II or III with a bit rate and a sampling rate; a header of layer I could also begin a text.
_RATES = "".join(f"\\x{high}0-\\x{high}b" for high in "0123456789abcde").encode()
_MPEG_AUDIO = rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][" + _RATES + rb"]."
# The brands in the first box of an ISO file, the main one and the compatible ones: some stand for pictures.
_ISO_PICTURE = rb".{4}ftyp(.{4}){0,15}?avi[fs]"
_ISO_FILM = rb".{4}(ftyp(?!hei[cxms]|hev[cxms]|mif[12]|msf1)|moov|mdat|wide|free)"

_PNG = Format(
    "PNG",
    (".png",),
    _IMAGE,
    rb"\x89PNG",
    png.read_png,
    _writes(png.save_png),
    types=_kept("uint8", "uint16", others="uint8"),
    package=("av", "png16"),
    needs_package=png.needs_av,
)
_TIFF = Format(
    "TIFF",
    (".tif", ".tiff"),
    ("image", "volume"),
    rb"II[*+]\0|MM\0[*+]",
    tiff.read_tiff,
    tiff.save_tiff,
    types=_kept("uint8", "uint16", "int8", "int16", "float32", others="float32"),
    package=("tifffile", "tiff"),
    needs_package=tiff.needs_tifffile,
)
_JPEG = Format(
    "JPEG",
    (".jpg", ".jpeg"),
    _IMAGE,
    rb"\xff\xd8\xff",
    _reads("JPEG"),
    _writes(image.save, name="JPEG", quality=95, subsampling="4:4:4"),
    channels=(1, 3),
    types=_8_BITS,
    longest_side=65500,
)
_WEBP = Format(
    "WebP",
    (".webp",),
    _IMAGE,
    rb"RIFF.{4}WEBP",
    _reads("WEBP"),
    _writes(image.save, name="WEBP", lossless=True, exact=True),
    types=_8_BITS,
    longest_side=16383,
)
_AVIF = Format(
    "AVIF",
    (".avif",),
    _IMAGE,
    _ISO_PICTURE,
    avif.read_avif,
    _writes(image.save, name="AVIF", quality=100, subsampling="4:4:4"),
    types=_8_BITS,
    longest_side=32768,
)
_WAV = Format(
    "WAV",
    (".wav",),
    _AUDIO,
    rb"(RIFF|RIFX|RF64).{4}WAVE",
    audio.read_sound,
    partial(audio.save_sound, container="WAV"),
    channels=tuple(range(1, KINDS["audio"].max_channels + 1)),
    types=_sound("WAV", {"uint8": "int16", "uint16": "int24", "float16": "float32"}),
    package=("soundfile", "audio"),
)
_FLAC = replace(
    _WAV,
    name="FLAC",
    suffixes=(".flac",),
    magic=rb"fLaC",
    write=partial(audio.save_sound, container="FLAC"),
    channels=tuple(range(1, 9)),
    types=_sound(
        "FLAC", dict.fromkeys(("uint16", "int32", "float16", "float32", "float64"), "int24") | {"uint8": "int16"}
    ),
)
_MP4 = Format(
    "H.264",
    (".mp4",),
    _VIDEO,
    _ISO_FILM,
    video.read_film,
    video.save_mp4,
    channels=(1, 3),
    types=_8_BITS,
    package=("av", "video"),
    options=("crf",),
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
    *(_PNG, _TIFF, _JPEG, _WEBP, _AVIF),
    Format("BMP", (".bmp",), _IMAGE, rb"BM", _reads("BMP")),
    Format("GIF", (".gif",), _IMAGE, rb"GIF8", _reads("GIF")),
)
_PICTURE_SUFFIXES = tuple(suffix for form in _PICTURES for suffix in form.suffixes)

FOLDER = replace(
    _PNG,
    name="a folder of PNG",
    suffixes=("",),
    kinds=_VIDEO,
    magic=rb"(?!)",
    read=lambda request, file: folder.read_folder(request, _PICTURE_SUFFIXES),
    write=folder.save_folder,
    check_target=folder.check_folder,
    replacing=folder.replacing_folder,
)
FORMATS = (
    Format(".npy", (".npy",), tuple(KINDS), rb"\x93NUMPY", array.read_array, array.save_array, channels=None),
    *_PICTURES,
    _WAV,
    _FLAC,
    Format(
        "Ogg, MP3, AIFF, AU or CAF",
        (".ogg", ".mp3", ".aiff", ".au", ".caf"),
        _AUDIO,
        rb"OggS(?!.*\x80theora)|ID3|FORM.{4}AIF[FC]|\.snd|caff|" + _MPEG_AUDIO,
        audio.read_sound,
    ),
    _MP4,
    _MKV,
    FOLDER,
    Format(
        "AVI, MPEG or another film",
        (".m4v", ".mov", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"),
        _VIDEO,
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
