"""How every program of ours runs and ends: errors in one line, exit codes.

Exit code 0 if all went well, 1 for a failure at run time, 2 for wrong use or bad input, 130 if Ctrl-C ended the run.
"""

import io
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from lgsirens.errors import LgsirensError
from lgsirens.system.console import log, note

__version__ = "0.1.0"

INTERRUPTED = 130


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
        code = int(program() or 0)
        sys.stdout.flush()
        return code
    except LgsirensError as error:
        name = (names or {}).get(error.option or "", error.option)
        print(f"lgsirens: {'' if name is None else f'--{name} '}{' '.join(error.message.split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lgsirens: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # files are met with errors of our own: this is standard output, closed or full
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # whose reader wants no more
            print(f"lgsirens: the result cannot be printed: {error.strerror}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # PyTorch's is a RuntimeError that speaks of memory
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        reason = " ".join(str(error).split())
        print(f"lgsirens: out of memory ({reason}); use a smaller signal or region", file=sys.stderr)
        return 1
    finally:
        log.removeHandler(handler)


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
