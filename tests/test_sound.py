"""Sound files: round trips through real files, sample types, what is said, errors."""

import errno
import hashlib
import logging
import shutil
import struct
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lgsirens import sound
from lgsirens.atomic import replacing
from lgsirens.errors import MissingDependencyError, RunError, SignalError
from lgsirens.signal import Signal
from lgsirens.sound import FORMATS, check_sound, looks_like_sound, package_for_sound, read_sound, save_sound

RATES = st.integers(8000, 96000)
LENGTHS = st.integers(1, 2000)
CHANNELS = st.integers(1, 4)
SEEDS = st.integers(0, 2**32 - 1)
KEPT = [(suffix, dtype) for suffix, form in FORMATS.items() for dtype in form.subtypes]


@pytest.fixture
def lines(caplog, monkeypatch):
    """What was logged since, without the path."""
    monkeypatch.setattr(logging.getLogger("lgsirens"), "propagate", True)  # the command line turns it off
    return lambda: [record.getMessage().split(": ", 1)[1] for record in caplog.records if record.name == "lgsirens"]


def noise(length: int, channels: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Random samples `[S, C]` over the whole type, its limits included; floats beyond [-1, 1]."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(0, 1, (length, channels)).astype(dtype)
    bits = int(dtype[3:])
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    values = rng.integers(low, high, (length, channels), np.int64, endpoint=True)
    values.flat[[0, -1]] = high, low
    return values.astype("int32" if dtype == "int24" else dtype)


def sound_of(dtype: str, length: int = 500, channels: int = 2, rate: Fraction | int | None = 44100, seed: int = 0):
    return Signal.from_array(noise(length, channels, dtype, seed), "audio", sampling_rate=rate, dtype=dtype)


def there_and_back(signal: Signal, suffix: str) -> Signal:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        save_sound(path, signal)
        return read_sound(path)


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
    if not FORMATS[suffix].holds_rate(rate):
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
    signal = sound_of("int24", 3 * sound._BLOCK + 7, 1)
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
    save_sound(tmp_path / "a.wav", Signal.from_array(values, "audio", sampling_rate=8000))
    assert bytes([0, 128, 255]) in (tmp_path / "a.wav").read_bytes()


def test_24_bit_samples_are_24_bit_numbers(tmp_path):
    values = np.array([1, -1, 2**23 - 1, -(2**23)], np.int32)
    soundfile.write(tmp_path / "a.wav", values << 8, 8000, subtype="PCM_24")
    signal = read_sound(tmp_path / "a.wav")
    assert (signal.values.ravel().tolist(), signal.dtype) == (values.tolist(), "int24")
    assert signal.value_range == (-(2**23), 2**23)


def test_beyond_the_limit_of_wav_comes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(sound, "_WAV_LIMIT", 100)
    signal = sound_of("int16")
    save_sound(tmp_path / "a.wav", signal)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert_same(read_sound(tmp_path / "a.wav"), signal)


@pytest.mark.parametrize(("suffix", "dtype"), KEPT)
def test_the_same_samples_give_the_same_bytes(suffix, dtype, tmp_path):
    save_sound(tmp_path / f"a{suffix}", sound_of(dtype))
    data = (tmp_path / f"a{suffix}").read_bytes()
    place = data.find(b"PEAK")
    assert place < 0 or data[place + 12 : place + 16] == bytes(4)  # the date, the only thing that could differ
    save_sound(tmp_path / f"b{suffix}", sound_of(dtype))
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
    signal = read_sound(tmp_path / "a.raw")
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
        ("float32", ".flac", "int24", "float32 samples are written as int24; .wav keeps them"),
        ("float64", ".flac", "int24", "float64 samples are written as int24; .wav keeps them"),
        ("int32", ".flac", "int24", "int32 samples are written as int24; .wav keeps them"),
        ("float16", ".wav", "float32", "float16 samples are written as float32"),
        ("uint8", ".wav", "int16", "uint8 samples are written as int16"),
        ("uint16", ".flac", "int24", "uint16 samples are written as int24"),
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
    assert lines() == ["float32 samples are written as int24, those beyond [-1, 1] are cut; .wav keeps them"]


@pytest.mark.parametrize(
    ("rate", "written", "line"),
    [
        (None, 44100, "the sampling rate is not known; 44100 samples per second are written"),
        (Fraction(44101, 2), 22050, "the sampling rate of 22050.5 per second is written as 22050"),
        (Fraction(1, 3), 1, "the sampling rate of 0.333333 per second is written as 1"),
    ],
)
def test_rates_that_no_file_holds(rate, written, line, lines):
    assert there_and_back(sound_of("int16", rate=rate), ".wav").sampling_rate == written
    assert lines() == [line]


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_read_to_its_end(length, tmp_path, lines):
    signal = sound_of("int16")
    save_sound(tmp_path / "a.wav", signal)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, length)
    (tmp_path / "a.wav").write_bytes(data)
    assert_same(read_sound(tmp_path / "a.wav"), signal)
    assert lines() == ["its header does not say how long it is; it is read to its end"]


def test_messages_name_the_file_and_not_the_temporary_one(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lgsirens"), "propagate", True)
    path = tmp_path / "a.wav"
    with replacing(path) as temporary:
        save_sound(temporary, sound_of("int16", rate=None), path)
    assert caplog.messages[0].startswith(f"{path}: ")
    assert read_sound(path).shape == (500,)


# Errors


def raw_wav(values: np.ndarray, subtype: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "a.wav", values, 8000, subtype=subtype)
        return (Path(folder) / "a.wav").read_bytes()


def cut(suffix: str, part: float, container: str | None = None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        soundfile.write(path, noise(20000, 1, "int16"), 8000, format=container)
        data = path.read_bytes()
        return data[: int(len(data) * part)]


def flac_from_a_pipe() -> bytes:
    data = bytearray(cut(".flac", 1))
    data[21] &= 0xF0  # the number of samples in STREAMINFO, 36 bits
    data[22:26] = bytes(4)
    return bytes(data)


def picture() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Image.new("L", (9, 9)).save(Path(folder) / "a.png")
        return (Path(folder) / "a.png").read_bytes()


def flipped(suffix: str) -> bytes:
    data = bytearray(cut(suffix, 1))
    data[len(data) // 2] ^= 0x55
    return bytes(data)


UNREADABLE = {
    "truncated WAV": (lambda: cut(".wav", 0.6), "is cut short: 24026 of 40044 bytes are there; get or save"),
    "WAV less one byte": (lambda: cut(".wav", 1)[:-1], "is cut short"),
    "WAV header only": (lambda: cut(".wav", 1)[:40], "No 'data' chunk marker; get or save"),
    "WAV start only": (lambda: cut(".wav", 1)[:20], "damaged"),
    "truncated RF64": (lambda: cut(".wav", 0.6, "RF64"), "is cut short"),
    "truncated AIFF": (lambda: cut(".aiff", 0.6), "is cut short"),
    "truncated AU": (lambda: cut(".au", 0.6), "is cut short"),
    "truncated CAF": (lambda: cut(".caf", 0.6), "damaged"),
    "truncated FLAC": (lambda: cut(".flac", 0.6), "damaged: flac decoder lost sync; get or save"),
    "FLAC start only": (lambda: cut(".flac", 1)[:30], "damaged"),
    "damaged FLAC": (lambda: flipped(".flac"), "damaged"),
    "FLAC from a pipe": (flac_from_a_pipe, "does not say how long it is; convert it"),
    "truncated Ogg": (lambda: cut(".ogg", 0.6), "get or save the file again"),
    "no samples": (lambda: raw_wav(np.zeros((0, 1)), "PCM_16"), "holds no samples"),
    "NaN": (lambda: raw_wav(np.array([0, np.nan, 1]), "FLOAT"), "1 samples are NaN or infinite; replace"),
    "infinite": (lambda: raw_wav(np.array([0, np.inf, -np.inf]), "DOUBLE"), "2 samples are NaN or infinite"),
    "huge": (lambda: raw_wav(np.array([0, 1e300]), "DOUBLE"), "no range of float32"),
    "65 channels": (lambda: raw_wav(np.zeros((9, 65)), "PCM_16"), "1 to 64 channels"),
    "text": (lambda: b"to be, or not to be: that is the question", "is no WAV, FLAC"),
    "empty": (lambda: b"", "is no WAV, FLAC"),
    "picture": (picture, "is no WAV, FLAC"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_are_one_clear_line(name, tmp_path, capfd):
    make, reason = UNREADABLE[name]
    path = tmp_path / "a.wav"
    path.write_bytes(make())
    with pytest.raises(SignalError) as caught:
        read_sound(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert " object at " not in message
    assert capfd.readouterr().err == ""


def test_a_truncated_flac_is_refused_wherever_it_is_cut(tmp_path):
    data = cut(".flac", 1)
    for size in range(50, len(data), 997):
        (tmp_path / "a.flac").write_bytes(data[:size])
        with pytest.raises(SignalError, match="cut short|damaged"):
            read_sound(tmp_path / "a.flac")


def test_a_shortened_mp3_is_read_and_that_is_said(tmp_path, lines):
    (tmp_path / "a.mp3").write_bytes(cut(".mp3", 0.6))
    assert 0 < read_sound(tmp_path / "a.mp3").shape[0] < 20000
    assert len(lines()) == 1
    assert "it may be cut short" in lines()[0]


UNWRITABLE = {
    "9 channels in FLAC": ("a.flac", lambda: sound_of("int16", 9, 9), "FLAC holds at most 8 channels, the sound has 9"),
    "65 channels": ("a.wav", lambda: Signal(np.zeros((9, 65)), "audio", (-1, 1), "int16"), "at most 64 channels"),
    "64-bit integers": ("a.wav", lambda: sound_of("int64", 9, 1), "cannot hold samples of type int64; choose .npy"),
    "a high rate": ("a.flac", lambda: sound_of("int16", 9, 1, 10**6), "FLAC cannot hold 1000000 samples"),
    "an odd high rate": ("a.flac", lambda: sound_of("int16", 9, 1, 65537), "FLAC cannot hold 65537 samples per second"),
    "another suffix": ("a.xyz", lambda: sound_of("int16", 9, 1), "choose .wav, .flac"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_unwritable_sounds_are_one_clear_line(name, tmp_path):
    file, make, reason = UNWRITABLE[name]
    with pytest.raises(SignalError) as caught:
        save_sound(tmp_path / file, make())
    assert str(caught.value).startswith(f"{tmp_path / file}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / file).exists()


def test_check_sound_needs_no_signal():
    check_sound(Path("a.WAV"), 64, "float64")
    with pytest.raises(SignalError, match="8 channels"):
        check_sound(Path("a.flac"), 9, "int16")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("length", [5, 100_000])
def test_a_full_disk_is_an_os_error(suffix, length, capfd):
    with pytest.raises(OSError, match="No space left") as caught:
        save_sound(Path("/dev/full"), sound_of("int16", length), Path(f"a{suffix}"))
    assert caught.value.errno == errno.ENOSPC
    assert capfd.readouterr().err == ""


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sound._Quiet, "write", _no_space)
    with pytest.raises(RunError, match=r"a\.wav: cannot be written: No space"), replacing(tmp_path / "a.wav") as path:
        save_sound(path, sound_of("int16"))
    assert list(tmp_path.iterdir()) == []


def _no_space(self, data):
    self.error = OSError(errno.ENOSPC, "No space left on device")
    return 0


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    save_sound(tmp_path / "a.wav", sound_of("int16"))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"a.wav: .*pip install 'lgsirens\[audio\]'"):
        read_sound(tmp_path / "a.wav")
    with pytest.raises(MissingDependencyError, match=r"lgsirens\[audio\]"):
        save_sound(tmp_path / "b.wav", sound_of("int16"))
    assert package_for_sound("int16", 1) == "soundfile"


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
    assert looks_like_sound(head) is expected


# Another program


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "dtype"), KEPT)
def test_sox_reads_what_is_written(suffix, dtype, tmp_path):
    if shutil.which("soxi") is None:
        pytest.fail("install sox: apt-get install -y sox")
    path = tmp_path / f"a{suffix}"
    signal = sound_of(dtype, 1234, 3, 22050)
    save_sound(path, signal)
    told = {flag: int(_run("soxi", flag, path)) for flag in ("-s", "-r", "-c", "-b")}
    bits = int(dtype.lstrip("intfloa"))
    assert told == {"-s": 1234, "-r": 22050, "-c": 3, "-b": bits}
    if dtype.startswith("int"):  # sox computes with 32-bit integers
        decoded = _run("sox", path, "-t", "raw", "-e", "signed", "-b", "32", "-L", "-")
        expected = (signal.values.astype("<i8") << (32 - bits)).astype("<i4")
        assert hashlib.sha256(decoded).digest() == hashlib.sha256(expected.tobytes()).digest()


def _run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout
