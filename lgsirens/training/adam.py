"""Adam by the compiled kernel; elsewhere it is PyTorch's."""

from typing import Any

import torch
from torch import Tensor

from lgsirens.nn.kernels import adam as kernel


class Optimizer:
    """What a fit asks of an optimiser, as PyTorch's have it. They do not come from `torch.optim.Optimizer`: to make one
    of those imports a compiler, which takes longer than many a fit.

    Attributes:
        param_groups: one, with the parameters and the rate of the next step.
        state: of each parameter.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": 0.0}]
        self.state: dict[torch.nn.Parameter, dict[str, Any]] = {parameter: {} for parameter in parameters}

    def step(self) -> None:
        """Step all parameters that have a gradient."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"state": list(self.state.values())}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        states = zip(self.state, kept["state"], strict=True)
        self.state = {p: {name: _on(p.device, value) for name, value in state.items()} for p, state in states}


def _on(device: torch.device, value: Any) -> Any:
    """Tensors, in lists too, moved to a device; all else as it is."""
    if isinstance(value, list):
        return [_on(device, item) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


class Adam(Optimizer):
    """Adam with PyTorch's default betas and epsilon (Kingma and Ba 2015, arXiv:1412.6980)."""

    @torch.no_grad()
    def step(self) -> None:
        tensors, number = [], 0
        for parameter, state in self.state.items():
            gradient: Tensor | None = parameter.grad
            if gradient is None:
                continue
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
            number = state["step"] = state["step"] + 1
            tensors.append((parameter, gradient.contiguous(), state["mean"], state["square"]))
        kernel.step(tensors, self.param_groups[0]["lr"], number)
