"""SOAP's step by the compiled source; what it computes is written in `training/soap.py`."""

import ctypes
from dataclasses import dataclass

from torch import Tensor

from lgsirens.nn.kernels.library import Matrices, Step, library, threads


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


class Steps:
    """Steps of the same layers, in place."""

    def __init__(self, layers: list[Layer]) -> None:
        found = library()
        assert found is not None
        self._layers, self._functions = layers, found.functions  # kept: the structs point into the layers
        self._structs = (Matrices * len(layers))(*map(_struct, layers))
        self._most = max(len(layer.weight) for layer in layers)
        self._room = max(self._functions.soap_workspace(ctypes.byref(struct)) for struct in self._structs)

    def __call__(self, beta: float, epsilon: float, rate: float, renews: bool) -> None:
        step = Step(beta, epsilon, rate, renews)
        # here: PyTorch's number of threads is another one in each thread
        number, parts = ctypes.c_int64(len(self._layers)), threads.count(self._most)

        def work(thread: int, first: int, last: int, room: int) -> None:
            for part in range(first, last):
                which = ctypes.c_int64(part), ctypes.c_int64(parts)
                self._functions.soap_step(self._structs, number, ctypes.byref(step), *which, ctypes.c_void_p(room))

        threads.split(parts, self._room, work)


def _struct(layer: Layer) -> Matrices:
    count, out, into = layer.weight.shape
    if not layer.bases:  # a row of numbers fills whole vectors
        out, into = 1, out * into
    struct = Matrices(out=out, into=into, count=count, stride=layer.weight.stride(0))
    for name in ("weight", "mean", "square", "gradient"):
        tensor: Tensor = getattr(layer, name)
        assert tensor[0].is_contiguous()
        setattr(struct, name, tensor.data_ptr())
    for side, (product, basis) in enumerate(zip(layer.products, layer.bases, strict=True)):
        struct.products[side], struct.bases[side] = product.data_ptr(), basis.data_ptr()
    return struct
