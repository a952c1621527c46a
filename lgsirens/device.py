"""Where to compute."""

import torch

from lgsirens.errors import ConfigError


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
