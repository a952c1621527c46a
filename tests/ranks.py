"""Ranks that are threads of one process, for tests."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from lgsirens.training.ranks import Ranks


class _Meeting:
    """Where threads leave what they have for one another."""

    def __init__(self, size: int) -> None:
        self.barrier, self.held, self.numbers = threading.Barrier(size, timeout=120), [None] * size, {}
        self.lock = threading.Lock()


class ThreadRanks(Ranks):
    """One of the ranks of a meeting."""

    def __init__(self, rank: int, size: int, meeting: _Meeting) -> None:
        super().__init__(rank, size)
        self._meeting, self._deals = meeting, 0

    def everyone(self, value):
        self._meeting.held[self.rank] = value
        self._meeting.barrier.wait()
        found = list(self._meeting.held)
        self._meeting.barrier.wait()
        return found

    def add(self, tensors):
        parts = self.everyone([tensor.clone() for tensor in tensors])
        for tensor, *held in zip(tensors, *parts, strict=True):
            tensor.copy_(sum(held))

    def deal(self, number):
        self._deals += 1
        with self._meeting.lock:
            numbers = self._meeting.numbers.setdefault(self._deals, count())
        while (one := next(numbers)) < number:
            yield one


def on_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What each of so many ranks makes of `work`; raises what the first raised."""
    meeting = _Meeting(size)

    def of(rank):
        try:
            return work(ThreadRanks(rank, size, meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        jobs = [pool.submit(of, rank) for rank in range(size)]
        failures = [job.exception() for job in jobs]
        own = [one for one in failures if one is not None and not isinstance(one, threading.BrokenBarrierError)]
        for failure in own or failures:
            if failure is not None:
                raise failure
        return [job.result() for job in jobs]
