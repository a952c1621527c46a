"""Sound files: round trips through real files, sample types, what is said."""

import contextlib
import hashlib
import io
import itertools
import logging
import shutil
import struct
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.media import audio, files
from lgsirens.media.formats import recognised
from lgsirens.signal import Signal
from tests.sounds import sound_of

RATES = st.integers(8000, 96000)
LENGTHS = st.integers(1, 2000)
CHANNELS = st.integers(1, 4)
SEEDS = st.integers(0, 2**32 - 1)
KEPT = [(f".{name.lower()}", dtype) for name, subtypes in audio.SUBTYPES.items() for dtype in subtypes]


def there_and_back(signal: Signal, suffix: str) -> Signal:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        files.write(path, signal)
        return files.read(path)


def assert_same(found: Signal, expected: Signal) -> None:
    assert found.dtype == expected.dtype
    assert found.values.dtype == expected.values.dtype
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.value_range == expected.value_range
    assert found.sampling_rate == expected.sampling_rate
    assert found.kind == "audio"


# Round trips


@pytest.mark.parametrize(("suffix", "dtype"), KEPT)
@given(length=LENGTHS, channels=CHANNELS, rate=RATES, seed=SEEDS)
def test_every_kept_type_comes_back_exactly(suffix, dtype, length, channels, rate, seed):
    if suffix == ".flac" and rate > 65535:
        rate -= rate % 10
    signal = sound_of(dtype, length, channels, rate, seed)
    assert_same(there_and_back(signal, suffix), signal)


@pytest.mark.parametrize(("suffix", "dtype"), [kept for kept in KEPT if kept[1].startswith("int")])
@given(seed=SEEDS)
def test_decoded_integers_are_rounded_to_those_of_the_file(suffix, dtype, seed):
    signal = sound_of(dtype, seed=seed)
    shift = np.random.default_rng(seed).uniform(-0.4, 0.4, signal.values.shape)
    decoded = Signal(signal.values + shift, "audio", signal.value_range, dtype, signal.sampling_rate)
    assert_same(there_and_back(decoded, suffix), signal)


def test_integers_are_rounded_half_to_even_and_clipped():
    values = np.array([[0.5], [1.5], [-2.5], [4e4], [-4e4]], np.float32)
    signal = Signal(values, "audio", (-4e4, 4e4), "int16", Fraction(8000))
    assert there_and_back(signal, ".wav").values.ravel().tolist() == [0, 2, -2, 32767, -32768]


def test_long_sounds_are_longer_than_a_block():
    signal = sound_of("int24", 3 * audio._BLOCK + 7, 1)
    assert_same(there_and_back(signal, ".flac"), signal)


@pytest.mark.parametrize("channels", [6, 64])
def test_many_channels(channels):
    signal = sound_of("int16", 10, channels)
    assert_same(there_and_back(signal, ".wav"), signal)


def test_flac_of_eight_channels():
    signal = sound_of("int24", 10, 8)
    assert_same(there_and_back(signal, ".flac"), signal)


def test_silence():
    signal = Signal.from_array(np.zeros((9, 1), np.int8), "audio", sampling_rate=8000)
    assert_same(there_and_back(signal, ".wav"), signal)


def test_8_bit_wav_has_silence_at_128(tmp_path):
    values = np.array([[-128], [0], [127]], np.int8)
    files.write(tmp_path / "a.wav", Signal.from_array(values, "audio", sampling_rate=8000))
    assert bytes([0, 128, 255]) in (tmp_path / "a.wav").read_bytes()


def test_24_bit_samples_are_24_bit_numbers(tmp_path):
    values = np.array([1, -1, 2**23 - 1, -(2**23)], np.int32)
    soundfile.write(tmp_path / "a.wav", values << 8, 8000, subtype="PCM_24")
    signal = files.read(tmp_path / "a.wav")
    assert (signal.values.ravel().tolist(), signal.dtype) == (values.tolist(), "int24")
    assert signal.value_range == (-(2**23), 2**23)


def test_beyond_the_limit_of_wav_comes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_WAV_LIMIT", 100)
    signal = sound_of("int16")
    files.write(tmp_path / "a.wav", signal)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert_same(files.read(tmp_path / "a.wav"), signal)


@pytest.mark.parametrize(("suffix", "dtype"), KEPT)
def test_the_same_samples_give_the_same_bytes(suffix, dtype, tmp_path):
    files.write(tmp_path / f"a{suffix}", sound_of(dtype))
    data = (tmp_path / f"a{suffix}").read_bytes()
    place = data.find(b"PEAK")
    assert place < 0 or data[place + 12 : place + 16] == bytes(4)  # the date, the only thing that could differ
    files.write(tmp_path / f"b{suffix}", sound_of(dtype))
    assert (tmp_path / f"b{suffix}").read_bytes() == data


@pytest.mark.parametrize(
    ("name", "subtype", "dtype"),
    [
        ("a.aiff", "PCM_16", "int16"),
        ("a.aiff", "PCM_S8", "int8"),
        ("a.au", "PCM_24", "int24"),
        ("a.caf", "PCM_16", "int16"),
        ("a.wav", "ULAW", "int16"),
        ("a.ogg", "VORBIS", "float32"),
        ("a.mp3", "MPEG_LAYER_III", "float32"),
    ],
)
def test_other_formats_are_read(name, subtype, dtype, tmp_path, lines):
    tone = np.round(8000 * np.sin(np.arange(8000)[:, None] / [10, 30])).astype(np.int16)
    # Written from floats: libsndfile 1.2.2 makes noise of 16-bit stereo that is written as MP3.
    soundfile.write(tmp_path / name, tone / 32768, 16000, subtype=subtype)
    (tmp_path / name).rename(tmp_path / "a.raw")  # content counts, and soundfile takes this name for a format
    signal = files.read(tmp_path / "a.raw")
    assert (signal.dtype, signal.channels, signal.sampling_rate) == (dtype, 2, 16000)
    assert signal.shape == (8000,)
    scale = 32768 if dtype == "float32" else 32768 / 2 ** (int(dtype[3:]) - 1)
    middle = slice(1000, -1000)  # MP3 loses the very beginning
    np.testing.assert_allclose(signal.values[middle] * scale, tone[middle], atol=1000)
    assert lines() == []


# What is said


def test_32_bit_integers_are_kept_and_the_loss_is_said(lines):
    signal = sound_of("int32")
    assert_same(there_and_back(signal, ".wav"), signal)
    assert lines() == ["holds 32-bit integers; networks compute in float32, which keeps the upper 24 bits"]


@pytest.mark.parametrize(
    ("dtype", "suffix", "stored", "line"),
    [
        ("float32", ".flac", "int24", "float32 samples are written as int24; choose .npy, .zarr, .wav to keep them"),
        ("float64", ".flac", "int24", "float64 samples are written as int24; choose .npy, .zarr, .wav to keep them"),
        ("int32", ".flac", "int24", "int32 samples are written as int24; choose .npy, .zarr, .wav to keep them"),
        ("float16", ".wav", "float32", "float16 samples are written as float32; choose .npy, .zarr to keep them"),
        ("uint8", ".wav", "int16", "uint8 samples are written as int16; choose .npy, .zarr to keep them"),
        ("uint16", ".flac", "int24", "uint16 samples are written as int24; choose .npy, .zarr to keep them"),
    ],
)
def test_stand_ins(dtype, suffix, stored, line, lines):
    values = np.array([[0.25], [-0.5], [0.125]])
    if dtype == "int32":
        values *= 2**31
    elif dtype.startswith("uint"):
        values = np.array([[0], [7], [255]])
    found = there_and_back(Signal.from_array(values.astype(dtype), "audio", sampling_rate=8000), suffix)
    assert lines() == [line]
    assert found.dtype == stored
    scale = 1 if stored == "float32" or dtype.startswith("uint") else 2**23 if dtype != "int32" else 2**-8
    np.testing.assert_array_equal(found.values, values * scale)


def test_loud_floats_are_cut_in_flac_and_it_is_said(lines):
    values = np.array([[2.0], [-2.0]], np.float32)
    found = there_and_back(Signal.from_array(values, "audio", sampling_rate=8000), ".flac")
    assert found.values.ravel().tolist() == [2**23 - 1, -(2**23)]
    assert lines() == [
        "float32 samples are written as int24, those beyond [-1, 1] are cut; choose .npy, .zarr, .wav to keep them"
    ]


@pytest.mark.parametrize(
    ("rate", "written", "line"),
    [
        (None, 44100, "the sampling rate is unknown; 44100 samples per second are written"),
        (Fraction(44101, 2), 22050, "the sampling rate is 22050.5; 22050 samples per second are written"),
        (Fraction(1, 3), 1, "the sampling rate is 0.333333; 1 samples per second are written"),
    ],
)
def test_rates_that_no_file_holds(rate, written, line, lines):
    assert there_and_back(sound_of("int16", rate=rate), ".wav").sampling_rate == written
    assert lines() == [line]


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_read_to_its_end(length, tmp_path, lines):
    signal = sound_of("int16")
    files.write(tmp_path / "a.wav", signal)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, length)
    (tmp_path / "a.wav").write_bytes(data)
    assert_same(files.read(tmp_path / "a.wav"), signal)
    assert lines() == ["its header does not say how long it is; it is read to its end"]


def test_messages_name_the_file_and_not_the_temporary_one(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lgsirens"), "propagate", True)
    files.write(tmp_path / "a.wav", sound_of("int16", rate=None))
    assert caplog.messages[0].startswith(f"{tmp_path / 'a.wav'}: ")


# Content


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", True),
        (b"RF64\xff\xff\xff\xffWAVEds64", True),
        (b"RIFF\0\0\0\0AVI LIST", False),
        (b"RIFF\0\0\0\0WEBPVP8 ", False),
        (b"fLaC\0\0\0\x22", True),
        (b"FORM\0\0\0\0AIFFCOMM", True),
        (b"FORM\0\0\0\0AIFCFVER", True),
        (b"FORM\0\0\0\0ILBMBMHD", False),
        (b"OggS\0\2" + bytes(20) + b"\1\x1e\1vorbis", True),
        (b"OggS\0\2" + bytes(20) + b"\1\x2a\x80theora", False),
        (b"ID3\3\0\0\0\0\0\0\0\0", True),
        (b"\xff\xfb\x90\x64" + bytes(8), True),
        (b"\xff\xfd\x90\x04" + bytes(8), True),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1", False),
        (b"\xff\xf1\x50\x80" + bytes(8), False),  # AAC
        ("to be, or not to be".encode("utf-16"), False),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", False),
        (b"\0\0\0\x20ftypisom", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_content_tells_sounds(head, expected):
    form = recognised(head)
    assert (form is not None and form.kinds == ("audio",)) is expected


# Another program


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "dtype"), KEPT)
def test_sox_reads_what_is_written(suffix, dtype, tmp_path):
    if shutil.which("soxi") is None:
        pytest.fail("install sox: apt-get install -y sox")
    path = tmp_path / f"a{suffix}"
    signal = sound_of(dtype, 1234, 3, 22050)
    files.write(path, signal)
    told = {flag: int(_run("soxi", flag, path)) for flag in ("-s", "-r", "-c", "-b")}
    bits = int(dtype.lstrip("intfloa"))
    assert told == {"-s": 1234, "-r": 22050, "-c": 3, "-b": bits}
    if dtype.startswith("int"):  # sox computes with 32-bit integers
        decoded = _run("sox", path, "-t", "raw", "-e", "signed", "-b", "32", "-L", "-")
        expected = (signal.values.astype("<i8") << (32 - bits)).astype("<i4")
        assert hashlib.sha256(decoded).digest() == hashlib.sha256(expected.tobytes()).digest()


def _run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("number", range(1, 8))
def test_a_write_that_fails_within_libsndfile_is_told(tmp_path, monkeypatch, suffix, number):
    """Of an error in what it calls back it hears nothing: too little memory for a header left one without samples."""
    calls = itertools.count(1)

    class Failing(io.BufferedRandom):
        def write(self, data):
            if next(calls) == number:
                raise MemoryError
            return super().write(data)

    wave = Signal.from_array(np.arange(2000, dtype=np.int16), "audio", None, 8000)
    files.write(tmp_path / f"whole{suffix}", wave)
    monkeypatch.setattr("io.BufferedRandom", Failing)
    monkeypatch.setattr("sys.unraisablehook", lambda told: None)
    path = tmp_path / f"a{suffix}"
    with contextlib.suppress(Exception):
        files.write(path, wave)
    assert not path.exists() or files.read(path).values.tobytes() == wave.values.tobytes()
