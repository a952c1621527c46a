"""Files that are read by region: the same samples as when they are read whole, and the same refusals."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lgsirens.errors import SignalError
from lgsirens.lazy import BlockCache, LazyValues
from lgsirens.media import image, request
from lgsirens.media.files import read
from lgsirens.media.segments import Segments

tifffile = pytest.importorskip("tifffile")
REAL = Segments._decoded
REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
NAMES = ("kind", "value_range", "dtype", "shape", "channels", "sampling_rate", "spacing", "colour")


def both(path, *, small=0, **options):
    """The signal of a file read whole, and read by region."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "SMALL_BYTES", 1 << 40)
        whole = read(path, **options)
        patch.setattr(request, "SMALL_BYTES", small)
        return whole, read(path, **options)


def agree(path, rng=None, **options):
    """The signal of a file read by region, which is that of the whole."""
    whole, lazy = both(path, **options)
    assert isinstance(whole.values, np.ndarray)
    assert isinstance(lazy.values, LazyValues)
    for name in NAMES:
        assert getattr(whole, name) == getattr(lazy, name), name
    values = np.asarray(lazy.values)
    assert values.dtype == whole.values.dtype
    assert np.array_equal(values, whole.values)
    rng = rng or np.random.default_rng(0)
    for _ in range(4):
        ends = [sorted(rng.choice(size + 1, 2, replace=False)) for size in whole.shape]
        box = tuple((int(low), int(high)) for low, high in ends)
        assert np.array_equal(lazy.read(box), whole.read(box))
    return lazy


# TIFF


def layouts(shape):
    tile = st.tuples(*(st.sampled_from([16, 32, 48]) for _ in range(2)))
    compression = st.sampled_from([None, "deflate", "lzw", "zstd"])
    tiled = st.fixed_dictionaries({"tile": tile, "compression": compression, "predictor": st.booleans()})
    strips = st.fixed_dictionaries({"rowsperstrip": st.integers(1, 20), "compression": compression})
    return tiled | strips | st.just({})


@REUSED
@given(data=st.data())
def test_a_tiff_picture(data, tmp_path):
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    channels, dtype = data.draw(st.integers(1, 4)), data.draw(st.sampled_from(["uint8", "uint16", "float32", ">u2"]))
    options = data.draw(layouts((height, width)))
    if not options.get("compression"):
        options.pop("predictor", None)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    samples = rng.integers(0, 200, (height, width, channels)).astype(dtype)
    planar = channels > 1 and data.draw(st.booleans())
    photometric = "rgb" if channels > 2 else data.draw(st.sampled_from(["minisblack", "miniswhite"]))
    extra = data.draw(st.sampled_from(["unassalpha", "assocalpha", "unspecified"]))
    if np.dtype(dtype).kind == "f" or np.dtype(dtype).byteorder == ">":
        options.pop("predictor", None)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(samples, -1, 0) if planar else samples if channels > 1 else samples[..., 0],
        photometric=photometric,
        planarconfig=("separate" if planar else "contig") if channels > 1 else None,
        extrasamples=[extra] if channels in (2, 4) else None,
        bigtiff=data.draw(st.booleans()),
        byteorder=">" if dtype.startswith(">") else "<",
        metadata=None,
        **options,
    )
    agree(tmp_path / "a.tif", rng)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_a_tiff_of_jpeg_tiles(tmp_path, subsampling):
    from skimage.data import astronaut

    how = {"compression": "jpeg", "compressionargs": {"level": 90}, "tile": (128, 128), "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", astronaut()[:300, :400], subsampling=subsampling, **how)
    agree(tmp_path / "a.tif")


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_tiff_stack(tmp_path, dtype, contiguous):
    samples = np.random.default_rng(0).integers(0, 200, (7, 40, 50)).astype(dtype)
    how = {"imagej": True} if contiguous else {"compression": "deflate", "tile": (16, 32)}
    tifffile.imwrite(tmp_path / "a.tif", samples, metadata={"axes": "ZYX"}, photometric="minisblack", **how)
    agree(tmp_path / "a.tif", kind="volume")
    lazy = agree(tmp_path / "a.tif", kind="video", frames=(2, 6))
    assert np.array_equal(np.asarray(lazy.values)[..., 0], samples[2:6])


def test_only_the_tiles_that_meet_a_box_are_decoded(tmp_path, monkeypatch):
    samples = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, tile=(32, 32), compression="deflate", photometric="rgb")
    _, lazy = both(tmp_path / "a.tif")
    decoded = []
    monkeypatch.setattr(
        Segments, "_decoded", lambda self, page, number: decoded.append(number) or REAL(self, page, number)
    )
    for _ in range(2):
        assert np.array_equal(lazy.read(((60, 70), (100, 101))), samples[60:70, 100:101])
    assert decoded == [11, 19]


def test_a_tiff_that_was_cut_or_changes_is_told(tmp_path):
    samples = np.random.default_rng(0).integers(0, 255, (256, 256)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, tile=(32, 32), compression="deflate")
    _, lazy = both(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "SMALL_BYTES", 0)
        with pytest.raises(SignalError, match=r"cut\.tif: "):
            read(tmp_path / "cut.tif")
    with (tmp_path / "a.tif").open("r+b") as file:
        file.write(b"II")
        file.truncate(len(content) - 1)
    with pytest.raises(SignalError, match=r"a\.tif: was changed"):
        lazy.read(((0, 1), (0, 1)))


def test_large_pictures_that_were_refused_whole_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "_MAX_PIXELS", 1000)
    tifffile.imwrite(tmp_path / "a.tif", np.ones((64, 64), np.uint8), tile=(32, 32), compression="deflate")
    with pytest.raises(SignalError, match="more than 1000"):
        read(tmp_path / "a.tif")
    monkeypatch.setattr(request, "SMALL_BYTES", 1000)
    assert read(tmp_path / "a.tif").read(((3, 5), (0, 64))).all()


# Arrays


@REUSED
@given(
    values=hnp.arrays(
        st.sampled_from([np.uint8, ">i2", np.float32, np.float64]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=9).filter(lambda shape: len(shape) < 4 or shape[-1] < 5),
        elements=st.integers(0, 90),
    ),
    order=st.sampled_from("CF"),
)
def test_an_npy_array(values, order, tmp_path):
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    agree(tmp_path / "a.npy")


def test_frames_of_an_npy_array(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 8, 7, 1))
    np.save(tmp_path / "a.npy", values)
    lazy = agree(tmp_path / "a.npy", frames=(2, 5))
    assert np.array_equal(np.asarray(lazy.values), values[2:5])


def test_pipes_are_read_whole(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    monkeypatch.setattr(request, "SMALL_BYTES", 0)
    with (tmp_path / "a.npy").open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert isinstance(read("-").values, np.ndarray)


# Sounds


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_sound(tmp_path, suffix, subtype):
    soundfile = pytest.importorskip("soundfile")
    if not soundfile.check_format(suffix, subtype):
        pytest.skip("there is no such coding")
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (200_000, 2))
    soundfile.write(tmp_path / f"a.{suffix}", samples, 44100, subtype)
    agree(tmp_path / f"a.{suffix}")


def test_lossy_sounds_are_read_whole(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.9, 0.9, 20_000), 44100)
    assert isinstance(both(tmp_path / "a.ogg")[1].values, np.ndarray)


# Films


def film(path, count=40, **options):
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (64 + count, 96, 3)).astype(np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream(options.pop("codec", "libx264"), rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(base[index : index + 64]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"g": "8", "bf": "2"}),
        ("a.mp4", {"g": "8", "bf": "3", "x264-params": "open-gop=1"}),
        ("a.mkv", {"g": "12"}),
        ("a.mkv", {"codec": "ffv1"}),
        ("a.avi", {"codec": "mpeg4", "g": "10"}),
        ("a.mpg", {"codec": "mpeg2video", "g": "6", "bf": "2"}),
        ("a.ts", {"g": "8", "bf": "2", "x264-params": "open-gop=1"}),
        ("a.webm", {"codec": "libvpx-vp9", "g": "10", "deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_a_film(tmp_path, name, options):
    path = film(tmp_path / name, **options)
    whole = agree(path, frames=(3, 30), max_side=48)
    assert whole.shape == (27, 32, 48)
    _, lazy = both(path)
    frames = np.asarray(both(path)[0].values)
    for index in np.random.default_rng(1).permutation(len(frames))[:15].tolist():
        lazy.values.cache = BlockCache(0)
        assert np.array_equal(lazy.read(((index, index + 1), (0, 64), (0, 96)))[0], frames[index])


def test_a_box_of_frames_decodes_no_more_than_a_group_besides(tmp_path, monkeypatch):
    _, lazy = both(film(tmp_path / "a.mp4", count=80, g="10", bf="0"))
    source, decoded = lazy.values._source, []
    real = source._decoded

    def counted():
        for frame in real():
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(source, "_decoded", counted)
    lazy.read(((45, 50), (0, 64), (0, 96)))
    assert len(decoded) == 10
    lazy.read(((45, 52), (0, 64), (0, 96)))
    assert len(decoded) == 12


@pytest.mark.parametrize("options", [{}, {"frames": (1, 4)}, {"max_side": 20}])
def test_a_folder_of_pictures(tmp_path, options):
    for number in range(6):
        samples = np.random.default_rng(number).integers(0, 255, (24, 30, 3)).astype(np.uint8)
        Image.fromarray(samples).save(tmp_path / f"{number}.png")
    if "max_side" in options:
        pytest.importorskip("av")
    agree(tmp_path, small=5000, **options)
