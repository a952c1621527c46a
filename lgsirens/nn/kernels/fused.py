"""The fused kernel: a small block of samples goes through all layers and back while it sits in the processor's cache.

Where it could not be compiled, or on another device than the CPU, the eager kernel stands in.
"""

import ctypes
import math

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
    run = _Run(model, block)
    job, partitions = run.job, run.job.partitions
    job.factor = 2 / count
    job.learns_shared = learns = any(parameter.requires_grad for parameter in model.shared.parameters())
    job.chunks = chunks = max(1, min(_UNITS // partitions, run.tables))
    errors = torch.zeros(chunks, partitions, dtype=torch.float64)
    rows = torch.zeros(chunks, *run.rows.shape)
    job.errors, job.row_gradient = errors.data_ptr(), rows.data_ptr()
    most = torch.get_num_threads()
    shared = torch.zeros(most, run.shared.numel() if learns else 0)
    table = torch.zeros(most, run.table.numel() if learns and run.table is not None else 0)
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
    run = _Run(model, block)
    errors = torch.zeros(1, run.job.partitions, dtype=torch.float64)
    run.job.errors = errors.data_ptr()
    run.rows_pass(run.job.partitions)
    return errors[0].to(run.rows.dtype)


class _Run:
    """A block made ready: its job, and the tensors that this points into."""

    def __init__(self, model: SirenPerPartition, block: Block) -> None:
        config, loaded, layout = model.config, library(), shared_layout(model.config)
        assert loaded is not None
        self._functions = loaded.functions
        self.rows = model.local.detach()[block.rows].contiguous()
        partitions, samples = len(self.rows), block.x.shape[1]
        self.tables = -(-samples // _SAMPLES)
        self.shared = torch.cat([model.shared[name].detach().flatten() for name, _ in layout] or [torch.empty(0)])
        self.table: Tensor | None = None
        x = block.x.contiguous()
        x_local = x if block.x_local is None else block.x_local.contiguous()
        self._kept = [
            x,
            x_local,
            *(None if t is None else t.contiguous() for t in (block.target, block.weight, block.own)),
        ]
        self.job = job = Job(
            mode=_MODES[config.agg_type] if config.mode == "lg" else 0,
            dims=config.dimensions,
            channels=config.channels,
            width=config.local_width,
            wide=config.global_width,
            depths=config.hidden_layers + 1,
            w0=config.w0,
            partitions=partitions,
            samples=samples,
            chunks=1,
            rows=self.rows.data_ptr(),
            shared=self.shared.data_ptr() if self.shared.numel() else None,
            x_stride=_stride(x),
            x_local_stride=_stride(x_local),
            own_stride=_stride(self._kept[-1]),
        )
        for name, tensor in zip(("x", "x_local", "target", "weight", "own"), self._kept, strict=True):
            setattr(job, name, None if tensor is None else tensor.data_ptr())
        self._room = self._functions.fused_workspace(ctypes.byref(job))
        if config.mode == "lg" and len(x) == 1:
            self.table = torch.empty(self.tables, config.hidden_layers + 1, config.local_width, _SAMPLES)
            threads.split(self.tables, self._room, self._fill_table)
        elif block.shared_features is not None and config.mode == "lg":
            self.table = _table([part for part in block.shared_features if part is not None])
            job.table_stride = self.table[0].numel()
        if self.table is not None:
            job.table = self.table.data_ptr()

    def rows_pass(self, units: int, table: Tensor | None = None, shared: Tensor | None = None) -> None:
        """Everything that is done row by row; adds to gradients of each thread `[threads, ...]`."""

        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_rows", first, last, _at(table, thread), _at(shared, thread), room)

        threads.split(units, self._room, work)

    def table_backward(self, table: Tensor, shared: Tensor) -> None:
        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_table_backward", first, last, table.data_ptr(), _at(shared, thread), room)

        threads.split(self.tables, self._room, work)

    def _fill_table(self, thread: int, first: int, last: int, room: int) -> None:
        assert self.table is not None
        self._call("fused_table", first, last, self.table.data_ptr(), room)

    def _call(self, name: str, first: int, last: int, *addresses: int | None) -> None:
        numbers = ctypes.c_int64(first), ctypes.c_int64(last)
        self._functions[name](ctypes.byref(self.job), *numbers, *map(ctypes.c_void_p, addresses))


def _table(features: list[Tensor]) -> Tensor:
    """Features `[B, L, N]` of each depth as tables `[B, N / 64, depths, L, 64]`, the last ones padded."""
    padded = torch.nn.functional.pad(torch.stack(features, dim=1), (0, -features[0].shape[-1] % _SAMPLES))
    return padded.view(*padded.shape[:3], -1, _SAMPLES).permute(0, 3, 1, 2, 4).contiguous()


def _stride(tensor: Tensor | None) -> int:
    """Numbers from one partition to the next, of `[B, ...]`, or of `[1, ...]` that they share."""
    return tensor[0].numel() if tensor is not None and len(tensor) > 1 else 0


def _at(tensor: Tensor | None, thread: int) -> int | None:
    return None if tensor is None else tensor[thread].data_ptr()
