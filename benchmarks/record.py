"""What the benchmarks share: alternating timings, memory of fresh processes, and rows of `results/*.tsv`.

A row is one measurement: what was measured (case, subject, quantity), its median, minimum and maximum, the limit that
the median must keep if there is one, and where it was measured. Figures of one run have the same date.
"""

import argparse
import contextlib
import csv
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import torch

import lgsirens

T = TypeVar("T")

_HERE = Path(__file__).resolve().parent
_MEGA = 1e6


@dataclass(frozen=True)
class Measurement:
    """One figure of one case.

    Attributes:
        case: the problem, such as "512x512".
        subject: what was measured, such as "shipped".
        quantity: what of it, such as "step".
        unit: of the values.
        values: one of each repetition.
        limit: what the median must not exceed; None if nothing is required.
    """

    case: str
    subject: str
    quantity: str
    unit: str
    values: Sequence[float]
    limit: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def missed(self) -> bool:
        return self.limit is not None and self.median > self.limit

    def __str__(self) -> str:
        spread = f"({min(self.values):.4g} to {max(self.values):.4g}, n={len(self.values)})"
        verdict = f"limit {self.limit:.4g}: {'MISSED' if self.missed else 'holds'}" if self.limit is not None else ""
        name = f"{self.case:16} {self.subject:17} {self.quantity:22}"
        return f"{name} {self.median:10.4g} {self.unit:6} {spread:32} {verdict}".rstrip()


def options(
    description: str | None, devices: bool = True, extra: Mapping[str, dict[str, Any]] | None = None
) -> argparse.Namespace:
    """The command line of a benchmark: `--quick`, `--device` where it can run on an accelerator, and its `extra` ones
    with argparse's settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no limits, nothing is written")
    if devices:
        parser.add_argument("--device", choices=("cpu", "cuda"))
    for name, settings in (extra or {}).items():
        parser.add_argument(name, **settings)
    parser.set_defaults(device="cpu", run=_run())  # now: the working tree may change while a benchmark runs
    return parser.parse_args()


def finish(name: str, measurements: Sequence[Measurement], options: argparse.Namespace) -> int:
    """Append the rows to `results/NAME.tsv`; returns the exit code, 1 if a limit is missed."""
    if options.quick:
        return 0
    path = _HERE / "results" / f"{name}.tsv"
    path.parent.mkdir(exist_ok=True)
    where = _environment(options.device)
    rows = [{**options.run, **_figures(measurement), **where} for measurement in measurements]
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
    missed = [m for m in measurements if m.missed]
    if missed:
        what = "; ".join(f"{m.case} {m.subject} {m.quantity} {m.median:.4g} > {m.limit:.4g}" for m in missed)
        print(f"{name}: limit missed: {what}", file=sys.stderr)
    return 1 if missed else 0


def alternate(
    runs: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Milliseconds of each run, A B A B ..., so that the noise of a shared machine meets all of them alike."""
    milliseconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in runs.items():
            gc.collect()
            synchronise(device)
            began = time.perf_counter()
            run()
            synchronise(device)
            if turn >= warm_up:
                milliseconds[name].append(1000 * (time.perf_counter() - began))
    return milliseconds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Quotients of the values that were measured side by side."""
    return [a / b for a, b in zip(above, below, strict=True)]


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def in_child(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a fresh process, because the peak memory of a process never falls."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def start_memory(device: str = "cpu") -> float:
    """Megabytes in use; `peak_memory` counts from here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / _MEGA
    gc.collect()
    with contextlib.suppress(OSError):  # not every kernel can; the peak of the imports then counts too
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory(device: str = "cpu") -> float:
    """Largest number of megabytes: resident in this process (Linux), or allocated on the accelerator."""
    return torch.cuda.max_memory_allocated() / _MEGA if device == "cuda" else _status("VmHWM")


def _status(field: str) -> float:
    # Not getrusage: its maximum survives exec, so that a child would report its parent's.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / _MEGA
    raise RuntimeError(f"/proc/self/status has no {field}")


def _run() -> dict[str, str]:
    command = ["python", os.path.relpath(sys.argv[0], _HERE.parent), *sys.argv[1:]]
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit(), "command": " ".join(command)}


def _figures(measurement: Measurement) -> dict[str, Any]:
    m = measurement
    limited = m.limit is not None
    return {
        "case": m.case,
        "subject": m.subject,
        "quantity": m.quantity,
        "unit": m.unit,
        "median": f"{m.median:.6g}",
        "min": f"{min(m.values):.6g}",
        "max": f"{max(m.values):.6g}",
        "repeats": len(m.values),
        "limit": f"{m.limit:.6g}" if limited else "",
        "holds": ("no" if m.missed else "yes") if limited else "",
    }


def _environment(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "machine": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "lgsirens": lgsirens.__version__,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    # What was measured is the package and the benchmark; results of an earlier run do not change it.
    measured = ["lgsirens", "benchmarks", "trials", ":(exclude)benchmarks/results"]
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("-dirty" if _git("status", "--porcelain", "--", *measured) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(_HERE.parent), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
