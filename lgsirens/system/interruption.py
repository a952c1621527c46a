"""Ctrl-C and termination signals: long work is told of them and ends by itself, with its results saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lgsirens.system.console import note


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as usual.

    Inside another one it is the other's event. Only the main thread can listen to signals.
    """
    # Of either signal: one may be ignored.
    events = [getattr(signal.getsignal(number), "event", None) for number in (signal.SIGINT, signal.SIGTERM)]
    outer = next((event for event in events if event is not None), None)
    event = outer or threading.Event()
    if outer is not None or threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored (nohup) stays ignored, and what Python did not install cannot be put back.
    previous = {number: h for number, h in previous.items() if h not in (signal.SIG_IGN, None)}

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
