"""What this machine has: memory, CPUs, a GPU; and amounts of memory as people write them."""

import ctypes
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


def default_memory() -> int:
    """Bytes that a command may take where `max_memory` does not say it: half of this machine's memory."""
    return memory() // 2


def memory_limit(limit: int | str | None) -> int:
    """The limit `max_memory` in bytes, by default `default_memory` (raises as `as_bytes`)."""
    return default_memory() if limit is None else as_bytes(limit)


def release_memory() -> None:
    """Give back to the system what has been freed: glibc keeps it where something lies behind it that is in use, and a
    process would grow with every group of partitions."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def check_fits(count: float, what: str) -> None:
    """Raise ConfigError if so many bytes are more than this machine's memory."""
    if count > memory():
        there = format_bytes(memory())
        raise ConfigError(f"{what} takes {format_bytes(count)}, this machine has {there} of memory; ask for less")


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

    >>> resolve_device("cpu")
    device(type='cpu')

    Raises:
        ConfigError: another one, or PyTorch finds no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with suppress(RuntimeError, TypeError):
        resolved = torch.device(device)
        if resolved.type == "cpu" or (resolved.type == "cuda" and (resolved.index or 0) < torch.cuda.device_count()):
            return resolved
    raise ConfigError(f"{device!r}: PyTorch finds no such device here; choose auto, cpu or cuda", "device")


def as_bytes(limit: int | str) -> int:
    """The limit `max_memory` in bytes, given as a number or as text (raises ConfigError).

    >>> as_bytes("1GiB"), as_bytes("500 MB"), as_bytes(65536)
    (1073741824, 500000000, 65536)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", str(limit).lower())
    number, prefix, binary = match.groups() if match else ("inf", "", "")
    count = float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
    if count >= 1 << 62:
        raise ConfigError(f"{limit!r}: is no amount of memory; write it like 1GiB, 500MB or 65536", "max_memory")
    return int(count)


def format_bytes(count: float) -> str:
    """A number of bytes for people.

    >>> format_bytes(999), format_bytes(198_930), format_bytes(1.1e9)
    ('999 B', '198.9 kB', '1.1 GB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    for prefix in "kMGT":
        count /= 1000
        if round(count, 1) < 1000 or prefix == "T":
            break
    return f"{count:.1f} {prefix}B"
