"""Sounds that cannot be read or written: one clear line, and nothing left behind."""

import errno
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from lgsirens.errors import MissingDependencyError, RunError, SignalError
from lgsirens.media import audio
from lgsirens.media.audio import FORMATS, check_sound, package_for_sound, read_sound, save_sound
from lgsirens.signal import Signal
from lgsirens.system.output import replacing
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
    monkeypatch.setattr(audio._Quiet, "write", _no_space)
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
