"""Signal: samples on a regular grid, with what is needed to write them back.

A `Kind` says how many coordinate dimensions a signal has and which conventions of the paper apply to it.
It is the only table of kinds: other modules read its columns and never ask which kind they have.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgsirens.errors import SignalError
from lgsirens.grid.box import Box, box_of_shape, slices
from lgsirens.lazy import LazyValues, extremes, is_lazy
from lgsirens.system.console import counted

Array = NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """Conventions of one kind of signal.

    Attributes:
        name: image, audio, video or volume.
        axes: names of the coordinate dimensions, in array order.
        max_channels: largest number of channels.
        coordinate_scale: network coordinate of the outermost samples of the first signal (SIREN's convention).
        coordinate_step: by how much tile coordinates of neighbouring samples differ by default.
        samples_per_partition: default number of samples in a partition.
        parameters_per_sample: default parameter budget, in parameters for each sample position.
        psnr_peak: peak of PSNR and SSIM as a fraction of the value range (audio: 1.0 on a signal in [-1, 1]).
        symmetric: the default value range is -peak to peak, whatever the sample type.
        halo: in samples along every axis, by default, with tile coordinates.
    """

    name: str
    axes: tuple[str, ...]
    max_channels: int
    coordinate_scale: float
    coordinate_step: float
    samples_per_partition: int
    parameters_per_sample: float
    psnr_peak: float
    symmetric: bool = False
    halo: int = 0

    @property
    def dimensions(self) -> int:
        return len(self.axes)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("image", ("row", "column"), 4, 1.0, 1 / 64, 32 * 32, 0.75, 1.0, halo=1),
        Kind("audio", ("sample",), 64, 100.0, 1 / 800, 10_000, 0.65, 0.5, symmetric=True),
        Kind("video", ("frame", "row", "column"), 4, 1.0, 1 / 32, 16_000, 0.075, 1.0),
        Kind("volume", ("slice", "row", "column"), 4, 1.0, 1 / 32, 16_000, 0.075, 1.0),
    )
}

UNSIGNED_TYPES = tuple(f"uint{bits}" for bits in range(8, 17))  # of pictures
SAMPLE_TYPES = (
    *(*UNSIGNED_TYPES, "uint32", "uint64"),
    *("int8", "int16", "int24", "int32", "int64"),
    *("float16", "float32", "float64"),
)

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
_NOT_PLAIN = (np.ma.MaskedArray, torch.Tensor, list, tuple)

LARGEST_VALUE = float(np.finfo(np.float32).max)
SMALLEST_SPAN = 1e-30
LEAST_STEPS = 256  # of float32, that a value range must have


@dataclass(frozen=True, eq=False)
class Signal:
    """Samples with their kind, value range and sample type. Build one with `Signal.from_array`.

    Attributes:
        values: `[*shape, C]`, D + 1 axes, finite, in the units of `value_range`; the sample type of the source
            after reading, float32 after decoding. An array, or one that is read where it is indexed;
            `np.asarray(signal.values)` is all of it.
        kind: a key of `KINDS`.
        value_range: lowest and highest possible value; mapped to [-1, 1] for the network.
        dtype: sample type that the signal has in a file ("uint8", "uint12", "int24", "float32", ...).
        sampling_rate: samples (frames) per second along the first axis, exactly, where the signal has one.
        spacing: distance of samples along each axis, in the file's unit of length, where the file says so.
        colour: primaries and transfer characteristics of the samples, as ITU-T H.273 numbers them, where they are other
            than those of sRGB and BT.709: (9, 16) is BT.2020 with PQ.
        mask: `[*shape]` bool, true where a partition is present; None if all are.
    """

    values: Array | LazyValues
    kind: str
    value_range: tuple[float, float]
    dtype: str
    sampling_rate: Fraction | None = None
    spacing: tuple[float, ...] | None = None
    colour: tuple[int, int] | None = None
    mask: NDArray[np.bool_] | None = None

    @classmethod
    def from_array(
        cls,
        values: Any,
        kind: str | None = None,
        value_range: tuple[float, float] | None = None,
        sampling_rate: Fraction | int | None = None,
        dtype: str | None = None,
    ) -> "Signal":
        """Make a signal from an array, with or without a channel axis.

        Args:
            values: image `[H, W]` or `[H, W, C]`, audio `[S]` or `[S, C]`, video and volume `[T, H, W]` or
                `[T, H, W, C]`; integers, booleans or floats; a tensor may be on any device, sparse, of bfloat16.
                What is not in memory, as `np.memmap` and anything else with `shape`, `dtype` and `[slices]` (Zarr,
                HDF5, dask, `lgsirens.open`), stays there and is read by region.
            kind: settled by the rank when None: 1 audio, 2 image, 3 image if the last axis is at most 4 and a
                volume otherwise, 4 video.
            value_range: lowest and highest value. Default: -peak to peak for audio; that of the integer type
                up to 16 bits; [0, 1] for floats that fit it; else minimum to maximum.
            sampling_rate: samples per second along the first axis.
            dtype: sample type in the file, if it is not that of the array (24-bit sound in an array of int32, 12-bit
                pictures in one of uint16).

        Raises:
            SignalError: wrong type, rank or number of channels, no samples, NaN or infinite samples, an empty
                value range, or integers wider than 16 bits without a value range.
        """
        lazy = is_lazy(values)
        values = _checked_type(values) if lazy else _checked_array(values)
        kind = _settle_kind(tuple(values.shape), kind)
        if lazy and not isinstance(values, LazyValues):
            values = LazyValues(values)
        if values.ndim == KINDS[kind].dimensions:
            values = values.with_channel_axis() if lazy else values[..., None]
        most, channels = KINDS[kind].max_channels, values.shape[-1]
        if channels > most:
            raise SignalError(
                f"kind {kind} has 1 to {most} channels, not {channels}; name another kind or select channels"
            )
        dtype = dtype or values.dtype.name
        if value_range is None:
            value_range = _default_range(values, KINDS[kind].symmetric, dtype)
        elif lazy and values.dtype.kind == "f":
            extremes(values)  # all is read once: what is no number shall be told before any long work
        bounds = _checked_range(value_range)
        rate = None if sampling_rate is None else Fraction(sampling_rate)
        return cls(values, kind, bounds, dtype, rate)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples along each coordinate dimension; the channels are not counted."""
        return self.values.shape[:-1]

    @property
    def channels(self) -> int:
        return int(self.values.shape[-1])

    @property
    def present(self) -> NDArray[np.bool_]:
        """`[*shape]` bool, true where a partition is present; a read-only view if all are."""
        return np.broadcast_to(np.True_, self.shape) if self.mask is None else self.mask

    def read(self, box: Box) -> Array:
        """Samples `[*box_shape(box), C]` of a box of positions, counted from the first sample; no others are read, but
        for those in the same chunks of a file."""
        return self.values[slices(box, box_of_shape(self.shape))]

    def keep(self, limit: int) -> None:
        """Keep at most so many bytes of what was read last, where samples are read by region."""
        if isinstance(self.values, LazyValues):
            self.values.keep(limit)

    def with_range(self, value_range: tuple[float, float]) -> "Signal":
        """The same samples with another value range (raises SignalError as `from_array`)."""
        return replace(self, value_range=_checked_range(value_range))


def array_type(dtype: str) -> np.dtype[Any]:
    """The NumPy type of an array of such samples: those that NumPy has not are in the next wider one."""
    return np.dtype("int32" if dtype == "int24" else "uint16" if dtype in UNSIGNED_TYPES[1:] else dtype)


def integer_limits(dtype: str) -> tuple[int, int]:
    """The lowest and the highest number of a sample type of integers."""
    bits = int(re.sub(r"\D", "", dtype))
    return (0, (1 << bits) - 1) if dtype.startswith("u") else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def to_sample_type(values: Array, dtype: str) -> Array:
    """Convert values to the sample type of a file, in an array of `array_type`: integers by rounding half to even,
    clipped to the type.

    Args:
        values: any shape, float.
        dtype: a sample type.
    """
    stored = array_type(dtype)
    if stored.kind not in "iu":
        return values.astype(stored)
    lowest, highest = integer_limits(dtype)
    rounded = np.rint(values)
    # Floats have no number for the highest wide integers, so these are set, not converted.
    inside = (rounded >= float(lowest)) & (rounded < float(highest) + 1.0)
    converted = np.where(inside, rounded, 0).astype(stored)
    return np.where(inside, converted, np.where(rounded < 0, lowest, highest).astype(stored))


def _checked_array(given: Any) -> Array:
    try:
        values: Array = np.asarray(_plain(given))
    except SignalError:
        raise
    except Exception as error:  # whatever an object's own conversion raises
        reason = " ".join(str(error).split())
        raise SignalError(f"no array of samples: {reason}; give a NumPy array, or rows of one length") from None
    if values.dtype.kind == "b":
        values = values.astype(np.float32)
    _checked_type(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise SignalError(f"{count} samples are NaN or infinite; replace them with finite values first")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _checked_type(values: Any) -> Any:
    dtype, shape = values.dtype, tuple(values.shape)
    name = getattr(dtype, "name", str(dtype))
    if name not in (*SAMPLE_TYPES, "bool"):
        raise SignalError(f"array of type {dtype}: samples must be integers or floats; convert it first")
    if 0 in shape:
        raise SignalError(f"array of shape {shape} has no samples; nothing can be encoded")
    return values


def _plain(given: Any) -> Any:
    """The same where NumPy finds all numbers and no more of them."""
    if isinstance(given, np.ma.MaskedArray) and given.mask.any():
        hidden = counted(int(given.mask.sum()), "sample")
        raise SignalError(f"masked array, {hidden} hidden; give values for them (filled), or a part without")
    if isinstance(given, list | tuple) and any(isinstance(part, _NOT_PLAIN) for part in given):
        return [np.asarray(_plain(part)) for part in given]
    return _plain_tensor(given) if isinstance(given, torch.Tensor) else given


def _plain_tensor(values: torch.Tensor) -> torch.Tensor:
    """On the CPU, dense, of a type that NumPy has."""
    kinds = {"complex": values.is_complex(), "nested": values.is_nested, "without data (meta)": values.is_meta}
    if what := next((name for name, found in kinds.items() if found), None):
        raise SignalError(f"a tensor that is {what}: samples must be integers or floats; convert it first")
    values = values.detach().cpu().resolve_neg()
    if values.layout != torch.strided:
        values = values.to_dense()
    # bfloat16 and the types of 8 bits, which float32 holds exactly
    return values.float() if values.is_floating_point() and values.dtype not in _NUMPY_FLOATS else values


def _settle_kind(shape: tuple[int, ...], kind: str | None) -> str:
    rank = len(shape)
    if kind is None:
        if not 1 <= rank <= 4:
            raise SignalError(f"array of rank {rank} is no signal; an image is [H, W] or [H, W, C]")
        if rank == 3:
            return "image" if shape[-1] <= KINDS["image"].max_channels else "volume"
        return {1: "audio", 2: "image", 4: "video"}[rank]
    if not isinstance(kind, str) or kind not in KINDS:
        raise SignalError(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    dimensions = KINDS[kind].dimensions
    if rank not in (dimensions, dimensions + 1):
        what = f"{counted(dimensions, 'dimension')} and an optional channel axis"
        raise SignalError(f"{kind} has {what}, not the shape {shape}; name another kind or reshape it")
    return kind


def _checked_range(value_range: tuple[float, float]) -> tuple[float, float]:
    try:
        lo, hi = (float(bound) for bound in value_range)
    except (TypeError, ValueError, OverflowError):
        raise SignalError(f"{value_range!r}: is no pair of numbers; give LO,HI with LO < HI", "value_range") from None
    largest = max(-lo, hi)
    fits = lo < hi and largest <= LARGEST_VALUE and SMALLEST_SPAN <= hi - lo <= LARGEST_VALUE
    if not (fits and hi - lo >= LEAST_STEPS * float(np.spacing(np.float32(largest)))):
        reason = "is empty, or float32 cannot tell its values apart so far from 0"
        raise SignalError(f"{lo:g},{hi:g}: {reason}; give LO,HI with LO < HI, or subtract an offset", "value_range")
    return lo, hi


def _default_range(values: Array | LazyValues, symmetric: bool, dtype: str) -> tuple[float, float]:
    if symmetric:
        lo, hi = extremes(values)
        peak = max(abs(lo), abs(hi)) or 1.0
        return -peak, peak
    if values.dtype.kind in "iu":
        lowest, highest = integer_limits(dtype)
        if highest - lowest > 65535:
            raise SignalError(
                f"integers of type {dtype} rarely use the whole range of their type; give value_range LO,HI "
                "or convert to uint8 or uint16"
            )
        return float(lowest), float(highest)
    lo, hi = extremes(values)
    if lo >= 0.0 and hi <= 1.0:
        return 0.0, 1.0
    margin = max(0.5, abs(lo) * 1e-3)
    return (lo, hi) if lo < hi else (lo - margin, lo + margin)


def check_signal(value: object) -> Signal:
    """`value` if it is a signal, else SignalError."""
    if not isinstance(value, Signal):
        raise SignalError(f"{type(value).__name__} is no Signal; make one with read(path) or Signal.from_array(array)")
    return value
