"""Adam's step by the compiled source: all that it keeps and changes is read and written once."""

import ctypes
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from lgsirens.nn.kernels.library import library, threads

_BETAS = 0.9, 0.999  # as in adam.c


def step(tensors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], rate: float, number: int) -> None:
    """The step of that number, counted from 1, in place (Kingma and Ba 2015).

    Args:
        tensors: weight, gradient, and averages of this and of its square; contiguous, of one shape.
    """
    found = library()
    assert found is not None
    addresses = [[ctypes.c_void_p(tensor.data_ptr()) for tensor in several] for several in tensors]
    ends = list(accumulate(weight.numel() for weight, *_ in tensors))
    unbiased = [1 - beta**number for beta in _BETAS]
    factors = ctypes.c_float(rate / unbiased[0]), ctypes.c_float(unbiased[1] ** 0.5)

    def work(thread: int, first: int, last: int, room: int) -> None:
        for several, start, end in zip(addresses, [0, *ends], ends, strict=False):
            if first < end and last > start:
                part = ctypes.c_int64(max(first, start) - start), ctypes.c_int64(min(last, end) - start)
                found.functions.adam_step(*part, *several, *factors)

    threads.split(ends[-1], 0, work)
