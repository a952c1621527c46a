"""SOAP's step by the compiled source; what it computes is written in `training/soap.py`."""

import ctypes
from dataclasses import dataclass

from torch import Tensor

from lgsirens.nn.kernels.library import Matrices, library, threads


@dataclass(frozen=True)
class Layer:
    """Matrices `[B, out, in]` that are stepped alike, each by itself: views, contiguous but for their first axis.

    Attributes:
        products: averages of G G^T and G^T G, `[B, out, out]` and `[B, in, in]`; none for a layer without bases.
        bases: their eigenvectors.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor
    gradient: Tensor
    products: list[Tensor]
    bases: list[Tensor]


def step(layers: list[Layer], beta: float, epsilon: float, rate: float, renews: bool) -> None:
    """Step all layers in place."""
    found = library()
    assert found is not None
    functions, structs = found.functions, [_struct(layer, beta, epsilon, rate, renews) for layer in layers]
    # Layers of many matrices are split among the threads; of those of one matrix each thread takes some whole.
    several = [(struct, len(layer.weight)) for struct, layer in zip(structs, layers, strict=True)]
    most = max(count for _, count in several)
    parts = threads.count(most)  # here: PyTorch's number of threads is another one in each thread

    def work(thread: int, first: int, last: int, room: int) -> None:
        for number, (struct, count) in enumerate(several):
            low, high = (count * edge // most for edge in (first, last))
            if count < most:
                low, high = (0, count) if number // 2 % parts == thread else (0, 0)
            where = ctypes.c_int64(low), ctypes.c_int64(high), ctypes.c_void_p(room)
            functions.soap_step(ctypes.byref(struct), *where)

    threads.split(most, max(functions.soap_workspace(ctypes.byref(struct)) for struct in structs), work)


def _struct(layer: Layer, beta: float, epsilon: float, rate: float, renews: bool) -> Matrices:
    _, out, into = layer.weight.shape
    if not layer.bases:  # a row of numbers fills whole vectors
        out, into = 1, out * into
    struct = Matrices(out=out, into=into, renews=renews, beta=beta, epsilon=epsilon, rate=rate)
    struct.stride = layer.weight.stride(0)
    for name in ("weight", "mean", "square", "gradient"):
        tensor: Tensor = getattr(layer, name)
        assert tensor[0].is_contiguous()
        setattr(struct, name, tensor.data_ptr())
    for side, (product, basis) in enumerate(zip(layer.products, layer.bases, strict=True)):
        struct.products[side], struct.bases[side] = product.data_ptr(), basis.data_ptr()
    return struct
