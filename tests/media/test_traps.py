"""Small files that would take far more memory than they have bytes are refused in one line, unless that is allowed."""

import io
import struct
import zlib

import pytest
from PIL import Image

import lgsirens as lg
from lgsirens.media import files
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


TRAPS = {"a.png": _png, "a.jpg": _by_pillow, "a.gif": _by_pillow}


@pytest.mark.parametrize("name", TRAPS)
def test_a_small_file_that_takes_far_more_memory_is_refused(tmp_path, name):
    TRAPS[name](tmp_path / name)
    assert (tmp_path / name).stat().st_size < 1 << 20
    assert "to read; give max_memory if it is no trap" in refusal(tmp_path / name)


def test_what_may_take_memory_is_read(tmp_path, monkeypatch):
    Image.new("L", (2000, 2000)).save(tmp_path / "a.png")
    monkeypatch.setattr(files, "DEFAULT_LIMIT", 1 << 20)
    assert "give max_memory" in refusal(tmp_path / "a.png")
    assert lg.read(tmp_path / "a.png", max_memory="32MB").shape == (2000, 2000)


@pytest.mark.parametrize("max_memory", [None, "1MB"])
def test_a_blank_picture_is_read(tmp_path, max_memory):
    Image.new("L", (4000, 4000)).save(tmp_path / "a.png")
    assert lg.read(tmp_path / "a.png", max_memory=max_memory).shape == (4000, 4000)
