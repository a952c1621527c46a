"""Bad sounds, films and volumes on the command line: one clear line, exit code 2, nothing left behind."""

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import tifffile

import lgsirens as lg
from tests.command import assert_one_line, run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A sound and a film, whole."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    sound = rng.integers(-9999, 9999, (4000, 2), np.int16)
    lg.write(folder / "a.wav", lg.Signal.from_array(sound, "audio", sampling_rate=8000))
    film = rng.integers(0, 256, (10, 18, 20, 3), np.uint8)
    for name in ("a.mp4", "a.mkv"):
        lg.write(folder / name, lg.Signal.from_array(film, "video", sampling_rate=25))
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "a.mp4", "a.mkv"):
        (tmp_path / name).write_bytes((files / name).read_bytes())


def _cut(name):
    content = Path(name).read_bytes()
    Path(f"cut{name}").write_bytes(content[: len(content) // 2])
    return f"cut{name}"


def _only_sound(name):
    with av.open(name, "w") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        container.mux(track.encode(silence))
        container.mux(track.encode(None))
    return name


def _no_frames(name):
    with av.open(name, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        container.start_encoding()
    return name


def _sound(name, values, subtype):
    soundfile.write(name, values, 8000, subtype=subtype)
    return name


def _numbered():
    os.mkdir("pictures")
    for number, side in ((1, 4), (2, 5)):
        lg.write(f"pictures/{number}.png", lg.Signal.from_array(np.zeros((side, 4), np.uint8)))
    return "pictures"


def _stack_of_two_sizes():
    with tifffile.TiffWriter("a.tif") as tiff:
        for side in (5, 6):
            tiff.write(np.zeros((side, 5), np.uint8), metadata=None)
    return "a.tif"


BAD_FILES = {
    "mp4 without a video stream": (lambda: _only_sound("b.mp4"), "holds no video stream, only sound; save its sound"),
    "mkv without a video stream": (lambda: _only_sound("b.mkv"), "holds no video stream, only sound; save its sound"),
    "mp4 of no frames": (lambda: _no_frames("b.mp4"), "holds no video stream; name a film"),
    "mkv of no frames": (lambda: _no_frames("b.mkv"), "End of file"),
    "truncated mp4": (lambda: _cut("a.mp4"), "damaged"),
    "truncated mkv": (lambda: _cut("a.mkv"), "is cut off or damaged"),
    "truncated wav": (lambda: _cut("a.wav"), "is cut short: 8022 of 16044 bytes are there"),
    "wav with NaN": (lambda: _sound("b.wav", [0.0, np.nan, 1.0], "FLOAT"), "1 samples are NaN or infinite"),
    "wav without samples": (lambda: _sound("b.wav", np.zeros(0), "PCM_16"), "holds no samples"),
    "text named wav": (lambda: Path("b.wav").write_text("a text") and "b.wav", "its content is none of"),
    "folder without pictures": (lambda: os.mkdir("none") or "none", "is a folder without numbered pictures"),
    "folder of two sizes": (_numbered, "frame 1 is 4x5"),
    "tiff of two sizes": (lambda: f"{_stack_of_two_sizes()} --kind volume", "its pages are not of one size"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_and_exit_code_2(capsys, case):
    make, reason = BAD_FILES[case]
    words = make().split()
    before = sorted(os.listdir())
    assert run("encode", words[0], "out.safetensors", "--steps", 2, *words[1:]) == 2
    assert_one_line(capsys, words[0], reason)
    assert sorted(os.listdir()) == before


BAD_OPTIONS = {
    "overlaps as long as the sound": ("a.wav --overlaps 4000", "--overlaps 4000"),
    "overlaps as long as the film": ("a.mp4 --overlaps 10,0,0", "--overlaps 10,0,0"),
    "sample fraction 0 of a film": ("a.mp4 --sample_frac 0", "--sample_frac 0"),
    "sample fraction 1.5 of a sound": ("a.wav --sample_frac 1.5", "--sample_frac 1.5"),
    "sample fraction nan": ("a.mp4 --sample_frac nan", "sample_frac"),
    "three numbers for a sound": (
        "a.wav --partitions 5,8,8",
        "--partitions 5,8,8",
    ),
    "two numbers for a film": (
        "a.mp4 --partitions 5,8",
        "--partitions 5,8",
    ),
    "one number for a film": ("a.mp4 --partition_size 5", "partition_size 5: video has 3 dimensions"),
    "two overlaps for a sound": ("a.wav --overlaps 1,2", "overlaps 1,2: audio has 1 dimension"),
    "more partitions than frames": ("a.mkv --partitions 11,1,1", "more than the signal has samples, 10,18,20"),
    "frames of a sound": ("a.wav --frames 0:5", "frames is for films, this is of kind audio"),
    "side of a sound": ("a.wav --max_side 5", "max_side is for films, this is of kind audio"),
    "frames beyond the end": ("a.mkv --frames 5:11", "has 10 frames, not 5:11; choose frames within 0:10"),
    "no frames": ("a.mkv --frames 5:5", "--frames 5:5"),
    "frames as one number": ("a.mkv --frames 5", "--frames"),
    "no side": ("a.mkv --max_side 0", "--max_side 0"),
    "a film as a sound": ("a.mkv --kind audio", "is of kind video, not 'audio'"),
    "a film as a volume": ("a.mkv --kind volume", "is of kind video, not 'volume'"),
    "a sound as a film": ("a.wav --kind video", "is of kind audio, not 'video'"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_exit_code_2(capsys, case):
    words, reason = BAD_OPTIONS[case]
    name, *options = words.split()
    assert run("encode", name, "out.safetensors", *options) == 2
    assert_one_line(capsys, reason)
    assert sorted(os.listdir()) == ["a.mkv", "a.mp4", "a.wav"]


BAD_REQUESTS = {
    "time after the end": (
        "wav",
        "decode IN b.wav --region 0.1s:9s",
        "region 800:72000",
    ),
    "time of a row": ("mkv", "decode IN b.mkv --region 0:2,1s:2s,:", "0:2,1s:2s,:"),
    "two ranges of a sound": ("wav", "decode IN b.wav --region 0:2,0:2", "has 2 ranges, the signal 1 dimension"),
    "one range of a film": ("mkv", "crop IN b.safetensors --region 0.1s:0.2s", "has 1 range, the signal 3 dimensions"),
    "one number of an id": ("mkv", "crop IN b.safetensors --drop_partitions 0", "partitions '0'"),
    "two numbers of an id": ("wav", "crop IN b.safetensors --drop_partitions 0,0", "partitions '0,0'"),
    "a sound as a film": (
        "wav",
        "decode IN b.mp4",
        "H.264 cannot hold a signal of kind audio",
    ),
    "a sound as pictures": (
        "wav",
        "decode IN b",
        "the suffix names no format that can be written; choose .npy, .zarr, .wav, .flac",
    ),
    "a film as a picture": ("mkv", "decode IN b.png", "choose .npy, .zarr, .mp4, .mkv, a name without suffix"),
    "quality of FFV1": ("mkv", "decode IN b.mkv --crf 3", "--crf 3"),
    "no such quality": ("mkv", "decode IN b.mp4 --crf 52", "--crf 52"),
}


@pytest.fixture(scope="module")
def encoded(files):
    for name in ("wav", "mkv"):
        command = ["encode", files / f"a.{name}", files / f"{name}.safetensors", "--steps", 1, "--quiet"]
        assert run(*command, "--local_width", 4, "--global_width", 4) == 0
    return files


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_one_line_and_exit_code_2(encoded, capsys, case):
    kind, words, reason = BAD_REQUESTS[case]
    before = sorted(os.listdir())
    assert run(*words.replace("IN", str(encoded / f"{kind}.safetensors")).split()) == 2
    assert_one_line(capsys, reason)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("soundfile", "encode a.wav b.safetensors", "audio"),
        ("av", "encode a.mp4 b.safetensors", "video"),
        ("soundfile", "decode wav b.flac", "audio"),
        ("av", "decode mkv b.mp4", "video"),
        ("tifffile", "encode a.tif b.safetensors --kind volume", "tiff"),
    ],
)
def test_a_missing_package_is_one_line_that_names_the_extra(encoded, capsys, monkeypatch, package, words, extra):
    lg.write("a.tif", lg.Signal.from_array(np.zeros((3, 4, 5, 1), np.uint8), "volume"))
    monkeypatch.setitem(sys.modules, package, None)
    words = [str(encoded / f"{word}.safetensors") if word in ("wav", "mkv") else word for word in words.split()]
    assert run(*words) == 2
    assert_one_line(capsys, f"pip install 'lgsirens[{extra}]'")
    assert sorted(os.listdir()) == ["a.mkv", "a.mp4", "a.tif", "a.wav"]
