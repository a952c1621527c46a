"""PSNR, SSIM and what shows at seams: of the reconstruction as decoded, clipped and never renormalised."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import SignalError, require
from lgsirens.grid.box import Box, box_of_shape, box_size, slices
from lgsirens.grid.lattice import block_shape
from lgsirens.lazy import blocks, regions
from lgsirens.signal import KINDS, Signal, check_signal

_SSIM_WINDOW = 11
_VALUES_AT_ONCE = 1 << 20


def peak(signal: Signal) -> float:
    """The peak of PSNR and SSIM: hi - lo of the value range (audio: half of it, 1.0 on the signal in [-1, 1])."""
    lowest, highest = signal.value_range
    return (highest - lowest) * KINDS[signal.kind].psnr_peak


def psnr(reference: Signal, decoded: Signal, where: NDArray[np.bool_] | None = None) -> float:
    """`10 log10(peak^2 / mse)` in dB over all samples and channels; infinite if they are equal.

    Args:
        reference: the truth; its value range gives the peak.
        decoded: the same shape, in the same units; clipped to the value range here.
        where: `[*shape]` bool, the samples that count; all when None.

    Raises:
        SignalError: the shapes or channels differ.
    """
    _check_same(reference, decoded)
    total, count = 0.0, 0
    for box in slabs(reference):
        error = _clipped(decoded.read(box), reference) - reference.read(box).astype(np.float64)
        if where is not None:
            error = error[where[slices(box, box_of_shape(where.shape))]]
        total += float(np.square(error).sum())
        count += error.size
    if count == 0:
        raise SignalError("no sample is left to compare; choose a window that holds a partition")
    return _psnr(reference, total, count)


def psnr_of_sum(reference: Signal, total: float, samples: int | None = None) -> float:
    """PSNR in dB of a sum of squared errors over so many samples, of all by default, in the signal's units."""
    count = math.prod(reference.shape) if samples is None else samples
    return _psnr(reference, total, count * reference.channels)


def _psnr(reference: Signal, total: float, count: int) -> float:
    return 10 * math.log10(peak(reference) ** 2 * count / total) if total else math.inf


def psnr_of_error(error: float, psnr_peak: float) -> float:
    """PSNR in dB of a mean squared error on [-1, 1]; not clipped, so at most that of the decoded signal (an estimate
    of it where a step sees a fraction of the samples)."""
    return 10 * math.log10((2 * psnr_peak) ** 2 / error) if error > 0 else math.inf


def recorded(value: float) -> float | None:
    """A PSNR as files and JSON keep it, which have no infinity: None where it is exact."""
    return round(value, 4) if math.isfinite(value) else None


def ssim(reference: Signal, decoded: Signal) -> float | None:
    """SSIM with an 11-tap Gaussian window of sigma 1.5 (Wang et al. 2004), averaged over channels.

    Returns:
        at most 1; None where a side is shorter than the window, or the signal has one dimension.

    Raises:
        SignalError: the shapes or channels differ.
        MissingDependencyError: pytorch-msssim is not installed.
    """
    _check_same(reference, decoded)
    if len(reference.shape) < 2 or min(reference.shape) < _SSIM_WINDOW:
        return None
    pytorch_msssim, lowest = require("pytorch_msssim", "SSIM", "ssim"), reference.value_range[0]
    total, count = 0.0, 0
    # The mean over the windows; those that begin in a box need what lies behind it, too.
    sides = [size - _SSIM_WINDOW + 1 for size in reference.shape]
    block = block_shape(sides, max(1, _VALUES_AT_ONCE // reference.channels))  # nearly a cube: little is seen twice
    for box in blocks((*sides, reference.channels), _VALUES_AT_ONCE, block):
        seen = tuple((low, high + _SSIM_WINDOW - 1) for low, high in box)
        # Channels first, in a batch of one; from 0, as the constants of SSIM expect.
        parts = [_clipped(signal.read(seen), reference) - lowest for signal in (decoded, reference)]
        pair = [torch.from_numpy(np.moveaxis(part, -1, 0)[None]) for part in parts]
        with torch.inference_mode():
            value = pytorch_msssim.ssim(*pair, data_range=peak(reference), win_size=_SSIM_WINDOW)
        total, count = total + float(value) * box_size(box), count + box_size(box)
    return total / count


def seam_ratio(reference: Signal, decoded: Signal, tile: tuple[int, ...]) -> float | None:
    """Mean absolute error of the samples on inner partition borders over that of the rest.

    Args:
        reference: the truth, whose first sample lies on a tile's first.
        tile: samples per dimension of one partition.

    Returns:
        1 where borders are as good as the rest; None where there is no inner border or nothing else.
    """
    _check_same(reference, decoded)
    error = np.abs(_clipped(np.asarray(decoded.values), reference) - np.asarray(reference.values, np.float64)).mean(
        axis=-1
    )
    border = np.zeros(reference.shape, dtype=bool)
    for axis, (size, length) in enumerate(zip(tile, reference.shape, strict=True)):
        at = np.arange(length)
        on = ((at % size == 0) & (at > 0)) | ((at % size == size - 1) & (at < length - 1))
        border |= on.reshape([-1 if d == axis else 1 for d in range(border.ndim)])
    if not border.any() or border.all():
        return None
    rest = float(error[~border].mean())
    return float(error[border].mean()) / rest if rest > 0 else None


def border_jump(signal: Signal, tile: tuple[int, ...]) -> float | None:
    """Mean absolute difference of the two samples on either side of inner partition borders, in the signal's units.

    Args:
        signal: its first sample lies on a tile's first.
        tile: samples per dimension of one partition.

    Returns:
        None where there is no inner border.
    """
    values, jumps, count = np.asarray(signal.values, np.float64), 0.0, 0
    for axis, size in enumerate(tile):
        after = np.arange(size, signal.shape[axis], size)
        steps = np.abs(values.take(after, axis) - values.take(after - 1, axis))
        jumps, count = jumps + float(steps.sum()), count + steps.size
    return jumps / count if count else None


def _clipped(values: NDArray[Any], reference: Signal) -> NDArray[np.float64]:
    return np.clip(values.astype(np.float64), *reference.value_range)


def slabs(signal: Signal) -> Iterator[Box]:
    """Boxes that follow each other, each of a bounded number of values, for `Signal.read`."""
    return regions(signal.values)


def _check_same(reference: Signal, decoded: Signal) -> None:
    given, other = (check_signal(signal).values.shape for signal in (reference, decoded))
    if given != other:
        raise SignalError(
            f"signals of shape {given} and {other} cannot be compared; give the original of the same shape"
        )
