"""What steps the weights, and at which rates: the recipes.

`paper` is the published one: Adam at a constant rate. The others warm up for a few steps and decay.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lgsirens.nn.siren import ModelConfig, SirenPerPartition, count, parameter_counts, row_layout, shared_layout
from lgsirens.training.soap import Soap, state_size

_WARM_UP_STEPS = 20
_HALVING_STEPS = 60
_DOUBLING_STEPS = 60
_LAST_FRACTION = 0.02


@dataclass(frozen=True)
class Recipe:
    """How a signal is fitted.

    Attributes:
        coordinates: what networks see, a key of `COORDINATES`.
        rates: the learning rate of each mode, the highest one where it decays. Wide networks diverge at the rate that
            narrow ones like best.
        steps: how many, unless the user says.
        decay: how the rate goes after the warm-up: "none", not even one; "inverse", as 1 / (1 + step / 60), which is
            good to stop at whenever a target is reached; "cosine", to 2 % at the last step.
        soap: steps by SOAP, else by Adam.
        first_fraction: of its samples that each tile shows the first step, where networks see tile coordinates; twice
            as many every 60 steps, until they are all. A coarse gradient is good enough at first, and as the rate is,
            its noise is lowered (Smith et al. 2018, arXiv:1711.00489).
    """

    coordinates: str
    rates: dict[str, float]
    steps: int
    decay: str
    soap: bool = False
    first_fraction: float = 1.0

    def fraction(self, step: float) -> float:
        """Of each tile's samples that a step sees, counted from 0; from 1 on, all.

        >>> [RECIPES["fast"].fraction(step) for step in (0, 60, 180)]
        [0.125, 0.25, 1.0]
        """
        return self.first_fraction * 2 ** (step / _DOUBLING_STEPS)

    def passes(self, steps: int) -> float:
        """How often so many steps see all samples, about: the integral of `fraction`.

        >>> round(RECIPES["fast"].passes(180)), round(RECIPES["fast"].passes(300))
        (76, 196)
        """
        growing = min(steps, -_DOUBLING_STEPS * math.log2(self.first_fraction))
        return steps - growing + (self.fraction(growing) - self.first_fraction) * _DOUBLING_STEPS / math.log(2)


RECIPES = {
    "fast": Recipe("tile", {"lg": 3e-3, "lc": 6e-3, "mlp": 3e-3}, 300, "inverse", soap=True, first_fraction=1 / 8),
    "adam": Recipe("signal", {"lg": 2e-3, "lc": 2e-3, "mlp": 5e-4}, 500, "cosine"),
    "paper": Recipe("signal", {"lg": 5e-4, "lc": 5e-4, "mlp": 5e-4}, 1000, "none"),
}


def build_optimizer(model: SirenPerPartition, recipe: str) -> torch.optim.Optimizer:
    """The optimiser of a recipe over all that takes gradients. Adam has PyTorch's default betas and epsilon, which are
    the paper's too."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not RECIPES[recipe].soap:
        return torch.optim.Adam(parameters, lr=0.0, fused=True)

    def layers(parameter: torch.nn.Parameter, tensor: Tensor) -> list[Tensor]:
        if parameter is model.local:
            return model.unpack(tensor)
        return [tensor[None] if tensor.ndim == 2 else tensor[None, :, None]]

    return Soap(parameters, layers)


def fit_bytes(model: ModelConfig, partitions: int, recipe: str) -> int:
    """What a fit keeps of a model: weights, the best ones, gradients, and the state of the optimiser."""
    size = state_size if RECIPES[recipe].soap else lambda layout: 2 * count(layout)
    rows, shared = row_layout(model), shared_layout(model)
    return 12 * sum(parameter_counts(model, partitions)) + 4 * (partitions * size(rows) + size(shared))


def learning_rate(step: int, steps: int, recipe: str, mode: str, lr: float | None) -> float:
    """Rate of one step, counted from 0: the recipe's, with `lr` in place of its own if that is given."""
    peak, decay = RECIPES[recipe].rates[mode] if lr is None else lr, RECIPES[recipe].decay
    if decay == "none":
        return peak
    if step < _WARM_UP_STEPS:
        return peak * (step + 1) / _WARM_UP_STEPS
    if decay == "inverse":
        return peak / (1 + (step - _WARM_UP_STEPS) / _HALVING_STEPS)
    done = (step - _WARM_UP_STEPS) / max(1, steps - _WARM_UP_STEPS)
    return peak * (_LAST_FRACTION + (1 - _LAST_FRACTION) * 0.5 * (1 + math.cos(math.pi * done)))
