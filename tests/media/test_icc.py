"""Colour profiles: our 16-bit conversion against LittleCMS at 8 bits, and pictures that carry profiles."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from lgsirens.media import files
from lgsirens.media.icc import Profile
from lgsirens.signal import Signal

D50 = (0.9642, 1.0, 0.8249)
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def curv(*entries: int) -> bytes:
    return b"curv" + bytes(4) + struct.pack(f">I{len(entries)}H", len(entries), *entries)


def para(kind: int, *numbers: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + fixed(*numbers)


def make_profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", device: bytes = b"mntr") -> bytes:
    """A profile with the given tags, version 4 so that `para` is allowed."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(*D50), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s", 132 + len(table) - 4 + len(body), b"", 0x04000000, device, space, pcs, b"acsp"
    )
    header = header.ljust(68, b"\0") + fixed(*D50)
    return header.ljust(128, b"\0") + table + body


def rgb_profile(columns: tuple[tuple[float, ...], ...], *curves: bytes) -> bytes:
    tags = {
        name + b"XYZ": b"XYZ " + bytes(4) + fixed(*column)
        for name, column in zip((b"r", b"g", b"b"), columns, strict=True)
    }
    return make_profile(
        b"RGB ", tags | dict(zip((b"rTRC", b"gTRC", b"bTRC"), curves * (3 // len(curves)), strict=True))
    )


def gray_profile(curve: bytes) -> bytes:
    return make_profile(b"GRAY", {b"kTRC": curve})


def cmyk_profile() -> bytes:
    """Two grid points for each ink, with colours that no simple formula gives."""
    corners = np.random.default_rng(0).integers(40, 216, (16, 3)).astype(np.uint8)
    ramp = bytes(range(256))
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + corners.tobytes() + ramp * 3
    return make_profile(b"CMYK", {b"A2B0": lut}, b"Lab ", b"prtr")


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# All are 0 at 0: LittleCMS would lower another black point to that of sRGB.
CURVES = {
    "gamma": curv(round(2.2 * 256)),
    "identity": curv(),
    "table": curv(*(round(65535 * (i / 63) ** 1.8) for i in range(64))),
    "power": para(0, 2.0),
    "offset": para(1, 2.2, 1.1, -0.1),
    "offset and constant": para(2, 1.8, 1.05, 0.05, -(0.05**1.8)),
    "sRGB": para(3, *SRGB_CURVE),
    "all seven": para(4, 2.4, 0.94, 0.05, 0.08, 0.04, 0.01, 0.0),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("columns", [ADOBE, P3], ids=["Adobe RGB", "Display P3"])
def test_deep_conversion_agrees_with_littlecms(columns, curve):
    profile = Profile(rgb_profile(columns, curve))
    samples = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    samples[0, :3] = [[0, 0, 0], [255, 255, 255], [128, 128, 128]]
    expected = np.asarray(profile.convert(Image.fromarray(samples))).astype(float)
    deep = profile.convert_deep(samples.astype(np.uint16) * 257)
    assert np.abs(expected - samples).max() > 5
    assert np.abs(deep / 257 - expected).max() < 1.6


def test_each_channel_has_its_own_curve():
    profile = Profile(rgb_profile(ADOBE, curv(256), curv(512), curv(700)))
    samples = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    expected = np.asarray(profile.convert(Image.fromarray(samples))).astype(float)
    assert np.abs(profile.convert_deep(samples.astype(np.uint16) * 257) / 257 - expected).max() < 1.6


@pytest.mark.parametrize("data", [gray_profile(curv(256)), rgb_profile(ADOBE, curv(256))], ids=["gray", "RGB"])
def test_deep_gray_agrees_with_littlecms(data):
    profile = Profile(data)
    samples = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(profile.convert(Image.fromarray(samples))).astype(float)
    deep = profile.convert_deep(samples[..., None].astype(np.uint16) * 257)
    assert np.abs(expected - samples).max() > 20
    assert np.abs(deep[..., 0] / 257 - expected).max() < 1.6


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_no_colour(channels):
    profile = Profile(rgb_profile(ADOBE, curv(256)))
    samples = np.random.default_rng(0).integers(0, 256, (7, 5, channels), dtype=np.uint8)
    plain = np.asarray(profile.convert(Image.fromarray(samples)))
    deep = profile.convert_deep(samples.astype(np.uint16) * 257)
    assert np.array_equal(plain[..., -1], samples[..., -1])
    assert np.array_equal(deep[..., -1], samples[..., -1] * 257.0)
    assert np.abs(deep / 257 - plain).max() < 1.6


def test_a_profile_is_srgb_by_its_colours_and_not_by_its_name():
    srgb_columns = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
    curve = CURVES["sRGB"]
    assert Profile(srgb_profile()).is_srgb()
    assert Profile(rgb_profile(srgb_columns, curve)).is_srgb()
    assert Profile(gray_profile(curve)).is_srgb()
    assert not Profile(rgb_profile(srgb_columns, CURVES["gamma"])).is_srgb()
    assert not Profile(rgb_profile(P3, curve)).is_srgb()
    assert not Profile(gray_profile(curv(256))).is_srgb()
    assert not Profile(cmyk_profile()).is_srgb()


def test_a_profile_without_matrix_and_curves_leaves_deep_samples_alone():
    lut = b"mft1" + bytes(4) + bytes([3, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += bytes(range(256)) * 3 + bytes(range(24)) + bytes(range(256)) * 3
    samples = np.full((2, 2, 3), 1000, np.uint16)
    matrix = {name + b"XYZ": b"XYZ " + bytes(4) + fixed(*D50) for name in (b"r", b"g", b"b")}
    curves = {name + b"TRC": curv(563) for name in (b"r", b"g", b"b")}
    for tags in ({b"A2B0": lut}, {b"A2B0": lut} | matrix | curves, matrix, curves):
        assert Profile(make_profile(b"RGB ", tags, b"Lab ")).convert_deep(samples) is None
    assert Profile(cmyk_profile()).convert_deep(samples) is None
    assert (samples == 1000).all()


def test_a_profile_fits_the_modes_of_its_space():
    rgb, gray, cmyk = Profile(srgb_profile()), Profile(gray_profile(curv())), Profile(cmyk_profile())
    modes = ("L", "LA", "RGB", "RGBA", "CMYK")
    assert [rgb.fits(mode) for mode in modes] == [True, True, True, True, False]
    assert [gray.fits(mode) for mode in modes] == [True, True, False, False, False]
    assert [cmyk.fits(mode) for mode in modes] == [False, False, False, False, True]


@pytest.fixture
def lines(caplog, monkeypatch):
    """What was logged since."""
    monkeypatch.setattr(logging.getLogger("lgsirens"), "propagate", True)  # the command line turns it off
    return lambda: [record.getMessage() for record in caplog.records if record.name == "lgsirens"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_pictures_in_another_colour_space_are_converted_with_one_line(tmp_path, lines, suffix):
    path = tmp_path / f"photo{suffix}"
    data = rgb_profile(P3, CURVES["sRGB"])
    picture = Image.fromarray(np.full((40, 30, 3), (200, 60, 30), np.uint8))
    picture.save(path, icc_profile=data, lossless=True)
    with Image.open(path) as stored:
        srgb = ImageCms.createProfile("sRGB")
        expected = np.asarray(ImageCms.profileToProfile(stored, ImageCms.ImageCmsProfile(io.BytesIO(data)), srgb))
    values = files.read(path).values
    assert np.array_equal(values, expected)
    assert values[0, 0, 0] > 210
    assert lines() == [f"{path}: colours are converted from those that the file declares to sRGB"]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_srgb_pictures_are_left_alone_without_a_word(tmp_path, lines, depth):
    samples = np.random.default_rng(0).integers(0, np.iinfo(depth).max, (9, 7, 3), dtype=depth)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", iccprofile=srgb_profile())
    assert np.array_equal(files.read(tmp_path / "a.tif").values, samples)
    assert lines() == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_pictures_in_another_colour_space_keep_their_depth(tmp_path, lines, suffix, channels):
    path = tmp_path / f"deep{suffix}"
    samples = np.random.default_rng(0).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    files.write(path, Signal.from_array(samples, "image"))
    data = gray_profile(curv(256)) if channels == 1 else rgb_profile(ADOBE, curv(563))
    if suffix == ".png":
        chunk = b"iCCP" + b"any\0\0" + zlib.compress(data)
        png = path.read_bytes()
        path.write_bytes(
            png[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
        )
    else:
        photometric = "minisblack" if channels == 1 else "rgb"
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(path, samples.squeeze(), photometric=photometric, extrasamples=extra, iccprofile=data)
    values = files.read(path).values
    assert np.array_equal(values, Profile(data).convert_deep(samples.copy()))
    assert len(np.unique(values)) > 60
    assert lines() == [f"{path}: colours are converted from those that the file declares to sRGB"]


def test_cmyk_is_converted_by_its_own_profile(tmp_path, lines):
    path = tmp_path / "print.jpg"
    data = cmyk_profile()
    inks = np.repeat(np.random.default_rng(1).integers(0, 256, (4, 4, 4), dtype=np.uint8), 8, axis=0).repeat(8, axis=1)
    Image.fromarray(inks, "CMYK").save(path, icc_profile=data, quality=95)
    with Image.open(path) as stored:
        profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(data)), ImageCms.createProfile("sRGB")
        expected = np.asarray(ImageCms.profileToProfile(stored, profile, srgb, outputMode="RGB"))
        assert np.abs(np.asarray(stored.convert("RGB")).astype(int) - expected).max() > 50
    assert np.array_equal(files.read(path).values, expected)
    assert [line.split(": ")[1] for line in lines()] == [
        "CMYK is converted to RGB",
        "colours are converted from those that the file declares to sRGB",
    ]


@pytest.mark.parametrize(
    ("profile", "samples", "reason"),
    [
        (b"no profile at all", np.full((5, 5, 3), 9, np.uint8), "is damaged and ignored"),
        (rgb_profile(P3, curv(563))[:300], np.full((5, 5, 3), 9, np.uint8), "is damaged and ignored"),
        (b"no profile at all", np.full((5, 5, 3), 999, np.uint16), "is damaged and ignored"),
        (cmyk_profile(), np.full((5, 5, 3), 9, np.uint8), "is for CMYK, not for RGB, and ignored"),
        (gray_profile(curv(256)), np.full((5, 5, 3), 999, np.uint16), "is for GRAY, not for RGB, and ignored"),
        (rgb_profile(P3, curv(563)), np.full((5, 5, 3), 0.5, np.float32), "applies to 8 bits only"),
    ],
)
def test_profiles_that_do_not_apply_are_ignored_with_one_line(tmp_path, lines, profile, samples, reason):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, photometric="rgb", iccprofile=profile)
    assert np.array_equal(files.read(path).values, samples)
    (line,) = lines()
    assert line.startswith(f"{path}: ")
    assert reason in line
