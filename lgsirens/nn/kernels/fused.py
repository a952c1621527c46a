"""The fused kernel: a small block of samples goes through all layers and back while it sits in the processor's cache.

Where it could not be compiled, or on another device than the CPU, the eager kernel stands in.
"""

import ctypes
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lgsirens.nn.kernels.block import Block, Gradients
from lgsirens.nn.kernels.library import Job, library, threads
from lgsirens.nn.siren import SirenPerPartition, shared_layout

_MODES = {"fc": 1, "fc_and_add": 2}
_SAMPLES = 64  # of a block, as in layers.h
# Partitions are the units of work. Where they are few, the samples of each are cut: always into as many parts, so that
# rows' gradients do not depend on the number of threads.
_UNITS = 16


def errors_and_gradients(model: SirenPerPartition, block: Block, count: int) -> Gradients:
    """As `eager.errors_and_gradients`, which see."""
    run = _run_of(model, block)
    job, partitions = run.job, run.job.partitions
    job.factor = 2 / count
    job.learns_shared = learns = any(parameter.requires_grad for parameter in model.shared.parameters())
    job.chunks = chunks = max(1, min(_UNITS // (block.fitted or partitions), run.tables))
    errors = torch.zeros(chunks, partitions, dtype=torch.float64, device="cpu")
    rows = _zeros(chunks, *run.rows.shape)
    job.errors, job.row_gradient = errors.data_ptr(), rows.data_ptr()
    most = torch.get_num_threads()
    shared = _zeros(most, run.shared.numel() if learns else 0)
    # With tables of their own partitions need no gradient of them: these belong to a shared network that stays.
    table = _zeros(most, run.table.numel() if learns and run.table is not None else 0)
    run.rows_pass(partitions * chunks, table, shared)
    if table.numel():
        run.table_backward(table.sum(dim=0), shared)
    layout = shared_layout(model.config) if learns else []
    parts = torch.split(shared.sum(dim=0), [math.prod(shape) for _, shape in layout])
    named = {name: part.view(shape) for part, (name, shape) in zip(parts, layout, strict=True)}
    of_shared = [named[name] for name, parameter in model.shared.items() if parameter.requires_grad]
    return Gradients(errors.sum(dim=0).to(run.rows.dtype), rows.sum(dim=0) if chunks > 1 else rows[0], of_shared)


def errors(model: SirenPerPartition, block: Block) -> Tensor:
    """As `eager.errors`, which see."""
    run = _run_of(model, block)
    errors = torch.zeros(1, run.job.partitions, dtype=torch.float64, device="cpu")
    run.job.errors = errors.data_ptr()
    run.rows_pass(run.job.partitions)
    return errors[0].to(run.rows.dtype)


def shared_table(model: SirenPerPartition, x: Tensor) -> Tensor:
    """What the shared network contributes to coordinates `[1, N, D]`, as `values` takes it."""
    return _Run(model, model.local.detach()[:1], x, None).fill_table()


def values(
    model: SirenPerPartition, rows: Tensor, x: Tensor, x_local: Tensor | None = None, table: Tensor | None = None
) -> Tensor:
    """What the model gives, `[B, N, C]`, without gradient; each sample rounds by itself.

    Args:
        rows: `[B, K]`.
        x, x_local: as the model takes them, `[B, N, D]` or `[1, N, D]`.
        table: the shared network's contribution to `x`, the same for all rows; None: it is evaluated for each.
    """
    run = _Run(model, rows.contiguous(), x, x_local, table)
    out = _zeros(len(rows), x.shape[1], model.config.channels)
    run.job.values = out.data_ptr()
    # Where rows are few, the blocks of each are split, too.
    run.job.chunks = max(1, min(_UNITS // len(rows), run.tables))
    run.rows_pass(len(rows) * run.job.chunks)
    return out


def _run_of(model: SirenPerPartition, block: Block) -> "_Run":
    """A block made ready."""
    table = None
    if model.config.mode == "lg" and len(block.x) > 1 and block.shared_features is not None:
        table = _table([part for part in block.shared_features if part is not None])
    run = _Run(model, model.local.detach()[block.rows].contiguous(), block.x, block.x_local, table)
    run.give(target=block.target, weight=block.weight, own=block.own)
    run.job.own_stride = _stride(block.own)
    if model.config.mode == "lg" and len(block.x) == 1:
        run.fill_table()
    return run


class _Run:
    """A job made ready, and the tensors that it points into."""

    def __init__(
        self,
        model: SirenPerPartition,
        rows: Tensor,
        x: Tensor,
        x_local: Tensor | None,
        table: Tensor | None = None,
    ) -> None:
        config, found, layout = model.config, library(), shared_layout(model.config)
        assert found is not None
        self._functions, self._kept = found.functions, list[Tensor]()
        self.rows, self.table, self.tables = rows, table, -(-x.shape[1] // _SAMPLES)
        self.shared = torch.cat([model.shared[name].detach().flatten() for name, _ in layout] or [_zeros(0)])
        x_local = x if x_local is None else x_local
        self.job = Job(
            mode=_MODES[config.agg_type] if config.mode == "lg" else 0,
            dims=config.dimensions,
            channels=config.channels,
            width=config.local_width,
            wide=config.global_width,
            depths=config.hidden_layers + 1,
            w0=config.w0,
            partitions=len(rows),
            samples=x.shape[1],
            chunks=1,
            x_stride=_stride(x),
            x_local_stride=_stride(x_local),
            table_stride=_stride(table),
        )
        shared = self.shared if layout else None
        self.give(rows=rows, x=x, x_local=x_local, shared=shared, table=table)

    def give(self, **tensors: Tensor | None) -> None:
        """Point the job to tensors, and keep them."""
        for name, tensor in tensors.items():
            if tensor is not None:
                assert (tensor.device.type, tensor.dtype) == ("cpu", torch.float32), name
                self._kept.append(tensor.contiguous())
                setattr(self.job, name, self._kept[-1].data_ptr())

    def fill_table(self) -> Tensor:
        """Evaluate the shared network once for all rows."""
        self.table = table = _zeros(1, self.tables, self.job.depths, self.job.width, _SAMPLES)

        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_table", first, last, table.data_ptr(), room)

        self._split(self.tables, work)
        self.give(table=table)
        return table

    def rows_pass(self, units: int, table: Tensor | None = None, shared: Tensor | None = None) -> None:
        """Everything that is done row by row; adds to gradients of each thread `[threads, ...]`."""

        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_rows", first, last, _at(table, thread), _at(shared, thread), room)

        self._split(units, work)

    def table_backward(self, table: Tensor, shared: Tensor) -> None:
        """Add what the gradient of the table gives to those of the shared tensors, `[threads, ...]`."""

        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_table_backward", first, last, table.data_ptr(), _at(shared, thread), room)

        self._split(self.tables, work)

    def _split(self, units: int, work: Callable[[int, int, int, int], None]) -> None:
        threads.split(units, self._functions.fused_workspace(ctypes.byref(self.job)), work)

    def _call(self, name: str, first: int, last: int, *addresses: int | None) -> None:
        numbers = ctypes.c_int64(first), ctypes.c_int64(last)
        self._functions[name](ctypes.byref(self.job), *numbers, *map(ctypes.c_void_p, addresses))


def _zeros(*shape: int) -> Tensor:
    """Whatever PyTorch's defaults are: C reads and writes it."""
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def _table(features: list[Tensor]) -> Tensor:
    """Features `[B, L, N]` of each depth as tables `[B, N / 64, depths, L, 64]`, the last ones padded."""
    padded = torch.nn.functional.pad(torch.stack(features, dim=1), (0, -features[0].shape[-1] % _SAMPLES))
    return padded.view(*padded.shape[:3], -1, _SAMPLES).permute(0, 3, 1, 2, 4).contiguous()


def _stride(tensor: Tensor | None) -> int:
    """Numbers from one partition to the next, of `[B, ...]`, or of `[1, ...]` that they share."""
    return tensor[0].numel() if tensor is not None and len(tensor) > 1 else 0


def _at(tensor: Tensor | None, thread: int) -> int | None:
    return None if tensor is None else tensor[thread].data_ptr()
