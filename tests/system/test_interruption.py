"""Signals that end long work."""

import errno
import io
import os
import signal

import pytest

from lgsirens.system.console import TERMINATIONS, Progress, interruption
from lgsirens.system.output import replacing
from lgsirens.system.program import run


@pytest.fixture(autouse=True)
def handlers():
    """Those of the test runner come back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATIONS)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("ignored", [(), (signal.SIGINT,), (signal.SIGTERM,)])
def test_inside_another_one_it_is_the_same_event(ignored):
    """A shell starts `command &` of a script with SIGINT ignored."""
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    with interruption() as outer:
        for number in {signal.SIGINT, signal.SIGTERM} - set(ignored):
            outer.clear()
            signal.raise_signal(number)
            assert outer.is_set()
        with interruption() as inner:
            assert inner is outer
    for number in ignored:
        assert signal.getsignal(number) is signal.SIG_IGN


def test_what_is_ignored_stays_ignored():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with interruption() as event:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert not event.is_set()


def test_the_second_signal_acts_as_usual():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interruption() as event:
        signal.raise_signal(signal.SIGINT)
        assert event.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", TERMINATIONS)
def test_a_signal_to_end_leaves_no_temporary_file(number, tmp_path, capsys):
    def program():
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            signal.raise_signal(number)
        return 0

    signal.signal(number, signal.SIG_DFL)
    assert run(program) == 128 + number
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr().err == "lgsirens: interrupted\n"
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB"),
        RuntimeError("can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("can't start new thread"),
        ImportError("mtrand.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_told_in_one_line(error, capsys):
    def program():
        raise error

    assert run(program) == 1
    assert capsys.readouterr().err.startswith("lgsirens: out of memory (")


@pytest.mark.parametrize("error", [RuntimeError("another"), ImportError("no module")])
def test_another_error_is_not_called_so(error):
    def program():
        raise error

    with pytest.raises(type(error)):
        run(program)


def test_what_a_shell_has_ignored_ends_no_program():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run(lambda: signal.raise_signal(signal.SIGHUP)) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


class _Gone(io.StringIO):
    """A terminal that has been closed."""

    def isatty(self):
        return True

    def write(self, text):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("terminal", [True, False])
def test_work_goes_on_without_its_terminal(terminal, monkeypatch):
    monkeypatch.setattr("sys.stderr", gone := _Gone())
    monkeypatch.setattr(gone, "isatty", lambda: terminal)
    monkeypatch.setattr("lgsirens.system.console._SECONDS_BETWEEN_LINES", 0.0)
    with Progress("fit", "step") as bar:
        bar.start(3)
        for _ in range(3):
            bar.advance()
