"""TIFF stacks and arrays as volumes: round trips, spacing, errors."""

import numpy as np
import pytest
import tifffile

from lgsirens.errors import SignalError
from lgsirens.media import files
from lgsirens.signal import Signal


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def volume(shape: tuple[int, ...], dtype: str = "uint8", spacing: tuple[float, ...] | None = None) -> Signal:
    signal = Signal.from_array(noise(shape, dtype), "volume")
    return Signal(signal.values, "volume", signal.value_range, dtype, spacing=spacing)


def refusal(path, **options) -> str:
    with pytest.raises(SignalError) as caught:
        files.read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 9), (5, 7, 9), (3, 4, 1)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_volumes_come_back_exactly(tmp_path, shape, channels, dtype):
    signal = volume((*shape, channels), dtype, (2.5, 0.3, 0.7))
    for name in ("a.tif", "a.npy"):
        files.write(tmp_path / name, signal)
        result = files.read(tmp_path / name, "volume")
        assert (result.kind, result.dtype, result.value_range) == ("volume", dtype, signal.value_range)
        assert np.array_equal(result.values, signal.values)
        assert result.values.flags.writeable
        assert result.values.flags.c_contiguous
    assert files.read(tmp_path / "a.tif", "volume").spacing == (2.5, 0.3, 0.7)


def test_decoded_floats_are_rounded_to_the_sample_type(tmp_path):
    signal = volume((3, 4, 5, 1), "uint16")
    decoded = Signal((signal.values + 0.3).astype(np.float32), "volume", signal.value_range, "uint16")
    files.write(tmp_path / "a.tif", decoded)
    assert np.array_equal(files.read(tmp_path / "a.tif", "volume").values, signal.values)


def test_without_spacing_none_is_invented(tmp_path):
    files.write(tmp_path / "a.tif", volume((3, 4, 5, 1)))
    tifffile.imwrite(tmp_path / "b.tif", noise((3, 4, 5)), photometric="minisblack")
    for name in ("a.tif", "b.tif"):
        assert files.read(tmp_path / name, "volume").spacing is None


def test_spacing_of_imagej_and_ome_is_read(tmp_path):
    values = noise((4, 5, 6), "uint16")
    imagej = {"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "i.tif", values, imagej=True, resolution=(1 / 0.5, 1 / 0.25), metadata=imagej)
    ome = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 3.0}
    tifffile.imwrite(tmp_path / "o.ome.tif", values, metadata=ome)
    for name in ("i.tif", "o.ome.tif"):
        result = files.read(tmp_path / name, "volume")
        assert result.spacing == (3.0, 0.25, 0.5)
        assert np.array_equal(result.values[..., 0], values)


MICROMETRE = {"nm": 1000, "um": 1, "µm": 1, "μm": 1, "mm": 1e-3, "cm": 1e-4, "m": 1e-6, "Å": 10_000, "in": 1 / 25_400}


@pytest.mark.parametrize("unit", MICROMETRE)
@pytest.mark.parametrize("other", MICROMETRE)
def test_axes_of_several_units_have_the_spacing_in_that_of_the_columns(tmp_path, lines, unit, other):
    ome = {"axes": "ZYX", "PhysicalSizeX": 0.5 * MICROMETRE[unit], "PhysicalSizeXUnit": unit}
    ome |= {"PhysicalSizeY": 0.25 * MICROMETRE[other], "PhysicalSizeYUnit": other, "PhysicalSizeZ": 3.0}  # micrometres
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((4, 5, 6)), metadata=ome)
    found = files.read(tmp_path / "a.ome.tif", "volume").spacing
    assert found == pytest.approx([size * MICROMETRE[unit] for size in (3, 0.25, 0.5)], rel=1e-12)
    assert lines() == []


@pytest.mark.parametrize(("across", "down"), [("micron", "nm"), (r"\u00B5m", "nm"), ("microns", "nanometers")])
def test_units_of_axes_of_imagej(tmp_path, across, down):
    known = {"axes": "ZYX", "spacing": 3, "unit": across, "yunit": down, "zunit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", noise((4, 5, 6)), imagej=True, resolution=(2, 1 / 250), metadata=known)
    assert files.read(tmp_path / "a.tif", "volume").spacing == (3, 0.25, 0.5)


def test_units_that_are_not_known(tmp_path, lines):
    ome = {"axes": "ZYX"} | {f"PhysicalSize{axis}": 2 for axis in "XYZ"}
    units = {f"PhysicalSize{axis}Unit": "pixel" for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "same.ome.tif", noise((4, 5, 6)), metadata=ome | units)
    assert files.read(tmp_path / "same.ome.tif", "volume").spacing == (2, 2, 2)
    assert lines() == []
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((4, 5, 6)), metadata=ome | {"PhysicalSizeYUnit": "pixel"})
    assert files.read(tmp_path / "a.ome.tif", "volume").spacing is None
    assert lines() == ["its spacing is left out, its units of length (µm, pixel, µm) are not all known"]


def test_what_we_write_is_an_imagej_stack(tmp_path):
    files.write(tmp_path / "a.tif", volume((4, 5, 6, 1), "float32", (3.0, 0.25, 0.5)))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_imagej
        assert len(tiff.pages) == 4
        assert tiff.series[0].axes == "ZYX"
        assert tiff.imagej_metadata["spacing"] == 3.0


def test_stacks_of_colour_planes_and_inverted_gray(tmp_path):
    values = noise((4, 5, 6, 3))
    tifffile.imwrite(tmp_path / "c.tif", values, photometric="rgb", compression="lzw")
    assert np.array_equal(files.read(tmp_path / "c.tif", "volume").values, values)
    tifffile.imwrite(tmp_path / "g.tif", values[..., 0], photometric="miniswhite")
    assert np.array_equal(files.read(tmp_path / "g.tif", "volume").values[..., 0], 255 - values[..., 0])
    hyper = noise((4, 2, 5, 6), "uint16")
    tifffile.imwrite(tmp_path / "h.tif", hyper, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(files.read(tmp_path / "h.tif", "volume").values, hyper.transpose(0, 2, 3, 1))


def test_without_a_kind_a_stack_stays_a_picture(tmp_path):
    values = noise((4, 5, 6, 3))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    result = files.read(tmp_path / "a.tif")
    assert result.kind == "image"
    assert np.array_equal(result.values, values[0])


def test_what_is_no_volume_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as tiff:
        tiff.write(noise((5, 6)), metadata=None)
        tiff.write(noise((6, 5)), metadata=None)
    assert "its pages are not of one size (5x6 and 6x5)" in refusal(tmp_path / "sizes.tif", kind="volume")
    tifffile.imwrite(tmp_path / "times.tif", noise((2, 3, 5, 6)), imagej=True, metadata={"axes": "TZYX"})
    assert "is no volume; save one time and one channel" in refusal(tmp_path / "times.tif", kind="volume")
    tifffile.imwrite(tmp_path / "lab.tif", noise((2, 5, 6, 3)), photometric="cielab")
    assert "photometric 8" in refusal(tmp_path / "lab.tif", kind="volume")
    files.write(tmp_path / "a.png", Signal.from_array(noise((4, 5)), "image"))
    refusal(tmp_path / "a.png", kind="volume")
    assert "frames is for films" in refusal(tmp_path / "times.tif", kind="volume", frames=(0, 1))


def test_cut_stacks_are_refused(tmp_path):
    files.write(tmp_path / "a.tif", volume((4, 50, 60, 1)))
    content = (tmp_path / "a.tif").read_bytes()
    for share in (0.01, 0.1, 0.5, 0.9):
        (tmp_path / "cut.tif").write_bytes(content[: int(share * len(content))])
        refusal(tmp_path / "cut.tif", kind="volume")
