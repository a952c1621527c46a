"""What a log costs: the seconds that an encoding spends on it, over the seconds of the rest.

scikit-image's `camera` (512x512, gray, 16x16 partitions), a summary every 200 steps (the default): `lc` (L = 15), whose
steps are the cheapest, for 600 of them, then `lg` (L = 14, G = 84) for 200. Short runs are the dearest, because opening
and closing count once, and in the first the imports too. On a shared machine the difference between runs with and
without a log is mostly noise; so the seconds inside the log's own calls are added up, and that sum is what is held to
its limit: 3 % of the rest of the run. The result must be the same with and without a log (20 steps, a summary at each
tenth), or the figures mean nothing.

    python benchmarks/watching.py [--device cuda] [--quick]
"""

import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import record
from record import Measurement

import lgsirens as lg
from lgsirens.media import examples
from lgsirens.monitoring.watcher import Watcher

LIMIT = 0.03
CALLS = ("__init__", "__call__", "finish", "__exit__")
STEPS = {"lc": 600, "lg": 200}
WIDTHS = {"lc": {"local_width": 15}, "lg": {"local_width": 14, "global_width": 84}}


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Collects the seconds of every call of a watcher."""
    seconds: list[float] = []

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                seconds.append(time.perf_counter() - began)

        return wrapper

    originals = {name: getattr(Watcher, name) for name in CALLS}
    try:
        for name, call in originals.items():
            setattr(Watcher, name, timed(call))
        yield seconds
    finally:
        for name, call in originals.items():
            setattr(Watcher, name, call)


def encode(signal: lg.Signal, mode: str, steps: int, every: int | None, device: str) -> tuple[str, float, float]:
    """Origin of the result, seconds of the log, seconds of the rest; without a log if `every` is None."""
    with tempfile.TemporaryDirectory() as folder, stopwatch() as seconds:
        log = None if every is None else lg.RunLog(Path(folder) / "run", every)
        began = time.perf_counter()
        options: dict[str, Any] = {
            "mode": mode,
            "partitions": (16, 16),
            "steps": steps,
            "recipe": "paper",
            **WIDTHS[mode],
        }
        inr = lg.encode(signal, device=device, log=log, **options)
        whole = time.perf_counter() - began
    return inr.origin, sum(seconds), whole - sum(seconds)


def main() -> int:
    options = record.options(__doc__)
    signal = examples.camera()
    size, every, limit, shorter = "512x512", lg.RunLog(Path()).every, LIMIT, 1
    if options.quick:
        size, every, limit, shorter = "64x64", 4, None, 25
        signal = replace(signal, values=signal.values[:64, :64])
    measurements = []
    for mode, steps in STEPS.items():
        _, log, rest = encode(signal, mode, steps // shorter, every, options.device)  # first, so that imports count
        origins = [encode(signal, mode, 20, interval, options.device)[0] for interval in (None, 10)]
        if len(set(origins)) > 1:
            raise SystemExit("watching: a log changed the result")
        case = f"{size} {mode}"
        measurements += [
            Measurement(case, "logged", "rest of the run", "s", [rest]),
            Measurement(case, "logged", "log", "s", [log]),
            Measurement(case, "logged", "log/rest of the run", "ratio", [log / rest], limit),
        ]
        for measurement in measurements[-3:]:
            print(measurement, flush=True)
    return record.finish("watching", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
