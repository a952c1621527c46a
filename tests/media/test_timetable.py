"""Whole films that look damaged, and damaged ones that look whole: last frames, joined films, those that begin late."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lgsirens.media import files
from tests.films import film, levels, refusal

CODECS = {".wmv": "wmv2", ".flv": "flv1"}


def slides(path: Path, last: int) -> Path:
    """Frames of 400 ms, the last one of `last` ms."""
    film(path.with_suffix(".avi"), 4, codec="mpeg4")
    with av.open(path.with_suffix(".avi")) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(old.demux(video=0)):
            if packet.size:
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = 400 * index
                packet.duration = last if index == 3 else 400
                new.mux(packet)
    return path


def test_a_last_frame_may_be_shown_longer_than_the_others(tmp_path, lines):
    result = files.read(slides(tmp_path / "a.mkv", 30000))
    assert levels(result) == [0, 1, 2, 3]
    assert result.sampling_rate == Fraction(5, 2)
    assert lines() == []


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("last", [400, 30000])
def test_without_its_last_bytes_it_is_cut_off(tmp_path, share, last):
    content = slides(tmp_path / "a.mkv", last).read_bytes()
    end = content.index(struct.pack(">I", 0x1C53BB6B), 600)  # the cues follow the last frame
    (tmp_path / "a.mkv").write_bytes(content[: int(share * end)])
    refusal(tmp_path / "a.mkv")


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.ts", "mpeg2video"), ("a.mpg", "mpeg1video")])
def test_joined_films_follow_one_another(tmp_path, lines, name, codec):
    content = film(tmp_path / name, 5, codec=codec).read_bytes()
    (tmp_path / name).write_bytes(3 * content)
    result = files.read(tmp_path / name)
    assert levels(result) == 3 * [0, 1, 2, 3, 4]
    assert result.sampling_rate == 30
    assert levels(files.read(tmp_path / name, frames=(4, 7))) == [4, 0, 1]
    assert set(lines()) == {"is 3 films joined; they follow one another"}


def pictures(path: Path, **options: str) -> Path:
    """30 frames in groups of 10, with frames between that need a later one."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "10", "bf": "2", "sc_threshold": "0"} | options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64), 8 * index, np.uint8), "gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1"}])
def test_a_film_that_begins_amid_a_group_loses_what_no_player_can_show(tmp_path, lines, options):
    whole = files.read(pictures(tmp_path / "a.ts", **options)).values
    content = (tmp_path / "a.ts").read_bytes()
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    second = [number for number, packet in enumerate(packets) if packet[1] & 0x40 and packet[1:3] != b"\x40\0"]
    (tmp_path / "b.ts").write_bytes(b"".join(packets[:3] + packets[second[8] :]))
    late = files.read(tmp_path / "b.ts").values
    assert len(whole) == 30
    assert 15 <= len(late) <= 20
    assert np.array_equal(late, whole[-len(late) :])
    assert len(lines()) == 1
    assert lines()[0].endswith("before its first key frame cannot be decoded; left out")


def test_a_film_whose_key_frame_is_damaged_is_refused(tmp_path):
    content = bytearray(pictures(tmp_path / "a.mp4").read_bytes())
    start = content.index(b"mdat") + 4
    start = content.index(b"\x65", start + 600)  # behind the encoder's own words: the slice of the first key frame
    content[start : start + 40] = bytes(40)
    (tmp_path / "a.mp4").write_bytes(content)
    refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.wmv", "a.flv"])
def test_joined_films_of_which_ffmpeg_does_not_read_all_are_refused(tmp_path, name):
    content = film(tmp_path / name, codec=CODECS.get(Path(name).suffix, "libx264")).read_bytes()
    (tmp_path / name).write_bytes(3 * content)
    assert "is several films joined; join them with ffmpeg or mkvmerge" in refusal(tmp_path / name)


def uncompressed(path: Path) -> Path:
    frames = b"".join(b"FRAME\n" + bytes([20 * index]) * 64 for index in range(4))
    path.write_bytes(b"YUV4MPEG2 W8 H8 F30:1 Cmono\n" + frames)
    return path


@pytest.mark.parametrize("name", ["a.wmv", "a.flv", "a.ts", "a.m2ts", "a.y4m"])
def test_a_film_without_its_last_bytes_is_refused(tmp_path, lines, name):
    codec, path = CODECS.get(Path(name).suffix, "libx264"), tmp_path / name
    content = (uncompressed(path) if name == "a.y4m" else film(path, 4, codec=codec)).read_bytes()
    assert levels(files.read(path)) == [0, 1, 2, 3]
    path.rename(tmp_path / "b")
    assert levels(files.read(tmp_path / "b", "video")) == [0, 1, 2, 3]
    for lost in (1, 41, 79):
        path.write_bytes(content[:-lost])
        assert "is cut off or damaged" in refusal(path)
    assert lines() == []


@pytest.mark.parametrize(("name", "mark", "beyond"), [("a.wmv", b"\xa1\xdc\xab\x8c", 40), ("a.flv", b"filesize\0", 9)])
def test_a_film_that_does_not_say_how_long_it_is_is_read(tmp_path, lines, name, mark, beyond):
    content = bytearray(film(tmp_path / name, 4, codec=CODECS[Path(name).suffix]).read_bytes())
    place = content.index(mark) + beyond
    content[place : place + 8] = bytes(8)
    (tmp_path / name).write_bytes(content)
    assert levels(files.read(tmp_path / name)) == [0, 1, 2, 3]
    assert lines() == []


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [("a.vob", "mpeg2video", "vob"), ("a.mts", "libx264", "mpegts"), ("a.h264", "libx264", "h264")],
)
def test_films_that_only_their_names_tell_are_read(tmp_path, name, codec, container):
    path = film(tmp_path / "a.mkv", 4, codec=codec)
    with av.open(path) as old, av.open(tmp_path / name, "w", format=container) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    assert levels(files.read(tmp_path / name)) == [0, 1, 2, 3]
    (tmp_path / "b").write_bytes(b"no film")
    assert "--kind video" in refusal(tmp_path / "b")


REPEATS = Path(__file__).with_name("repeats.ogv").read_bytes()  # made by libtheora, which PyAV does not bring


def test_empty_packets_of_theora_show_the_last_frame_again(tmp_path, lines):
    (tmp_path / "a.ogv").write_bytes(REPEATS)
    result = files.read(tmp_path / "a.ogv")
    assert levels(result) == [0, 1, 1, 2, 3, 3, 3, 4]
    assert result.sampling_rate == 30
    assert levels(files.read(tmp_path / "a.ogv", frames=(2, 6))) == [1, 2, 3, 3]
    assert lines() == []
    (tmp_path / "a.ogv").write_bytes(2 * REPEATS)
    assert "is several films joined" in refusal(tmp_path / "a.ogv")


@pytest.mark.parametrize("kept", [-1, -20, REPEATS.rindex(b"OggS"), REPEATS.rindex(b"OggS") + 20])
def test_theora_without_its_end_is_cut_off(tmp_path, kept):
    (tmp_path / "a.ogv").write_bytes(REPEATS[:kept])
    assert "is cut off or damaged" in refusal(tmp_path / "a.ogv")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_timestamps_may_begin_late(tmp_path, lines, name):
    times = [70000 + 3 * index for index in range(5)]
    assert levels(files.read(film(tmp_path / name, 5, times))) == [0, 1, 2, 3, 4]
    assert lines() == []
