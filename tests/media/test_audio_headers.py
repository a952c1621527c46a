"""Whole sounds whose headers mislead: no length, joined streams, codings that libsndfile does not know, layouts."""

import io
import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.media import files
from tests.sounds import noise

ENDLESS = "its header does not say how long it is; it is read to its end"
VALUES = noise(501, 2, "int16")

# Where and how each format holds the length of its samples, and what is counted with them.
LENGTHS = {
    "WAV": (b"data", 4, "<I", 0),
    "RF64": (b"ds64", 16, "<Q", 0),
    "AIFF": (b"SSND", 4, ">I", 8),
    "AU": (b".snd", 8, ">I", 0),
    "CAF": (b"data", 4, ">q", 4),
}


def written(container: str, values: np.ndarray = VALUES, **options: str) -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, values, 8000, format=container, **options)
    return bytearray(file.getvalue())


def with_length(container: str, length: int) -> bytearray:
    content, (name, beyond, form, _) = written(container), LENGTHS[container]
    struct.pack_into(form, content, content.index(name) + beyond, length)
    return content


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(SignalError) as caught:
        files.read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("container", "length"),
    [
        *[(container, 0) for container in LENGTHS],
        *[("AIFF", 8), ("CAF", 4), ("CAF", -1)],
        *[("WAV", 0xFFFFFFFF), ("WAV", 0x80000000), ("AU", 0xFFFFFFFF), ("RF64", (1 << 64) - 1)],
    ],
)
def test_a_recorder_that_crashed_leaves_no_length(tmp_path, lines, container, length):
    (tmp_path / "a").write_bytes(with_length(container, length))
    result = files.read(tmp_path / "a")
    assert (result.dtype, result.sampling_rate) == ("int16", 8000)
    assert np.array_equal(result.values, VALUES)
    assert lines() == [ENDLESS]


@pytest.mark.parametrize("container", LENGTHS)
def test_a_length_that_is_stated_counts(tmp_path, container):
    content = written(container)
    lost = 4 + len(content) - len(content.rstrip(b"\0"))
    assert "is cut short" in refused(tmp_path / "a", content[:-lost])
    assert "no samples" in refused(tmp_path / "a", written(container, VALUES[:0]))


def test_what_follows_no_samples_is_no_sound(tmp_path):
    empty = written("WAV", VALUES[:0])
    assert "no samples" in refused(tmp_path / "a.wav", empty + b"LIST" + struct.pack("<I", 4) + b"INFO")


def test_a_length_that_is_no_whole_number_of_samples_is_rounded_down(tmp_path, lines):
    (tmp_path / "a.wav").write_bytes(with_length("WAV", 4 * 501 + 3))
    assert np.array_equal(files.read(tmp_path / "a.wav").values, VALUES)
    assert lines() == []


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        *[("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
        *[(container, "PCM_16") for container in ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF")],
    ],
)
def test_joined_sounds_follow_one_another(tmp_path, lines, container, subtype):
    parts = [np.sin(np.arange(9000) / length)[:, None] / 2 for length in (20, 30, 40)]
    contents = [written(container, part, subtype=subtype) for part in parts]
    (tmp_path / "a").write_bytes(b"".join(contents))
    result = files.read(tmp_path / "a")
    dtype = "float32" if container == "OGG" else "int32"
    expected = np.concatenate([soundfile.read(io.BytesIO(content), dtype=dtype)[0] for content in contents])
    shift = {"int16": 16, "int24": 8}.get(result.dtype)
    assert np.array_equal(result.values[:, 0], expected if shift is None else expected >> shift)
    assert lines() == ["is 3 sounds joined; they follow one another"]
    if container != "FLAC":
        assert "is cut short" in refused(tmp_path / "a", b"".join(contents)[:-2])


def test_joined_mp3_with_tags_is_read_to_its_end(tmp_path, lines):
    content = coded(tmp_path / "a.mp3", "libmp3lame").read_bytes()
    single = files.read(tmp_path / "a.mp3").values
    assert content.startswith(b"ID3")
    (tmp_path / "a.mp3").write_bytes(2 * content)
    assert np.array_equal(files.read(tmp_path / "a.mp3").values, np.concatenate([single, single]))
    assert lines() == ["is 2 sounds joined; they follow one another"]


def test_joined_sounds_that_differ_are_refused(tmp_path):
    content = written("FLAC") + written("FLAC", VALUES[:, :1])
    assert "joins sounds that differ" in refused(tmp_path / "a.flac", content)


SAMPLES = (np.sin(np.arange(4800) / 20) * 2**30).astype(np.int32)


def coded(path: Path, codec: str, **options: str) -> Path:
    """`SAMPLES` as FFmpeg codes them."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(SAMPLES[None], "s32", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        format, size = stream.codec_context.format.name, stream.frame_size or None
        for piece in av.AudioResampler(format, "mono", 48000, size).resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def checksum(data: bytes, polynomial: int, bits: int) -> bytes:
    value, mask = 0, (1 << bits) - 1
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> bits - 1 else 0)) & mask
    return value.to_bytes(bits // 8)


def flac_of_32_bits(path: Path) -> Path:
    """`SAMPLES` in frames of 600 that keep them as they are (RFC 9639, which no encoder of PyAV offers)."""
    head = struct.pack(">HH6xQ16x", 600, 600, 48000 << 44 | 31 << 36 | len(SAMPLES))
    content = b"fLaC\x80\0\0\x22" + head
    for number in range(len(SAMPLES) // 600):
        frame = struct.pack(">HBBBH", 0xFFF8, 0x70, 0x0E, number, 599)
        frame += checksum(frame, 0x07, 8) + b"\2" + SAMPLES[number * 600 :][:600].astype(">i4").tobytes()
        content += frame + checksum(frame, 0x8005, 16)
    path.write_bytes(content)
    return path


def test_flac_of_32_bits_is_read_exactly(tmp_path, lines):
    result = files.read(flac_of_32_bits(tmp_path / "a.flac"))
    assert (result.dtype, result.sampling_rate) == ("int32", 48000)
    assert np.array_equal(result.values[:, 0], SAMPLES)
    assert lines() == ["holds 32-bit integers; networks compute in float32, which keeps the upper 24 bits"]


def test_flac_of_32_bits_is_refused_where_it_is_cut_or_damaged_or_without_pyav(tmp_path, monkeypatch):
    content = flac_of_32_bits(tmp_path / "a.flac").read_bytes()
    for share in (0.3, 0.6, 0.99):
        refused(tmp_path / "b.flac", content[: int(share * len(content))])
    for place in (0.7, 0.9):
        damaged = bytearray(content)
        damaged[int(place * len(content))] ^= 0x55
        refused(tmp_path / "b.flac", damaged)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match="its coding needs av"):
        files.read(tmp_path / "a.flac")


def test_flac_from_a_pipe_is_read_to_its_end(tmp_path, lines):
    content = written("FLAC", subtype="PCM_24")
    content[21] &= 0xF0  # the number of samples, 36 bits
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    result = files.read(tmp_path / "a.flac")
    assert result.dtype == "int24"
    assert np.array_equal(result.values, VALUES.astype(np.int32) << 8)
    assert lines() == [ENDLESS]


@pytest.mark.parametrize(
    *("codec", ["libmp3lame", "mp2", "ac3", "adpcm_ms", "adpcm_ima_wav", "adpcm_yamaha", "pcm_mulaw", "pcm_alaw"])
)
def test_lossy_sounds_in_wav_are_read(tmp_path, codec):
    result = files.read(coded(tmp_path / "a.wav", codec))
    values = result.values[:, 0] / (2.0**15 if result.dtype == "int16" else 1.0)
    delays = range(len(values) - 3000)  # codecs begin with some silence
    assert min(np.std(values[delay : delay + 3000] - SAMPLES[:3000] / 2**31) for delay in delays) < 0.02
    content = (tmp_path / "a.wav").read_bytes()
    assert "is cut short" in refused(tmp_path / "b.wav", content[: len(content) // 2])


def test_codings_that_nothing_reads_are_refused(tmp_path):
    content = written("WAV")
    struct.pack_into("<H", content, 20, 0x1234)
    assert "its coding is not known" in refused(tmp_path / "a.wav", content)


def test_flac_in_ogg_is_read_exactly_and_refused_where_it_is_cut(tmp_path, lines):
    expected = files.read(coded(tmp_path / "a.flac", "flac"))
    content = coded(tmp_path / "a.ogg", "flac").read_bytes()
    (tmp_path / "b.ogg").write_bytes(2 * content)
    result, twice = files.read(tmp_path / "a.ogg"), files.read(tmp_path / "b.ogg")
    assert (result.dtype, result.sampling_rate) == ("int16", 48000)
    assert np.array_equal(result.values, expected.values)
    assert np.array_equal(twice.values, np.concatenate(2 * [expected.values]))
    for kept in (len(content) - 1, len(content) * 3 // 4):
        assert "is cut short" in refused(tmp_path / "b.ogg", content[:kept])
    assert lines() == ["is 2 sounds joined; they follow one another"]


def test_speex_is_read_and_refused_where_it_is_cut(tmp_path, lines):
    content = Path(__file__).with_name("tone.spx").read_bytes()  # 4800 samples at 8000 Hz, by libspeex
    (tmp_path / "a.spx").write_bytes(content)
    values = files.read(tmp_path / "a.spx").values[:, 0]
    assert 4800 <= len(values) < 5200
    assert np.abs(np.fft.rfft(values[:4000])).argmax() == 200  # 400 Hz
    for kept in (len(content) - 1, len(content) * 3 // 4):
        assert "is cut short" in refused(tmp_path / "a.spx", content[:kept])
    assert lines() == []


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_without_its_last_bytes_is_cut_short(tmp_path, lines, subtype):
    content = written("OGG", subtype=subtype)
    for kept in (len(content) - 1, len(content) * 3 // 4):
        assert "is cut short" in refused(tmp_path / "a.ogg", content[:kept])
    assert lines() == []


def test_ogg_whose_last_page_is_not_marked_may_be_cut_short(tmp_path, lines):
    content = written("OGG", subtype="VORBIS")
    page = content.rindex(b"OggS")
    content[page + 5] &= 3
    content[page + 22 : page + 26] = bytes(4)
    content[page + 22 : page + 26] = checksum(content[page:], 0x04C11DB7, 32)[::-1]
    (tmp_path / "a.ogg").write_bytes(content)
    assert len(files.read(tmp_path / "a.ogg").values) == len(VALUES)
    assert lines() == ["its last page does not say that it is the last; it may be cut short"]


def test_mp3_in_wav_that_has_all_its_bytes_is_whole(tmp_path, lines):
    files.read(coded(tmp_path / "a.wav", "libmp3lame"))
    assert lines() == []


@pytest.mark.parametrize(
    ("channels", "mask", "said"), [(1, 4, 0), (1, 2, 1), (1, 0, 0), (2, 3, 0), (2, 9, 1), (2, 0, 0)]
)
def test_only_unusual_layouts_of_one_or_two_channels_are_said_to_be_left_out(tmp_path, lines, channels, mask, said):
    content = written("WAVEX", VALUES[:, :channels])
    struct.pack_into("<I", content, content.index(b"fmt ") + 28, mask)
    (tmp_path / "a.wav").write_bytes(content)
    assert np.array_equal(files.read(tmp_path / "a.wav").values, VALUES[:, :channels])
    assert lines() == said * ["where its channels are heard is left out; they keep their order"]


def test_the_layout_of_alac_in_caf_is_said_to_be_left_out(tmp_path, lines):
    with av.open(tmp_path / "a.caf", "w") as container:
        stream = container.add_stream("alac", rate=8000, layout="5.1")
        frame = av.AudioFrame.from_ndarray(noise(4096, 6, "int16").T.copy(), "s16p", "5.1")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.array_equal(files.read(tmp_path / "a.caf").values, noise(4096, 6, "int16").astype(np.int32) << 8)
    assert lines() == ["where its channels are heard is left out; they keep their order"]


@pytest.mark.parametrize(("container", "stated"), [("WAV", False), ("WAVEX", True), ("FLAC", True), ("AIFF", False)])
def test_layouts_of_loudspeakers_are_said_to_be_left_out(tmp_path, lines, container, stated):
    values = noise(300, 6, "int16")
    (tmp_path / "a").write_bytes(written(container, values))
    assert np.array_equal(files.read(tmp_path / "a").values, values)
    line = "where its channels are heard is left out; they keep their order"
    assert lines() == ([line] if stated else [])
    (tmp_path / "b").write_bytes(written(container, values[:, :2]))
    files.read(tmp_path / "b")
    assert len(lines()) == stated
