"""What is told of a reconstruction: figures, pictures and clips of excerpts, beside those of the original."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lgsirens.errors import MissingDependencyError
from lgsirens.grid.box import Box, box_shape
from lgsirens.monitoring import drawing
from lgsirens.monitoring.drawing import Pixels
from lgsirens.monitoring.sinks import Clip
from lgsirens.representation.evaluate import evaluate
from lgsirens.representation.metrics import psnr, ssim
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS, Array, Signal

# An error of this fraction of the value range is drawn at full brightness.
FULL_ERROR = 0.1

_LARGEST_PANEL = 1024
_STRIP_PANEL = 256
_MOST_CHANNELS = 8


@dataclass(frozen=True)
class Summary:
    """What is told at one step.

    Attributes:
        scalars: by name; PSNR in dB, infinite where there is no error; SSIM where it is defined and installed.
        images: by name.
        clips: by name; of sounds with a sampling rate.
        picture: all images in one, with titles.
    """

    scalars: dict[str, float]
    images: dict[str, Pixels]
    clips: dict[str, Clip]
    picture: Pixels


def of_planes(
    names: Sequence[str],
    originals: Sequence[Signal],
    decoded: Sequence[Signal],
    derivatives: tuple[Array, Array] | None = None,
) -> Summary:
    """Summary of images: of one, or of the frames or slices of a larger signal.

    Args:
        names: of each; empty if there is one.
        originals, decoded: images of pairwise the same shape, of one value range.
        derivatives: `[H, W]` length of the gradient, `[H, W]` Laplacian.
    """
    pairs = list(zip(originals, decoded, strict=True))
    one = len(pairs) == 1
    scalars = {"psnr": psnr(_in_one(originals), _in_one(decoded))}
    if not one:
        scalars |= {f"psnr_{name}": psnr(*pair) for name, pair in zip(names, pairs, strict=True)}
    with suppress(MissingDependencyError):  # a figure is no reason to end a run
        if similarities := [value for value in (ssim(*pair) for pair in pairs) if value is not None]:
            scalars["ssim"] = float(np.mean(similarities))

    panels = {
        "original": [drawing.picture(np.asarray(signal.values), signal.value_range) for signal in originals],
        "reconstruction": [drawing.picture(np.asarray(signal.values), signal.value_range) for signal in decoded],
        "error": [drawing.heat(_error(*pair) / FULL_ERROR) for pair in pairs],
    }
    if derivatives is not None:
        slope, laplacian = derivatives
        panels["gradient"] = [drawing.heat(slope / _typical_peak(slope))]
        panels["laplacian"] = [drawing.cold_to_warm(laplacian / _typical_peak(laplacian))]
    most = _LARGEST_PANEL if one else _STRIP_PANEL
    images = {name: drawing.row([drawing.reduced(panel, most) for panel in row]) for name, row in panels.items()}
    of = "" if one else f" of {', '.join(names)}"
    titles = {name: name + of for name in images} | {"error": f"error{of}, {FULL_ERROR:.0%} is bright"}
    shown = drawing.titled({titles[name]: panel for name, panel in images.items()})
    return Summary(scalars, images, {}, drawing.row(shown) if one else drawing.column(shown))


def of_sound(original: Signal, decoded: Signal) -> Summary:
    """Summary of a sound: PSNR, waveforms, spectrograms, and clips at its own rate."""
    truth, heard = _unit(original), _unit(decoded)
    waves: dict[str, Pixels] = {}
    spectra: dict[str, Pixels] = {}
    for channel in range(min(_MOST_CHANNELS, original.channels)):
        which = f", channel {channel}" if original.channels > 1 else ""
        for name, samples in (("original", truth), ("reconstruction", heard)):
            waves[name + which] = drawing.waveform(samples[:, channel])
            spectra[name + which] = drawing.spectrogram(samples[:, channel])
        error = heard[:, channel] - truth[:, channel]
        factor = _magnification(error)
        waves[f"error x {factor:,}{which}"] = drawing.waveform(factor * error)
    images = {"waveform": drawing.column(drawing.titled(waves)), "spectrogram": drawing.column(drawing.titled(spectra))}
    clips = {}
    if original.sampling_rate is not None:
        rate = max(1, round(original.sampling_rate))
        clips = {"original": Clip(truth[:, :2], rate), "reconstruction": Clip(heard[:, :2], rate)}
    return Summary({"psnr": psnr(original, decoded)}, images, clips, drawing.column(list(images.values())))


def _in_one(planes: Sequence[Signal]) -> Signal:
    """All samples of all planes in one image of one column."""
    values = np.concatenate([np.asarray(plane.values).reshape(-1, 1, plane.channels) for plane in planes])
    return replace(planes[0], values=values)


def _error(original: Signal, decoded: Signal) -> Array:
    """Mean absolute error over channels as a fraction of the value range, `[H, W]`."""
    lowest, highest = original.value_range
    difference = np.asarray(decoded.values, np.float64) - original.values
    return np.asarray(np.abs(difference).mean(axis=-1) / (highest - lowest))


def _unit(sound: Signal) -> Array:
    """Samples divided by the peak that the representation keeps, `[S, C]`."""
    lowest, highest = sound.value_range
    return (2 * np.asarray(sound.values, np.float64) - lowest - highest) / (highest - lowest)


def _magnification(error: Array) -> int:
    """The power of ten that makes an error fill a panel."""
    largest = float(np.abs(error).max())
    return int(10 ** max(0, math.floor(-math.log10(max(largest, 1e-6)))))


def _typical_peak(values: Array) -> float:
    """What nearly all values stay below: single extremes would leave the rest in the dark."""
    return max(float(np.quantile(np.abs(values), 0.99)), 1e-12)


# Excerpts: the parts of a signal that a summary looks at, few enough to be read at any time.

LONGEST_SOUND = 1 << 20  # samples; 24 s at 44,100 a second
LARGEST_SIDE = 2048  # samples of an image, frame or slice
MOST_FRAMES = 6

_POSITIONS_AT_ONCE = 1 << 16
# Second derivatives keep every activation of every layer several times.
_DERIVED_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Excerpt:
    """One part of a signal: a stretch of a sound, an image, a frame, a slice.

    Attributes:
        name: what tells it from the others of its signal; empty if there are none.
        box: its positions.
        flat: the axis along which it is one sample thick, None if there is none.
    """

    name: str
    box: Box
    flat: int | None = None


def excerpts(signal: Signal) -> tuple[Excerpt, ...]:
    """A sound's middle, an image (or its middle), frames of a film at equal distances, the three middle slices of a
    volume."""
    axes, shape = KINDS[signal.kind].axes, signal.shape
    whole = tuple(_middle(size, LONGEST_SOUND if len(axes) == 1 else LARGEST_SIDE) for size in shape)
    if len(axes) < 3:
        return (Excerpt("", whole),)
    if axes[0] == "frame":
        frames = np.linspace(0, shape[0] - 1, min(MOST_FRAMES, shape[0])).round()
        cuts = [(0, int(frame)) for frame in frames]
    else:
        cuts = [(axis, size // 2) for axis, size in enumerate(shape)]
    return tuple(
        Excerpt(f"{axes[axis]}_{at:05d}", (*whole[:axis], (at, at + 1), *whole[axis + 1 :]), axis) for axis, at in cuts
    )


def cut(signal: Signal, excerpt: Excerpt) -> Signal:
    """The part of a signal whose first sample lies at position 0: a sound, or an image of what is flat."""
    return _as_signal(signal, signal.read(excerpt.box), excerpt)


def read(representation: Representation, original: Signal, excerpt: Excerpt, device: torch.device) -> Signal:
    """The part of what is decoded, as `cut` gives that of the original; equal to `decode` but for rounding."""
    at_once = _positions(excerpt.box, _POSITIONS_AT_ONCE, device)
    with torch.no_grad():
        values = torch.cat([evaluate(representation, positions).cpu() for positions in at_once])
    decoded = values.numpy().clip(*original.value_range)
    return _as_signal(original, decoded.reshape(*box_shape(excerpt.box), -1), excerpt)


def derivatives(representation: Representation, excerpt: Excerpt, device: torch.device) -> tuple[Array, Array]:
    """Length of the gradient and Laplacian of an image's mean over colours, by differentiation of the network.

    Returns:
        two arrays `[H, W]`, in units of the value range per sample and per sample squared.
    """
    parts = [_derive(representation, positions) for positions in _positions(excerpt.box, _DERIVED_AT_ONCE, device)]
    shape = box_shape(excerpt.box)
    slopes, laplacians = (torch.cat(column).cpu().numpy().reshape(shape) for column in zip(*parts, strict=True))
    return slopes, laplacians


def _derive(representation: Representation, positions: Tensor) -> tuple[Tensor, Tensor]:
    lowest, highest = representation.signal.value_range
    positions = positions.requires_grad_()
    values = evaluate(representation, positions) / (highest - lowest)
    colours = 3 if values.shape[1] >= 3 else 1
    (gradient,) = torch.autograd.grad(values[:, :colours].mean(dim=1).sum(), positions, create_graph=True)
    # Samples do not meet in the network, so the gradient of a sum over them is each one's own.
    laplacian = torch.zeros_like(gradient[:, 0])
    for axis in range(positions.shape[1]):
        (second,) = torch.autograd.grad(gradient[:, axis].sum(), positions, retain_graph=True)
        laplacian += second[:, axis]
    return gradient.detach().norm(dim=1), laplacian.detach()


def _as_signal(signal: Signal, values: Array, excerpt: Excerpt) -> Signal:
    if excerpt.flat is None:
        return replace(signal, values=values)
    return Signal(values.squeeze(excerpt.flat), "image", signal.value_range, signal.dtype)


def _middle(size: int, most: int) -> tuple[int, int]:
    start = max(0, (size - most) // 2)
    return start, min(size, start + most)


def _positions(box: Box, at_once: int, device: torch.device) -> Iterator[Tensor]:
    """The positions of a box in C order, `[m, D]` float64, a bounded number at a time."""
    shape = box_shape(box)
    total = int(np.prod(shape))
    for start in range(0, total, at_once):
        places = np.unravel_index(np.arange(start, min(start + at_once, total)), shape)
        columns = [place + low for place, (low, _) in zip(places, box, strict=True)]
        yield torch.from_numpy(np.stack(columns, axis=-1).astype(np.float64)).to(device)
