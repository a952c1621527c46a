"""The compiled source (`source/`): its structs, and the threads that call it.

It is compiled when the package is installed, once per instruction set, and knows neither Python nor PyTorch.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Job(ctypes.Structure):
    """The struct of fused.h."""

    _fields_ = (
        *_fields(ctypes.c_int32, "mode dims channels width wide depths"),
        *_fields(ctypes.c_float, "w0"),
        *_fields(ctypes.c_int32, "partitions samples chunks learns_shared"),
        *_fields(ctypes.c_float, "factor"),
        *_fields(ctypes.c_void_p, "x x_local target weight own rows shared table values errors row_gradient"),
        *_fields(ctypes.c_int64, "x_stride x_local_stride own_stride table_stride"),
    )


class Matrices(ctypes.Structure):
    """The struct of soap.h."""

    _fields_ = (
        *_fields(ctypes.c_int32, "out into"),
        *_fields(ctypes.c_int64, "count stride"),
        *_fields(ctypes.c_void_p, "weight mean square gradient"),
        *_fields(ctypes.c_void_p * 2, "products bases"),
    )


class Step(ctypes.Structure):
    """The other struct of soap.h."""

    _fields_ = (*_fields(ctypes.c_float, "beta epsilon rate"), ("renews", ctypes.c_int32))


@dataclass(frozen=True)
class Library:
    """The source compiled for one instruction set."""

    instruction_set: str
    functions: ctypes.CDLL


# Each the better choice than those after it, on processors that PyTorch says to have it.
INSTRUCTION_SETS = {"avx512": ("AVX512",), "avx2": ("AVX512", "AVX2"), "portable": None}


@cache
def library() -> Library | None:
    """The one for the best instruction set of this processor that has been compiled; None: there is none."""
    return next((found for found in map(load, INSTRUCTION_SETS) if found is not None), None)


def load(instruction_set: str) -> Library | None:
    """The one for an instruction set; None: it was not compiled, or not from these sources, or cannot run here.

    Raises:
        MemoryError: there is too little memory to load it.
    """
    needed = INSTRUCTION_SETS[instruction_set]
    if needed is not None and torch.backends.cpu.get_cpu_capability() not in needed:
        return None
    for path in Path(__file__).parent.glob(f"_{instruction_set}.*"):
        with suppress(OSError, AttributeError):
            functions = _opened(path)
            sizes = functions.fused_job_size, functions.soap_matrices_size, functions.soap_step_size
            for function in (*sizes, functions.fused_workspace, functions.soap_workspace):
                function.restype = ctypes.c_int64
            if [size() for size in sizes] == [ctypes.sizeof(struct) for struct in (Job, Matrices, Step)]:
                return Library(instruction_set, functions)
    return None


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        # glibc says no more where memory is short. Another kernel would round otherwise: the same run, another file.
        short = "allocate memory" in str(error)
        if short or ("failed to map segment" in str(error) and not os.statvfs(path).f_flag & os.ST_NOEXEC):
            raise MemoryError(str(error)) from None
        raise


def _wait(others: list[Future[None]]) -> None:
    """Wait for all of them even if Ctrl-C comes in between: they write to what a caller would then give free."""
    try:
        wait(others)
    except KeyboardInterrupt:
        _wait(others)
        raise


class _Threads:
    """As many threads as PyTorch uses, the calling one among them; made anew after a fork, which ends them."""

    _pool: ThreadPoolExecutor
    _size: int
    _rooms: list[Tensor]

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._forget)

    def split(self, units: int, room: int, work: Callable[[int, int, int, int], None]) -> None:
        """Call `work(thread, first, last, address)` for equal parts of the units, each with so many bytes of room."""
        threads = self.count(units)
        with self._lock:
            if threads > self._size:
                self._pool, self._size = ThreadPoolExecutor(max(1, threads - 1)), threads
            if len(self._rooms) < threads or self._rooms[0].numel() < room:
                self._rooms = [torch.empty(room, dtype=torch.uint8, device="cpu") for _ in range(threads)]
            edges = [units * thread // threads for thread in range(threads + 1)]
            parts = [(thread, *edges[thread : thread + 2], self._rooms[thread].data_ptr()) for thread in range(threads)]
            try:
                others = [self._pool.submit(work, *part) for part in parts[1:]]
            except RuntimeError:  # the interpreter is about to end, and starts no thread any more
                for part in parts:
                    work(*part)
                return
            try:
                work(*parts[0])
            finally:
                _wait(others)
            for other in others:
                other.result()

    def count(self, units: int) -> int:
        """How many threads take part in so many units of work."""
        return max(1, min(units, torch.get_num_threads()))

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pool, self._size, self._rooms = ThreadPoolExecutor(1), 1, []


threads = _Threads()
