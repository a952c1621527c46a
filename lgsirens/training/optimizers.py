"""What steps the weights, and at which rates: the recipes.

`paper` is the published one: Adam at a constant rate. The others warm up for a few steps and decay.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lgsirens.nn.siren import ModelConfig, SirenPerPartition, count, parameter_counts, row_layout, shared_layout
from lgsirens.training.adam import Adam, Optimizer
from lgsirens.training.soap import Soap, state_size

_WARM_UP_STEPS = 20
_HALVING_STEPS = 100
_LAST_FRACTION = 0.02
_LEAST_WIDTH = 8
# SOAP's bases of wide rows cost more than they bring (docs/lab-notes.md).
_WIDEST_FOR_SOAP = 48


@dataclass(frozen=True)
class Recipe:
    """How a signal is fitted.

    Attributes:
        coordinates: what networks see, a key of `COORDINATES`.
        rates: the learning rate of each mode, the highest one where it decays.
        steps: how many, unless the user says.
        decay: how the rate goes after the warm-up: "none", not even one; "inverse", as 1 / (1 + step / 100), which is
            good to stop at whenever a target is reached; "cosine", to 2 % at the last step.
        by_width: the rates are to be divided by the local width, at least 8 (Yang et al. 2021, arXiv:2203.03466): wide
            networks diverge at the rate that narrow ones like best.
        least_squares: the output layers of rows begin where they fit best; that of an `mlp`, whose many features
            hardly differ at first, comes to nothing (docs/lab-notes.md).
        soap: narrow rows beside a shared network step by SOAP, others by Adam.
        first_samples: how many samples of each tile the first step sees, by mode, where networks see tile coordinates;
            None: all.
    """

    coordinates: str
    rates: dict[str, float]
    steps: int
    decay: str
    by_width: bool = False
    least_squares: bool = False
    soap: bool = False
    first_samples: dict[str, int] | None = None

    def peak(self, model: ModelConfig) -> float:
        """The highest learning rate for a model.

        >>> RECIPES["fast"].peak(ModelConfig("lg", 2, 3, local_width=16, global_width=72))
        0.001125
        """
        return self.rates[model.mode] / (max(_LEAST_WIDTH, model.local_width) if self.by_width else 1)

    def solves_output(self, model: ModelConfig) -> bool:
        return self.least_squares and model.mode != "mlp"

    def uses_soap(self, model: ModelConfig) -> bool:
        return self.soap and model.mode == "lg" and model.local_width <= _WIDEST_FOR_SOAP


RECIPES = {
    "fast": Recipe(
        "tile",
        {"lg": 0.018, "lc": 0.06, "mlp": 0.25},
        300,
        "inverse",
        by_width=True,
        least_squares=True,
        soap=True,
        first_samples={"lg": 64, "lc": 64, "mlp": 8192},
    ),
    "adam": Recipe("signal", {"lg": 2e-3, "lc": 2e-3, "mlp": 5e-4}, 500, "cosine"),
    "paper": Recipe("signal", {"lg": 5e-4, "lc": 5e-4, "mlp": 5e-4}, 1000, "none"),
}


def build_optimizer(model: SirenPerPartition, recipe: str, fused: bool = False) -> Optimizer | torch.optim.Optimizer:
    """The optimiser of a recipe over all that takes gradients, by the compiled kernel if `fused`. Adam has PyTorch's
    default betas and epsilon, which are the paper's too."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not RECIPES[recipe].uses_soap(model.config):
        return Adam(parameters) if fused else torch.optim.Adam(parameters, lr=0.0, fused=True)

    def layers(parameter: torch.nn.Parameter, tensor: Tensor) -> list[Tensor]:
        if parameter is model.local:
            return model.unpack(tensor)
        return [tensor[None] if tensor.ndim == 2 else tensor[None, :, None]]

    return Soap(parameters, layers, fused)


def fit_bytes(model: ModelConfig, partitions: int, recipe: str) -> int:
    """What a fit keeps of a model: weights, the best ones, gradients, and the state of the optimiser; or, if that is
    more, what solving the output layers takes before."""
    size = state_size if RECIPES[recipe].uses_soap(model) else lambda layout: 2 * count(layout)
    rows, shared = row_layout(model), shared_layout(model)
    numbers = sum(parameter_counts(model, partitions))
    equations = partitions * (model.local_width + 1) ** 2 if RECIPES[recipe].solves_output(model) else 0
    return max(12 * numbers + 4 * (partitions * size(rows) + size(shared)), 4 * numbers + 16 * equations)


def learning_rate(step: int, steps: int, recipe: str, model: ModelConfig, lr: float | None) -> float:
    """Rate of one step, counted from 0: the recipe's, with `lr` in place of its highest if that is given."""
    peak, decay = RECIPES[recipe].peak(model) if lr is None else lr, RECIPES[recipe].decay
    if decay == "none":
        return peak
    if step < _WARM_UP_STEPS:
        return peak * (step + 1) / _WARM_UP_STEPS
    if decay == "inverse":
        return peak / (1 + (step - _WARM_UP_STEPS) / _HALVING_STEPS)
    done = (step - _WARM_UP_STEPS) / max(1, steps - _WARM_UP_STEPS)
    return peak * (_LAST_FRACTION + (1 - _LAST_FRACTION) * 0.5 * (1 + math.cos(math.pi * done)))
