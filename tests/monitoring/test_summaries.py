"""What a summary says: the parts it looks at, its figures, its drawings."""

import io
import sys
import wave
from fractions import Fraction

import numpy as np
import pytest
import torch

import lgsirens as lg
from lgsirens.monitoring import drawing, summaries
from lgsirens.monitoring.sinks import Clip
from lgsirens.monitoring.summaries import cut, derivatives, read
from tests.small import representation

CPU = torch.device("cpu")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def boxes(signal):
    return {excerpt.name: excerpt.box for excerpt in summaries.excerpts(signal)}


# Excerpts


def test_an_image_and_a_short_sound_are_looked_at_whole():
    assert boxes(lg.Signal.from_array(noise(40, 33, 3))) == {"": ((0, 40), (0, 33))}
    assert boxes(lg.Signal.from_array(np.ones(7), "audio")) == {"": ((0, 7),)}


def test_what_is_long_is_looked_at_in_its_middle():
    image = lg.Signal.from_array(np.broadcast_to(np.uint8(3), (1, summaries.LARGEST_SIDE + 11)), "image")
    assert boxes(image) == {"": ((0, 1), (5, summaries.LARGEST_SIDE + 5))}
    sound = lg.Signal.from_array(np.broadcast_to(np.int16(3), (summaries.LONGEST_SOUND + 4,)), "audio")
    assert boxes(sound) == {"": ((2, summaries.LONGEST_SOUND + 2),)}


def test_a_film_is_looked_at_in_frames_and_a_volume_in_its_middle_slices():
    film = lg.Signal.from_array(noise(51, 4, 6, 3), "video")
    assert list(boxes(film)) == [f"frame_{at:05d}" for at in (0, 10, 20, 30, 40, 50)]
    assert boxes(film)["frame_00020"] == ((20, 21), (0, 4), (0, 6))
    assert list(boxes(lg.Signal.from_array(noise(2, 4, 6), "video"))) == ["frame_00000", "frame_00001"]
    volume = lg.Signal.from_array(noise(9, 4, 1), "volume")
    assert boxes(volume) == {
        "slice_00004": ((4, 5), (0, 4), (0, 1)),
        "row_00002": ((0, 9), (2, 3), (0, 1)),
        "column_00000": ((0, 9), (0, 4), (0, 1)),
    }


@pytest.mark.parametrize("local_scale", [None, 0.5])
@pytest.mark.parametrize(
    ("shape", "kind", "tile"),
    [
        ((37,), "audio", (10,)),
        ((13, 17), "image", (5, 8)),
        ((7, 9, 11), "video", (3, 4, 5)),
        ((5, 1, 6), "volume", None),
    ],
)
def test_an_excerpt_is_what_is_decoded(monkeypatch, shape, kind, tile, local_scale):
    monkeypatch.setattr(summaries, "_POSITIONS_AT_ONCE", 64)
    inr = representation(shape, 2, tile=tile, kind=kind, local_scale=local_scale)
    signal = lg.Signal.from_array(noise(*shape, 2).astype(np.float32), kind, value_range=inr.signal.value_range)
    decoded = lg.decode(inr)
    for excerpt in summaries.excerpts(signal):
        ours, whole = read(inr, signal, excerpt, CPU), cut(decoded, excerpt)
        assert ours.values.shape == cut(signal, excerpt).values.shape
        assert ours.kind == cut(signal, excerpt).kind
        assert np.abs(ours.values - whole.values).max() < 1e-3  # of 255


def test_a_flat_excerpt_of_the_signal_is_its_samples():
    values = noise(6, 7, 8, 3)
    for excerpt in summaries.excerpts(signal := lg.Signal.from_array(values, "volume")):
        plane = cut(signal, excerpt)
        assert plane.kind == "image"
        assert np.array_equal(plane.values, values.take(excerpt.box[excerpt.flat][0], axis=excerpt.flat))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_gradient_and_laplacian_are_those_of_the_network(monkeypatch, channels):
    monkeypatch.setattr(summaries, "_DERIVED_AT_ONCE", 999)
    inr = representation((90, 80), channels, tile=(90, 80))
    (excerpt,) = summaries.excerpts(lg.Signal.from_array(noise(90, 80), "image"))
    slopes, laplacians = derivatives(inr, excerpt, CPU)
    colours = 3 if channels >= 3 else 1

    def value(row, column):
        return float(inr(torch.tensor([[row, column]]))[0, :colours].double().mean()) / 255

    h = 0.1
    for row, column in ((0, 0), (33, 50), (89, 79)):
        centre = value(row, column)
        steps = [(value(row + h, column), value(row - h, column)), (value(row, column + h), value(row, column - h))]
        slope = np.hypot(*((up - down) / (2 * h) for up, down in steps))
        laplacian = sum(up - 2 * centre + down for up, down in steps) / h**2
        assert slopes[row, column] == pytest.approx(slope, rel=1e-2, abs=1e-5)
        assert laplacians[row, column] == pytest.approx(laplacian, rel=1e-2, abs=2e-4)


def test_there_is_no_gradient_and_no_laplacian_over_a_hole(monkeypatch):
    monkeypatch.setattr(summaries, "_DERIVED_AT_ONCE", 24)
    inr = representation((24, 12), tile=(4, 4)).crop("0:4,0:12", "20:24,0:12")
    (excerpt,) = summaries.excerpts(lg.Signal.from_array(noise(24, 12), "image"))
    for derived in derivatives(inr, excerpt, CPU):
        assert (derived[4:20] == 0).all()
        assert (derived[:4] != 0).any()


# Figures


def test_figures_of_an_image():
    one, two = (lg.Signal.from_array(noise(30, 120, 3, seed=seed)) for seed in (0, 1))
    summary = summaries.of_planes([""], [one], [two])
    assert summary.scalars == {"psnr": lg.psnr(one, two), "ssim": lg.ssim(one, two)}
    assert np.array_equal(summary.images["original"], one.values)
    assert np.array_equal(summary.images["reconstruction"], two.values)
    assert set(summary.images) == {"original", "reconstruction", "error"}
    assert summary.picture.shape == (30 + 14, 3 * 120 + 2 * 4, 3)
    assert not summary.clips


def test_a_panel_narrower_than_its_title_gets_a_margin():
    (wide,) = drawing.titled({"reconstruction": np.zeros((3, 300, 3), np.uint8)})
    (narrow,) = drawing.titled({"reconstruction": np.zeros((3, 5, 3), np.uint8)})
    used = np.flatnonzero((wide[:14] < 255).any(axis=(0, 2))).max() + 1
    assert used > 40
    assert np.array_equal(narrow[:14, :used], wide[:14, :used])
    assert (narrow[14:, :5] == 0).all()
    assert (narrow[14:, 5:] == 255).all()


def test_figures_of_frames_are_of_each_and_of_all():
    film, other = (lg.Signal.from_array(noise(5, 16, 120, 3, seed=seed), "video") for seed in (0, 1))
    looked_at = summaries.excerpts(film)
    ours, theirs = ([cut(signal, excerpt) for excerpt in looked_at] for signal in (film, other))
    summary = summaries.of_planes([excerpt.name for excerpt in looked_at], ours, theirs)
    assert summary.scalars["psnr"] == pytest.approx(lg.psnr(film, other))
    for at in range(5):
        frames = (lg.Signal.from_array(signal.values[at]) for signal in (film, other))
        assert summary.scalars[f"psnr_frame_{at:05d}"] == pytest.approx(lg.psnr(*frames))
    assert summary.scalars["ssim"] == pytest.approx(
        np.mean([lg.ssim(*pair) for pair in zip(ours, theirs, strict=True)])
    )
    assert summary.images["original"].shape == (16, 5 * 120 + 4 * 4, 3)
    assert np.array_equal(summary.images["original"][:, 124:244], film.values[1])
    assert summary.picture.shape == (3 * (16 + 14) + 2 * 4, 5 * 120 + 4 * 4, 3)


def test_slices_of_different_sizes_stand_in_one_strip():
    volume = lg.Signal.from_array(noise(5, 6, 7), "volume")
    planes = [cut(volume, excerpt) for excerpt in summaries.excerpts(volume)]
    summary = summaries.of_planes(list("abc"), planes, planes)
    assert summary.images["original"].shape == (6, 7 + 7 + 6 + 2 * 4, 3)
    assert set(summary.scalars) == {"psnr", "psnr_a", "psnr_b", "psnr_c"}  # smaller than the window of SSIM
    assert set(summary.scalars.values()) == {np.inf}


def test_a_missing_ssim_package_is_no_reason_to_end_a_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    image = lg.Signal.from_array(noise(30, 20))
    assert "ssim" not in summaries.of_planes([""], [image], [image]).scalars


def test_an_error_of_a_tenth_of_the_range_is_drawn_at_full_brightness():
    truth = np.zeros((12, 12, 1), np.float32)
    near = truth + np.array([0, 0.05, 0.1, 0.9] * 3, np.float32)[:, None, None]
    one, two = (lg.Signal.from_array(values, "image", value_range=(0, 1)) for values in (truth, near))
    error = summaries.of_planes([""], [one], [two]).images["error"]
    assert np.array_equal(error[:4, :1], drawing.heat(near[:4, 0] * 10))
    assert np.array_equal(error[2], error[3])


def test_derivatives_are_drawn_beside():
    image = lg.Signal.from_array(noise(12, 13))
    summary = summaries.of_planes([""], [image], [image], (np.zeros((12, 13)), np.zeros((12, 13))))
    assert (summary.images["gradient"] == drawing.heat(np.zeros((12, 13)))).all()
    assert (summary.images["laplacian"] == 255).all()


def test_figures_of_a_sound():
    values = np.random.default_rng(0).normal(size=(3000, 3))
    one = lg.Signal.from_array(values, "audio", sampling_rate=Fraction(16001, 2))
    two = lg.Signal.from_array(values * 0.9, "audio", value_range=one.value_range, sampling_rate=Fraction(16001, 2))
    summary = summaries.of_sound(one, two)
    assert summary.scalars == {"psnr": lg.psnr(one, two)}
    assert set(summary.images) == {"waveform", "spectrogram"}
    assert {pixels.shape[1] for pixels in (*summary.images.values(), summary.picture)} == {drawing.WIDTH}
    assert {clip.rate for clip in summary.clips.values()} == {8000}
    assert np.abs(summary.clips["original"].samples - values[:, :2] / one.value_range[1]).max() < 1e-12
    assert np.abs(summary.clips["original"].samples).max() <= 1


def test_a_sound_without_a_rate_has_no_clips_and_may_be_one_sample():
    sound = lg.Signal.from_array(np.array([0.5]), "audio")
    summary = summaries.of_sound(sound, sound)
    assert not summary.clips
    assert summary.scalars == {"psnr": np.inf}
    assert summary.images["spectrogram"].shape[1] == drawing.WIDTH


@pytest.mark.parametrize(
    ("largest", "factor"), [(2.0, 1), (1.0, 1), (0.2, 1), (0.1, 10), (0.011, 10), (0.0, 1_000_000)]
)
def test_errors_of_sounds_are_magnified_to_be_seen(largest, factor):
    assert summaries._magnification(np.array([0.0, -largest])) == factor


# Drawings


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_eight_bits_are_drawn_as_they_are(channels):
    values = noise(5, 6, channels)
    drawn = drawing.picture(values, (0, 255))
    assert np.array_equal(drawn, values[..., :3] if channels >= 3 else values[..., :1].repeat(3, axis=-1))


def test_values_beyond_the_range_are_clipped():
    drawn = drawing.picture(np.array([[[-9.0], [-1.0], [0.0], [1.0], [9.0]]]), (-1, 1))
    assert drawn[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_waveform_spans_lowest_to_highest():
    samples = np.zeros(drawing.WIDTH * 3)
    samples[3:6] = -1, 0.5, 1
    inked = (drawing.waveform(samples, 9) != 255).any(axis=-1)
    assert inked[:, 1].all()
    assert inked[:, 0].nonzero()[0].tolist() == [4]
    assert (drawing.waveform(np.array([0.0, 1.0]), 9)[0, drawing.WIDTH // 2 :] != 255).any()


def test_a_spectrogram_shows_a_sine_where_it_belongs():
    sine = np.sin(2 * np.pi * 100 / 512 * np.arange(8000))
    pixels = drawing.spectrogram(sine).astype(int).sum(axis=-1)
    assert pixels.shape == (256, drawing.WIDTH)
    assert (pixels.argmax(axis=0) == 255 - 100).all()
    assert pixels.max() == drawing.heat(np.ones((1, 1))).astype(int).sum()  # 0 dB


def test_large_panels_are_reduced_by_a_whole_factor():
    pixels = noise(30, 41, 3)
    assert drawing.reduced(pixels, 41) is pixels
    assert drawing.reduced(pixels, 20).shape == (10, 14, 3)
    assert np.abs(drawing.reduced(pixels, 21)[0, 0] - pixels[:2, :2].mean(axis=(0, 1))).max() <= 1


@pytest.mark.parametrize("channels", [1, 2])
def test_a_clip_is_a_wav_file(channels):
    samples = np.random.default_rng(0).uniform(-1.1, 1.1, (50, channels))
    with wave.open(io.BytesIO(Clip(samples, 22_050).wav())) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (channels, 22_050, 2)
        heard = np.frombuffer(file.readframes(99), "<i2").reshape(-1, channels)
    assert np.abs(heard / 32767 - samples.clip(-1, 1)).max() < 1 / 32767
