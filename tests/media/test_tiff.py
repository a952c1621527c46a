"""TIFF: depths that are not 8 or 16 bits, previews beside the picture, stacks of ImageJ; threads and warnings."""

import logging
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.media.segments import refusing_errors
from lgsirens.signal import UNSIGNED_TYPES, Signal
from tests.media.test_files import noise, there_and_back

DEEP = noise((24, 36), "uint16")
THUMBNAIL = np.zeros((6, 9, 3), np.uint8)
PACKINGS = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}


def made_by_hand(samples: np.ndarray, bits: int, packing: int, photometric: int, order: str) -> bytes:
    """A TIFF file of one strip of packed rows `[H, W, C]`."""
    height, width, channels = samples.shape
    size = -(-width * channels * bits // 8)
    text = ["".join(f"{value:0{bits}b}" for value in row).ljust(8 * size, "0") for row in samples.reshape(height, -1)]
    strip = PACKINGS[packing](b"".join(int(row, 2).to_bytes(size, "big") for row in text))
    after = 8 + 2 + 9 * 12 + 4
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, after),
        (259, 3, 1, packing),
        (262, 3, 1, photometric),
        (273, 4, 1, after + 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(strip)),
    ]
    if channels == 1:
        tags[2] = (258, 3, 1, bits)
    entries = b"".join(
        struct.pack(f"{order}HHI", *tag[:3])
        + struct.pack(order + ("I" if tag[1] == 4 or tag[2] > 1 else "Hxx"), tag[3])
        for tag in tags
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + entries + bytes(4) + depths.ljust(8, b"\0") + strip


# Depth


@pytest.mark.parametrize("bits", range(1, 16))
def test_the_range_is_that_of_the_bits(tmp_path, bits):
    path, highest = tmp_path / "a.tif", (1 << bits) - 1
    for packing in PACKINGS:
        for order in "<>":
            for channels, photometric in ((1, 0), (1, 1), (3, 2)):
                samples = np.random.default_rng(bits).integers(0, highest, (7, 9, channels), endpoint=True)
                path.write_bytes(made_by_hand(samples, bits, packing, photometric, order))
                expected = highest - samples if photometric == 0 else samples
                if bits < 8:
                    expected = np.rint(expected * (255 / highest))
                found = files.read(path)
                dtype = "uint8" if bits <= 8 else f"uint{bits}"
                limits = (0, 255 if bits < 8 else highest)
                assert (found.dtype, found.value_range) == (dtype, limits), (packing, order, photometric)
                assert np.array_equal(found.values, expected), (packing, order, photometric)


@pytest.mark.parametrize("dtype", UNSIGNED_TYPES[1:-1])
def test_partial_depths_come_back_exactly_and_fill_other_formats(lines, dtype):
    bits = int(dtype[4:])
    signal = Signal.from_array(noise((7, 9, 3), dtype), "image", dtype=dtype)
    found = there_and_back(signal, ".tif")
    assert (found.dtype, found.value_range) == (dtype, (0, (1 << bits) - 1))
    assert np.array_equal(found.values, signal.values)
    assert lines() == []
    scaled = signal.values * (65535 / ((1 << bits) - 1))
    assert np.array_equal(there_and_back(signal, ".png").values, np.rint(scaled))
    assert f"{dtype} samples are written as uint16, 0 to {(1 << bits) - 1} as 0 to 65535" in lines()[0]
    assert np.array_equal(there_and_back(signal, ".webp").values, np.rint(scaled / 257))
    assert np.array_equal(there_and_back(signal, ".npy").values, signal.values)


def test_stacks_of_12_bits_come_back_exactly():
    signal = Signal.from_array(noise((3, 5, 6), "uint12"), "volume", dtype="uint12")
    found = there_and_back(signal, ".tif", "volume")
    assert (found.dtype, found.value_range) == ("uint12", (0, 4095))
    assert np.array_equal(found.values, signal.values)


def test_wider_integers_need_a_range(tmp_path):
    samples = np.random.default_rng(0).integers(0, 1 << 24, (7, 9, 1))
    (tmp_path / "a.tif").write_bytes(made_by_hand(samples, 24, 1, 1, "<"))
    with pytest.raises(SignalError, match="give value_range"):
        files.read(tmp_path / "a.tif")
    assert np.array_equal(files.read(tmp_path / "a.tif", value_range=(0, (1 << 24) - 1)).values, samples)


def test_cmyk_of_16_bits_is_said_to_be_reduced(tmp_path, lines):
    inks = noise((7, 9, 4), "uint16") // 257
    for dtype in ("uint8", "uint16"):
        samples = inks.astype(dtype) * (257 if dtype == "uint16" else 1)
        tifffile.imwrite(tmp_path / "a.tif", samples, photometric="separated", metadata=None)
        assert np.array_equal(
            files.read(tmp_path / "a.tif").values,
            np.asarray(Image.fromarray(inks.astype(np.uint8), "CMYK").convert("RGB")),
        )
    converted = "CMYK is converted to RGB"
    assert lines() == [converted, "CMYK of 16 bits is reduced to 8", converted]


# Previews


def save(path, *pages, **first) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for samples, kind, photometric in pages:
            tiff.write(samples, photometric=photometric, subfiletype=kind, metadata=None, **first)
            first = {}


@pytest.mark.parametrize("tags", [[(50706, "B", 4, (1, 4, 0, 0), True)], [(271, "s", 0, "Maker", True)], []])
@pytest.mark.parametrize("below", [0, 1])
def test_the_full_picture_is_read_and_not_its_preview(tmp_path, lines, tags, below):
    pages = (THUMBNAIL, 1, "rgb"), (DEEP, 0, "minisblack")
    save(tmp_path / "a.dng", *pages, subifds=below, extratags=tags)
    assert np.array_equal(files.read(tmp_path / "a.dng").values[..., 0], DEEP)
    assert lines() == []


@pytest.mark.parametrize(
    "pages",
    [
        [(THUMBNAIL, 1, "rgb"), (DEEP, 0, "cfa")],
        [(THUMBNAIL, 1, "rgb"), (THUMBNAIL, 1, "rgb"), (np.stack([DEEP] * 3, -1), 0, "linear_raw")],
        [(DEEP, 0, "cfa")],
        [(THUMBNAIL, 1, "rgb")],
    ],
)
def test_raw_samples_and_mere_previews_are_refused(tmp_path, pages):
    save(tmp_path / "a.nef", *pages, subifds=len(pages) - 1, extratags=[(271, "s", 0, "Maker", True)])
    with pytest.raises(SignalError, match=r"a\.nef: is a camera's raw file, or a mere preview; develop it"):
        files.read(tmp_path / "a.nef")


def test_canon_files_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", THUMBNAIL, photometric="rgb", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    where = int.from_bytes(data[4:8], "little")
    data = data[:8] + b"CR\2\0" + data[8:]  # offsets are wrong by four bytes but that of the directory
    data[4:8] = (where + 4).to_bytes(4, "little")
    (tmp_path / "a.cr2").write_bytes(data)
    with pytest.raises(SignalError, match=r"a\.cr2: is a camera's raw file"):
        files.read(tmp_path / "a.cr2")


def test_a_picture_with_smaller_ones_below_is_itself(tmp_path):
    save(tmp_path / "a.tif", (DEEP, 0, "minisblack"), (DEEP[::2, ::2], 1, "minisblack"), subifds=1)
    assert np.array_equal(files.read(tmp_path / "a.tif").values[..., 0], DEEP)


# Stacks


@pytest.mark.parametrize("depth", [2, 3, 20])
def test_a_stack_whose_slices_tifffile_calls_channels_is_a_volume(tmp_path, lines, depth):
    values = noise((depth, 12, 14))
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True)
    assert np.array_equal(files.read(tmp_path / "a.tif", "volume").values[..., 0], values)
    assert lines() == [f"its {depth} channels are taken for slices"]


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_cut_picture_is_refused(tmp_path, compression, dtype):
    tifffile.imwrite(tmp_path / "a.tif", noise((60, 50, 3), dtype), rowsperstrip=7, compression=compression)
    data = (tmp_path / "a.tif").read_bytes()
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        (tmp_path / "b.tif").write_bytes(data[: int(share * len(data))])
        with pytest.raises(SignalError, match=r"b\.tif: "):
            files.read(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("tag", [(99, 1, 7), (2, 1000, 99_999_999), (3, 70_000, 8)])
def test_damage_in_a_private_tag_is_no_damage(tmp_path, dtype, tag):
    values, path = noise((60, 50, 3), dtype), tmp_path / "a.tif"
    tifffile.imwrite(path, values, metadata=None, extratags=[(65000, "H", 1, 7, True)])
    whole = struct.pack("<HHI", 65000, 3, 1) + b"\7\0\0\0"
    assert whole in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(whole, struct.pack("<HHII", 65000, *tag)))
    assert np.array_equal(files.read(path).values, values)


@pytest.mark.parametrize(
    ("compression", "photometric"), [*product(["lzw", "zlib", "zstd", "packbits"], ["rgb", "palette"]), ("webp", "rgb")]
)
def test_what_is_cut_or_altered_is_refused_without_lines_of_libraries(
    tmp_path, capfd, recwarn, compression, photometric
):
    samples, options = noise((60, 50, 3)), {"photometric": photometric, "compression": compression}
    if photometric == "palette":
        samples, options["colormap"] = samples[..., 0], noise((3, 256), "uint16")
    if compression == "webp":
        options["compressionargs"] = {"lossless": True}
    tifffile.imwrite(tmp_path / "a.tif", samples, **options)
    data = (tmp_path / "a.tif").read_bytes()
    assert photometric == "palette" or np.array_equal(files.read(tmp_path / "a.tif").values, samples)
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "b.tif").write_bytes(data[: int(share * len(data))])
        with pytest.raises(SignalError, match=r"b\.tif: cannot be read, it is damaged"):
            files.read(tmp_path / "b.tif")
    if compression in ("lzw", "zlib"):
        (tmp_path / "b.tif").write_bytes(data[:-900] + bytes(200) + data[-700:])
        with pytest.raises(SignalError, match=r"b\.tif: cannot be read, it is damaged"):
            files.read(tmp_path / "b.tif")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("kind", [None, "volume"])
def test_a_stack_whose_last_page_is_cut_is_refused_without_a_warning(tmp_path, recwarn, kind):
    tifffile.imwrite(tmp_path / "a.tif", noise((4, 60, 50)), photometric="minisblack")
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        last = tiff.pages[3].offset
    for length in (last, last + 1, last + 40):
        (tmp_path / "b.tif").write_bytes(data[:length])
        with pytest.raises(SignalError, match=r"b\.tif: cannot be read, it is damaged"):
            files.read(tmp_path / "b.tif", kind)
    assert not recwarn.list


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_alpha_beside_white_as_zero_is_not_inverted(tmp_path, planar):
    values = noise((24, 36, 2), "uint16")
    samples = values if planar == "contig" else np.moveaxis(values, -1, 0)
    options = {"photometric": "miniswhite", "planarconfig": planar, "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", samples, metadata=None, **options)
    found = files.read(tmp_path / "a.tif").values
    assert np.array_equal(found[..., 0], 65535 - values[..., 0])
    assert np.array_equal(found[..., 1], values[..., 1])


# Threads


def test_reading_in_threads_changes_nothing_for_all(tmp_path):
    Image.fromarray(THUMBNAIL).save(tmp_path / "a.png")
    files.write(tmp_path / "a.tif", Signal.from_array(DEEP, "image"))
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    names = [tmp_path / name for name in ("a.png", "a.tif")] * 50
    with ThreadPoolExecutor(8) as pool:
        shapes = set(pool.map(lambda name: files.read(name).shape, names))
    assert shapes == {(6, 9), (24, 36)}
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before


def test_errors_of_another_thread_are_not_ours():
    with refusing_errors():
        other = threading.Thread(target=logging.getLogger("tifffile").error, args=["of another file"])
        other.start()
        other.join()
    with pytest.raises(ValueError, match="of this file"), refusing_errors():
        logging.getLogger("tifffile").error("of this file")
