"""PNG pictures: the colour and the shape of pixels that chunks declare, and chunks that need not be read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.signal import Signal
from tests.media.test_files import there_and_back
from tests.media.test_image import chunk, png

RAMP = np.stack(np.meshgrid(np.arange(0, 256, 5), np.arange(0, 256, 5)), axis=-1).astype(np.uint8)
RAMP = np.concatenate([RAMP, RAMP[::-1, :, :1] // 2], axis=-1)
SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
PQ = chunk(b"cICP", bytes([9, 16, 0, 1]))
LINEAR = chunk(b"gAMA", struct.pack(">I", 100_000))
CONVERTED = "colours are converted from those that the file declares to sRGB"


def read(tmp_path, *chunks: bytes, samples: np.ndarray = RAMP, after: bytes = b"") -> Signal:
    """A picture with these chunks before its samples."""
    path = tmp_path / "a.png"
    Image.fromarray(samples).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:-12] + after + data[-12:])
    return files.read(path)


def encoded(linear: np.ndarray) -> np.ndarray:
    """The curve of sRGB, of values in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# Colour


@pytest.mark.parametrize("gamma", [1.0, 0.55556, 0.6])
def test_a_gamma_is_applied(tmp_path, lines, gamma):
    expected = encoded((RAMP / 255) ** (1 / gamma)) * 255
    found = read(tmp_path, chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))).values
    assert np.abs(found - expected).max() <= 1
    assert lines() == [CONVERTED]


def test_a_gamma_is_applied_to_16_bits(tmp_path, lines):
    deep = RAMP.astype(np.uint16) * 257
    (tmp_path / "a.png").write_bytes(png(deep, 2, before=LINEAR))
    found = files.read(tmp_path / "a.png").values
    assert np.abs(found - encoded(deep / 65535) * 65535).max() <= 100  # profiles round their primaries
    assert lines() == [CONVERTED]


def test_primaries_are_applied(tmp_path, lines):
    bradford_free = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    linear = np.where(RAMP / 255 <= 0.04045, RAMP / 255 / 12.92, ((RAMP / 255 + 0.055) / 1.055) ** 2.4)
    expected = encoded(np.clip(linear @ bradford_free.T, 0, 1)) * 255  # of one white, P3 to sRGB needs no adaptation
    found = read(tmp_path, chunk(b"cHRM", P3)).values
    assert np.abs(found - expected).max() <= 1.5
    assert lines() == [CONVERTED]


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", struct.pack(">I", 45455))],
        [chunk(b"cHRM", SRGB), chunk(b"gAMA", struct.pack(">I", 45455))],
        [chunk(b"sRGB", b"\0"), LINEAR],
        [chunk(b"iCCP", b"a\0\0" + zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()))],
        [chunk(b"cICP", bytes([1, 13, 0, 1])), LINEAR],
        [chunk(b"gAMA", b"\0"), chunk(b"cHRM", b"short"), chunk(b"cICP", b"\1"), chunk(b"pHYs", b"\1")],
        [chunk(b"sBIT", b"\5\6\5")],
    ],
)
def test_what_declares_srgb_or_nothing_changes_nothing(tmp_path, lines, chunks):
    found = read(tmp_path, *chunks)
    assert np.array_equal(found.values, RAMP)
    assert (found.colour, found.spacing) == (None, None)
    assert lines() == []


def test_what_ranks_higher_hides_the_lower(tmp_path):
    profile = b"a\0\0" + zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for chunks in ([PQ, chunk(b"iCCP", profile), LINEAR], [chunk(b"iCCP", profile), LINEAR]):
        assert np.array_equal(read(tmp_path, *chunks).values, RAMP)


@pytest.mark.parametrize(("mastering", "light"), [(b"mDCV", b"cLLI"), (b"mDCv", b"cLLi")])
def test_other_hdr_metadata_is_said_to_be_left_out(tmp_path, lines, mastering, light):
    found = read(tmp_path, PQ, chunk(mastering, bytes(24)), chunk(light, bytes(8)))
    assert found.colour == (9, 16)
    assert lines() == ["its mastering display metadata, content light level is left out"]


@pytest.mark.parametrize("values", [bytes(32), struct.pack(">8I", *[30_000] * 8)])
def test_impossible_primaries_are_ignored_with_one_line(tmp_path, lines, values):
    assert np.array_equal(read(tmp_path, chunk(b"cHRM", values)).values, RAMP)
    assert lines() == ["its primaries (cHRM) are impossible and ignored"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_and_spacing_come_back(dtype, channels):
    values = np.zeros((4, 5, channels), dtype)
    signal = Signal(values, "image", (0, np.iinfo(dtype).max), dtype, spacing=(2.0, 3.0), colour=(9, 16))
    found = there_and_back(signal, ".png")
    assert found.colour == (9, 16)
    assert found.spacing[0] / found.spacing[1] == pytest.approx(2 / 3, rel=1e-6)


@pytest.mark.parametrize(("suffix", "name"), [(".jpg", "JPEG"), (".webp", "WebP"), (".tif", "TIFF")])
def test_a_colour_that_is_lost_is_named(lines, suffix, name):
    there_and_back(Signal(RAMP, "image", (0, 255), "uint8", colour=(9, 18)), suffix)
    assert f"{name} does not hold the colour space (primaries, transfer) (9, 18) of the signal" in lines()


# Shape of pixels


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_pixels_that_are_not_square_have_a_spacing(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"a{suffix}", dpi=(100, 200))
    down, across = files.read(tmp_path / f"a{suffix}").spacing
    assert across / down == pytest.approx(2, rel=1e-4)
    Image.fromarray(RAMP).save(tmp_path / f"a{suffix}", dpi=(200, 200))
    assert files.read(tmp_path / f"a{suffix}").spacing is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_a_spacing_is_turned_with_the_picture(tmp_path, suffix):
    exif = Image.Exif()
    exif[274], exif[282], exif[283], exif[296] = 6, 300.0, 150.0, 2
    Image.fromarray(RAMP[:20]).save(tmp_path / f"a{suffix}", exif=exif)
    found = files.read(tmp_path / f"a{suffix}")
    assert found.shape == (52, 20)
    assert found.spacing == pytest.approx((1 / 300, 1 / 150))


# Chunks that need not be read

TEXTS = [
    chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2_000_000))),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2_000_000)),
    chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"0" * 2_000_000)),
    chunk(b"tEXt", b"a\0" + b"x" * 2_000_000),
    chunk(b"tEXt", b"a\0b")[:-1] + b"?",
    chunk(
        b"iCCP",
        b"a\0\0" + zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2_000_000)),
    ),
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_large_and_damaged_texts_are_no_damage(tmp_path, text):
    assert np.array_equal(read(tmp_path, text).values, RAMP)
    assert np.array_equal(read(tmp_path, after=text).values, RAMP)
    deep = RAMP.astype(np.uint16) * 257
    (tmp_path / "a.png").write_bytes(png(deep, 2, before=text, after=text))
    assert np.array_equal(files.read(tmp_path / "a.png").values, deep)


def test_orientation_in_a_text_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    data = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n" % len(data) + data.hex().encode()
    info = PngInfo()
    info.add_text("Raw profile type exif", text.decode(), zip=True)
    Image.fromarray(RAMP).save(tmp_path / "a.png", pnginfo=info)
    assert np.array_equal(files.read(tmp_path / "a.png").values, RAMP[::-1, ::-1])


@pytest.mark.parametrize("cut", [1, 12, 13, 40, 100])
def test_a_cut_picture_is_refused(tmp_path, cut):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-cut])
    with pytest.raises(SignalError, match=r"a\.png: .*is cut off or altered"):
        files.read(tmp_path / "a.png")
