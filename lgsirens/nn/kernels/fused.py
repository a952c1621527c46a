"""The fused kernel: a small block of samples goes through all layers and back while it sits in the processor's cache.

Its C source (`source/`) is compiled when the package is installed, once per instruction set, and knows neither Python
nor PyTorch. Where it could not be compiled, or on another device than the CPU, the plain kernel stands in.
"""

import ctypes
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lgsirens.nn.kernels.block import Block, Gradients
from lgsirens.nn.siren import SirenPerPartition, shared_layout

_MODES = {"fc": 1, "fc_and_add": 2}
_SAMPLES = 64  # of a block, as in layers.h
# Partitions are the units of work. Where they are few, the samples of each are cut: always into as many parts, so that
# rows' gradients do not depend on the number of threads.
_UNITS = 16


class _Job(ctypes.Structure):
    """The struct of fused.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("mode", "dims", "channels", "width", "wide", "depths")),
        ("w0", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("partitions", "samples", "chunks", "learns_shared")),
        ("factor", ctypes.c_float),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("x_local", ctypes.c_void_p),
        ("x_local_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("target", "weight", "own", "rows", "shared", "table")),
        ("table_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("values", "errors", "row_gradient")),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The kernel for the best instruction set of this processor that has been compiled; None: there is none."""
    capability = torch.backends.cpu.get_cpu_capability()  # type: ignore[no-untyped-call]
    better = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",)}.get(capability, ())
    for name in (*better, "portable"):
        for path in Path(__file__).parent.glob(f"_{name}.*"):
            try:
                loaded = ctypes.CDLL(str(path))
            except OSError:
                continue
            loaded.instruction_set = name
            loaded.fused_workspace.restype = ctypes.c_int64
            return loaded
    return None


class _Threads:
    """As many threads as PyTorch uses, the calling one among them; made anew after a fork, which they do not survive."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size, self._rooms = 0, list[Tensor]()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def split(self, units: int, room: int, work: Callable[[int, int, int, int], None]) -> None:
        """Call `work(thread, first, last, address)` for equal parts of the units, each with so many bytes of room."""
        threads = max(1, min(units, torch.get_num_threads()))
        if threads > self._size:
            self._forget()
            self._pool, self._size = ThreadPoolExecutor(threads - 1) if threads > 1 else None, threads
        while len(self._rooms) < threads or self._rooms[0].numel() < room:
            self._rooms = [torch.empty(room, dtype=torch.uint8) for _ in range(threads)]
        edges = [units * thread // threads for thread in range(threads + 1)]
        parts = [
            (thread, *edges[thread : thread + 2], self._rooms[thread].data_ptr()) for thread in range(threads)
        ]
        others = [self._pool.submit(work, *part) for part in parts[1:]] if self._pool is not None else []
        work(*parts[0])
        for other in others:
            other.result()

    def _forget(self) -> None:
        self._pool, self._size, self._rooms = None, 0, []


_threads = _Threads()


def errors_and_gradients(model: SirenPerPartition, block: Block, count: int) -> Gradients:
    """As `plain.errors_and_gradients`, which see."""
    run = _Run(model, block)
    job, partitions = run.job, run.job.partitions
    job.factor = 2 / count
    job.learns_shared = learns = any(parameter.requires_grad for parameter in model.shared.parameters())
    job.chunks = chunks = max(1, min(_UNITS // partitions, run.tables))
    errors = torch.zeros(chunks, partitions, dtype=torch.float64)
    rows = torch.zeros(chunks, *run.rows.shape)
    job.errors, job.row_gradient = errors.data_ptr(), rows.data_ptr()
    threads = torch.get_num_threads()
    shared = torch.zeros(threads, run.shared.numel() if learns else 0)
    table = torch.zeros(threads, run.table.numel() if learns and run.table is not None else 0)
    run.rows_pass(partitions * chunks, table, shared)
    if table.numel():
        run.table_backward(table.sum(dim=0), shared)
    layout = shared_layout(model.config) if learns else []
    parts = shared.sum(dim=0).split([math.prod(shape) for _, shape in layout])
    named = {name: part.view(shape) for part, (name, shape) in zip(parts, layout, strict=True)}
    of_shared = [named[name] for name, parameter in model.shared.items() if parameter.requires_grad]
    return Gradients(errors.sum(dim=0).to(run.rows.dtype), rows.sum(dim=0) if chunks > 1 else rows[0], of_shared)


def errors(model: SirenPerPartition, block: Block) -> Tensor:
    """As `plain.errors`, which see."""
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
        self._library = loaded
        self.rows = model.local.detach()[block.rows].contiguous()
        partitions, samples = len(self.rows), block.x.shape[1]
        self.tables = -(-samples // _SAMPLES)
        self.shared = torch.cat([model.shared[name].detach().flatten() for name, _ in layout] or [torch.empty(0)])
        self.table: Tensor | None = None
        x, x_local = (None if t is None else t.contiguous() for t in (block.x, block.x_local))
        x_local = x if x_local is None else x_local
        self._kept = [x, x_local, block.target.contiguous()]
        self._kept += [None if t is None else t.expand(partitions, -1, -1).contiguous() for t in (block.weight, block.own)]
        self.job = job = _Job(
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
            x_stride=x[0].numel() if len(x) > 1 else 0,
            x_local_stride=x_local[0].numel() if len(x_local) > 1 else 0,
        )
        for name, tensor in zip(("x", "x_local", "target", "weight", "own"), self._kept, strict=True):
            setattr(job, name, None if tensor is None else tensor.data_ptr())
        self._room = loaded.fused_workspace(ctypes.byref(job))
        if config.mode == "lg" and len(x) == 1:
            self.table = torch.empty(self.tables, config.hidden_layers + 1, config.local_width, _SAMPLES)
            _threads.split(self.tables, self._room, self._fill_table)
            job.table = self.table.data_ptr()

    def rows_pass(self, units: int, table: Tensor | None = None, shared: Tensor | None = None) -> None:
        """Everything that is done row by row; adds to gradients of each thread `[threads, ...]`."""

        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_rows", first, last, _at(table, thread), _at(shared, thread), room)

        _threads.split(units, self._room, work)

    def table_backward(self, table: Tensor, shared: Tensor) -> None:
        def work(thread: int, first: int, last: int, room: int) -> None:
            self._call("fused_table_backward", first, last, table.data_ptr(), _at(shared, thread), room)

        _threads.split(self.tables, self._room, work)

    def _fill_table(self, thread: int, first: int, last: int, room: int) -> None:
        assert self.table is not None
        self._call("fused_table", first, last, self.table.data_ptr(), room)

    def _call(self, name: str, first: int, last: int, *addresses: int | None) -> None:
        numbers = ctypes.c_int64(first), ctypes.c_int64(last)
        self._library[name](ctypes.byref(self.job), *numbers, *map(ctypes.c_void_p, addresses))


def _at(tensor: Tensor | None, thread: int) -> int | None:
    return None if tensor is None else tensor[thread].data_ptr()
