"""Progress off a terminal: a line now and then."""

import time

from lgsirens.system.console import Progress


def test_a_line_every_ten_seconds_says_how_far_and_how_fast(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("encode", "step") as bar:
        bar.start(100, done=20)
        for _ in range(30):
            now[0] += 1.0
            bar.advance(2, psnr="30.00 dB")
    assert capsys.readouterr().err.splitlines() == [
        f"encode: step {done} of 100, psnr 30.00 dB, 2.0 step/s, {(100 - done) // 2} s left" for done in (40, 60, 80)
    ]


def test_quiet_is_quiet(monkeypatch, capsys):
    now = iter(range(0, 1000, 100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    with Progress("encode", "step", quiet=True) as bar:
        bar.start(2)
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_the_time_left_follows_the_work_where_some_units_take_longer(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("encode", "step", work=lambda count: count**2) as bar:
        bar.start(10)
        for step in range(5):
            now[0] += 2 * step + 1
            bar.advance()
    assert "step 4 of 10" in (line := capsys.readouterr().err)
    assert line.endswith(", 84 s left\n")


def test_no_more_time_is_left_than_there_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("encode", "step") as bar:
        bar.start(1000)
        now[0] = 10.0
        bar.advance(seconds=5.0)
    assert capsys.readouterr().err.endswith(", 5 s left\n")
