"""How every program of ours starts: outside the package, whose own import takes the seconds that PyTorch takes.

Ctrl-C among the imports ends the process in one line with exit code 130; then `lgsirens/system/program.py` sees to it.
"""

import importlib
import os
import signal
from contextlib import suppress


def main() -> int:
    """The command `lgsirens`."""
    return start("lgsirens.cli.main")


def start(module: str, *arguments: object, **options: object) -> int:
    """Import a module and call its `main`; returns the exit code."""
    end_at_once()
    # Threads of PyTorch's spin after each of its calls, on the cores that a compiled kernel's then want; read when
    # PyTorch is imported (docs/lab-notes.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        program = importlib.import_module(module).main
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return int(program(*arguments, **options))
    except KeyboardInterrupt:  # beside what `program` itself catches
        return _interrupted()


def end_at_once() -> None:
    """From now on Ctrl-C ends the process, as no exception does in the midst of an import; what is ignored stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: object) -> None:
    os._exit(_interrupted())


def _interrupted() -> int:
    with suppress(OSError):
        os.write(2, b"lgsirens: interrupted\n")
    return 130
