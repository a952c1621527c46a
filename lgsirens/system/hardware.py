"""What this machine has: memory, CPUs, a GPU; and amounts of memory as people write them."""

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from lgsirens.errors import ConfigError

# The limit of a container, in cgroups of version 2 and 1. "max" or a number beyond all memory is none.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

if hasattr(os, "register_at_fork"):  # not on Windows
    # The threads of GNU OpenMP do not live on in a forked child, which would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def memory() -> int:
    """Bytes of memory that this process may take."""
    found = [psutil.virtual_memory().total]
    for path in _LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return min(found)


def check_fits(count: float, what: str) -> None:
    """Raise ConfigError if so many bytes are more than this machine's memory."""
    machine = memory()
    if count > machine:
        raise ConfigError(
            f"{what} takes {format_bytes(count)}, this machine has {format_bytes(machine)} of memory; ask for less"
        )


def use_threads(count: int | None) -> None:
    """Compute in so many CPU threads; None: PyTorch's choice.

    Raises:
        ConfigError: below 1, or more than four for each CPU that this process may use.
    """
    if count is None:
        return
    most = 4 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if not 1 <= count <= most:
        raise ConfigError(f"{count}: must be from 1 to {most} on this machine", "threads")
    torch.set_num_threads(count)


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
        raise ConfigError(f"{device!r}: is unknown; choose auto, cpu or cuda", "device") from None
    if resolved.type not in ("cpu", "cuda"):
        raise ConfigError(f"{device!r}: is not supported; choose auto, cpu or cuda", "device")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("cuda: PyTorch finds no CUDA device here; use cpu", "device")
    return resolved


def as_bytes(limit: int | str) -> int:
    """A limit in bytes, given as a number or as text (raises ConfigError)."""
    if isinstance(limit, str):
        return parse_bytes(limit)
    if not isinstance(limit, int) or limit <= 0:
        raise ConfigError(f"{limit!r}: give a number of bytes, or text such as 1GiB", "max_memory")
    return limit


def parse_bytes(text: str) -> int:
    """`"1GiB"`, `"500MB"`, `"65536"` as a number of bytes (raises ConfigError)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None:
        raise ConfigError(f"{text!r} is no amount of memory; write it like 1GiB, 500MB or 65536", "max_memory")
    number, prefix, binary = match.groups()
    count = float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
    if count >= 1 << 62:
        raise ConfigError(f"{text!r} is more memory than there is; write it like 1GiB or 500MB", "max_memory")
    return int(count)


def format_bytes(count: float) -> str:
    """A number of bytes for people: `198.9 kB`, `1.1 GB`."""
    if count < 1000:
        return f"{count:.0f} B"
    for prefix in "kMGT":
        count /= 1000
        if round(count, 1) < 1000 or prefix == "T":
            break
    return f"{count:.1f} {prefix}B"
