import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lgsirens import lazy
from lgsirens.errors import MissingDependencyError, SignalError
from lgsirens.representation.metrics import peak, psnr, seam_ratio, ssim
from lgsirens.signal import Signal

seeds = st.integers(0, 2**32 - 1)


def image(values, value_range=None):
    return Signal.from_array(np.asarray(values), "image", value_range)


def noisy_pair(shape, seed=0, value_range=(0.0, 255.0), noise=10.0):
    """A smooth picture and the same with noise that stays inside the range."""
    rng = np.random.default_rng(seed)
    grid = sum(
        np.sin((n + 1) * np.linspace(0, 7, size)).reshape(-1, *[1] * (len(shape) - n - 1))
        for n, size in enumerate(shape[:-1])
    )
    truth = np.broadcast_to(127 + 25 * grid[..., None] if grid.ndim < len(shape) else 127 + 25 * grid, shape)
    truth = truth + rng.normal(0, 4, shape)
    other = truth + rng.normal(0, noise, shape)
    return np.clip(truth, *value_range), np.clip(other, *value_range)


@st.composite
def pairs(draw):
    """Two signals of one shape, kind and range."""
    kind, rank = draw(st.sampled_from([("image", 2), ("audio", 1), ("video", 3), ("volume", 3)]))
    shape = [draw(st.integers(1, 8)) for _ in range(rank)]
    rng = np.random.default_rng(draw(seeds))
    low, high = draw(st.sampled_from([(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (-0.25, 0.25), (3.0, 70_000.0)]))
    reference, decoded = rng.uniform(low, high, (2, *shape, draw(st.integers(1, 4))))
    # half as wide again as the range, so that clipping matters
    middle = (low + high) / 2
    return tuple(Signal.from_array(v, kind, (low, high)) for v in (reference, middle + 1.5 * (decoded - middle)))


# PSNR


@given(pairs())
def test_psnr_is_the_formula_on_the_clipped_reconstruction(pair):
    reference, decoded = pair
    low, high = reference.value_range
    span = high - low if reference.kind != "audio" else (high - low) / 2
    mse = np.mean((np.clip(decoded.values, low, high) - reference.values) ** 2)
    assert psnr(reference, decoded) == pytest.approx(10 * math.log10(span**2 / mse), rel=1e-12, abs=1e-12)


@given(pairs())
def test_psnr_agrees_with_scikit_image(pair):
    reference, decoded = pair
    clipped = np.clip(decoded.values, *reference.value_range)
    expected = peak_signal_noise_ratio(reference.values, clipped, data_range=peak(reference))
    assert psnr(reference, decoded) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(pairs())
def test_psnr_does_not_depend_on_how_the_samples_are_cut_into_slabs(pair):
    whole = psnr(*pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy, "VALUES_AT_ONCE", 3)
        assert psnr(*pair) == pytest.approx(whole, rel=1e-12, abs=1e-12)


@given(pairs())
def test_equal_signals_have_an_infinite_psnr(pair):
    assert psnr(pair[0], pair[0]) == math.inf


def test_integers_do_not_wrap_around():
    reference, decoded = image(np.full((2, 2), 0, np.uint8)), image(np.full((2, 2), 255, np.uint8))
    assert psnr(reference, decoded) == 0.0
    assert psnr(decoded, reference) == 0.0


def test_values_beyond_the_range_are_clipped_and_never_renormalised():
    reference = image([[0.0, 1.0]], (0, 1))
    assert psnr(reference, image([[-50.0, 7.0]], (0, 1))) == math.inf
    # a decoded signal that spans little of the range is not stretched over it
    assert psnr(reference, image([[0.4, 0.6]], (0, 1))) == pytest.approx(10 * math.log10(1 / 0.16), rel=1e-12)


def test_the_peak_comes_from_the_reference_and_not_from_what_occurs_in_it():
    narrow = image(np.array([[100, 101]], np.uint8))
    assert peak(narrow) == 255
    assert psnr(narrow, image(np.array([[101, 101]], np.uint8))) == pytest.approx(10 * math.log10(255**2 * 2))
    wide = image([[100.0, 101.0]], (0, 1000))
    assert psnr(wide, image([[101.0, 101.0]], (0, 255))) == pytest.approx(10 * math.log10(1000**2 * 2))


def test_the_peak_of_audio_is_one_on_the_divided_signal():
    loudest = 0.25
    samples = np.array([0.25, -0.125, 0.0, 0.2])
    error = np.array([0.01, 0.02, -0.01, 0.0])
    reference = Signal.from_array(samples, "audio", (-loudest, loudest))
    decoded = Signal.from_array(samples - error, "audio", (-loudest, loudest))
    assert peak(reference) == loudest
    divided = np.mean((error / loudest) ** 2)
    assert psnr(reference, decoded) == pytest.approx(10 * math.log10(1.0 / divided), rel=1e-12)


@given(pairs(), st.data())
def test_only_the_samples_asked_for_count(pair, data):
    reference, decoded = pair
    rng = np.random.default_rng(data.draw(seeds))
    where = rng.random(reference.shape) < 0.5
    where.flat[0] = True
    error = np.clip(decoded.values, *reference.value_range) - reference.values
    expected = 10 * math.log10(peak(reference) ** 2 / np.mean(error[where] ** 2))
    assert psnr(reference, decoded, where) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    changed = np.where(where[..., None], decoded.values, reference.values)
    elsewhere = Signal.from_array(changed, reference.kind, reference.value_range)
    assert psnr(reference, elsewhere, where) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim, lambda a, b: seam_ratio(a, b, (4, 4))])
@pytest.mark.parametrize("shape", [(16, 17, 1), (16, 16, 3), (17, 16, 1)])
def test_signals_of_different_shape_are_not_compared(metric, shape):
    with pytest.raises(SignalError, match=r"\(16, 16, 1\) and .* cannot be compared"):
        metric(image(np.zeros((16, 16, 1))), image(np.zeros(shape)))


# SSIM (pytorch-msssim rounds its window to float32: hence the tolerance)


@settings(max_examples=8)
@given(st.integers(11, 40), st.integers(11, 40), st.integers(1, 4), seeds, st.sampled_from([2.0, 20.0, 60.0]))
def test_ssim_is_the_gaussian_setting_of_scikit_image(height, width, channels, seed, noise):
    truth, other = noisy_pair((height, width, channels), seed, noise=noise)
    expected = structural_similarity(
        truth, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    assert ssim(image(truth, (0, 255)), image(other, (0, 255))) == pytest.approx(expected, abs=1e-4)


def test_ssim_of_a_volume_has_a_window_of_three_dimensions():
    truth, other = noisy_pair((12, 13, 14, 1), 3)
    expected = structural_similarity(
        truth[..., 0], other[..., 0], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    pair = [Signal.from_array(values, "volume", (0, 255)) for values in (truth, other)]
    assert ssim(*pair) == pytest.approx(expected, abs=1e-4)


def test_ssim_clips_and_is_one_for_equal_signals():
    truth, other = noisy_pair((20, 20, 3), 1)
    reference = image(truth, (0, 255))
    assert ssim(reference, reference) == pytest.approx(1.0, abs=1e-12)
    black = image(np.zeros((20, 20, 1)), (0, 255))
    assert ssim(black, image(np.full((20, 20, 1), -90.0), (0, 255))) == pytest.approx(1.0, abs=1e-12)
    assert ssim(reference, image(other, (0, 255))) < 0.999


@pytest.mark.parametrize(
    ("shape", "kind"), [((10, 40, 1), "image"), ((40, 10, 1), "image"), ((50, 1), "audio"), ((5, 32, 32, 1), "video")]
)
def test_ssim_is_none_where_the_window_does_not_fit(shape, kind):
    signal = Signal.from_array(np.zeros(shape), kind)
    assert ssim(signal, signal) is None


def test_ssim_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    signal = image(np.zeros((16, 16)))
    with pytest.raises(MissingDependencyError, match=r"lgsirens\[ssim\]"):
        ssim(signal, signal)


# Seam ratio


def with_error(border, rest, shape=(8, 12), tile=(4, 4)):
    """A reference of 0.5 and a reconstruction with one error at inner tile borders and another elsewhere."""
    error = np.full(shape, rest)
    for axis, (size, length) in enumerate(zip(tile, shape, strict=True)):
        for first in range(size, length, size):
            index = [slice(None)] * len(shape)
            index[axis] = slice(first - 1, first + 1)
            error[tuple(index)] = border
    kind = {1: "audio", 2: "image", 3: "volume"}[len(shape)]
    reference = np.full((*shape, 1), 0.5)
    return tuple(Signal.from_array(v, kind, (0, 1)) for v in (reference, reference + error[..., None]))


@pytest.mark.parametrize(
    ("shape", "tile"), [((8, 12), (4, 4)), ((9, 13), (4, 5)), ((20,), (6,)), ((6, 7, 8), (3, 4, 5))]
)
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_seam_ratio_is_that_of_the_mean_errors(shape, tile, ratio):
    assert seam_ratio(*with_error(0.1 * ratio, 0.1, shape, tile), tile) == pytest.approx(ratio, rel=1e-9)


def test_outer_borders_are_no_seams():
    values = np.full((8, 8, 1), 0.5)
    decoded = values + 0.1
    decoded[[0, -1]] += 0.3
    decoded[:, [0, -1]] = decoded[0, 0]
    reference = image(values, (0, 1))
    assert seam_ratio(reference, image(decoded, (0, 1)), (4, 4)) < 1


def test_there_is_no_seam_ratio_without_an_inner_border_or_without_anything_else():
    pair = with_error(0.1, 0.1, (8, 8), (8, 8))
    assert seam_ratio(*pair, (8, 8)) is None
    assert seam_ratio(*pair, (99, 99)) is None
    assert seam_ratio(*pair, (1, 1)) is None
    assert seam_ratio(*with_error(0.1, 0.0, (8, 8), (4, 4)), (4, 4)) is None


def test_the_errors_of_all_channels_count_after_clipping():
    values = np.zeros((4, 8, 2))
    decoded = values.copy()
    decoded[:, 3:5, 0] = 0.4
    decoded[..., 1] = 0.2
    decoded[0] -= 9
    reference, other = image(values, (0, 1)), image(decoded, (0, 1))
    # of four rows the first is clipped to no error
    assert seam_ratio(reference, other, (4, 4)) == pytest.approx((0.3 * 3 / 4) / (0.1 * 3 / 4), rel=1e-9)


@given(st.lists(st.integers(11, 30), min_size=2, max_size=3), st.integers(1, 3), st.integers(1, 5000))
@settings(max_examples=20, deadline=None)
def test_ssim_of_parts_is_that_of_the_whole(sides, channels, at_once):
    generator = np.random.default_rng(0)
    kind = {2: "image", 3: "volume"}[len(sides)]
    truth, other = (generator.integers(0, 256, (*sides, channels), dtype=np.uint8) for _ in range(2))
    pair = [Signal.from_array(lazy.LazyValues(values), kind) for values in (truth, (truth // 2 + other // 2))]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lgsirens.representation.metrics._VALUES_AT_ONCE", at_once)
        in_parts = ssim(*pair)
    assert in_parts == pytest.approx(ssim(*pair), rel=1e-9)
