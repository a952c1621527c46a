"""The table of formats: what each file format can hold, and what writes it. Used by `media.py` only."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lgsirens.media import audio, folder, image, video, volume
from lgsirens.media.stored import Stored
from lgsirens.signal import KINDS, Array

FOLDER = ""


@dataclass(frozen=True)
class Format:
    """What a file format can hold, and what writes it.

    Attributes:
        save: writes what is `Stored` to a path; that of H.264 takes `crf` as well.
        kinds: kinds of signal.
        channels: numbers of channels; None for any.
        types: sample types that it keeps exactly; the last one stands in for all others; None for any.
        longest_side: most samples along an axis.
        needs: optional package for a sample type and number of channels; None for none.
        extra: the extra that installs it, if not that of pictures.
        deeper: formats that keep what this one does not, for the line that says so.
    """

    name: str
    save: Callable[..., None]
    kinds: tuple[str, ...] = ("image",)
    channels: tuple[int, ...] | None = (1, 2, 3, 4)
    types: tuple[str, ...] | None = ("uint8",)
    longest_side: int = 2**31 - 1
    needs: Callable[[str, int], str | None] = lambda dtype, channels: None
    extra: str | None = None
    deeper: tuple[str, str] = (".png and .tif keep", ".tif keeps")

    def holds(self, kind: str, channels: int) -> bool:
        return kind in self.kinds and (self.channels is None or channels in self.channels)

    def stored_type(self, dtype: str) -> str:
        return dtype if self.types is None or dtype in self.types else self.types[-1]


def _save_array(path: Path, stored: Stored) -> None:
    with image.open_for_writing(path) as file:
        np.save(file, stored.whole(), allow_pickle=False)


def _picture(save: Callable[[Path, Array], None]) -> Callable[..., None]:
    return lambda path, stored: save(path, stored.whole())


def _save_tiff(path: Path, stored: Stored) -> None:
    if stored.signal.kind == "volume":
        volume.save_volume(path, stored.whole(), stored.signal.spacing)
    else:
        image.save_tiff(path, stored.whole())


def _save_sound(path: Path, stored: Stored) -> None:
    audio.save_sound(path, stored.signal, stored.path)


def _save_mp4(path: Path, stored: Stored, crf: int = 18) -> None:
    rate = video.known_rate(stored.path, stored.signal.sampling_rate)
    video.save_mp4(path, stored.path, stored.frames(), rate, crf)


def _save_mkv(path: Path, stored: Stored) -> None:
    video.save_mkv(path, stored.frames(), video.known_rate(stored.path, stored.signal.sampling_rate))


_JPEG = Format("JPEG", _picture(image.save_jpeg), channels=(1, 3), longest_side=65500)
_TIFF = Format(
    "TIFF",
    _save_tiff,
    kinds=("image", "volume"),
    types=("uint8", "uint16", "int8", "int16", "float32"),
    needs=image.package_for_tiff,
)
_PNG = Format("PNG", _picture(image.save_png), types=("uint16", "uint8"), needs=image.package_for_png)
SOUND = Format("sound", _save_sound, ("audio",), None, None, needs=audio.package_for_sound, extra="audio")
_DEEPER_FILM = (".mkv keeps", ".npy keeps")
MP4 = Format(
    "H.264", _save_mp4, ("video",), (1, 3), needs=lambda dtype, channels: "av", extra="video", deeper=_DEEPER_FILM
)
FORMATS = {
    ".npy": Format(".npy", _save_array, tuple(KINDS), channels=None, types=None),
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WebP", _picture(image.save_webp), longest_side=16383),
    ".wav": SOUND,
    ".flac": SOUND,
    ".mp4": MP4,
    ".mkv": replace(MP4, name="FFV1", save=_save_mkv, channels=(1, 3, 4), types=("uint16", "uint8")),
    FOLDER: replace(_PNG, name="a folder of PNG", save=folder.save_folder, kinds=("video",), deeper=_DEEPER_FILM),
}
