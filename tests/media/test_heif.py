"""HEIC pictures: tiles, turning, depths, alpha, colour; compared with what was encoded without loss."""

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.signal import Signal
from tests.media.test_files import noise, there_and_back
from tests.media.test_icc import ADOBE, curv, rgb_profile

LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
COLOURS = noise((66, 130, 3))


def save(path, values: np.ndarray, **options) -> None:
    pillow_heif.from_pillow(Image.fromarray(values)).save(path, **LOSSLESS, **options)


@pytest.mark.parametrize("suffix", [".heic", ".heif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint10", "uint12"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_come_back_exactly(suffix, dtype, channels):
    signal = Signal.from_array(noise((7, 9, channels), dtype), "image", dtype=dtype)
    found = there_and_back(signal, suffix)
    assert (found.dtype, found.value_range, found.colour) == (dtype, signal.value_range, None)
    assert np.array_equal(found.values, signal.values)


def test_colour_and_spacing_come_back():
    signal = Signal(COLOURS, "image", (0, 255), "uint8", spacing=(1.0, 3.0), colour=(9, 16))
    found = there_and_back(signal, ".heic")
    assert found.colour == (9, 16)
    assert found.spacing[1] / found.spacing[0] == pytest.approx(3)


def test_tiles_are_joined_and_their_padding_is_cut(tmp_path, lines):
    save(tmp_path / "a.heic", COLOURS, tile_size=64)
    assert b"grid" in (tmp_path / "a.heic").read_bytes()
    assert np.array_equal(files.read(tmp_path / "a.heic").values, COLOURS)
    assert lines() == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 10])
def test_pictures_are_turned_once(tmp_path, orientation, bits):
    exif = Image.Exif()
    exif[274] = orientation
    path, source = tmp_path / "a.heic", Image.fromarray(COLOURS)
    if bits == 8:
        save(path, COLOURS, exif=exif.tobytes())
    else:
        deep = (COLOURS.astype(np.uint16) << 8).tobytes()
        pillow_heif.encode("RGB;16", source.size, deep, path, exif=exif.tobytes(), **LOSSLESS)
    source.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(source))
    assert np.array_equal(files.read(path).values, expected.astype(np.uint16) << (bits - 8))


def test_the_main_one_of_several_pictures_is_read_with_one_line(tmp_path, lines):
    both = pillow_heif.from_pillow(Image.fromarray(COLOURS[::-1]))
    both.add_from_pillow(Image.fromarray(COLOURS))
    both.save(tmp_path / "a.heic", primary_index=1, **LOSSLESS)
    assert np.array_equal(files.read(tmp_path / "a.heic").values, COLOURS)
    assert lines() == ["holds 2 pictures, the main one is read"]


def test_an_icc_profile_is_applied(tmp_path, lines):
    data = rgb_profile(ADOBE, *[curv(563)] * 3)
    save(tmp_path / "a.heic", COLOURS, icc_profile=data)
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=data)
    assert np.array_equal(files.read(tmp_path / "a.heic").values, files.read(tmp_path / "a.png").values)
    assert len(lines()) == 2


def test_a_picture_is_no_film(tmp_path):
    save(tmp_path / "a.mp4", COLOURS)
    assert files.read(tmp_path / "a.mp4").kind == "image"
    with pytest.raises(SignalError, match=r"a\.mp4: is of kind image, not 'video'"):
        files.read(tmp_path / "a.mp4", "video")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.99])
def test_a_cut_picture_is_refused(tmp_path, share):
    save(tmp_path / "a.heic", COLOURS)
    data = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: int(share * len(data))])
    with pytest.raises(SignalError, match=rf"^{tmp_path / 'a.heic'}: "):
        files.read(tmp_path / "a.heic")


def test_a_sequence_without_a_picture_is_no_damage(tmp_path):
    head = b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc"
    (tmp_path / "a.heic").write_bytes(head + b"\0\0\0\x10moov" + bytes(8) + b"\0\0\0\x0cmeta\0\0\0\0")
    with pytest.raises(SignalError, match=r"a\.heic: is a sequence alone, or of a codec that is not supported"):
        files.read(tmp_path / "a.heic")
