"""The processes of one run, as `torchrun` starts them: the one place where what they have is put together.

One process alone is a run of one rank, which exchanges nothing. Whatever decides how a fit goes on (errors, seconds,
Ctrl-C) is the same on every rank, because it comes from here.
"""

import atexit
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lgsirens.errors import ConfigError, LgsirensError, RunError
from lgsirens.system.console import counted

# A rank that has nothing left to do waits for the others; where one dies its connections break at once.
_PATIENCE = timedelta(days=7)
_MEETING = timedelta(minutes=10)


class Ranks:
    """The ranks of a run.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        bytes_sent: by this rank to add up and to gather, as it gave them.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.bytes_sent = rank, size, 0

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes and tells."""
        return self.rank == 0

    def add(self, tensors: list[Tensor]) -> None:
        """Add up what the ranks have, in place."""

    def everyone(self, value: Any) -> list[Any]:
        """What each rank has, in their order."""
        return [value]

    def deal(self, count: int) -> Generator[int, None, None]:
        """The numbers below `count`, each to one rank, the next to whichever is free; closed, no rank gets more."""
        yield from range(count)

    def total(self, *numbers: float) -> list[float]:
        """The sums of what the ranks have; exact where they are whole numbers below 2^53."""
        if self.size == 1:
            return [*numbers]
        sums = torch.tensor(numbers, dtype=torch.float64, device="cpu")
        self.add([sums])
        return [float(number) for number in sums]

    def of_first(self, value: Any) -> Any:
        """What the first rank has."""
        return self.everyone(value if self.first else None)[0]

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows `[n, ...]` of all ranks, one after the other, on the CPU."""
        return rows if self.size == 1 else torch.cat(self.everyone(rows.detach().cpu()))

    def part(self, count: int) -> slice:
        """Which of `count` things in a row are this rank's: as many as those of any other, or one more.

        >>> [Ranks(rank, 3).part(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def partitions(self, count: int) -> slice:
        """Which of `count` partitions are this rank's.

        Raises:
            ConfigError: there are more ranks than partitions.
        """
        if self.size > count:
            raise ConfigError(f"{self.size} ranks: more than the {counted(count, 'partition')} to fit; start fewer")
        return self.part(count)

    def together(self, work: Callable[[], Any]) -> Any:
        """What `work` gives on each rank, where it succeeds on all of them.

        Raises:
            LgsirensError: what the first rank that failed says, on every rank.
        """
        if self.size == 1:
            return work()
        result: Any = None
        failure: LgsirensError | None = None
        try:
            result = work()
        except LgsirensError as error:
            failure = error
        except OSError as error:
            failure = RunError(f"{error.filename or 'a file'}: {error.strerror or error}; look after the file system")
        found = self.everyone(failure and (type(failure), failure.message, failure.option))
        for rank, other in enumerate(found):
            if other is not None:
                kind, message, option = other
                where = "" if all(each == other for each in found) else f" (rank {rank} of {self.size})"
                failure = kind(f"{message}{where}", option)
                failure.told = not self.first
                raise failure
        return result

    def alike(self, error: LgsirensError) -> LgsirensError:
        """An error that every rank raises; the first one tells of it."""
        error.told = not self.first
        return error

    def agree(self, settings: Mapping[str, object]) -> None:
        """Raise ConfigError, on every rank, unless settings are the same on all of them."""
        first, *others = self.everyone({name: str(value) for name, value in settings.items()})

        def check() -> None:
            for rank, other in enumerate(others, 1):
                for name in first.keys() | other.keys():
                    ours, theirs = (one.get(name, "none") for one in (first, other))
                    if ours != theirs:
                        raise ConfigError(f"rank 0 has {name} {ours}, rank {rank} has {theirs}; start all alike")

        self.together(check)

    def wait(self) -> None:
        """Until all ranks are here."""
        self.everyone(None)


ALONE = Ranks()


class ProcessRanks(Ranks):
    """Processes that exchange by `torch.distributed`: by gloo what lies on CPUs, by NCCL what lies on GPUs.

    Raises:
        ConfigError: this build of PyTorch has no such backend.
        RunError: the processes do not find one another.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_gloo_available()):
            raise ConfigError("ranks need a PyTorch with torch.distributed and gloo; install one, or start no torchrun")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        try:
            self._store, rank, size = next(dist.rendezvous("env://", timeout=_MEETING))  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=self._store, rank=rank, world_size=size, timeout=_PATIENCE)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"the ranks do not find one another: {reason}; start them by torchrun") from None
        # Else its threads are still there when the process ends, which some of them meet by ending it (SIGABRT).
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
        super().__init__(rank, size)
        self._dist, self._deals = dist, 0
        self._run = self.of_first(secrets.token_hex(8))  # torchrun's store outlives a restart of the ranks

    def add(self, tensors: list[Tensor]) -> None:
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            self._exchange(partial(self._dist.all_reduce, flat))
            self.bytes_sent += flat.nbytes
            for tensor, part in zip(alike, torch.split(flat, [tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def everyone(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        self._exchange(lambda: self._dist.all_gather_object(found, value))
        return found

    def deal(self, count: int) -> Generator[int, None, None]:
        self._deals += 1
        key = f"deal {self._run} {self._deals}"
        while (number := self._exchange(lambda: self._store.add(key, 1)) - 1) < count:
            try:
                yield number
            except GeneratorExit:  # Ctrl-C met this rank: nobody begins another one
                with suppress(RunError):  # another rank is gone: it is told where the ranks meet
                    self._exchange(lambda: self._store.add(key, count))
                raise

    def _exchange(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except RuntimeError as error:
            raise RunError(f"rank {self.rank}: another rank is gone ({_first_line(error)}); resume goes on") from None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def ranks_of_environment() -> Ranks:
    """The ranks that `torchrun` has started this process among; one alone without it."""
    return ProcessRanks() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ALONE
