"""Signals that end long work."""

import signal

import pytest

from lgsirens.system.console import interruption


@pytest.fixture(autouse=True)
def handlers():
    """Those of the test runner come back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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
