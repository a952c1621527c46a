"""The console: log lines, progress, Ctrl-C, and how numbers are spelt there."""

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from tqdm import tqdm

log = logging.getLogger("lgsirens")

# What asks a program to end, beside Ctrl-C; of a terminal that is closed not on Windows.
TERMINATIONS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<LEFT, {rate_fmt}{postfix}]"
_SECONDS_BETWEEN_LINES = 10.0


class Progress(AbstractContextManager["Progress"]):
    """A progress bar on a terminal; a log line every ten seconds elsewhere. Use it as a context manager.

    Args:
        label: what is going on.
        unit: what is counted.
        quiet: show nothing.
        work: how much so many units are, where some take longer than others: the time that is left follows it.
    """

    def __init__(self, label: str, unit: str, quiet: bool = False, work: Callable[[int], float] = float) -> None:
        self._label, self._unit, self._quiet, self._work = label, unit, quiet, work
        self._bar: tqdm | None = None  # type: ignore[type-arg]

    def start(self, total: int, done: int = 0) -> None:
        """Begin to count to `total`, with `done` of it done before."""
        self._total, self._done, self._first = total, done, done
        self._started = self._told = time.monotonic()
        if not self._quiet and sys.stderr is not None and sys.stderr.isatty():
            name, unit, scaled = self._label, self._unit, total > 10_000
            with suppress(OSError):
                self._bar = tqdm(desc=name, unit=unit, total=total, initial=done, unit_scale=scaled, dynamic_ncols=True)

    def advance(self, count: int = 1, total: int | None = None, seconds: float = math.inf, **figures: str) -> None:
        """Count on, to another total if one is given; no more than `seconds` are left; `figures` are shown beside the
        count."""
        self._done, self._total, self._most = self._done + count, total or self._total, seconds
        try:
            if self._bar is not None:
                self._draw(self._bar, count, figures)
            elif not self._quiet and time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
                self._tell(figures)
        except OSError:  # the terminal is gone, the work is not
            self._bar, self._quiet = None, True

    def seconds_left(self) -> float:
        """Until all is done, if it goes on as it did."""
        done, total = (self._work(count) - self._work(self._first) for count in (self._done, self._total))
        left = (total - done) * (time.monotonic() - self._started) / max(1e-9, done)
        return max(0.0, min(left, self._most))

    def _draw(self, bar: "tqdm[Any]", count: int, figures: dict[str, str]) -> None:
        bar.total = self._total
        if figures:
            bar.set_postfix(figures, refresh=False)
        left = tqdm.format_interval(self.seconds_left())
        bar.bar_format = _BAR.replace("LEFT", left)
        bar.update(count)

    def _tell(self, figures: dict[str, str]) -> None:
        self._told = time.monotonic()
        rate = max(1e-9, self._done - self._first) / max(1e-9, self._told - self._started)
        left = self.seconds_left()
        shown = "".join(f", {name} {value}" for name, value in figures.items())
        so_far = f"{self._label}: {self._unit} {self._done} of {self._total}{shown}"
        print(f"{so_far}, {rate:,.1f} {self._unit}/s, {left:.0f} s left", file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()


def note(message: str, *args: object) -> None:
    """Log one line that a user should see."""
    log.warning(message, *args)


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that the first signal to end sets (Ctrl-C, a closed terminal); the second acts as usual.

    Inside another one it is the other's event. Only the main thread can listen to signals.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATIONS)}
    # What is ignored (nohup) stays ignored, and what Python did not install cannot be put back.
    previous = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    outer = [handler.event for handler in previous.values() if hasattr(handler, "event")]
    event = outer[0] if outer else threading.Event()
    if outer or threading.current_thread() is not threading.main_thread():
        yield event
        return

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            restore()
            signal.raise_signal(number)
        event.set()
        note("finishing what is under way, then saving; once more to stop at once")

    stop.event = event  # type: ignore[attr-defined]
    for number in previous:
        signal.signal(number, stop)
    try:
        yield event
    finally:
        restore()


def counted(number: int, noun: str) -> str:
    """A number with its noun, as messages spell them.

    >>> counted(1, "channel"), counted(2, "channel")
    ('1 channel', '2 channels')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times(shape: Iterable[int]) -> str:
    """The size of a signal or a tile.

    >>> times((512, 400))
    '512x400'
    """
    return "x".join(map(str, shape))


def commas(numbers: Iterable[float] | None) -> str:
    """One number per dimension, as options take them.

    >>> commas((16, 16))
    '16,16'
    """
    return ",".join(map(str, numbers or ()))
