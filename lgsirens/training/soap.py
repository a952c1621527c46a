"""SOAP: Adam in the eigenbases of Shampoo's preconditioners (Vyas et al. 2024, arXiv:2409.11321), for every layer of
every row by itself.

A row's layers are small matrices, so that bases of both sides cost little; and rows of different partitions have
nothing to do with one another, so that all of them are stepped as one batch.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from typing import Any

import torch
from torch import Tensor

from lgsirens.nn.kernels import soap as kernel
from lgsirens.nn.kernels.soap import Layer
from lgsirens.nn.siren import Layout, count
from lgsirens.training.adam import Optimizer

_BETA = 0.95  # of the mean gradient, of its squares and of both sides' products
_STEPS_BETWEEN_BASES = 10
# Of the mean square gradient of a layer: less is rounding, which would be stepped as if it were gradient.
_EPSILON = 1e-3


class Soap(Optimizer):
    """SOAP without weight decay.

    Args:
        parameters: what to step.
        layers: of a parameter and a tensor of its shape, views of that tensor's layers: weights `[B, out, in]` and, as
            `[B, out, 1]`, biases, which Adam steps.
        fused: by the compiled kernel, but for the first step.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        layers: Callable[[torch.nn.Parameter, Tensor], list[Tensor]],
        fused: bool = False,
    ) -> None:
        super().__init__(parameters)
        self._layers, self._fused = layers, fused
        self._addresses: list[tuple[int, int]] = []  # of what the layers are views of
        self._stepped: list[Layer] = []
        self._fused_steps: kernel.Steps | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Step all parameters that have a gradient; the first step only begins the averages."""
        gradients = {parameter: parameter.grad for parameter in self.state if parameter.grad is not None}
        addresses = [(parameter.data_ptr(), gradient.data_ptr()) for parameter, gradient in gradients.items()]
        if addresses != self._addresses:
            self._addresses = addresses
            self._stepped = [layer for parameter in gradients for layer in self._layers_of(parameter)]
            self._fused_steps = kernel.Steps(self._stepped) if self._fused else None
        for parameter in gradients:
            self.state[parameter]["step"] += 1
        step = self.state[next(iter(gradients))]["step"]
        # Both averages begin at 0; Adam's correction of that.
        rate = self.param_groups[0]["lr"] / (1 - _BETA**step) ** 0.5
        if self._fused_steps is not None and step > 1:
            self._fused_steps(_BETA, _EPSILON, rate, step % _STEPS_BETWEEN_BASES == 0)
        else:
            for layer in self._stepped:
                _step(layer, step, rate)

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        super().load_state_dict(kept)
        self._addresses = []

    def _layers_of(self, parameter: torch.nn.Parameter) -> Iterator[Layer]:
        layers, state, gradient = partial(self._layers, parameter), self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            sides = [[_no_product(g, side) for side in (-2, -1)] if g.shape[-1] > 1 else [] for g in layers(gradient)]
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
            state |= {"products": sides, "bases": [[side.clone() for side in pair] for pair in sides]}
        tensors = map(layers, (parameter, state["mean"], state["square"], gradient))
        return starmap(Layer, zip(*tensors, state["products"], state["bases"], strict=True))


def _step(layer: Layer, step: int, rate: float) -> None:
    """The law for the compiled kernel."""
    gradient, bases, square = layer.gradient, layer.bases, layer.square
    _renew(gradient, layer.products, bases, step)
    seen = _turned(gradient, bases)
    layer.mean.lerp_(gradient, 1 - _BETA)
    square.mul_(_BETA).addcmul_(seen, seen, value=1 - _BETA)
    if step > 1:
        least = square.mean(dim=(-2, -1), keepdim=True).sqrt() * _EPSILON + 1e-30
        change = _turned(layer.mean, bases) / (square.sqrt() + least)
        layer.weight.sub_(_turned(change, [basis.mT for basis in bases]), alpha=rate)


def state_size(layout: Layout) -> int:
    """Numbers that SOAP keeps for layers: of each its mean and square, of a matrix products and bases of both sides."""
    matrices = [shape for _, shape in layout if shape[-1] > 1 and len(shape) == 2]
    return 2 * count(layout) + sum(2 * (height**2 + width**2) for height, width in matrices)


def _no_product(gradient: Tensor, side: int) -> Tensor:
    size = gradient.shape[side]
    return gradient.new_zeros(len(gradient), size, size)


def _renew(gradient: Tensor, products: list[Tensor], bases: list[Tensor], step: int) -> None:
    """Averages of G G^T and G^T G; now and then their eigenbases, by one power iteration from the last."""
    for side, (product, basis) in enumerate(zip(products, bases, strict=True)):
        product.lerp_(gradient @ gradient.mT if side == 0 else gradient.mT @ gradient, 1 - _BETA)
        if step == 1:
            basis.copy_(torch.linalg.eigh(_scaled(product))[1].flip(-1))
        elif step % _STEPS_BETWEEN_BASES == 0:
            basis.copy_(torch.linalg.qr(_scaled(product) @ basis)[0])


def _scaled(product: Tensor) -> Tensor:
    """A product of the size of 1, so that neither tiny nor missing gradients trouble a decomposition."""
    size = product.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
    return product / size.clamp(min=1e-38) + 1e-6 * torch.eye(
        product.shape[-1], dtype=product.dtype, device=product.device
    )


def _turned(matrix: Tensor, bases: list[Tensor]) -> Tensor:
    """A gradient as its two bases see it."""
    return bases[0].mT @ matrix @ bases[1] if bases else matrix
