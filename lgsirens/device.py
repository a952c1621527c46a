"""Where to compute."""

import os

import torch

from lgsirens.errors import ConfigError

if hasattr(os, "register_at_fork"):  # not on Windows
    # The threads of GNU OpenMP do not live on in a forked child, which would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def resolve_device(device: str | torch.device) -> torch.device:
    """`"auto"` (CUDA if there is one), `"cpu"` or `"cuda"` as a device.

    Raises:
        ConfigError: unknown, or PyTorch finds no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise ConfigError(f"device {device!r} is unknown; choose auto, cpu or cuda") from None
    if resolved.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {device!r} is not supported; choose auto, cpu or cuda")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: PyTorch finds no CUDA device here; use --device cpu")
    return resolved
