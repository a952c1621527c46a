"""What steps the weights.

The published recipe is Adam at a constant learning rate. Without a rate of one's own, the recipe here is Adam with a
short warm-up and a cosine decay (docs/reproduce.md has both).

An optimiser may treat each layer of each row as the matrix that it is: `model.unpack` gives views of the rows and of
their gradient. Its state may be nested: a checkpoint keeps it as it is.
"""

import math

import torch

from lgsirens.nn.siren import SirenPerPartition

# Wide networks diverge at the rate that narrow ones like best.
PEAK_RATES = {"lg": 2e-3, "lc": 2e-3, "mlp": 5e-4}

_WARM_UP_STEPS = 20
_LAST_FRACTION = 0.02


def build_optimizer(model: SirenPerPartition) -> torch.optim.Optimizer:
    """Adam over all that takes gradients, with PyTorch's default betas and epsilon (the paper's too)."""
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)


def learning_rate(step: int, steps: int, mode: str, lr: float | None) -> float:
    """Rate of one step, counted from 0: `lr` throughout, or the warm-up and cosine schedule when it is None."""
    if lr is not None:
        return lr
    peak = PEAK_RATES[mode]
    if step < _WARM_UP_STEPS:
        return peak * (step + 1) / _WARM_UP_STEPS
    done = (step - _WARM_UP_STEPS) / max(1, steps - _WARM_UP_STEPS)
    return peak * (_LAST_FRACTION + (1 - _LAST_FRACTION) * 0.5 * (1 + math.cos(math.pi * done)))
