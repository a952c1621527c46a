"""Which kernel a fit takes: a fixed rule, never a timing, so that the same run gives the same file."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lgsirens.errors import ConfigError
from lgsirens.nn.kernels import eager, fused
from lgsirens.nn.kernels.block import Block, Gradients
from lgsirens.nn.kernels.library import library
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.system.console import note

KERNELS = ("auto", "fused", "eager")


@dataclass(frozen=True)
class Kernel:
    """What evaluates and differentiates the model.

    Attributes:
        name: with its instruction set; kernels of different names round differently.
        errors_and_gradients, errors: as those of `eager.py`.
    """

    name: str
    errors_and_gradients: Callable[[SirenPerPartition, Block, int], Gradients]
    errors: Callable[[SirenPerPartition, Block], Tensor]

    @property
    def fused(self) -> bool:
        """Whether it is the compiled one, which keeps no more than a few samples' features."""
        return self.errors is fused.errors


EAGER = Kernel("eager", eager.errors_and_gradients, eager.errors)


def choose_kernel(name: str, device: torch.device) -> Kernel:
    """The kernel of that name; "auto": the fused one if it is there, on a CPU.

    >>> choose_kernel("eager", torch.device("cpu")).name
    'eager'

    Raises:
        ConfigError: the fused kernel is asked for, and is not there.
    """
    if name == "eager" or (name == "auto" and device.type != "cpu"):
        return EAGER
    if device.type != "cpu":
        raise ConfigError(f"fused: works on the CPU alone, not on {device.type}; choose auto", "kernel")
    found = library()
    if found is not None:
        return Kernel(f"fused {found.instruction_set}", fused.errors_and_gradients, fused.errors)
    if name == "fused":
        raise ConfigError("fused: was not compiled when lgsirens was installed; install it again with gcc", "kernel")
    _tell()
    return EAGER


@cache
def _tell() -> None:
    note("the fused kernel was not compiled when lgsirens was installed (is there gcc?); PyTorch's takes longer")
