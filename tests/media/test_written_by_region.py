"""Signals that are read by region are written part by part: the same samples, never many of them at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lgsirens.lazy import LazyValues
from lgsirens.media import files, store, tiff_writer
from lgsirens.media.files import read, write
from lgsirens.media.png import _filtered
from lgsirens.signal import Signal
from tests.test_lazy import Counting

RNG = np.random.default_rng(0)
PICTURES = [(1, "uint8"), (2, "uint8"), (3, "uint8"), (4, "uint8"), (1, "uint16"), (3, "uint16"), (4, "uint16")]
CASES = [
    *((suffix, "image", (150, 200, channels), dtype) for suffix in (".png", ".tif") for channels, dtype in PICTURES),
    *((".tif", "image", (150, 200, 3), dtype) for dtype in ("uint12", "int16", "float32")),
    *((".tif", "volume", (5, 60, 70, channels), dtype) for channels, dtype in ((1, "uint16"), (3, "uint8"))),
    *((".npy", kind, shape, "float32") for kind, shape in (("image", (150, 200, 2)), ("video", (9, 20, 30, 3)))),
    *((".zarr", kind, shape, "uint8") for kind, shape in (("image", (150, 200, 3)), ("audio", (9000, 2)))),
    *((suffix, "audio", (9000, 2), "int24") for suffix in (".wav", ".flac")),
    *((suffix, "video", (30, 16, 20, 3), "uint8") for suffix in (".mkv", "")),
]


def signal_of(kind, shape, dtype):
    values = RNG.integers(0, 4095 if dtype == "uint12" else 127, shape)
    stored = {"uint12": "uint16", "int24": "int32"}.get(dtype, dtype)
    return Signal.from_array(values.astype(stored), kind, (0, 4095), 25, dtype)


@pytest.mark.parametrize(("suffix", "kind", "shape", "dtype"), CASES, ids=str)
def test_a_format_takes_it_part_by_part(tmp_path, monkeypatch, suffix, kind, shape, dtype):
    monkeypatch.setattr(tiff_writer, "_TILE", (32, 32))
    monkeypatch.setattr(store, "_CHUNK_VALUES", 3000)
    signal = signal_of(kind, shape, dtype)
    source = Counting(signal.values)
    lazy = replace(signal, values=LazyValues(source))
    write(tmp_path / f"whole{suffix}", signal)
    write(tmp_path / f"parts{suffix}", lazy, max_memory=32 * 6000)
    whole, parts = (read(tmp_path / f"{name}{suffix}", kind) for name in ("whole", "parts"))
    assert whole.dtype == parts.dtype
    assert np.array_equal(whole.values, parts.values)
    assert np.array_equal(parts.values, signal.values)
    assert (source.read == 1).all()
    assert source.largest <= 6000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"parts{suffix}", f"whole{suffix}"])


def test_a_large_tiff_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_writer, "_CLASSIC_BYTES", 1000)
    signal = signal_of("image", (40, 50, 3), "uint8")
    write(tmp_path / "a.tif", replace(signal, values=LazyValues(Counting(signal.values))))
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    assert np.array_equal(read(tmp_path / "a.tif").values, signal.values)


@pytest.mark.parametrize(("suffix", "name"), [(".jpg", "JPEG"), (".webp", "WebP")])
def test_a_format_that_wants_it_whole_says_so(tmp_path, caplog, suffix, name):
    signal = signal_of("image", (40, 50, 3), "uint8")
    write(tmp_path / f"a{suffix}", replace(signal, values=LazyValues(Counting(signal.values))))
    assert f"{name} is written at once" in caplog.text
    write(tmp_path / f"b{suffix}", signal)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_float_picture_is_converted_as_a_whole_one_is(tmp_path):
    values = RNG.uniform(size=(90, 100, 3)).astype(np.float32)
    signal = Signal.from_array(values)
    write(tmp_path / "whole.png", signal)
    write(tmp_path / "parts.png", replace(signal, values=LazyValues(Counting(values))), max_memory=1)
    assert np.array_equal(read(tmp_path / "whole.png").values, read(tmp_path / "parts.png").values)


def test_a_picture_keeps_the_shape_of_its_pixels_and_its_colour(tmp_path):
    signal = replace(signal_of("image", (40, 50, 3), "uint8"), spacing=(2.0, 1.0), colour=(9, 16))
    write(tmp_path / "a.png", replace(signal, values=LazyValues(Counting(signal.values))))
    assert read(tmp_path / "a.png").spacing[0] == 2 * read(tmp_path / "a.png").spacing[1]
    assert read(tmp_path / "a.png").colour == (9, 16)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), st.integers(1, 5))
def test_rows_of_a_png_do_not_depend_on_how_they_are_cut(rows, height):
    flat, above, parts = rows.reshape(len(rows), -1), np.zeros((1, rows[0].size), np.uint8), []
    whole = _filtered(flat, above, 3)
    for start in range(0, len(flat), height):
        parts.append(_filtered(flat[start : start + height], above, 3))
        above = flat[start : start + height][-1:]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_writer, "_TILE", (32, 32))
    monkeypatch.setattr(store, "_CHUNK_VALUES", 3000)

    class Broken(Counting):
        def __getitem__(self, index):
            if index[0].start:
                raise OSError("gone")
            return super().__getitem__(index)

    signal = signal_of("image", (150, 200, 3), "uint8")
    for suffix in (".png", ".tif", ".npy", ".zarr"):
        with pytest.raises(files.SignalError, match="gone"):
            write(tmp_path / f"a{suffix}", replace(signal, values=LazyValues(Broken(signal.values))), max_memory=9999)
    assert not [*tmp_path.iterdir()]


def test_pillow_reads_what_is_streamed(tmp_path):
    signal = signal_of("image", (40, 50, 4), "uint8")
    write(tmp_path / "a.png", replace(signal, values=LazyValues(Counting(signal.values))))
    with Image.open(tmp_path / "a.png") as picture:
        picture.verify()
