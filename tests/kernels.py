"""Law 10: how far a kernel may be from the plain path, and the whole loss that both are held against."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from lgsirens.nn.kernels.block import Block, Gradients
from lgsirens.nn.kernels.library import library
from lgsirens.nn.siren import SirenPerPartition
from tests.small import in_double

# Where none was compiled, PyTorch does everything, and is tested by everything else.
needs_compiled = pytest.mark.skipif(library() is None, reason="no kernel was compiled when lgsirens was installed")

Kernel = Callable[[SirenPerPartition, Block, int], Gradients]


def of_blocks(kernel: Kernel, model: SirenPerPartition, blocks: Sequence[Block], count: int) -> dict[str, Tensor]:
    """Errors `[P]` of all blocks, and what a kernel gives as gradient of each layer of the rows and each shared
    tensor."""
    errors, rows = torch.zeros(len(model.local), dtype=model.local.dtype), torch.zeros_like(model.local.detach())
    shared = {name: torch.zeros_like(p.detach()) for name, p in model.shared.items() if p.requires_grad}
    for block in blocks:
        found = kernel(model, block, count)
        errors[block.rows] += found.errors
        rows[block.rows] += found.rows
        for gradient, more in zip(shared.values(), found.shared, strict=True):
            gradient += more
    return _named(model, errors, rows, shared)


def of_whole_loss(model: SirenPerPartition, blocks: Sequence[Block], count: int) -> dict[str, Tensor]:
    """The same by one backward pass of the loss of all blocks through all parameters."""
    model, errors, loss = deepcopy(model), torch.zeros(len(model.local), dtype=model.local.dtype), 0.0
    for block in blocks:
        squares = (model(block.x, model.local[block.rows], block.x_local) - block.target) ** 2
        squares = squares if block.weight is None else squares * block.weight
        loss = loss + squares.sum() / count
        own = squares.detach() if block.own is None else squares.detach() * block.own
        errors[block.rows] += own.sum(dim=(1, 2))
    loss.backward()
    return _named(model, errors, model.local.grad, {n: p.grad for n, p in model.shared.items() if p.requires_grad})


def distances(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Per tensor the largest difference over the largest value."""
    assert found.keys() == truth.keys()
    return {
        name: float((found[name].double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30))
        for name, exact in truth.items()
    }


def check(kernel: Kernel, model: SirenPerPartition, blocks: Sequence[Block], count: int) -> None:
    """Law 10: in float32 a kernel is at most 1e-5 from the whole loss in float64, or twice what that is in float32."""
    truth = of_whole_loss(deepcopy(model).double(), [in_double(block) for block in blocks], count)
    plain = distances(of_whole_loss(model, blocks, count), truth)
    for name, distance in distances(of_blocks(kernel, model, blocks, count), truth).items():
        assert distance <= max(1e-5, 2 * plain[name]), (name, distance, plain[name])


def _named(model: SirenPerPartition, errors: Tensor, rows: Tensor, shared: dict[str, Tensor]) -> dict[str, Tensor]:
    layers = {name: layer for (name, _), layer in zip(model.layout, model.unpack(rows), strict=True)}
    return {"errors": errors, **layers, **shared}
