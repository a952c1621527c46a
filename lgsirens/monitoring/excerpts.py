"""The parts of a signal that a summary looks at, few enough to be read at any time, and how they are read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lgsirens.grid.box import Box, box_shape
from lgsirens.representation.decode import evaluate
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS, Array, Signal

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
    return _as_signal(signal, signal.values[tuple(slice(start, stop) for start, stop in excerpt.box)], excerpt)


def read(representation: Representation, original: Signal, excerpt: Excerpt, device: torch.device) -> Signal:
    """The part of what is decoded, as `cut` gives that of the original; equal to `decode` but for rounding."""
    with torch.no_grad():
        values = [
            evaluate(representation, positions).cpu()
            for positions in _positions(excerpt.box, _POSITIONS_AT_ONCE, device)
        ]
    decoded = torch.cat(values).numpy().clip(*original.value_range)
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
    laplacian = torch.zeros(len(positions), dtype=gradient.dtype, device=gradient.device)
    for axis in range(positions.shape[1]):
        (second,) = torch.autograd.grad(gradient[:, axis].sum(), positions, retain_graph=True)
        laplacian += second[:, axis]
    return gradient.detach().norm(dim=1), laplacian


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
