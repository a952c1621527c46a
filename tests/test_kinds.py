"""Sounds, films and volumes: the laws of the design through real files and the command line."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

import lgsirens as lg
from lgsirens.system.program import INTERRUPTED
from tests.command import run
from tests.small import without_times

NTSC = Fraction(30000, 1001)
WIDTHS = ("--local_width", 6, "--global_width", 6, "--quiet")


@dataclass(frozen=True)
class Case:
    """A file, how it is encoded, and a region of it with the samples that it means."""

    name: str
    shape: tuple[int, ...]
    options: tuple[object, ...]
    region: str
    box: tuple[tuple[int, int], ...]


CASES = {
    case.name: case
    for case in (
        Case("a.wav", (4001,), ("--partitions", 7), "0.1s:0.2505s", ((800, 2004),)),
        Case("b.wav", (4001,), ("--partitions", 7, "--overlaps", 9), "0.1s:2000", ((800, 2000),)),
        Case("a.mp4", (9, 18, 26), ("--partitions", "3,2,2"), "0.1s:0.2s,3:17,5:", ((3, 6), (3, 17), (5, 26))),
        Case("a.mkv", (9, 17, 25), ("--partition_size", "3,8,9"), ":4,9:,9:18", ((0, 4), (9, 17), (9, 18))),
        Case("frames", (5, 12, 15), ("--partitions", "2,3,2"), "1:4,:,2:7", ((1, 4), (0, 12), (2, 7))),
        Case(
            "a.tif", (6, 9, 10), ("--kind", "volume", "--partitions", "2,2,3"), "3:6,1:2,:", ((3, 6), (1, 2), (0, 10))
        ),
    )
}


def waves(shape):
    """Smooth integers `[*shape, C]` of 8 bits: stereo for sounds, gray for volumes, RGB for films."""
    grids = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    channels = 2 if len(shape) == 1 else 3
    parts = [sum(np.sin(grid / (4 + 3 * c + 5 * d)) for d, grid in enumerate(grids)) for c in range(channels)]
    return np.rint(127 + 120 / len(shape) * np.stack(parts, axis=-1)).astype(np.uint8)


def signal_of(case):
    values = waves(case.shape)
    if len(case.shape) == 1:
        return lg.Signal.from_array((values.astype(np.int16) - 127) * 200, "audio", sampling_rate=8000)
    if case.name.endswith(".tif"):
        volume = lg.Signal.from_array(values[..., :1].astype(np.uint16) * 99, "volume")
        return replace(volume, spacing=(2.5, 0.5, 0.25))
    return lg.Signal.from_array(values, "video", sampling_rate=NTSC)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A folder with the file of each case and its encoding `NAME.safetensors`."""
    folder = tmp_path_factory.mktemp("kinds")
    for case in CASES.values():
        lg.write(folder / case.name, signal_of(case))
        assert (
            run("encode", folder / case.name, folder / f"{case.name}.safetensors", *case.options, *WIDTHS, "--steps", 4)
            == 0
        )
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def decoded(representation, name="out.npy", *options):
    assert run("decode", representation, name, "--overwrite", "--quiet", *options) == 0
    return np.load(name) if name.endswith(".npy") else lg.read(name)


def slices(box):
    return tuple(slice(*ends) for ends in box)


# The laws


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_crop_keeps_the_bits_and_sheds_the_rows(encoded, case, capsys):
    source = encoded / f"{case.name}.safetensors"
    assert run("crop", source, "cut.safetensors", "--region", case.region) == 0
    assert "saved" in capsys.readouterr().out
    whole, cut = lg.load(source), lg.load("cut.safetensors")
    assert cut.window == case.box
    assert np.array_equal(decoded("cut.safetensors"), decoded(source)[slices(case.box)])
    content = Path("cut.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    kept, width = len(cut.lattice), cut.parameters["per_partition"]
    index = 4 * (len(case.shape) + 3 + whole.model.channels) * kept
    assert kept < len(whole.lattice)
    assert len(content) == header + 4 * whole.parameters["shared"] + index + 4 * kept * width
    assert len(content) < source.stat().st_size
    rows = whole.rows.read(np.arange(len(whole.lattice)))
    removed = np.setdiff1d(np.arange(len(whole.lattice)), whole.lattice.find(cut.lattice.ids))
    assert not any(rows[place].numpy().tobytes()[:16] in content for place in removed)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_region_is_cut_from_the_full_decode(encoded, case):
    source = encoded / f"{case.name}.safetensors"
    part = decoded(source, "part.npy", "--region", case.region)
    assert np.array_equal(part, decoded(source)[slices(case.box)])


@pytest.mark.parametrize("sampling", [(), ("--sample_frac", 0.3)], ids=["all samples", "random samples"])
@pytest.mark.parametrize("name", ["b.wav", "a.mkv", "a.tif"])
def test_an_interrupted_and_resumed_run_ends_in_the_same_file(encoded, name, sampling, stopping_at):
    command = ["encode", encoded / name, "a.safetensors", *CASES[name].options, *WIDTHS, *sampling, "--steps", 8]
    assert run(*command) == 0
    os.rename("a.safetensors", "whole.safetensors")
    with stopping_at(5):
        assert run(*command) == INTERRUPTED
    assert lg.load("a.safetensors").fit.steps == 5
    assert run(*command, "--resume") == 0
    assert without_times(Path("a.safetensors")) == without_times(Path("whole.safetensors"))
    assert sorted(os.listdir()) == ["a.safetensors", "whole.safetensors"]


# What comes back


def sound(dtype, channels):
    """Random samples within nine tenths of the type; the peak is the very last one."""
    bits = {"int16": 16, "int24": 24, "int32": 32}.get(dtype)
    values = np.random.default_rng(channels).uniform(-0.9, 0.9, (3001, channels))
    values[-1, -1] = -0.95
    if bits is None:
        return lg.Signal.from_array(values.astype(dtype), "audio", sampling_rate=11025)
    whole = np.rint(values * (1 << bits - 1)).astype(np.int16 if bits == 16 else np.int32)
    return lg.Signal.from_array(whole, "audio", sampling_rate=11025, dtype=dtype)


SOUNDS = [("a.wav", "int16"), ("a.wav", "int24"), ("a.wav", "float32"), ("a.flac", "int16"), ("a.flac", "int24")]


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("name", "dtype"), SOUNDS)
def test_rate_peak_and_number_of_samples_of_a_sound_come_back_exactly(name, dtype, channels, capsys):
    original = sound(dtype, channels)
    lg.write(name, original)
    assert np.array_equal(lg.read(name).values, original.values)
    assert run("encode", name, "a.safetensors", *WIDTHS, "--steps", 1) == 0
    capsys.readouterr()
    assert run("info", "a.safetensors", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    peak = abs(float(original.values[-1, -1]))
    assert (facts["value_range"], facts["sampling_rate"], facts["shape"]) == ([-peak, peak], 11025, [3001])
    result = decoded("a.safetensors", f"b{Path(name).suffix}")
    assert (result.shape, result.channels, result.dtype) == ((3001,), channels, dtype)
    assert result.sampling_rate == 11025
    values = decoded("a.safetensors")
    assert np.array_equal(result.values, values if dtype == "float32" else np.rint(values))


def test_what_32_bit_integers_lose_is_said(capsys):
    lg.write("a.wav", sound("int32", 1))
    assert run("encode", "a.wav", "a.safetensors", *WIDTHS, "--steps", 1) == 0
    assert (
        "a.wav: holds 32-bit integers; networks compute in float32, which keeps the upper 24 bits"
        in capsys.readouterr().err
    )
    assert decoded("a.safetensors", "b.wav").dtype == "int32"


def test_info_tells_the_rate(encoded, capsys):
    for name, told in (("a.wav", "4001 samples, 8000 per second,"), ("a.mkv", "9x17x25 samples, 29.97 per second,")):
        assert run("info", encoded / f"{name}.safetensors") == 0
        assert told in capsys.readouterr().out
    assert run("info", encoded / "a.tif.safetensors") == 0
    assert "6x9x10 samples, 1 channel," in capsys.readouterr().out


def test_a_region_in_seconds_is_that_part_of_the_sound(encoded):
    decoded(encoded / "a.wav.safetensors", "part.wav", "--region", "0.1s:0.2505s")
    with soundfile.SoundFile("part.wav") as part:
        assert (part.frames, part.samplerate, part.channels, part.subtype) == (1204, 8000, 2, "PCM_16")


def frames_of(name):
    """Frames, rate, height and width, as PyAV finds them."""
    with av.open(name) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return len(frames), stream.average_rate, stream.height, stream.width


@pytest.mark.parametrize(("name", "size"), [("a.mp4", (3, NTSC, 14, 22)), ("a.mkv", (4, NTSC, 8, 10))])
def test_a_film_cropped_in_time_and_space_plays_as_mp4(encoded, name, size, capsys):
    assert run("crop", encoded / f"{name}.safetensors", "cut.safetensors", "--region", CASES[name].region) == 0
    capsys.readouterr()
    decoded("cut.safetensors", "cut.mp4")
    assert frames_of("cut.mp4") == size
    told = capsys.readouterr().err
    height, width = (high - low for low, high in CASES[name].box[1:])
    padding = f"{width}x{height} is written as {size[3]}x{size[2]}; the repeated last row or column is no part"
    assert padding in told
    assert lg.load("cut.safetensors").shape == tuple(high - low for low, high in CASES[name].box)


def test_twice_the_frames_at_twice_the_rate(encoded):
    source = encoded / "a.mkv.safetensors"
    result = decoded(source, "b.mkv", "--scale", "2,1,1")
    assert (result.shape, result.sampling_rate) == ((18, 17, 25), 2 * NTSC)
    assert frames_of("b.mkv")[0] == 18
    assert decoded(source, "c.mp4", "--scale", "2,1,1", "--region", "0:4,:16,:24").sampling_rate == 2 * NTSC


def test_frames_and_a_smaller_side_are_read_and_measured_against(tmp_path, capsys):
    values = waves((12, 40, 64))
    lg.write("a.mkv", lg.Signal.from_array(values, "video", sampling_rate=NTSC))
    reduced = ("--frames", "2:8", "--max_side", 32)
    assert run("encode", "a.mkv", "a.safetensors", *reduced, *WIDTHS, "--steps", 2) == 0
    inr = lg.load("a.safetensors")
    assert (inr.shape, inr.signal.rate) == ((6, 20, 32), NTSC)
    capsys.readouterr()
    assert run("info", "a.safetensors", "--against", "a.mkv", "--json") == 0
    assert json.loads(capsys.readouterr().out)["against"]["psnr"] == pytest.approx(inr.fit.psnr, abs=1e-3)


def test_the_distance_of_voxels_is_kept_and_follows_the_scale(encoded):
    source = encoded / "a.tif.safetensors"
    for options, spacing in (((), (2.5, 0.5, 0.25)), (("--scale", "2,1,1"), (1.25, 0.5, 0.25))):
        assert run("decode", source, "b.tif", "--overwrite", "--quiet", *options) == 0
        result = lg.read("b.tif", "volume")
        assert (result.spacing, result.dtype) == (spacing, "uint16")


def test_reading_fitting_decoding_and_writing_have_a_bar_each(encoded, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("encode", encoded / "a.mkv", "a.safetensors", *WIDTHS[:-1], "--steps", 2) == 0
    assert run("decode", "a.safetensors", "b.mkv") == 0
    told = capsys.readouterr().err
    for bar in ("read: 100%", "9/9", "encode: 100%", "2/2", "decode: 100%", "3825/3825", "write: 100%"):
        assert bar in told


# Other programs


def tool(*command):
    if shutil.which(command[0]) is None:
        pytest.fail(f"install ffmpeg and sox: this test reads files with {command[0]}")
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    assert command[0] != "ffprobe" or done.stderr == ""  # soxi finds fault with every float WAV of libsndfile
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("name", "dtype"), SOUNDS)
def test_sox_and_ffprobe_find_the_decoded_sound(name, dtype, channels):
    lg.write(name, sound(dtype, channels))
    assert run("encode", name, "a.safetensors", *WIDTHS, "--steps", 1) == 0
    out = f"b{Path(name).suffix}"
    for region, length in ((None, 3001), ("0.1s:0.2s", 1103)):  # 1102.5 to 2205, half to even
        options = () if region is None else ("--region", region)
        assert run("decode", "a.safetensors", out, "--overwrite", "--quiet", *options) == 0
        told = {flag: int(tool("soxi", flag, out)) for flag in ("-s", "-r", "-c", "-b")}
        assert told == {"-s": length, "-r": 11025, "-c": channels, "-b": int(dtype.lstrip("intfloa"))}
        assert ("Floating" in tool("soxi", "-e", out)) == (dtype == "float32")
        entries = "stream=sample_rate,channels,duration_ts"
        found = tool("ffprobe", "-v", "error", "-show_entries", entries, "-of", "default=nw=1", out)
        assert found.split() == ["sample_rate=11025", f"channels={channels}", f"duration_ts={length}"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["1", "2,1,1"])
@pytest.mark.parametrize(("name", "codec"), [("b.mp4", "h264"), ("b.mkv", "ffv1"), ("b", "png")])
def test_ffprobe_finds_the_decoded_film(encoded, name, codec, scale):
    assert run("crop", encoded / "a.mp4.safetensors", "cut.safetensors", "--region", "0.1s:,2:16,5:25") == 0
    assert run("decode", "cut.safetensors", name, "--quiet", "--scale", scale) == 0
    count, rate = (6, NTSC) if scale == "1" else (12, 2 * NTSC)
    source = [name] if codec != "png" else ["-framerate", rate, f"{name}/%06d.png"]
    entries = "stream=codec_name,width,height,r_frame_rate,nb_read_frames"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "default=nw=1"]
    told = dict(line.split("=") for line in tool(*command, *source).split())
    # FFmpeg reads 60000/1001 from any Matroska file as 19001/317, because it allows no number above 30000.
    assert abs(Fraction(told.pop("r_frame_rate")) / rate - 1) < Fraction(1, 10**6)
    assert told == {"codec_name": codec, "width": "20", "height": "14", "nb_read_frames": str(count)}
