"""The table of formats: every entry keeps what it says it keeps, and AVIF, whose films and pictures begin alike."""

import itertools

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.media.formats import FOLDER, FORMATS, ZARR, named, recognised
from lgsirens.signal import KINDS, SAMPLE_TYPES, Signal
from tests.films import noise as film
from tests.media.test_files import noise, there_and_back

WRITTEN = [form for form in FORMATS if form.write is not None]
LOSSY = ("JPEG", "AVIF", "H.264")
SHAPES = {"image": (5, 7), "audio": (50,), "video": (3, 4, 6), "volume": (3, 4, 5)}


def _signal(kind: str, channels: int, dtype: str) -> Signal:
    shape = (*SHAPES[kind], channels)
    return Signal.from_array(noise(shape, dtype), kind, (0, 1), 8000, dtype)


KEPT = [
    (form, kind, channels, dtype)
    for form, kind, channels, dtype in itertools.product(WRITTEN, KINDS, (1, 2, 3, 4), SAMPLE_TYPES)
    if form.name not in LOSSY and form.holds(kind, channels) and form.stored_type(dtype) == dtype
]


@pytest.mark.parametrize("form", [form for form in WRITTEN if form.name not in LOSSY], ids=lambda form: form.name)
def test_a_format_keeps_what_it_says_it_keeps(form):
    kept = [case[1:] for case in KEPT if case[0] is form]
    assert kept
    for kind, channels, dtype in kept:
        signal = _signal(kind, channels, dtype)
        for suffix in form.suffixes:
            found = there_and_back(signal, suffix, kind, (0, 1)).values
            if (form.name, channels) in (("WebP", 1), ("WebP", 2), ("HEIF", 2)):  # they have no such gray
                found = found[..., [0, 3] if channels == 2 else [0]]
            assert found.dtype == signal.values.dtype, (kind, channels, dtype)
            np.testing.assert_array_equal(found, signal.values, f"{kind} {channels} {dtype}")


@pytest.mark.parametrize("form", WRITTEN, ids=lambda form: form.name)
def test_what_is_written_by_suffix_is_recognised_by_content(form, tmp_path):
    for suffix in form.suffixes:
        path = tmp_path / f"a{suffix}"
        assert named(path) is form
        files.write(path, _signal(form.kinds[0], 1, "uint8"))
        if form not in (FOLDER, ZARR):
            assert recognised(path.read_bytes()[:4096]) is form


def test_no_suffix_has_two_writers():
    suffixes = [suffix for form in WRITTEN for suffix in form.suffixes]
    assert len(suffixes) == len(set(suffixes))


def test_types_are_written_as_types_that_are_kept():
    for form in WRITTEN:
        for target in set((form.types or {}).values()):
            assert form.stored_type(target) == target, form.name


def test_the_content_decides_and_not_the_suffix(tmp_path):
    signal = _signal("audio", 2, "int16")
    files.write(tmp_path / "a.wav", signal)
    (tmp_path / "a.wav").rename(tmp_path / "a.mp4")
    np.testing.assert_array_equal(files.read(tmp_path / "a.mp4").values, signal.values)


# AVIF


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_avif_keeps_colours_nearly_and_alpha_exactly(height, width, seed):
    values = noise((height, width, 4), seed=seed)
    values[..., 3] //= 2  # an opaque alpha is left out
    for channels in (3, 4):
        found = there_and_back(Signal.from_array(values[..., :channels], "image"), ".avif")
        assert (found.kind, found.dtype, found.values.shape) == ("image", "uint8", (height, width, channels))
        assert np.abs(found.values.astype(int) - values[..., :channels]).max() <= 4  # colours become YCbCr
    np.testing.assert_array_equal(found.values[..., 3], values[..., 3])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_avif_keeps_gray_exactly_as_colour(height, width, seed):
    values = noise((height, width, 2), seed=seed)
    values[..., 1] //= 2
    for channels, pattern in ((1, [0, 0, 0]), (2, [0, 0, 0, 1])):
        found = there_and_back(Signal.from_array(values[..., :channels], "image"), ".avif")
        np.testing.assert_array_equal(found.values, values[..., pattern])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_upright(tmp_path, orientation):
    values = noise((5, 7, 1)).repeat(3, axis=-1)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"exif": exif, "quality": 100, "subsampling": "4:4:4"}
    for suffix in (".png", ".avif"):  # in this order: Pillow moves the orientation out of `exif` for AVIF
        Image.fromarray(values).save(tmp_path / f"a{suffix}", **(options if suffix == ".avif" else {"exif": exif}))
    turned = files.read(tmp_path / "a.png").values
    assert turned.shape[:2] == ((7, 5) if orientation > 4 else (5, 7))
    np.testing.assert_array_equal(files.read(tmp_path / "a.avif").values, turned)


def _encoded(path, pixels: str, frames: int = 1):
    """An AVIF file by FFmpeg."""
    with av.open(path, "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        for picture in film((frames, 64, 64, 3)).values:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


def test_an_avif_of_another_program_is_an_image_whatever_its_name(tmp_path, lines):
    path = _encoded(tmp_path / "a.mp4", "yuv420p")
    found = files.read(path)
    assert (found.kind, found.shape, found.channels) == ("image", (64, 64), 3)
    assert lines() == []
    with pytest.raises(SignalError, match=rf"^{path}: is of kind image, not 'video'"):
        files.read(path, "video")


def test_avif_of_10_bits_is_refused(tmp_path):
    for frames in (1, 2):
        path = _encoded(tmp_path / f"{frames}.avif", "yuv420p10le", frames)
        for kind in (None, "video"):
            with pytest.raises(SignalError, match=rf"^{path}: has more than 8 bits a sample"):
                files.read(path, kind)


def test_the_first_picture_of_an_animation_is_read_and_it_is_said(tmp_path, lines):
    values = noise((3, 16, 16, 1)).repeat(3, axis=-1)
    first, *others = [Image.fromarray(frame) for frame in values]
    first.save(tmp_path / "a.avif", save_all=True, append_images=others, quality=100, subsampling="4:4:4")
    np.testing.assert_array_equal(files.read(tmp_path / "a.avif").values, values[0])
    assert lines() == ["holds 3 pictures, the first is read"]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"ftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"ftypavis\0\0\0\0avifavismsf1", "AVIF"),
        (b"ftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"ftypisom\0\0\2\0isomiso2av01mp41", "H.264"),
        (b"ftypqt  \0\0\0\0qt  ", "H.264"),
        (b"ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"ftypmif1\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"ftypmiaf\0\0\0\0mif1miafavif", "AVIF"),
        (b"ftypmsf1\0\0\0\0msf1hevciso8", "HEIF"),
        (b"ftypisom\0\0\0\0isommif1" + b"abcd" * 20 + b"avif", "AVIF"),
        (b"ftypcrx \0\0\0\1crx isom", None),
    ],
)
def test_brands_tell_pictures_from_films(head, name):
    form = recognised((4 + len(head)).to_bytes(4, "big") + head)
    assert (form and form.name) == name


def test_cut_and_damaged_avif_is_refused(tmp_path):
    files.write(tmp_path / "a.avif", _signal("image", 3, "uint8"))
    content = (tmp_path / "a.avif").read_bytes()
    for share in (0.02, 0.1, 0.5, 0.9):
        (tmp_path / "b.avif").write_bytes(content[: int(share * len(content))])
        with pytest.raises(SignalError, match=rf"^{tmp_path / 'b.avif'}: "):
            files.read(tmp_path / "b.avif")
