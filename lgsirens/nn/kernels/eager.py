"""The eager kernel: the model as it is written, differentiated by PyTorch. It is the law for the others."""

import torch
from torch import Tensor

from lgsirens.nn.kernels.block import Block, Gradients
from lgsirens.nn.siren import SirenPerPartition


def errors_and_gradients(model: SirenPerPartition, block: Block, count: int) -> Gradients:
    """Errors and gradients of one block.

    The loss of a step is the mean of its squared errors, so the part of a block is their sum over the block divided
    by the `count` of all numbers (samples times channels) that the step sees. Samples in a halo are part of the loss,
    but not of `errors`.

    >>> from lgsirens.nn.siren import ModelConfig, build_model
    >>> model = build_model(ModelConfig("lg", 2, 3, 8, 16), 4, torch.Generator().manual_seed(0))
    >>> block = Block(slice(0, 2), torch.zeros(2, 5, 2), None, torch.zeros(2, 5, 3), None, None)
    >>> errors, rows, shared = errors_and_gradients(model, block, count=30)
    >>> errors.shape, rows.shape == model.local[:2].shape, len(shared) == len(model.shared)
    (torch.Size([2]), True, True)
    """
    # A leaf of its own: differentiating by `model.local` itself would fill a gradient of all P rows for every block.
    rows = model.local.detach()[block.rows].requires_grad_()
    shared = [parameter for parameter in model.shared.parameters() if parameter.requires_grad]
    squares = _squares(model, block, rows)
    of_rows, *of_shared = torch.autograd.grad(squares.sum() / count, [rows, *shared])
    return Gradients(_owned(squares.detach(), block), of_rows, of_shared)


@torch.no_grad()
def errors(model: SirenPerPartition, block: Block) -> Tensor:
    """The `errors` of `errors_and_gradients` alone, `[B]`."""
    return _owned(_squares(model, block, model.local[block.rows]), block)


def _squares(model: SirenPerPartition, block: Block, rows: Tensor) -> Tensor:
    """Squared errors `[B, N, C]`, 0 where there is no sample."""
    error: Tensor = model(block.x, rows, block.x_local, block.shared_features) - block.target
    squares = error.square()
    return squares if block.weight is None else squares * block.weight


def _owned(squares: Tensor, block: Block) -> Tensor:
    return (squares if block.own is None else squares * block.own).sum(dim=(1, 2))
