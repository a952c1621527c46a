"""How every program of ours runs and ends: errors in one line, exit codes.

Exit code 0 if all went well, 1 for a failure at run time, 2 for wrong use or bad input, 130 if Ctrl-C ended the run,
or another signal a fit, whose result is saved; 128 and its number if another signal ended something else.
"""

import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from lgsirens.errors import LgsirensError
from lgsirens.system.console import TERMINATIONS, log, note

__version__ = "0.1.0"

INTERRUPTED = 130
_OUT_OF_MEMORY = re.compile("memory|failed to map segment|can't start new thread")


def run(program: Callable[[], int | None], names: Mapping[str, str] | None = None) -> int:
    """Call a program, log lines and errors to standard error; returns the exit code.

    Args:
        names: what its command line calls options, where it is something else than what the library calls them.
    """
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  # closed; print would write to standard output
    sys.stdout = sys.stdout or _closed_stream()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot spell is no failure
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lgsirens: %(message)s"))
    log.addHandler(handler)
    try:
        with _unwinding():
            code = int(program() or 0)
            sys.stdout.flush()
            return code
    except LgsirensError as error:
        name = (names or {}).get(error.option or "", error.option)
        if not error.told:
            print(f"lgsirens: {'' if name is None else f'--{name} '}{' '.join(error.message.split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        with suppress(OSError):  # the terminal may be gone
            if log.isEnabledFor(logging.WARNING):  # not where another process tells
                print("lgsirens: interrupted", file=sys.stderr)
        return error.exit_code if isinstance(error, _Terminated) else INTERRUPTED
    except OSError as error:  # files are met with errors of our own: this is standard output, closed or full
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # whose reader wants no more
            print(f"lgsirens: the result cannot be printed: {error.strerror}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError, ImportError) as error:  # PyTorch, the linker and threads only speak of it
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        reason = " ".join(str(error).split())
        print(f"lgsirens: out of memory ({reason}); use a smaller signal or region", file=sys.stderr)
        return 1
    finally:
        log.removeHandler(handler)


class _Terminated(KeyboardInterrupt):
    """A signal to end: as Ctrl-C, but for the exit code that shells know."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


@contextmanager
def _unwinding() -> Iterator[None]:
    """Signals to end unwind the stack, so that temporary files are deleted; what is ignored (nohup) stays so."""
    main = threading.current_thread() is threading.main_thread()
    caught = [number for number in TERMINATIONS if main and signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: Any) -> NoReturn:
        raise _Terminated(number)

    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def ended(stopped: str, steps: int, checkpoint: Path | None) -> int:
    """The exit code of a fit whose result is saved. Its checkpoint is deleted, unless there is more to do."""
    if stopped == "interrupted":
        note("interrupted after %d steps; saved what there is%s", steps, "; resume goes on" if checkpoint else "")
        return INTERRUPTED
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return 0


def _closed_stream() -> TextIO:
    """In place of a standard output that is closed: what is printed must fail, not vanish, nor land in another file
    that was opened since and so got its number."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
    return open(1, "w", closefd=False)
