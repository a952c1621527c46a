"""Films: round trips, rates, rotation, what is left out, damage."""

import os
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lgsirens.errors import ConfigError, MissingDependencyError, SignalError
from lgsirens.media import files
from lgsirens.signal import Signal
from tests.films import NTSC, film, levels, noise, refusal, smooth

# Round trips


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 13), (4, 16, 18)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_ffv1_and_png_folders_give_back_every_bit(tmp_path, shape, channels, dtype):
    signal = noise((*shape, channels), dtype, NTSC)
    shift = np.random.default_rng(1).uniform(-0.4, 0.4, signal.values.shape)
    decoded = Signal((signal.values + shift).astype(np.float32), "video", signal.value_range, dtype, NTSC)
    for name, source in (("a.mkv", signal), ("b.mkv", decoded), ("a", signal), ("b", decoded)):
        files.write(tmp_path / name, source)
        result = files.read(tmp_path / name)
        assert (result.kind, result.dtype, result.value_range) == ("video", dtype, signal.value_range)
        assert result.sampling_rate == (NTSC if name.endswith(".mkv") else None)
        assert np.array_equal(result.values, signal.values)
    assert sorted(os.listdir(tmp_path)) == ["a", "a.mkv", "b", "b.mkv"]


@pytest.mark.parametrize("rate", ["25", "30000/1001", "60000/1001", "120000/1001", "1/3", "1234/567", "2997/50", "50"])
def test_frame_rates_are_kept_as_fractions(tmp_path, rate):
    signal = noise((9, 16, 16, 3), rate=Fraction(rate))
    for name in ("a.mkv", "a.mp4"):
        files.write(tmp_path / name, signal)
        assert files.read(tmp_path / name).sampling_rate == Fraction(rate)


def test_broadcast_rates_of_foreign_matroska_files_are_recognised(tmp_path):
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(60000, 1001))
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        for index in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), index, np.uint8), "gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = files.read(tmp_path / "a.mkv")
    assert result.sampling_rate == Fraction(60000, 1001)
    assert result.channels == 1
    assert result.values[:, 0, 0, 0].tolist() == list(range(9))


def test_h264_is_close_and_gets_better_with_a_smaller_crf(tmp_path, lines):
    signal, errors, sizes = smooth(), [], []
    for crf in (1, None, 40):
        files.write(tmp_path / "a.mp4", signal, True, crf=crf)
        result = files.read(tmp_path / "a.mp4")
        assert (result.shape, result.channels, result.sampling_rate) == (signal.shape, 3, NTSC)
        errors.append(np.abs(result.values.astype(int) - signal.values).mean())
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert errors[0] < 2
    assert errors[1] < 4
    assert errors[0] < errors[1] < errors[2]
    assert sizes[0] > sizes[1] > sizes[2]
    assert lines() == []


def test_odd_sizes_are_padded_in_h264_with_one_line(tmp_path, lines):
    signal = smooth(3, 17, 31)
    files.write(tmp_path / "a.mp4", signal)
    result = files.read(tmp_path / "a.mp4").values.astype(int)
    assert result.shape == (3, 18, 32, 3)
    assert np.abs(result[:, :17, :31] - signal.values).mean() < 4
    assert lines() == [
        "H.264 needs even sizes: 31x17 is written as 32x18; the repeated last row or column is no part of the signal "
        "(.mkv needs none)"
    ]


def test_gray_becomes_colour_in_h264_and_an_unknown_rate_25_with_a_line_each(tmp_path, lines):
    files.write(tmp_path / "a.mp4", noise((2, 16, 16, 1), rate=None))
    assert files.read(tmp_path / "a.mp4").sampling_rate == 25
    assert lines() == [
        "H.264 holds gray as colour; .mkv keeps one channel",
        "the frame rate is unknown; written with 25 frames/s",
    ]


def test_deeper_samples_are_reduced_to_8_bits_with_one_line(tmp_path, lines):
    files.write(tmp_path / "a.mp4", noise((2, 16, 16, 3), "uint16"))
    files.write(tmp_path / "a.mkv", Signal.from_array(np.full((2, 4, 4, 1), 0.5), "video", sampling_rate=25))
    assert (files.read(tmp_path / "a.mkv").values == 128).all()
    assert lines() == [
        "uint16 samples are written as uint8; choose .npy, .zarr, .mkv, a name without suffix to keep them",
        "float64 samples are written as uint8, [0, 1] as 0 to 255; choose .npy, .zarr to keep them",
    ]


# Reading


@pytest.mark.parametrize(("turns", "matrix"), [(1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (3, (0, -1, 1, 0))])
def test_rotation_is_applied(tmp_path, turns, matrix):
    """`turns` quarters clockwise, as a phone writes them into the track header."""
    files.write(tmp_path / "a.mp4", smooth())
    plain = files.read(tmp_path / "a.mp4")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    place = content.index(b"tkhd") + 44
    assert struct.unpack(">5i", content[place : place + 20]) == (1 << 16, 0, 0, 0, 1 << 16)
    a, b, c, d = (number << 16 for number in matrix)
    content[place : place + 20] = struct.pack(">5i", a, b, 0, c, d)
    (tmp_path / "a.mp4").write_bytes(content)
    turned = files.read(tmp_path / "a.mp4")
    assert np.array_equal(turned.values, np.rot90(plain.values, -turns, axes=(1, 2)))
    assert turned.sampling_rate == plain.sampling_rate
    assert files.read(tmp_path / "a.mp4", max_side=12).shape == ((6, 12, 8) if turns % 2 else (6, 8, 12))


def test_a_varying_frame_rate_is_resampled_to_the_average_with_one_line(tmp_path, lines):
    for name in ("a.mp4", "a.mkv"):
        film(tmp_path / name, 6, [0, 3, 6, 9, 27, 45])
        result = files.read(tmp_path / name)
        assert result.sampling_rate == 10
        assert levels(result) == [0, 3, 3, 4, 4, 5]
        assert levels(files.read(tmp_path / name, frames=(2, 5))) == [3, 4, 4]
    assert lines() == ["its frame rate varies; resampled to the average, 10.000 frames/s"] * 4


def test_sound_tracks_are_left_out_with_one_line(tmp_path, lines):
    assert levels(files.read(film(tmp_path / "a.mp4", sound=True))) == [0, 1, 2, 3, 4, 5]
    assert lines() == ["its sound track is left out"]


@pytest.mark.parametrize("name", ["a.mov", "a.webm", "a.avi", "a.ts"])
def test_other_containers_are_read(tmp_path, name):
    codec = {"a.webm": "libvpx-vp9"}.get(name, "libx264")
    result = files.read(film(tmp_path / name, codec=codec))
    assert levels(result) == [0, 1, 2, 3, 4, 5]
    assert result.shape == (6, 16, 32)
    assert result.sampling_rate == 30


def still(path: Path, codec: str, pixels: str) -> Path:
    """A film of one frame of half gray and half transparency."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 8, 6, pixels
        stream.metadata["alpha_mode"] = "1"
        frame = av.VideoFrame.from_ndarray(np.full((6, 8, 4), 128, np.uint8), "rgba").reformat(format=pixels)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("pixels", "channels", "dtype"), [("yuva420p", 4, "uint8"), ("gray10le", 1, "uint16"), ("ya8", 2, "uint8")]
)
def test_alpha_and_more_bits_are_read(tmp_path, pixels, channels, dtype):
    result = files.read(still(tmp_path / "a.mkv", "ffv1", pixels))
    assert (result.values.shape, result.dtype) == ((1, 6, 8, channels), dtype)
    assert np.abs(result.values / np.iinfo(dtype).max - 0.5).max() < 0.02


def test_the_alpha_of_vp9_is_left_out_with_one_line(tmp_path, lines):
    assert files.read(still(tmp_path / "a.webm", "libvpx-vp9", "yuva420p")).channels == 3
    assert lines() == ["its alpha channel is left out"]


def test_the_content_decides_not_the_suffix(tmp_path):
    film(tmp_path / "a.mp4").rename(tmp_path / "a.png")
    assert files.read(tmp_path / "a.png").kind == "video"


# Errors


def test_films_that_are_cut_off_are_refused(tmp_path):
    signal = noise((12, 32, 32, 3))
    for name in ("a.mp4", "a.mkv"):
        files.write(tmp_path / name, signal)
        content = (tmp_path / name).read_bytes()
        for share in (0.02, 0.3, 0.7, 0.95):
            (tmp_path / f"cut{name}").write_bytes(content[: int(share * len(content))])
            refusal(tmp_path / f"cut{name}")
    with av.open(tmp_path / "a.mp4") as old, av.open(tmp_path / "b.mp4", "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    content = (tmp_path / "b.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    for share in (0.5, 0.8, 0.99):
        (tmp_path / "cut.mp4").write_bytes(content[: int(share * len(content))])
        assert "is cut off or damaged" in refusal(tmp_path / "cut.mp4")


def test_damaged_frames_are_refused(tmp_path):
    files.write(tmp_path / "a.mkv", noise((4, 32, 32, 3)))
    content = bytearray((tmp_path / "a.mkv").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.mkv").write_bytes(content)
    assert "is cut off or damaged" in refusal(tmp_path / "a.mkv")


def test_sounds_texts_and_empty_films_are_refused(tmp_path):
    with av.open(tmp_path / "sound.mp4", "w") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        container.mux(track.encode(silence))
        container.mux(track.encode(None))
    assert "holds no video stream, only sound" in refusal(tmp_path / "sound.mp4")
    (tmp_path / "text.mkv").write_text("no film at all\n" * 99)
    refusal(tmp_path / "text.mkv")
    refusal(film(tmp_path / "none.mp4", 0))
    refusal(film(tmp_path / "none.mkv", 0))


def test_what_a_film_cannot_be_written_as_is_refused(tmp_path):
    for name, channels, message in (
        ("a.mp4", 4, "H.264 cannot hold a signal of kind video with 4 channels"),
        ("a.mkv", 2, "FFV1 cannot hold a signal of kind video with 2 channels"),
        ("a.png", 3, "PNG cannot hold a signal of kind video with 3 channels"),
    ):
        with pytest.raises(SignalError) as caught:
            files.write(tmp_path / name, noise((2, 4, 4, channels)))
        assert message in str(caught.value)
    for name, crf in (("a.mp4", 52), ("a.mkv", 18)):
        with pytest.raises(ConfigError, match="crf"):
            files.write(tmp_path / name, noise((2, 4, 4, 3)), crf=crf)
    assert os.listdir(tmp_path) == []


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    film(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    calls = (
        lambda: files.read(tmp_path / "a.mp4"),
        lambda: files.write(tmp_path / "b.mkv", noise((2, 4, 4, 3))),
        lambda: files.check_format("b.mp4", "video", 3, "uint8"),
    )
    for call in calls:
        with pytest.raises(MissingDependencyError, match=r"needs av: pip install 'lgsirens\[video\]'"):
            call()


def test_a_full_disk_leaves_nothing_and_is_told_in_one_line(tmp_path):
    program = """
import os, resource
import numpy as np
from lgsirens.media import files
from lgsirens.errors import RunError
from lgsirens.signal import Signal
values = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), "uint8")
signal = Signal.from_array(values, "video", sampling_rate=25)
for name in ("a.mp4", "a.mkv", "a"):
    for room in (3000, 20000 if name == "a.mp4" else 9000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            files.write(name, signal)
        except RunError as error:
            print(error)
        assert os.listdir(".") == [], (name, os.listdir("."))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    told = [(Path(line.split(": ")[0]).name, line.split(": ")[1]) for line in done.stdout.splitlines()]
    assert told == [(name, "cannot be written") for name in ("a.mp4", "a.mkv", "a") for _ in range(2)]


# Other programs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_another_program_finds_length_rate_and_size(tmp_path, name):
    if shutil.which("ffprobe") is None:
        pytest.fail("install ffmpeg: this test reads films with ffprobe")
    files.write(tmp_path / name, smooth(7, 32, 48))
    entries = "stream=codec_name,width,height,r_frame_rate,nb_read_frames,pix_fmt"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "default=nw=1", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert dict(line.split("=") for line in done.stdout.split()) == {
        "codec_name": "h264" if name == "a.mp4" else "ffv1",
        "pix_fmt": "yuv420p" if name == "a.mp4" else "bgr0",
        "width": "48",
        "height": "32",
        "r_frame_rate": "30000/1001",
        "nb_read_frames": "7",
    }


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_one_film_is_written_to_one_file(tmp_path, suffix):
    written = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in written:
        files.write(path, noise((3, 16, 16, 3)))
    assert written[0].read_bytes() == written[1].read_bytes()
