"""Reading and writing: round trips, sample types, errors."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lgsirens.errors import OutputError, SignalError
from lgsirens.media import files
from lgsirens.signal import KINDS, Signal, array_type, integer_limits

SIDES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=60)
SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".avif")  # of pictures


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Random samples over the whole type, its limits included; floats in [0, 1]."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.random(shape, np.float32).astype(dtype)
    limits = integer_limits(dtype)
    values = rng.integers(*limits, shape, array_type(dtype), endpoint=True)
    values.flat[[0, -1]] = limits
    return values


def image(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> Signal:
    return Signal.from_array(noise(shape, dtype, seed), "image")


def decoded(signal: Signal, seed: int = 0) -> Signal:
    """The signal as decode returns it: float32, not yet rounded."""
    shift = np.random.default_rng(seed).uniform(-0.4, 0.4, signal.values.shape)
    return Signal((signal.values + shift).astype(np.float32), signal.kind, signal.value_range, signal.dtype)


def there_and_back(signal: Signal, suffix: str, *reading: object) -> Signal:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        files.write(path, signal)
        assert os.listdir(folder) == [path.name]
        return files.read(path, *reading)


# Round trips


@quick
@given(SIDES, SIDES, st.integers(1, 4), st.sampled_from(["uint8", "uint16"]), st.sampled_from([".png", ".tif"]), SEEDS)
def test_integer_images_come_back_exactly(height, width, channels, dtype, suffix, seed):
    signal = image((height, width, channels), dtype, seed)
    for source in (signal, decoded(signal, seed)):
        result = there_and_back(source, suffix)
        assert result.dtype == dtype
        assert result.kind == "image"
        assert result.value_range == signal.value_range
        assert np.array_equal(result.values, signal.values)


@quick
@given(SIDES, SIDES, st.integers(1, 4), st.sampled_from(["float32", "int8", "int16"]), SEEDS)
def test_tiff_keeps_floats_and_signed_integers(height, width, channels, dtype, seed):
    signal = image((height, width, channels), dtype, seed)
    result = there_and_back(signal, ".tif")
    assert result.dtype == dtype
    assert np.array_equal(result.values, signal.values)


@quick
@given(SIDES, SIDES, st.sampled_from([3, 4]), SEEDS)
def test_webp_keeps_colours_and_alpha_exactly(height, width, channels, seed):
    signal = image((height, width, channels), seed=seed)
    result = there_and_back(signal, ".webp").values
    if channels == 4 and (signal.values[..., 3] == 255).all():
        result = np.concatenate([result, signal.values[..., 3:]], axis=-1)[..., :4]  # an opaque alpha is dropped
    assert np.array_equal(result, signal.values)


@quick
@given(
    st.sampled_from(list(KINDS.values())), st.data(), st.sampled_from(["float32", "float64", "uint8", "int16"]), SEEDS
)
def test_npy_holds_the_values_of_any_signal(kind, data, dtype, seed):
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * kind.dimensions, st.integers(1, min(8, kind.max_channels))))
    values = noise(shape, dtype, seed)
    signal = Signal.from_array(values, kind.name)
    with tempfile.TemporaryDirectory() as folder:
        files.write(Path(folder) / "a.npy", signal)
        stored = np.load(Path(folder) / "a.npy")
        assert stored.dtype == values.dtype
        assert np.array_equal(stored, values)
        result = files.read(Path(folder) / "a.npy", kind.name)
    assert result.kind == kind.name
    assert np.array_equal(result.values, values)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_keeps_the_number_of_channels(channels):
    ramp = np.linspace(0, 255, 33 * 31 * channels).reshape(33, 31, channels).astype(np.uint8)
    result = there_and_back(Signal.from_array(ramp, "image"), ".jpg").values
    assert result.shape == ramp.shape
    assert np.abs(result.astype(int) - ramp).max() <= 12


def test_webp_holds_gray_as_colour():
    signal = image((5, 7, 2))
    expected = signal.values[..., [0, 0, 0, 1]]
    assert np.array_equal(there_and_back(signal, ".webp").values, expected)


def test_values_that_were_read_can_be_changed(tmp_path):
    for suffix in (".png", ".tif", ".webp", ".npy"):
        for dtype in ("uint8", "uint16"):
            files.write(tmp_path / f"a{suffix}", image((4, 4, 3), dtype), overwrite=True)
            values = files.read(tmp_path / f"a{suffix}").values
            assert values.flags.writeable
            assert values.flags.c_contiguous


def test_arrays_of_python_2_are_read_without_a_warning(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(noise((3, 3))).replace(b"(3, 3), ", b"(3L, 3L)"))
    assert np.array_equal(files.read(tmp_path / "a.npy").values[..., 0], noise((3, 3)))


# Sample types


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_floats_are_mapped_from_their_range_to_8_bits(lines, suffix):
    values = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, 7.0]], np.float32)[..., None].repeat(3, axis=-1)
    result = there_and_back(Signal(values, "image", (-2.0, 2.0), "float32"), suffix)
    assert result.values[0, :, 0].tolist() == [0, 64, 128, 191, 255, 255]
    assert lines() == [
        "float32 samples are written as uint8, [-2, 2] as 0 to 255; choose .npy, .zarr, .tif, .tiff to keep them"
    ]


def test_signed_integers_are_mapped_to_8_bits(lines):
    values = np.array([[[-32768], [0], [32767]]], np.int16)
    assert there_and_back(Signal.from_array(values, "image"), ".png").values.ravel().tolist() == [0, 128, 255]
    assert len(lines()) == 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_integers_with_their_own_range_keep_their_numbers(lines, dtype, suffix):
    signal = Signal.from_array(noise((5, 4, 3), dtype), "image", (0, 100))
    assert np.array_equal(there_and_back(signal, suffix).values, signal.values)
    assert lines() == []


def test_16_bits_are_reduced_where_the_format_has_8_and_a_line_says_so(lines):
    signal = image((9, 7, 3), "uint16")
    expected = np.rint(signal.values / 257).astype(np.uint8)
    assert np.array_equal(there_and_back(signal, ".webp").values, expected)
    assert lines() == ["uint16 samples are written as uint8; choose .npy, .zarr, .png, .tif, .tiff to keep them"]


def test_values_are_rounded_half_to_even_and_clipped():
    values = np.array([[[-3.0], [0.5], [1.5], [2.5], [254.5], [300.0]]], np.float32)
    result = there_and_back(Signal(values, "image", (0.0, 255.0), "uint8"), ".png")
    assert result.values.ravel().tolist() == [0, 0, 2, 2, 254, 255]


def test_kind_and_value_range_are_passed_on(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((6, 3), np.int32))
    signal = files.read(tmp_path / "a.npy", "audio", (-5, 5))
    assert (signal.kind, signal.value_range, signal.channels) == ("audio", (-5.0, 5.0), 3)
    files.write(tmp_path / "a.png", image((4, 4)))
    assert files.read(tmp_path / "a.png", "image", (0, 99)).value_range == (0.0, 99.0)


def test_the_content_decides_how_a_file_is_read(tmp_path):
    ramp = Image.fromarray(np.full((16, 16), 90, np.uint8))
    ramp.save(tmp_path / "a.png", "JPEG")
    np.save(tmp_path / "a", np.zeros((3, 3), np.uint8))
    (tmp_path / "a.npy").rename(tmp_path / "array.data")
    assert (files.read(tmp_path / "a.png").values == 90).all()
    assert files.read(tmp_path / "array.data").shape == (3, 3)


# Memory and failures at run time


def run(program: str, folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", program]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_writing_a_large_image_needs_little_more_than_its_integers(tmp_path):
    program = """
import re
import numpy as np
from lgsirens.media import files
from lgsirens.signal import Signal

def peak():  # of this process only; getrusage would count the parent's
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])

files.write("warm.png", Signal.from_array(np.zeros((64, 64), np.float32), "image"))
signal = Signal(np.full((4096, 4096, 1), 0.5, np.float32), "image", (0.0, 1.0), "float32")
before = peak()
files.write("a.png", signal)
print(peak() - before)
"""
    assert int(run(program, tmp_path)) < 40 * 1024  # 16 MiB are the integers, 64 MiB the floats


def test_a_full_disk_leaves_no_file_and_is_told_in_one_line(tmp_path):
    program = """
import os, resource
import numpy as np
from lgsirens.media import files
from lgsirens.errors import RunError
from lgsirens.signal import Signal
for dtype in ("uint8", "uint16"):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (200, 200, 3), dtype)
    for suffix in SUFFIXES:
        path, signal = "a" + suffix, Signal.from_array(values, "image")
        files.write(path, signal)
        size = os.path.getsize(path)
        os.remove(path)
        for room in (size - 1, size // 3):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            try:
                files.write(path, signal)
            except RunError as error:
                print(error)
            assert os.listdir(".") == [], (path, room)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    told = run(f"SUFFIXES = {SUFFIXES}\n" + program, tmp_path).splitlines()
    twice = [suffix for suffix in SUFFIXES for _ in range(2)]
    names = [(Path(line.split(": ")[0]).name, line.split(": ")[1]) for line in told]
    assert names == [(f"a{suffix}", "cannot be written") for suffix in twice * 2]


# Errors


def test_formats_are_checked_before_any_work():
    for suffix in SUFFIXES:
        files.check_format(f"no/such/folder/a{suffix.upper()}", "image", 3)
    files.check_format("a.npy", "video", 3, "uint8")
    files.check_format("a.png", "image", 4, "uint16")


@pytest.mark.parametrize(
    ("path", "kind", "channels", "message"),
    [
        ("a.xyz", "image", 3, "a.xyz: the suffix names no format that can be written; choose .npy, .zarr, .png, .tif"),
        ("a", "image", 3, "a: the suffix names no format that can be written; choose .npy, .zarr, .png, .tif"),
        ("a", "audio", 2, "a: the suffix names no format that can be written; choose .npy, .zarr, .wav, .flac"),
        ("a.xyz", "video", 3, "that can be written; choose .npy, .zarr, .mp4, .mkv, a name without suffix"),
        ("a", "volume", 1, "a: the suffix names no format that can be written; choose .npy, .zarr, .tif, .tiff"),
        ("a.jpg", "image", 4, "JPEG cannot hold a signal of kind image with 4 channels; choose .npy, .zarr, .png"),
        ("a.jpeg", "image", 2, "a.jpeg: JPEG cannot hold a signal of kind image with 2 channels"),
        ("a.png", "video", 3, "a.png: PNG cannot hold a signal of kind video with 3 channels"),
        ("a.tif", "audio", 1, "a.tif: TIFF cannot hold a signal of kind audio with 1 channel"),
    ],
)
def test_signals_that_a_format_cannot_hold_are_refused(path, kind, channels, message):
    with pytest.raises(SignalError) as caught:
        files.check_format(path, kind, channels)
    assert message in str(caught.value)
    signal = Signal.from_array(noise((2,) * KINDS[kind].dimensions + (channels,)), kind)
    with pytest.raises(SignalError, match=f"^{path}: "):
        files.write(path, signal)


def test_images_larger_than_a_format_allows_are_refused(tmp_path):
    with pytest.raises(SignalError, match=r"a\.webp: WebP holds at most 16383 samples a side, the image has 1x16384"):
        files.write(tmp_path / "a.webp", image((1, 16384, 3)))
    with pytest.raises(SignalError, match=r"a\.jpg: JPEG holds at most 65500 samples a side"):
        files.write(tmp_path / "a.jpg", image((65501, 1)))
    assert os.listdir(tmp_path) == []


def test_files_are_not_overwritten_unless_asked(tmp_path):
    path = tmp_path / "a.png"
    files.write(path, image((3, 3), seed=1))
    with pytest.raises(OutputError, match="exists already"):
        files.write(path, image((3, 3), seed=2))
    assert np.array_equal(files.read(path).values, image((3, 3), seed=1).values)
    files.write(path, image((3, 3), seed=2), overwrite=True)
    assert np.array_equal(files.read(path).values, image((3, 3), seed=2).values)


def picture(suffix: str, dtype: str = "uint8") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        files.write(path, image((60, 50, 3), dtype))
        return path.read_bytes()


PICTURES = {(suffix, dtype): picture(suffix, dtype) for suffix in SUFFIXES for dtype in ("uint8", "uint16")}


def npy(values: object) -> bytes:
    with tempfile.TemporaryFile() as file:
        np.save(file, values, allow_pickle=True)
        file.seek(0)
        return file.read()


def refusal(path: Path) -> str:
    """The message with which a file is refused: one line that names it and has a remedy."""
    with pytest.raises(SignalError) as caught:
        files.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


BAD_FILES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"this is no picture, it is a text\n" * 9, "its content is none of"),
    "unknown.xyz": (bytes(1000), "its content is none of"),
    "bytes.npy": (bytes(1000), "its content is none of"),
    "pickled.npy": (npy(np.array([{"a": 1}, None], dtype=object)), "holds objects, which could run code; save"),
    "records.npy": (npy(np.zeros(3, [("a", object)])), "holds objects, which could run code; save"),
    "complex.npy": (npy(np.zeros((3, 3), complex)), "samples must be integers or floats"),
    "text.npy": (npy(np.array([["a", "b"]])), "samples must be integers or floats"),
    "empty.npy": (npy(np.zeros((0, 3))), "has no samples"),
    "nan.npy": (npy(np.array([[1.0, np.nan]])), "1 samples are NaN or infinite"),
    "wide.npy": (npy(np.zeros((3, 3), np.int64)), "value_range"),
    "deep.npy": (npy(np.zeros((1, 1, 1, 1, 1, 1))), "array of rank 6 is no signal"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, name):
    data, reason = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".npy"])
def test_truncated_files_are_refused(tmp_path, suffix, dtype):
    data, path = PICTURES[suffix, dtype], tmp_path / f"cut{suffix}"
    for share in (0.01, 0.1, 0.4, 0.7, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        assert refusal(path)


@quick
@given(
    st.sampled_from([".png", ".jpg", ".tif", ".webp", ".avif", ".npy"]), st.sampled_from(["uint8", "uint16"]), st.data()
)
def test_damaged_files_give_a_signal_or_a_signal_error(suffix, dtype, data):
    content = bytearray(PICTURES[suffix, dtype])
    for place in data.draw(st.lists(st.integers(0, 400) | st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place % len(content)] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        try:
            outcome = f"{path}: {files.read(path).shape}"
        except SignalError as error:
            outcome = str(error)
    assert outcome.startswith(f"{path}: ")
    assert "\n" not in outcome


def test_missing_files_and_folders_are_told(tmp_path):
    for path, reason in (
        (tmp_path / "none.png", "cannot be opened: No such file or directory"),
        (tmp_path, "is a folder without numbered pictures"),
        (tmp_path / "a.png" / "b.png", "cannot be opened: No such file"),
        (tmp_path / ("long" * 100), "cannot be opened: File name too long"),
        (tmp_path / "null\0.png", "cannot be opened: "),
    ):
        assert reason in refusal(path)


def test_a_file_without_permission_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    files.write(path, image((3, 3)))

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # real permissions do not stop root
    assert refusal(path).endswith("cannot be opened: Permission denied; check the name and its permissions")
