"""Small files that would take far more memory than they have bytes are refused in one line, unless that is allowed."""

import io
import struct
import zlib

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

import lgsirens as lg
from tests.films import refusal

SIDE = 12_000  # 144 megapixels


def _png(path):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * SIDE)) for _ in range(SIDE)) + packer.flush()
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def _by_pillow(path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG" if path.suffix == ".jpg" else path.suffix[1:].upper())
    content = bytearray(file.getvalue())
    if path.suffix == ".jpg":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", 65_000, 65_000 // 4)
    else:
        content[6:10] = struct.pack("<HH", 30_000, 30_000)
    path.write_bytes(content)


def _flac(path):
    with soundfile.SoundFile(path, "w", 8000, 8, "PCM_16") as sound:
        for _ in range(40):
            sound.write(np.zeros((1 << 19, 8), np.int16))


def _film(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 4096, 2160, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((2160 * 3 // 2, 4096), np.uint8), "yuv420p")
        for number in range(36):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


TRAPS = {"a.png": _png, "a.jpg": _by_pillow, "a.gif": _by_pillow, "a.flac": _flac, "a.mp4": _film}


@pytest.mark.parametrize("name", TRAPS)
def test_a_small_file_that_takes_far_more_memory_is_refused(tmp_path, name):
    TRAPS[name](tmp_path / name)
    assert (tmp_path / name).stat().st_size < 1 << 20
    assert "to read; give max_memory if it is no trap" in refusal(tmp_path / name)


def test_what_may_take_memory_is_read(tmp_path):
    TRAPS["a.flac"](tmp_path / "a.flac")
    assert lg.read(tmp_path / "a.flac", max_memory="2GiB").shape == (40 << 19,)


@pytest.mark.parametrize("max_memory", [None, "1MB"])
def test_a_blank_picture_is_read(tmp_path, max_memory):
    Image.new("L", (4000, 4000)).save(tmp_path / "a.png")
    assert lg.read(tmp_path / "a.png", max_memory=max_memory).shape == (4000, 4000)
