"""Fuzz target of the readers of pictures, sounds, films, volumes and arrays: all formats of the table."""

import struct
import zlib
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import av
import numpy as np
import soundfile
from PIL import Image

from lgsirens.media.files import read, write
from lgsirens.signal import Signal
from trials.fuzz.mutation import Mutate, mutated_words

_SIDES = (1, 2, 255, 4096, 30_000, 46_341, 65_535, 65_536, 2**31 - 1, 2**32 - 1)


@cache
def files() -> list[bytes]:
    """One small file and more of each format."""
    with TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        picture = rng.integers(0, 256, (9, 7, 4), np.uint8)
        film = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
        for suffix in ("png", "tif", "webp", "avif", "heic", "npy"):
            _write(folder / f"a.{suffix}", picture)
            _write(folder / f"b.{suffix}", picture[..., :1].astype(np.uint16) * 200)
        _write(folder / "c.png", picture.astype(np.uint16) * 200)
        _write(folder / "a.jpg", picture[..., :3])
        _write(folder / "v.tif", film[..., 0], "volume")
        for suffix in ("mp4", "mkv"):
            _write(folder / f"a.{suffix}", film, "video")
        for suffix in ("wav", "flac"):
            _write(folder / f"a.{suffix}", rng.integers(-999, 999, (300, 2), np.int16), "audio")
        frames = [Image.fromarray(frame) for frame in film]
        for suffix in ("gif", "png", "webp", "avif", "tif", "bmp"):
            more = {} if suffix == "bmp" else {"save_all": True, "append_images": frames[1:]}
            frames[0].save(folder / f"animated.{suffix}", **more)
        for suffix in ("ogg", "mp3", "aiff", "au", "caf", "rf64", "w64"):
            soundfile.write(folder / f"b.{suffix}", rng.normal(0, 0.1, (2000, 1)), 44100, format=suffix.upper())
        for suffix, codec in _FILMS.items():
            _film(folder / f"c.{suffix}", codec, frames)
        return [path.read_bytes() for path in sorted(folder.iterdir())]


_FILMS = {"avi": "mpeg4", "ts": "mpeg2video", "mpg": "mpeg2video", "flv": "flv", "wmv": "wmv2", "webm": "libvpx-vp9"}
_FILMS |= {"mov": "prores_ks", "y4m": "wrapped_avframe", "ogv": "libtheora", "mxf": "mpeg2video", "nut": "ffv1"}


def _write(path: Path, values: np.ndarray, kind: str = "image") -> None:
    write(path, Signal.from_array(values, kind, None, 8000 if kind == "audio" else None))


def _film(path: Path, codec: str, frames: list[Image.Image]) -> None:
    pixels = {"prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 16, 16, pixels
            for number, picture in enumerate(frames):
                frame = av.VideoFrame.from_image(picture).reformat(format=pixels)
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError):  # a build of FFmpeg without it
        path.unlink(missing_ok=True)


def read_file(content: bytes, path: Path) -> None:
    """A file whose name says no more than that it may be a film; one of four as the other kind that it may be."""
    path, other = path.with_suffix(".mpg"), "volume" if content[:2] in (b"II", b"MM") else "video"
    path.write_bytes(content)
    signal = read(path, None if zlib.crc32(content) % 4 else other)
    values = signal.read(tuple((0, min(side, 1 << 8)) for side in signal.shape))
    assert values.size
    assert np.isfinite(values).all()


def mutate_file(content: bytes, size: int, random: Random, raw: Mutate) -> bytes:
    """Numbers of 16 and 32 bits as sides have, in both orders of bytes; parts doubled; or as libFuzzer does it. The
    checksums of PNG are made to match."""
    chosen = random.random()
    if chosen < 0.4 or len(content) < 16:
        changed = raw(content, size)
    elif chosen < 0.8:
        data, form = bytearray(content), random.choice(("<H", ">H", "<I", ">I"))
        place = random.randrange(min(len(data) - 4, random.choice((64, 512, 1 << 20))))
        most = 2 ** (8 * struct.calcsize(form)) - 1
        struct.pack_into(form, data, place, min(random.choice(_SIDES), most))
        changed = bytes(data)
    elif chosen < 0.9:
        low, high = sorted(random.randrange(len(content)) for _ in range(2))
        changed = content[:high] + content[low:high] + content[high:]
    else:
        changed = mutated_words(content, random)
    return _png_repaired(changed) if changed.startswith(b"\x89PNG") else changed


def _png_repaired(content: bytes) -> bytes:
    out, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        chunk = content[place + 4 : place + 8 + length]
        if place + 12 + length > len(content):
            break
        out += content[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + length
    return bytes(out) + content[place:]
