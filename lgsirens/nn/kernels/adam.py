"""Adam's step by the compiled source: all that it keeps and changes is read and written once."""

import ctypes

from torch import Tensor

from lgsirens.nn.kernels.library import library, threads

_BETAS = 0.9, 0.999  # as in adam.c


def step(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, rate: float, number: int) -> None:
    """The step of that number, counted from 1, in place; of contiguous tensors of one shape (Kingma and Ba 2015)."""
    found = library()
    assert found is not None
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (weight, gradient, mean, square)]
    unbiased = [1 - beta**number for beta in _BETAS]
    factors = ctypes.c_float(rate / unbiased[0]), ctypes.c_float(unbiased[1] ** 0.5)

    def work(thread: int, first: int, last: int, room: int) -> None:
        found.functions.adam_step(ctypes.c_int64(first), ctypes.c_int64(last), *addresses, *factors)

    threads.split(weight.numel(), 0, work)
