"""Animated pictures as films: frames as Pillow composes them, and their times."""

from fractions import Fraction

import numpy as np
import pytest
import tifffile
from PIL import Image

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.media.animation import _regular
from tests.media.test_files import noise

FRAMES = noise((6, 12, 16, 3)) // 64 * 64  # few colours, so that a palette holds them
FRAMES[..., 2] = 0
EXACT = {"lossless": True, "quality": 100, "subsampling": "4:4:4"}


def save(path, frames: np.ndarray, **options) -> None:
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, **EXACT, **options)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_frames_and_their_rate_are_kept(tmp_path, lines, suffix):
    save(tmp_path / f"a{suffix}", FRAMES, duration=40)
    found = files.read(tmp_path / f"a{suffix}", "video")
    assert (found.kind, found.sampling_rate) == ("video", 25)
    assert np.array_equal(found.values[..., :3], FRAMES)
    assert lines() == []


def test_an_avif_sequence_is_a_film(tmp_path):
    save(tmp_path / "a.avif", FRAMES, duration=40)
    found = files.read(tmp_path / "a.avif", "video")
    assert (found.shape, found.sampling_rate) == ((6, 12, 16), 25)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_without_a_kind_the_first_frame_is_a_picture(tmp_path, lines, suffix):
    save(tmp_path / f"a{suffix}", FRAMES, duration=40)
    found = files.read(tmp_path / f"a{suffix}")
    assert found.kind == "image"
    assert np.array_equal(found.values[..., :3], FRAMES[0])
    assert "holds 6 pictures, the first is read" in lines()
    with pytest.raises(SignalError, match="frames is for films"):
        files.read(tmp_path / f"a{suffix}", frames=(0, 2))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_transparent_frames_keep_alpha(tmp_path, suffix):
    frames = np.concatenate([FRAMES, np.full((6, 12, 16, 1), 255, np.uint8)], axis=-1)
    for number in range(6):
        frames[number, 3:5, number : number + 5] = 0
    save(tmp_path / f"a{suffix}", frames, duration=100, disposal=2 if suffix == ".gif" else 1, blend=0)
    found = files.read(tmp_path / f"a{suffix}", "video").values
    assert np.array_equal(found[..., 3], frames[..., 3])
    assert np.array_equal(found[found[..., 3] > 0], frames[frames[..., 3] > 0])


def test_some_frames_and_smaller_ones(tmp_path):
    save(tmp_path / "a.gif", FRAMES, duration=40)
    found = files.read(tmp_path / "a.gif", "video", frames=(2, 5))
    assert np.array_equal(found.values, FRAMES[2:5])
    assert files.read(tmp_path / "a.gif", "video", frames=(1, 2), max_side=8).shape == (1, 6, 8)
    with pytest.raises(SignalError, match="has 6 frames, not 4:9"):
        files.read(tmp_path / "a.gif", "video", frames=(4, 9))


def test_times_that_vary_are_resampled_and_it_is_said(tmp_path, lines):
    save(tmp_path / "a.png", FRAMES[:5], duration=[50, 50, 50, 750, 100])
    found = files.read(tmp_path / "a.png", "video")
    assert found.sampling_rate == Fraction(40, 9)
    assert np.array_equal(found.values, FRAMES[[0, 3, 3, 4, 4]])
    assert lines() == ["its frame rate varies; resampled to the average, 4.444 frames/s"]


def test_a_last_frame_that_stays_is_said(tmp_path, lines):
    save(tmp_path / "a.gif", FRAMES, duration=[50] * 5 + [3000])
    assert files.read(tmp_path / "a.gif", "video").sampling_rate == 20
    assert lines() == ["its last frame stays for 3 s, which is left out"]


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(24), Fraction(25, 2), Fraction(60), Fraction(7)])
@pytest.mark.parametrize("tick", [1, 10])
def test_times_that_were_rounded_have_the_rate_that_they_had(tmp_path, rate, tick):
    starts = np.array([round(1000 * n / rate / tick) * tick for n in range(40)], float)
    source, found = _regular(tmp_path, starts, [*np.diff(starts), 0], tick)
    assert found == rate
    assert source.tolist() == list(range(40))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif", ".tif", ".bmp", ".jpg"])
def test_a_single_picture_is_no_film(tmp_path, suffix):
    Image.fromarray(FRAMES[0]).save(tmp_path / f"a{suffix}")
    with pytest.raises(SignalError, match="is of kind image, not 'video'"):
        files.read(tmp_path / f"a{suffix}", "video")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_a_cut_animation_is_refused(tmp_path, suffix):
    save(tmp_path / f"a{suffix}", FRAMES, duration=40)
    data = (tmp_path / f"a{suffix}").read_bytes()
    for length in range(len(data) // 3, len(data), max(1, len(data) // 40)):
        (tmp_path / f"b{suffix}").write_bytes(data[:length])
        with pytest.raises(SignalError, match=rf"b\{suffix}: "):
            files.read(tmp_path / f"b{suffix}", "video")


@pytest.mark.parametrize("timing", [{"finterval": 0.04}, {"fps": 25}])
def test_a_tiff_series_is_a_film(tmp_path, timing):
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[..., 0], imagej=True, metadata={"axes": "TYX", **timing})
    found = files.read(tmp_path / "a.tif", "video", frames=(1, 4))
    assert (found.kind, found.sampling_rate) == ("video", 25)
    assert np.array_equal(found.values[..., 0], FRAMES[1:4, ..., 0])
    assert files.read(tmp_path / "a.tif", "video", max_side=8).shape == (6, 6, 8)


MILLISECONDS = {"ms": 1, "msec": 1, "µs": 1e-3, "us": 1e-3, "s": 1000, "sec": 1000, "min": 60_000, "h": 3_600_000}


@pytest.mark.parametrize("unit", MILLISECONDS)
@pytest.mark.parametrize("interval", [20, 3_000_000])
def test_the_rate_of_a_tiff_series_follows_the_unit_of_its_times(tmp_path, lines, unit, interval):
    count = interval / MILLISECONDS[unit]
    ome = {"axes": "TYX", "TimeIncrement": count, "TimeIncrementUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", FRAMES[..., 0], ome=True, metadata=ome)
    assert files.read(tmp_path / "a.ome.tif", "video").sampling_rate == Fraction(1000, interval)
    if unit.isascii():
        imagej = {"axes": "TYX", "finterval": count, "tunit": unit}
        tifffile.imwrite(tmp_path / "a.tif", FRAMES[..., 0], imagej=True, metadata=imagej)
        assert files.read(tmp_path / "a.tif", "video").sampling_rate == Fraction(1000, interval)
    assert lines() == []


def test_a_unit_of_time_that_is_not_known_gives_no_rate(tmp_path, lines):
    imagej = {"axes": "TYX", "finterval": 20, "tunit": "mm"}
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[..., 0], imagej=True, metadata=imagej)
    assert files.read(tmp_path / "a.tif", "video").sampling_rate is None
    assert lines() == ["its frame rate is left out, its unit of time (mm) is not known"]


def test_a_tiff_of_pages_is_a_film_without_a_rate(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, photometric="rgb")
    found = files.read(tmp_path / "a.tif", "video")
    assert found.sampling_rate is None
    assert np.array_equal(found.values, FRAMES)
