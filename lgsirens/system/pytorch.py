"""PyTorch as it is when it starts, whatever the caller's threads have made of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def as_it_starts(gradients: bool = True) -> Iterator[None]:
    """Without autocast, and new tensors on the CPU; with `gradients` outside of `no_grad` and `inference_mode`, too.

    All of that belongs to a thread. The default type belongs to the process, so that tensors are made with theirs.
    Use it as a decorator or in a `with`.

    >>> with torch.inference_mode(), as_it_starts():
    ...     torch.ones(1, requires_grad=True).sum().requires_grad
    True
    """
    with ExitStack() as stack:
        if gradients:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # a context costs something at every call of PyTorch
            stack.enter_context(torch.device("cpu"))
        yield
