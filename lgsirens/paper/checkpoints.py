"""Networks trained by the published code: its `.pth` files, which are bare state_dicts, to representations.

The tensors say all of the model: `net.net.K.0.weight` are the layers K = 0 .. H + 1, `[out, in]` for "mlp" and
`[P, in, out]` for local networks; `net.global_net.K.0.weight` (with "fc_and_add" `.K.0.0` and, onto the local width,
`.K.1.0`) are those of the shared network, `net.agg_func.0` is the aggregation layer; biases stand beside them. What
they do not say, the grid and the signal, has to be told.
"""

import math
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgsirens.errors import ConfigError, FileFormatError, SignalError
from lgsirens.grid.box import box_of_shape
from lgsirens.grid.coordinates import LONGEST_AXIS, Coordinates
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import LARGEST_WEIGHT, ModelConfig, are_sound, row_layout, shared_layout
from lgsirens.representation.decode import decode
from lgsirens.representation.file import identified
from lgsirens.representation.metrics import psnr, recorded
from lgsirens.representation.representation import FitRecord, Representation, SignalInfo, first_encoding
from lgsirens.representation.rows import MemoryRows
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import commas, counted, note

# A zip archive, as torch.save writes; before version 1.6 it wrote a pickle, whose protocol is the second byte.
_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, eq=False)
class PublishedNetwork:
    """What a checkpoint holds, in our layout.

    Attributes:
        model: as its tensors say.
        rows: `[P, K]` float32.
        shared: the shared network's tensors by our names.
    """

    model: ModelConfig
    rows: Tensor
    shared: dict[str, Tensor]

    def check_grid(self, grid: tuple[int, ...]) -> None:
        """Raise ConfigError unless it has as many partitions as a grid."""
        if len(grid) != self.model.dimensions or math.prod(grid) != len(self.rows):
            held = counted(len(self.rows), "partition")
            raise ConfigError(f"{commas(grid)}: the network has {held}; give their number per dimension", "partitions")


def is_pickle(path: Path) -> bool:
    """Whether a file begins as one of `torch.save`, or as another pickle.

    Raises:
        SignalError: it cannot be read.
    """
    # The length that a .safetensors file begins with may look like a magic number.
    return _head(path).startswith(_MAGIC) and not is_safetensors(path)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as a `.safetensors` file: a length of 8 bytes, then JSON."""
    return os.path.isfile(path) and _head(path)[8:9] == b"{"


def read_checkpoint(path: Path) -> PublishedNetwork:
    """Read a state_dict of the published code; nothing in the file is run.

    Raises:
        FileFormatError: another pickle, or a state_dict of another model.
    """
    try:
        return _network(_state_dict(path))
    except ValueError as error:
        wrong = f"{path}: is no state_dict of the published code, or damaged"
        raise FileFormatError(f"{wrong}: {error}; save the network's state_dict() alone") from None


def as_representation(
    network: PublishedNetwork, signal: SignalInfo, shape: tuple[int, ...], grid: tuple[int, ...]
) -> Representation:
    """The representation of a network that was trained on a signal; it decodes to the published code's values.

    What the published code does to sizes that its grid does not divide is kept: images are resized to a multiple, of
    films and sounds the tail belongs to no partition and is left out.

    Args:
        network: from `read_checkpoint`.
        signal: what is known of the signal.
        shape: its samples along each dimension.
        grid: partitions along each dimension.

    Raises:
        ConfigError: grid, dimensions or channels do not fit the network.
    """
    model, kind = network.model, KINDS[signal.kind]
    if (model.dimensions, model.channels) != (kind.dimensions, signal.channels):
        held = f"{counted(model.dimensions, 'dimension')} and {counted(model.channels, 'channel')}"
        named = f"{signal.kind} {kind.dimensions} and {signal.channels}"
        raise ConfigError(f"the network has {held}, {named}; name the signal that it was trained on")
    network.check_grid(grid)
    if signal.kind == "image":
        shape = tuple(_resized(size, parts) for size, parts in zip(shape, grid, strict=True))
    tile = tuple(size // parts for size, parts in zip(shape, grid, strict=True))
    if min(tile) < 1 or min(shape) < 2 or max(shape) > LONGEST_AXIS:
        raise ConfigError(f"the published code encodes no signal of {commas(shape)} samples on {commas(grid)}")
    extent = box_of_shape(tuple(t * parts for t, parts in zip(tile, grid, strict=True)))
    left = [size - stop for size, (_, stop) in zip(shape, extent, strict=True)]
    if any(left):
        note("the last %s samples along each dimension belong to no partition, as in the published code", commas(left))
    lattice = Lattice.covering(extent, tile)
    coordinates = Coordinates("signal", shape, (kind.coordinate_scale,) * kind.dimensions)
    fit, config = FitRecord(0, 0.0, None, "imported", "unknown"), _config(model, signal, tile)
    rows, shared = MemoryRows(network.rows), network.shared
    return identified(first_encoding("import", model, lattice, coordinates, extent, signal, rows, shared, fit, config))


def measured(representation: Representation, signal: Signal) -> Representation:
    """The representation with its PSNR on the signal that it was trained on, of the shape that it had."""
    part = tuple(slice(start, stop) for start, stop in representation.extent)
    reached = psnr(replace(signal, values=signal.values[part]), decode(representation))
    return replace(representation, fit=replace(representation.fit, psnr=recorded(reached)))


def _head(path: Path) -> bytes:
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise SignalError(f"{path}: is no file; check the name")
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise SignalError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The weights that a file holds by name, without the prefix that `DataParallel` gives them.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        # torch.load checks no CRC; files from before version 1.6 have none.
        if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):
            raise ValueError(f"the CRC-32 of {damaged} differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes end in errors of any type, whose first sentence says which
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(words.split(". ")[0][:120]) from None
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}")
    for name, tensor in state.items():
        plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or not tensor.is_floating_point() or tensor.ndim == 0 or tensor.numel() == 0:
            raise ValueError(f"{name} is no array of floating-point weights")
    return {str(name).removeprefix("module."): tensor.detach() for name, tensor in state.items()}


def _network(state: dict[str, Tensor]) -> PublishedNetwork:
    """The network of a state_dict that holds its tensors and no other (raises ValueError)."""
    model, partitions = _model_of(state)
    if model.mode == "mlp":  # one partition, without its axis and with weights as `nn.Linear` has them
        state = {name: tensor[None].mT if tensor.ndim > 1 else tensor[None] for name, tensor in state.items()}
    layout = {name: (partitions, *reversed(shape)) for name, shape in row_layout(model)} | dict(shared_layout(model))
    tensors = {}
    for ours, shape in layout.items():
        theirs = _published_name(ours, model)
        found = tuple(state[theirs].shape) if theirs in state else None
        if found != shape:
            raise ValueError(f"{theirs} has shape {found}, expected {shape}")
        tensors[ours] = state.pop(theirs).float()
        if not are_sound(tensors[ours]):
            raise ValueError(f"{theirs} holds NaN or infinite weights, or some beyond {LARGEST_WEIGHT:g}")
    for unknown in state:
        raise ValueError(f"it also holds {unknown}")
    local = [tensors[name] for name, _ in row_layout(model)]
    rows = torch.cat([(part.mT if part.ndim == 3 else part).reshape(partitions, -1) for part in local], dim=1)
    return PublishedNetwork(model, rows, {name: tensors[name].contiguous() for name, _ in shared_layout(model)})


def _model_of(state: dict[str, Tensor]) -> tuple[ModelConfig, int]:
    """The model that the first layers speak of, and P (raises ValueError)."""
    first, layers = state.get("net.net.0.0.weight"), 0
    while f"net.net.{layers}.0.bias" in state:
        layers += 1
    if first is None or first.ndim not in (2, 3) or layers < 2:
        raise ValueError("it holds no layers net.net.0 and following")
    last, local = state[f"net.net.{layers - 1}.0.bias"], first.ndim == 3
    dimensions, width = tuple(first.shape[1:] if local else reversed(first.shape))
    added = state.get("net.global_net.0.0.0.weight")
    shared = state.get("net.global_net.0.0.weight", added)
    agg_type = "fc" if added is None else "fc_and_add"
    mode = "mlp" if not local else "lc" if shared is None else "lg"
    wide = 0 if shared is None else len(shared)
    model = ModelConfig(mode, dimensions, last.shape[-1], width, wide, layers - 2, agg_type=agg_type)
    return model, len(first) if local else 1


def _published_name(name: str, model: ModelConfig) -> str:
    part, depth, what = name.split("_")
    if part == "local":
        return f"net.net.{depth}.0.{what}"
    if model.agg_type == "fc_and_add":
        return f"net.global_net.{depth}.{'0' if part == 'global' else '1'}.0.{what}"
    return f"net.global_net.{depth}.0.{what}" if part == "global" else f"net.agg_func.0.{what}"


def _resized(size: int, parts: int) -> int:
    """The multiple of `parts` to which the published code resizes a side of an image. One part resizes nothing here:
    there it adds one sample, between the same ends."""
    rest = size % parts
    return size - rest if rest < max(parts // 2, 1) else size + parts - rest


def _config(model: ModelConfig, signal: SignalInfo, tile: tuple[int, ...]) -> dict[str, Any]:
    """The options that would build this model."""
    same = {name: getattr(model, name) for name in ("mode", "local_width", "hidden_layers", "agg_type")}
    size = None if model.mode == "mlp" else list(tile)
    described = {"kind": signal.kind, "value_range": list(signal.value_range), "partition_size": size}
    return {**described, **same, "global_width": model.global_width or None}
