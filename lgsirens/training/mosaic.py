"""One shared network for many files: learnt from blocks of tiles that are cut from them and stand in one strip."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lgsirens.errors import ConfigError, LgsirensError, SignalError
from lgsirens.signal import KINDS, Array, Signal
from lgsirens.system.console import counted
from lgsirens.training.config import EncodeConfig, along_axes
from lgsirens.training.groups import LEARNING_PARTITIONS

# Of each axis of a block. Of a single tile both neighbours along the strip would be foreign.
_LEAST_TILES = 2


def mosaic(
    paths: Sequence[Path], read: Callable[[Path], Signal], config: EncodeConfig, common_range: bool
) -> tuple[Signal, tuple[int, ...]]:
    """A signal to learn a shared network from, and its tile.

    Blocks of whole tiles, each from another file, as many as `LEARNING_PARTITIONS` tiles give, stand side by side along
    the last axis. A file that is smaller than a block is continued by its mirror image. The first file that can be read
    settles kind, channels, value range and how large blocks are; those of another kind are left out, and so are those
    that cannot be read. Only at the ends of a block a halo sees a foreign neighbour.

    Args:
        common_range: all files have one value range.

    Raises:
        ConfigError: the files have value ranges of their own where these depend on how loud they are.
        SignalError: no file can be read.
    """
    number = min(len(paths), LEARNING_PARTITIONS // _LEAST_TILES)
    first = next(_readable(_spread(paths, number), read), None)
    if first is None:
        raise SignalError(f"{paths[0]}: neither it nor {counted(number - 1, 'other file')} can be read; name signals")
    kind = KINDS[first.kind]
    if kind.symmetric and not common_range:
        raise ConfigError(f"must be one for all files of kind {kind.name}; give it, such as -1,1", "value_range")
    side = round(kind.samples_per_partition ** (1 / kind.dimensions))
    given = config.partition_size
    tile = (side,) * kind.dimensions if given is None else along_axes("partition_size", given, kind.name)
    number = min(number, LEARNING_PARTITIONS // _LEAST_TILES**kind.dimensions)
    most = max(-(-size // t) for size, t in zip(first.shape, tile, strict=True))
    tiles = min(max(_LEAST_TILES, int((LEARNING_PARTITIONS / number) ** (1 / kind.dimensions) + 1e-9)), most)
    block = tuple(tiles * t for t in tile)
    alike = (
        signal
        for signal in _readable(_spread(paths, number), read)
        if (signal.kind, signal.channels) == (first.kind, first.channels)
    )
    stream = np.random.default_rng(config.seed)
    blocks = [_in_range(_block(signal, tile, block, stream), signal, first) for signal in alike]
    blocks = blocks or [_block(first, tile, block, stream)]  # it is among more files than blocks are cut from
    return replace(first, values=np.concatenate(blocks, axis=-2), sampling_rate=None, spacing=None, mask=None), tile


def _spread(paths: Sequence[Path], number: int) -> list[Path]:
    """So many of the files, at equal distances."""
    return [paths[(2 * i + 1) * len(paths) // (2 * number)] for i in range(number)]


def _readable(paths: Sequence[Path], read: Callable[[Path], Signal]) -> Iterator[Signal]:
    for path in paths:
        try:
            yield read(path)
        except LgsirensError:  # which is told when its turn comes to be encoded
            continue


def _block(signal: Signal, tile: Sequence[int], block: Sequence[int], stream: np.random.Generator) -> Array:
    """Samples `[*block, C]` that begin at a tile, drawn from those at which a whole block does."""
    last = [(size - b) // t if size > b else 0 for size, b, t in zip(signal.shape, block, tile, strict=True)]
    starts = [int(stream.integers(0, most, endpoint=True)) * t for most, t in zip(last, tile, strict=True)]
    box = tuple((a, min(a + b, size)) for a, b, size in zip(starts, block, signal.shape, strict=True))
    values = signal.read(box)
    missing: list[Any] = [(0, b - have) for b, have in zip(block, values.shape[:-1], strict=True)]
    return np.pad(values, [*missing, (0, 0)], mode="symmetric")


def _in_range(values: Array, signal: Signal, first: Signal) -> Array:
    """Values as they are where the range is that of the first signal, else mapped to it: networks see the same."""
    if signal.value_range == first.value_range:
        return values.astype(np.float32)
    (lowest, highest), (low, high) = signal.value_range, first.value_range
    mapped = (values.astype(np.float64) - lowest) / (highest - lowest) * (high - low) + low
    return mapped.astype(np.float32)
