"""Values at any positions, differentiable; and what every evaluation of rows takes. Regions are in `decode.py`."""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lgsirens.errors import RegionError
from lgsirens.nn.memory import evaluation_samples
from lgsirens.nn.siren import ModelConfig, SirenPerPartition, build_model, count, row_layout
from lgsirens.representation.representation import Representation
from lgsirens.signal import Array
from lgsirens.system.pytorch import as_it_starts

T = TypeVar("T")

BLOCK_SAMPLES = 1024  # of one partition
_ROW_BYTES = 16 << 20
_TABLE_BYTES = 64 << 20


def evaluate(representation: Representation, positions: Tensor | Array) -> Tensor:
    """Values at arbitrary positions, differentiable in the positions, by `torch.func` too.

    Args:
        positions: `[M, D]`, absolute, in samples; integers are the samples themselves. Arrays become tensors.

    Returns:
        `[M, C]` float32 in the units of the value range, not clipped; the lowest value (audio: silence), and
        no gradient, where no partition is present.

    Raises:
        RegionError: not `[M, D]` numbers, or NaN or infinite ones.
    """
    if torch.compiler.is_compiling():  # `torch.compile` would follow NumPy into the lattice, and warn of it
        return torch.compiler.disable(_evaluated)(representation, positions)  # type: ignore[no-untyped-call,no-any-return]
    return _evaluated(representation, positions)


@as_it_starts(gradients=False)
def _evaluated(representation: Representation, positions: Tensor | Array) -> Tensor:
    try:
        positions = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError):
        raise RegionError("positions are no array of numbers; give a tensor [M, D]") from None
    model = representation.model
    if positions.ndim != 2 or positions.shape[1] != model.dimensions:
        raise RegionError(f"positions of shape {tuple(positions.shape)}: expected [M, {model.dimensions}]")
    exact = positions.double()
    if torch._C._functorch.is_functorch_wrapped_tensor(positions):
        return _one_by_one(representation, exact)
    ids, place = _owners(representation, exact)
    lowest, highest = representation.signal.value_range
    out = torch.full(
        (len(place), model.channels), representation.signal.blank, dtype=torch.float32, device=exact.device
    )
    # In the graph to every order even where nothing is present; the sine keeps the largest positions finite.
    out = out + 0 * exact.sin().sum(dim=1, keepdim=True).float()
    network = network_of(representation, exact.device)
    for members, real in _member_blocks(place, evaluation_samples(model), rows_at_once(model)):
        points = torch.from_numpy(members).to(exact.device)
        x, x_local = _seen(representation, exact[points], ids[points])
        owners, block_row = np.unique(place[members[:, 0]], return_inverse=True)
        rows = representation.rows.read(owners)[torch.from_numpy(block_row)].to(exact.device)
        y = network(x, rows, x_local)
        kept = torch.from_numpy(real).to(exact.device)
        out = out.index_put((points[kept],), to_range(y[kept], lowest, highest))
    return out


def _owners(representation: Representation, exact: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
    """The ids of the partitions of positions `[M, D]` float64, `[M, D]`, and their places `[M]`, -1 if they are absent
    (raises RegionError)."""
    if not bool(exact.isfinite().all()):
        raise RegionError("positions are NaN or infinite; give finite ones")
    tile = torch.tensor(representation.lattice.tile, dtype=torch.float64, device=exact.device)
    ids = torch.floor((exact.detach() + 0.5) / tile).clamp(-(2.0**62), 2.0**62).long()
    return ids, representation.lattice.find(ids.cpu().numpy())


def _seen(representation: Representation, position: Tensor, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """What the networks see of positions `[..., D]` in the partitions of these ids: `x` and `x_local` of the model."""
    tile = representation.lattice.tile
    offset = position - ids * torch.tensor(tile, dtype=torch.float64, device=position.device)
    axes = [representation.coordinates.seen(d, t, position[..., d], offset[..., d]) for d, t in enumerate(tile)]
    own = [local.float() for _, local in axes if local is not None]
    return torch.stack([shared.float() for shared, _ in axes], dim=-1), torch.stack(own, dim=-1) if own else None


def _one_by_one(representation: Representation, exact: Tensor) -> Tensor:
    """As `evaluate`, with a copy of its row for every position: `torch.func` follows no sorting by partition."""
    lowest, highest = representation.signal.value_range
    ids, rows, present = _OwnRows.apply(exact, representation)  # type: ignore[no-untyped-call]
    x, x_local = _seen(representation, exact[:, None], ids[:, None])
    y = network_of(representation, exact.device)(x, rows, x_local)[:, 0]
    return torch.where(present, to_range(y, lowest, highest), representation.signal.blank)


class _OwnRows(torch.autograd.Function):
    """Of positions `[M, D]` the ids `[M, D]` and rows `[M, K]` of their partitions, and which are present `[M, 1]`: all
    of it constant as far as derivatives go."""

    @staticmethod
    def forward(exact: Tensor, representation: Representation) -> tuple[Tensor, Tensor, Tensor]:
        ids, place = _owners(representation, exact)
        owners, which = np.unique(place.clip(min=0), return_inverse=True)
        rows = representation.rows.read(owners)[torch.from_numpy(which)].to(exact.device)
        return ids, rows, torch.from_numpy(place >= 0)[:, None].to(exact.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, axes: Any, exact: Tensor, representation: Representation) -> tuple[Any, Any]:
        batched = exact.movedim(axes[0], 0)
        found = _OwnRows.apply(batched.flatten(0, 1), representation)  # type: ignore[no-untyped-call]
        return tuple(part.unflatten(0, batched.shape[:2]) for part in found), (0, 0, 0)


def _member_blocks(
    place: NDArray[np.int64], samples: int, rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Cut points into blocks of one partition each, their widths powers of two, so that less than half is padding.

    Yields the numbers of points `[B, n]`, B at most `rows` and B * n about `samples`, and which of them count: a block
    that is not full repeats its own points.
    """
    order = np.argsort(place, kind="stable")
    order = order[place[order] >= 0]
    runs = np.split(order, np.flatnonzero(np.diff(place[order])) + 1) if len(order) else []
    blocks = [run[i : i + BLOCK_SAMPLES] for run in runs for i in range(0, len(run), BLOCK_SAMPLES)]
    for width, alike in itertools.groupby(sorted(blocks, key=_width), _width):
        for taken in batches(alike, min(rows, max(1, samples // width))):
            sizes = np.array([len(block) for block in taken])
            yield np.stack([np.resize(block, width) for block in taken]), np.arange(width) < sizes[:, None]


def _width(block: NDArray[np.int64]) -> int:
    """The least power of two that is not below the number of points."""
    return 1 << (len(block) - 1).bit_length()


def network_of(representation: Representation, device: torch.device | str = "cpu") -> SirenPerPartition:
    """The model with the shared weights of a representation, its own rows left out; weights take no gradient."""
    network = build_model(representation.model, 1)
    # New parameters, because within `torch.func` a module's own methods are forbidden.
    network.local = nn.Parameter(network.local.detach().to(device), requires_grad=False)
    for name, tensor in representation.shared.items():
        network.shared[name] = nn.Parameter(tensor.to(device), requires_grad=False)
    return network


class SharedTable:
    """What the shared network contributes at each depth to blocks of tile coordinates, evaluated once for all blocks
    that see the same; always in calls of one shape, so that its bits do not depend on what is asked for.

    Args:
        network: in mode "lg".
    """

    def __init__(self, network: SirenPerPartition) -> None:
        self._network, self._kept, self._bytes = network, dict[Hashable, list[Tensor]](), 0

    def features(self, keys: Sequence[Hashable], x: Tensor) -> list[Tensor]:
        """Features `[B, L, M]` at each depth of B blocks that see coordinates `[B, M, D]`, the same where keys are."""
        first = {key: number for number, key in reversed([*enumerate(keys)])}
        missing = [key for key in first if key not in self._kept]
        found = {key: self._kept[key] for key in first if key in self._kept}
        if missing:
            numbers = [first[key] for key in missing]
            padded = numbers + numbers[:1] * (len(keys) - len(numbers))
            parts = [part for part in self._network.shared_features(x[padded]) if part is not None]
            found |= {key: [part[n : n + 1].clone() for part in parts] for n, key in enumerate(missing)}
            if self._bytes < _TABLE_BYTES:
                self._kept |= found
                self._bytes += sum(part.nbytes for key in missing for part in found[key])
        return [torch.cat(parts) for parts in zip(*(found[key] for key in keys), strict=True)]


def rows_at_once(model: ModelConfig) -> int:
    """How many rows are read before they are evaluated."""
    return max(1, _ROW_BYTES // (4 * count(row_layout(model))))


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    while batch := list(itertools.islice(items, size)):
        yield batch


def to_range(y: Tensor, lowest: float, highest: float) -> Tensor:
    """From the network's [-1, 1] to the value range."""
    return (y + 1) * ((highest - lowest) / 2) + lowest
