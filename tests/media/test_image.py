"""Pictures that other programs wrote: modes, palettes, orientation, layouts, damage."""

import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.media import files

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (9, 7, 3), dtype=np.uint16)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    samples: np.ndarray, colour: int, depth: int = 16, before: bytes = b"", after: bytes = b"", rows: int | None = None
):
    """A PNG file made by hand from `[H, W, C]` uint16 or packed `[H, bytes]` uint8 rows; `rows` cuts its data."""
    height, width = samples.shape[0], samples.shape[1] * (1 if depth == 16 else 8 // depth)
    raw = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in samples[:rows])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(raw)) + after + chunk(b"IEND", b"")


# Conversions


def test_a_palette_becomes_rgb(tmp_path, lines):
    indexed = Image.fromarray(COLOURS).quantize(9)
    indexed.save(tmp_path / "a.png")
    assert np.array_equal(files.read(tmp_path / "a.png").values, np.asarray(indexed.convert("RGB")))
    assert lines() == ["a palette is converted to RGB"]


def test_a_palette_with_transparency_becomes_rgba(tmp_path, lines):
    indexed = Image.fromarray(COLOURS).quantize(9)
    alphas = bytes([0, 40, 80, 120, 160, 200, 220, 240, 255])
    indexed.save(tmp_path / "a.png", transparency=alphas)
    values = files.read(tmp_path / "a.png").values
    assert np.array_equal(values[..., :3], np.asarray(indexed.convert("RGB")))
    assert np.array_equal(values[..., 3], np.frombuffer(alphas, np.uint8)[np.asarray(indexed)])
    assert lines() == ["a palette is converted to RGBA"]


@pytest.mark.parametrize(
    ("mode", "target", "suffix"),
    [
        ("CMYK", "RGB", ".jpg"),
        ("CMYK", "RGB", ".tif"),
        ("1", "L", ".png"),
        ("1", "L", ".tif"),
        ("YCbCr", "RGB", ".tif"),
        ("LAB", "RGB", ".tif"),
        ("PA", "RGBA", ".tif"),
    ],
)
def test_other_modes_are_converted_with_one_line(tmp_path, lines, mode, target, suffix):
    path = tmp_path / f"a{suffix}"
    source = Image.fromarray(np.repeat(np.repeat(COLOURS, 8, axis=0), 8, axis=1)).convert("P" if mode == "PA" else mode)
    source.convert(mode).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
        expected = np.asarray(stored.convert(target))
    assert np.array_equal(files.read(path).values, expected.reshape(72, 56, -1))
    (line,) = lines()
    assert line.endswith(f"is converted to {target}")


def test_modes_that_need_no_conversion_are_read_without_a_word(tmp_path, lines):
    for mode in ("L", "LA", "RGB", "RGBA"):
        source = Image.fromarray(COLOURS).convert(mode)
        for suffix in (".png", ".tif"):
            source.save(tmp_path / f"a{suffix}")
            assert np.array_equal(files.read(tmp_path / f"a{suffix}").values, np.asarray(source).reshape(9, 7, -1))
    assert lines() == []


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_transparent_level_of_a_shallow_gray_png_becomes_alpha(tmp_path, depth):
    rows = RNG.integers(0, 256, (6, 3), dtype=np.uint8)
    levels = np.unpackbits(rows, axis=1).reshape(6, -1, depth) @ (1 << np.arange(depth)[::-1])
    (tmp_path / "a.png").write_bytes(png(rows, 0, depth, chunk(b"tRNS", struct.pack(">H", 1))))
    values = files.read(tmp_path / "a.png").values
    assert np.array_equal(values[..., 0], levels * (255 // (2**depth - 1)))
    assert np.array_equal(values[..., 1], (levels != 1) * 255)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_the_transparent_colour_of_a_deep_png_becomes_alpha(tmp_path, colour, channels):
    key = DEEP[2, 3, :channels]
    (tmp_path / "a.png").write_bytes(
        png(DEEP[..., :channels], colour, before=chunk(b"tRNS", key.astype(">u2").tobytes()))
    )
    values = files.read(tmp_path / "a.png").values
    assert np.array_equal(values[..., :-1], DEEP[..., :channels])
    assert np.array_equal(values[..., -1] == 0, (DEEP[..., :channels] == key).all(axis=-1))
    assert values[0, 0, -1] == 65535


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_deep_png_files_keep_all_16_bits(tmp_path, lines, colour, channels):
    samples = np.concatenate([DEEP, DEEP[::-1, :, :1]], axis=-1)[..., :channels]
    (tmp_path / "a.png").write_bytes(png(samples, colour))
    signal = files.read(tmp_path / "a.png")
    assert signal.dtype == "uint16"
    assert np.array_equal(signal.values, samples)
    assert lines() == []


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_bmp_and_gif_are_read(tmp_path, suffix):
    source = Image.fromarray(COLOURS).quantize(60)
    source.convert("RGB" if suffix == ".bmp" else "P").save(tmp_path / f"a{suffix}")
    assert np.array_equal(files.read(tmp_path / f"a{suffix}").values, np.asarray(source.convert("RGB")))


def test_a_picture_is_no_signal_of_another_kind(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "photo.png")
    for kind in ("audio", "video", "volume", "nonsense"):
        with pytest.raises(SignalError, match=rf"photo\.png: is of kind image, not '{kind}'"):
            files.read(tmp_path / "photo.png", kind)


# Orientation


def orient(path, samples: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    if path.suffix == ".png" and samples.dtype == np.uint16:
        body = chunk(b"eXIf", exif.tobytes()[6:] if exif.tobytes()[:4] == b"Exif" else exif.tobytes())
        path.write_bytes(png(samples, 2, after=body))
    elif samples.dtype == np.uint16:
        tifffile.imwrite(path, samples, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        Image.fromarray(samples).save(path, exif=exif, lossless=True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    orient(path, COLOURS, orientation)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(files.read(path).values, expected)
    assert expected.shape == ((9, 7, 3) if orientation < 5 else (7, 9, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation_is_applied_to_deep_pictures(tmp_path, suffix, orientation):
    shallow, deep = tmp_path / f"shallow{suffix}", tmp_path / f"deep{suffix}"
    orient(shallow, COLOURS, orientation)
    orient(deep, COLOURS.astype(np.uint16) * 257, orientation)
    assert np.array_equal(files.read(deep).values, files.read(shallow).values.astype(np.uint16) * 257)


def test_damaged_exif_is_ignored(tmp_path):
    (tmp_path / "a.png").write_bytes(png(DEEP, 2, after=chunk(b"eXIf", b"not EXIF at all")))
    Image.fromarray(COLOURS).save(tmp_path / "b.png", exif=b"Exif\0\0not EXIF at all")
    assert np.array_equal(files.read(tmp_path / "a.png").values, DEEP)
    assert np.array_equal(files.read(tmp_path / "b.png").values, COLOURS)


# TIFF


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_layouts_are_exact(tmp_path, compression, planar, byteorder, dtype):
    samples = (
        (DEEP / 65536).astype(dtype) if dtype == "float32" else (DEEP >> (8 if dtype == "uint8" else 0)).astype(dtype)
    )
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(samples, -1, 0) if planar else samples,
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        compression=compression,
        byteorder=byteorder,
    )
    signal = files.read(tmp_path / "a.tif")
    assert signal.dtype == dtype
    assert np.array_equal(signal.values, samples)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_gray_tiff_files_keep_their_sample_type(tmp_path, dtype):
    samples = (DEEP[..., 0] / 65536).astype(dtype) if "float" in dtype else DEEP[..., 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="minisblack")
    signal = files.read(tmp_path / "a.tif")
    assert signal.dtype == dtype
    assert np.array_equal(signal.values[..., 0], samples)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint16", 1), ("uint16", 2)])
def test_tiff_files_with_white_as_zero_are_inverted(tmp_path, dtype, channels):
    samples = DEEP[..., :channels].squeeze().astype(dtype)
    extra = ["unassalpha"] if channels == 2 else None
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", extrasamples=extra)
    values = files.read(tmp_path / "a.tif").values
    assert np.array_equal(values[..., 0], np.iinfo(dtype).max - samples.reshape(9, 7, -1)[..., 0])
    assert channels == 1 or np.array_equal(values[..., 1], samples[..., 1])


def test_premultiplied_deep_alpha_becomes_straight(tmp_path, lines):
    samples = np.array([[[100, 200, 300, 65535], [100, 200, 300, 32768], [7, 8, 9, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    values = files.read(tmp_path / "a.tif").values[0]
    assert values[:2].tolist() == [[100, 200, 300, 65535], [200, 400, 600, 32768]]
    assert values[2, 3] == 0
    assert lines() == ["premultiplied alpha is converted to straight alpha"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_channels_without_a_meaning_are_left_out_with_one_line(tmp_path, lines, dtype):
    samples = np.concatenate([DEEP, DEEP[..., :1]], axis=-1).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(files.read(tmp_path / "a.tif").values, samples[..., :3])
    assert lines() == ["channels of unspecified meaning are left out"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_first_of_several_pictures_is_read_with_one_line(tmp_path, lines, dtype):
    pages = np.stack([DEEP, DEEP[::-1]]).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb")
    assert np.array_equal(files.read(tmp_path / "a.tif").values, pages[0])
    assert lines() == ["holds 2 pictures, the first is read"]


def test_the_previews_of_a_phone_are_no_pictures(tmp_path, lines):
    source = Image.fromarray(np.full((16, 16, 3), 200, np.uint8))
    source.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[source.resize((8, 8))])
    assert files.read(tmp_path / "a.jpg").values.mean() == 200
    assert lines() == []


def test_colour_models_of_deep_tiff_files_that_are_not_known_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="cielab")
    with pytest.raises(SignalError, match=r"a\.tif: .*photometric 8.*is not supported; convert it to gray or RGB"):
        files.read(tmp_path / "a.tif")


# Damage, limits and missing packages


def test_a_deep_png_whose_data_end_early_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(DEEP, 2, rows=5))
    with pytest.raises(SignalError, match=r"a\.png: .*truncated picture data"):
        files.read(tmp_path / "a.png")


def test_a_deep_png_with_a_flipped_bit_is_refused(tmp_path):
    data = bytearray(png(DEEP, 2))
    data[len(data) // 2] ^= 4
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SignalError, match=r"a\.png: .*altered"):
        files.read(tmp_path / "a.png")


def test_a_picture_above_the_limit_of_pillow_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for suffix in (".png", ".tif", ".bmp"):
        Image.fromarray(COLOURS).save(tmp_path / f"a{suffix}")
        assert np.array_equal(files.read(tmp_path / f"a{suffix}").values, COLOURS)
    Image.fromarray(COLOURS).save(tmp_path / "a.webp", lossless=True)
    with pytest.raises(SignalError, match=r"a\.webp: has more pixels than Pillow takes; convert it to TIFF or PNG"):
        files.read(tmp_path / "a.webp")
    assert Image.MAX_IMAGE_PIXELS == 20


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(bomb)
    with pytest.raises(SignalError, match=r"a\.png: 200000x200000 pixels are more than .*; cut it into parts"):
        files.read(tmp_path / "a.png")


@pytest.mark.parametrize(("package", "extra", "suffix"), [("av", "png16", ".png"), ("tifffile", "tiff", ".tif")])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(tmp_path, monkeypatch, package, extra, suffix):
    path = tmp_path / f"a{suffix}"
    signal = files.Signal.from_array(DEEP)
    files.write(path, signal)
    monkeypatch.setitem(sys.modules, package, None)
    for call in (
        files.read,
        lambda path: files.write(path, signal, True),
        lambda path: files.check_format(path, "image", 3, "uint16"),
    ):
        with pytest.raises(
            MissingDependencyError, match=rf"a\{suffix}: .*needs {package}: pip install 'lgsirens\[{extra}\]'"
        ):
            call(path)


def test_a_missing_decoder_of_compressed_tiff_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb", compression="lzw")

    def asarray(page):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)
    with pytest.raises(MissingDependencyError, match=r"a\.tif: .*imagecodecs.*pip install 'lgsirens\[tiff\]'"):
        files.read(tmp_path / "a.tif")
