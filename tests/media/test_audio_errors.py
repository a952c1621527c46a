"""Sounds that cannot be read or written: one clear line, and nothing left behind."""

import errno
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.media import audio, files
from lgsirens.media.stored import Stored
from lgsirens.signal import Signal
from tests.sounds import noise, sound_of


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


def picture() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Image.new("L", (9, 9)).save(Path(folder) / "a.png")
        return (Path(folder) / "a.png").read_bytes()


def flipped(suffix: str) -> bytes:
    data = bytearray(cut(suffix, 1))
    data[len(data) // 2] ^= 0x55
    return bytes(data)


UNREADABLE = {
    "truncated WAV": lambda: cut(".wav", 0.6),
    "WAV less one byte": lambda: cut(".wav", 1)[:-1],
    "WAV header only": lambda: cut(".wav", 1)[:40],
    "WAV start only": lambda: cut(".wav", 1)[:20],
    "truncated RF64": lambda: cut(".wav", 0.6, "RF64"),
    "truncated AIFF": lambda: cut(".aiff", 0.6),
    "truncated AU": lambda: cut(".au", 0.6),
    "truncated CAF": lambda: cut(".caf", 0.6),
    "truncated FLAC": lambda: cut(".flac", 0.6),
    "FLAC start only": lambda: cut(".flac", 1)[:30],
    "damaged FLAC": lambda: flipped(".flac"),
    "truncated Ogg": lambda: cut(".ogg", 0.6),
    "no samples": lambda: raw_wav(np.zeros((0, 1)), "PCM_16"),
    "NaN": lambda: raw_wav(np.array([0, np.nan, 1]), "FLOAT"),
    "infinite": lambda: raw_wav(np.array([0, np.inf, -np.inf]), "DOUBLE"),
    "huge": lambda: raw_wav(np.array([0, 1e300]), "DOUBLE"),
    "65 channels": lambda: raw_wav(np.zeros((9, 65)), "PCM_16"),
    "text": lambda: b"to be, or not to be: that is the question",
    "empty": lambda: b"",
    "picture": picture,
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_are_one_clear_line(name, tmp_path, capfd):
    path = tmp_path / "a.wav"
    path.write_bytes(UNREADABLE[name]())
    with pytest.raises(SignalError) as caught:
        files.read(path, "audio")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert " object at " not in message
    assert capfd.readouterr().err == ""


def test_a_truncated_flac_is_refused_wherever_it_is_cut(tmp_path):
    data = cut(".flac", 1)
    for size in range(50, len(data), 997):
        (tmp_path / "a.flac").write_bytes(data[:size])
        with pytest.raises(SignalError, match=r"a\.flac: "):
            files.read(tmp_path / "a.flac")


def test_a_shortened_mp3_is_read_and_that_is_said(tmp_path, lines):
    (tmp_path / "a.mp3").write_bytes(cut(".mp3", 0.6))
    assert 0 < files.read(tmp_path / "a.mp3").shape[0] < 20000
    assert len(lines()) == 1
    assert "it may be cut short" in lines()[0]


UNWRITABLE = {
    "9 channels in FLAC": ("a.flac", lambda: sound_of("int16", 9, 9)),
    "65 channels": ("a.wav", lambda: Signal(np.zeros((9, 65)), "audio", (-1, 1), "int16")),
    "64-bit integers": ("a.wav", lambda: sound_of("int64", 9, 1)),
    "a high rate": ("a.flac", lambda: sound_of("int16", 9, 1, 10**6)),
    "an odd high rate": ("a.flac", lambda: sound_of("int16", 9, 1, 65537)),
    "another suffix": ("a.xyz", lambda: sound_of("int16", 9, 1)),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_unwritable_sounds_are_one_clear_line(name, tmp_path):
    file, make = UNWRITABLE[name]
    with pytest.raises(SignalError) as caught:
        files.write(tmp_path / file, make())
    assert str(caught.value).startswith(f"{tmp_path / file}: ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sounds_are_checked_before_any_work():
    files.check_format("a.WAV", "audio", 64, "float64")
    with pytest.raises(SignalError, match=r"a\.flac: "):
        files.check_format("a.flac", "audio", 9, "int16")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("name", audio.SUBTYPES)
@pytest.mark.parametrize("length", [5, 100_000])
def test_a_full_disk_is_an_os_error(name, length, capfd):
    sound = Stored(Path("a"), sound_of("int16", length), "int16", None)
    with pytest.raises(OSError, match="No space left") as caught:
        audio.save_sound(Path("/dev/full"), sound, name)
    assert caught.value.errno == errno.ENOSPC
    assert capfd.readouterr().err == ""


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    files.write(tmp_path / "a.wav", sound_of("int16"))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"a.wav: .*pip install 'lgsirens\[audio\]'"):
        files.read(tmp_path / "a.wav")
    with pytest.raises(MissingDependencyError, match=r"lgsirens\[audio\]"):
        files.write(tmp_path / "b.wav", sound_of("int16"))
