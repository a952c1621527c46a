"""What films declare of their picture: display matrices, cropping, the shape of pixels; of their colour and chroma."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lgsirens.media import files
from lgsirens.signal import Signal
from tests.films import noise, refusal, smooth

MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def with_matrix(path: Path, matrix: tuple[float, ...]) -> Path:
    """Write a, b, c and d into the track header, which maps (x, y) to (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    assert struct.unpack_from(">5i", content, place) == (1 << 16, 0, 0, 0, 1 << 16)
    a, b, c, d = (round(number * (1 << 16)) for number in matrix)
    struct.pack_into(">5i", content, place, a, b, 0, c, d)
    path.write_bytes(content)
    return path


def shown(values: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """Frames `[T, H, W, C]`, pixel after pixel put where the matrix sends it."""
    a, b, c, d = matrix
    y, x = np.mgrid[: values.shape[1], : values.shape[2]]
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    result = np.empty((len(values), rows.max() + 1, columns.max() + 1, values.shape[3]), values.dtype)
    result[:, rows, columns] = values
    return result


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices_are_applied(tmp_path, lines, matrix):
    files.write(tmp_path / "a.mp4", smooth())
    plain = files.read(tmp_path / "a.mp4")
    turned = files.read(with_matrix(tmp_path / "a.mp4", matrix)) if matrix != MATRICES[0] else plain
    assert np.array_equal(turned.values, shown(plain.values, matrix))
    assert turned.sampling_rate == plain.sampling_rate
    assert files.read(tmp_path / "a.mp4", max_side=12).shape == ((6, 12, 8) if matrix[1] else (6, 8, 12))
    assert lines() == []


@pytest.mark.parametrize("matrix", [(0.5, 0.866, -0.866, 0.5), (2, 0, 0, 1), (0, 0, 0, 0)])
def test_other_angles_and_scales_are_said_and_left_out(tmp_path, lines, matrix):
    files.write(tmp_path / "a.mp4", smooth())
    plain = files.read(tmp_path / "a.mp4").values
    assert np.array_equal(files.read(with_matrix(tmp_path / "a.mp4", matrix)).values, plain)
    assert lines() == ["it is to be turned or scaled by more than quarter turns and mirroring; that is not applied"]


def encoded(path: Path, values: np.ndarray, pixels: str = "rgb24", codec: str = "libx264rgb", **context) -> Path:
    """A film of RGB frames, made with PyAV alone."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "0"} if codec.startswith("libx264") else {})
        stream.height, stream.width = values.shape[1:3]
        stream.pix_fmt = pixels
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for samples in values:
            frame = av.VideoFrame.from_ndarray(samples, "rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def filtered(source: Path, target: Path, filters: str | None = None) -> Path:
    """The packets of a film in another container, or changed by a bitstream filter."""
    with av.open(source) as old, av.open(target, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        change = av.BitStreamFilterContext(filters, old.streams.video[0], stream) if filters else None
        for packet in old.demux(video=0):
            for changed in change.filter(packet) if change else [packet]:
                if changed.size:
                    changed.stream = stream
                    new.mux(changed)
    return target


def with_clean_aperture(path: Path, width: int, height: int, right: int, down: int) -> Path:
    """Add a `clap` box to the sample entry; the offsets are those of the centre, in halves."""
    content = bytearray(path.read_bytes())
    assert content.index(b"mdat") < content.index(b"moov")
    entry = content.index(b"avc1", content.index(b"moov")) - 4
    end = entry + struct.unpack_from(">I", content, entry)[0]
    content[end:end] = struct.pack(">I4s4IiIiI", 40, b"clap", width, 1, height, 1, right, 2, down, 2)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = content.index(name, content.index(b"moov")) - 4
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + 40)
    path.write_bytes(content)
    return path


def test_what_a_container_crops_is_cropped(tmp_path, lines):
    values = noise((3, 20, 30, 3)).values
    cropped = with_clean_aperture(encoded(tmp_path / "a.mp4", values), 23, 14, 3, -2)  # left 5 of 7, above 2 of 6
    for path in (cropped, filtered(cropped, tmp_path / "a.mkv")):
        assert np.array_equal(files.read(path).values, values[:, 2:16, 5:28])
        assert files.read(path, max_side=10).shape == (3, 6, 10)
    turned = files.read(with_matrix(cropped, (0, 1, -1, 0))).values
    assert np.array_equal(turned, np.rot90(values[:, 2:16, 5:28], -1, axes=(1, 2)))
    assert lines() == []


def test_what_the_header_of_h264_crops_is_cropped_at_any_edge(tmp_path):
    values = noise((2, 32, 48, 3)).values
    film = encoded(tmp_path / "a.mp4", values)
    for left, top in ((8, 4), (1, 3), (31, 0)):
        cut = filtered(film, tmp_path / f"{left}.mp4", f"h264_metadata=crop_left={left}:crop_top={top}")
        assert np.array_equal(files.read(cut).values, values[:, top:, left:])


def test_cropping_that_cannot_be_applied_is_said(tmp_path, lines):
    path = encoded(tmp_path / "a.webm", smooth(2).values, "yuv420p", "libvpx")
    files.read(path)
    assert lines() == []
    content = bytearray(path.read_bytes())
    size = b"\xb0\x81\x30\xba\x81\x20"  # width and height
    place = content.index(size)
    content[place + 6 : place + 6] = b"\x54\xbb\x81\x08"  # 8 rows above
    tracks = content.rindex(b"\x16\x54\xae\x6b", 0, place) + 4
    for number in (place - 1, tracks, tracks + 9):  # the sizes of what it lies in
        content[number] += 4
    path.write_bytes(content)
    files.read(path)
    assert lines() == ["Matroska crops its frames; with the codec vp8 that is left out"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.ts"])
def test_pixels_that_are_not_square_are_kept(tmp_path, lines, name):
    aspect = Fraction(16, 11)
    path = encoded(tmp_path / name, smooth().values, "yuv420p", "libx264", sample_aspect_ratio=aspect)
    signal = files.read(path)
    assert signal.spacing == (1.0, 1.0, float(aspect))
    assert files.read(path, max_side=12).spacing == signal.spacing
    for target in ("b.mp4", "b.mkv"):
        files.write(tmp_path / target, signal)
        assert files.read(tmp_path / target).spacing == signal.spacing
    with av.open(tmp_path / "b.mp4") as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect
    assert lines() == []


def test_a_quarter_turn_turns_pixels(tmp_path):
    path = encoded(tmp_path / "a.mp4", smooth().values, "yuv420p", "libx264", sample_aspect_ratio=Fraction(16, 11))
    assert files.read(with_matrix(path, (0, 1, -1, 0))).spacing == (1.0, 1.0, 11 / 16)


def test_unknown_and_square_aspects_are_no_spacing(tmp_path):
    for aspect in (Fraction(0), Fraction(1)):
        path = encoded(tmp_path / "a.mp4", smooth().values, "yuv420p", "libx264", sample_aspect_ratio=aspect)
        assert files.read(path).spacing is None


def test_a_folder_holds_all_but_the_rate(tmp_path, lines):
    pixels = encoded(
        *(tmp_path / "a.mp4", smooth().values, "yuv420p", "libx264"),
        **{"sample_aspect_ratio": Fraction(4, 3), "color_primaries": 9, "color_trc": 16},
    )
    files.write(tmp_path / "a", files.read(pixels))
    assert lines() == ["pictures hold no frame rate; .mkv keeps it"]
    kept = files.read(tmp_path / "a")
    assert kept.colour == (9, 16)
    assert kept.spacing[2] / kept.spacing[1] == pytest.approx(4 / 3)


# Colour


@pytest.mark.parametrize("colour", [(9, 16), (9, 18), (5, 6), (2, 8), (12, 13)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_primaries_and_transfer_are_kept(tmp_path, lines, name, colour):
    path = encoded(
        *(tmp_path / "0.mp4", smooth().values, "yuv420p", "libx264"), color_primaries=colour[0], color_trc=colour[1]
    )
    signal = files.read(path)
    assert signal.colour == colour
    files.write(tmp_path / name, signal)
    assert files.read(tmp_path / name).colour == colour
    with av.open(tmp_path / name) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == colour
    assert lines() == []


@pytest.mark.parametrize("colour", [(1, 1), (1, 13), (2, 2), (2, 1)])
def test_the_usual_colours_are_none(tmp_path, colour):
    path = encoded(
        *(tmp_path / "0.mp4", smooth().values, "yuv420p", "libx264"), color_primaries=colour[0], color_trc=colour[1]
    )
    assert files.read(path).colour is None


@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)])
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_are_those_of_the_tags(tmp_path, matrix, red, blue, full):
    """Against the equations of ITU-T H.273; FFmpeg rounds to within one level."""
    y, u, v = (np.random.default_rng(0).integers(*limits, (16, 16)) for limits in ((80, 170), (100, 150), (100, 150)))
    luma, (cb, cr) = (y / 255 if full else (y - 16) / 219), ((c - 128) / (255 if full else 224) for c in (u, v))
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    expected = 255 * np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], axis=-1)
    frame = av.VideoFrame.from_ndarray(np.stack([y, u, v]).astype(np.uint8), "yuv444p")
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(files.read(tmp_path / "a.mp4").values[0] - expected).max() <= 1


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (10, "BT.2020 of constant luminance"), (12, "matrix 12")])
def test_other_matrices_are_refused_by_name(tmp_path, matrix, name):
    film = encoded(tmp_path / "a.mp4", smooth(2).values, "yuv444p", "libx264")
    assert name in refusal(filtered(film, tmp_path / "b.mp4", f"h264_metadata=matrix_coefficients={matrix}"))


def test_other_metadata_of_hdr_is_said_to_be_left_out(tmp_path, lines):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"x265-params": f"log-level=none:pools=none:frame-threads=1:master-display={display}"}
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24").reformat(format="yuv420p")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    files.read(tmp_path / "a.mp4")
    assert lines() == ["its mastering display metadata is left out"]


def test_chroma_is_written_where_it_is_said_to_be(tmp_path):
    """At the left of each pair of pixels: there the blue ramp gives the values that its own equation does."""
    values = np.full((2, 48, 64, 3), 100, np.uint8)
    values[..., 2] = 60 + 2 * np.arange(64)
    files.write(tmp_path / "a.mp4", Signal.from_array(values, "video", sampling_rate=25), crf=0)
    with av.open(tmp_path / "a.mp4") as container:
        planes = next(container.decode(video=0)).to_ndarray()
    chroma = planes[48:60].reshape(24, 32)[12, 8:24].astype(float)
    at = lambda x: 128 + 224 / 255 * (60 + 2 * x - 100) / 2  # noqa: E731
    errors = [np.abs(chroma - at(2 * np.arange(8, 24) + shift)).mean() for shift in (0, 0.5)]
    assert errors[0] < 0.3 < errors[1]
    result = files.read(tmp_path / "a.mp4").values.astype(int) - values
    assert np.abs(result[:, :, 8:-8].mean(axis=(0, 1, 2))).max() < 0.5
