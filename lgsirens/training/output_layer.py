"""Output layers that begin where they fit best.

All but the output layer is random at first, and yet its features already fit a signal fairly well: what they are to be
multiplied by is a linear least-squares problem of a few unknowns for each row. Solved once (the linear half of variable
projection, Golub and Pereyra 1973, doi:10.1137/0710036), it saves the steps that a gradient takes to find it.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from lgsirens.nn.kernels.block import Block
from lgsirens.nn.memory import evaluation_samples
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.training.samples import Samples

_SAMPLES_PER_UNKNOWN = 16
# Of the mean of the diagonal. The features are far from what they will be, so large weights would have to be unlearnt
# (docs/lab-notes.md).
_RIDGE = 0.1


@torch.no_grad()
def solve_output_layers(
    model: SirenPerPartition,
    samples: Samples,
    wanted: Tensor | None,
) -> None:
    """Set the output layers of rows to those of least squared error over some draws, of 16 places in each window for
    each of its unknowns or more. No step sees these draws: its PSNR would be that of samples that are fitted already.

    Args:
        model: changed in place.
        samples: of all partitions.
        wanted: `[P]` bool, rows to solve; None: all.
    """
    weight, bias = model.unpack(model.local)[-2:]
    before = torch.cat([weight, bias], dim=2).mT.double()  # [P, L + 1, C]
    unknowns, outputs = before.shape[1:]
    most = evaluation_samples(model.config)
    products, sums = before.new_zeros(len(before), unknowns, unknowns), torch.zeros_like(before)
    for draw in _draws(samples, _SAMPLES_PER_UNKNOWN * unknowns):
        for part in itertools.chain.from_iterable(block.parts(most) for block in draw):
            _add(model, part, products, sums)
    ridge = _RIDGE * products.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None].clamp(min=1e-30)
    products.diagonal(dim1=1, dim2=2).add_(ridge[:, 0])
    after = torch.linalg.solve(products, sums + ridge * before)
    if wanted is not None:
        after = torch.where(wanted[:, None, None], after, before)
    model.local[:, -unknowns * outputs :] = torch.cat([after[:, :-1].mT.flatten(1), after[:, -1]], dim=1)


def _draws(samples: Samples, enough: int) -> Iterable[Iterable[Block]]:
    # Places count, not samples: no row is to depend on how much is known of others.
    seen, step = 0, -1
    while seen < enough:
        draw = samples.draw(step)
        yield draw.blocks
        seen, step = enough if draw.complete else seen + draw.number, step - 1


def _add(model: SirenPerPartition, block: Block, products: Tensor, sums: Tensor) -> None:
    """Add a block's samples to the normal equations."""
    hidden = model.unpack(model.local[block.rows])[:-2]
    features = model.features(hidden, block.x, block.x_local, block.shared_features)
    features = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    weighted = features if block.weight is None else features * block.weight.mT
    products[block.rows] += weighted @ features.mT
    sums[block.rows] += weighted @ block.target
