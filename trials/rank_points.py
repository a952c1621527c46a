"""Two ranks, children of one process, of which one is killed or meets an error at a call that changes the folder.

Every time each output is absent or whole, what was not killed ends by itself or when it is told to, in one line, and
`--resume` ends in the files of a run that nothing happened to.
"""

import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from trials import faults, oracle
from trials.commands import COMMANDS, Command, Ended, forked, prepare
from trials.kills import ACTIONS

RANKS = 2
_ACTIONS = [action for action in ACTIONS if action != "stop"]
_SECONDS_ALONE = 5  # of a rank after the other's end; then it is told to end, as torchrun does at once
_SECONDS_TO_END = 30  # after that a rank hangs: it is ended by the signal of an alarm, which is a finding
_ENDS = (0, 1, 2, -signal.SIGTERM, 128 + signal.SIGTERM)
_DECODE = Command("decode to Zarr", "decode a.safetensors out.zarr --quiet", ("out.zarr",), ("a.safetensors",))


def _tried() -> list[Command]:
    some = ("encode", "encode in groups", "encode-many", "encode-many with one network")
    return [*(command for command in COMMANDS if command.name in some), _DECODE]


class RankPoints:
    """What ranks do undisturbed, and what has been found when they are disturbed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._prepared = folder, folder / "prepared"
        self._prepared.mkdir()
        prepare(self._prepared)
        self.counts, self.findings = Counter[str](), list[str]()
        self._calls: dict[str, list[int]] = {}
        for command in _tried():
            command.fill(self._before(command), self._prepared)
            command.fill(reference := self._reference(command), self._prepared)
            records = [folder / f"record-{rank}" for rank in range(RANKS)]
            descriptors = [os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for record in records]
            begins = [partial(faults.begin, reference, descriptor) for descriptor in descriptors]
            ended = run(command.argv, reference, begins)
            assert all(one.code == 0 for one in ended), (command.name, ended)
            self._calls[command.name] = [len(list(faults.recorded(record))) for record in records]

    def try_points(self, number: int, chosen: random.Random) -> None:
        """Disturb ranks so many times, command after command."""
        for turn in range(number):
            command = _tried()[turn % len(_tried())]
            rank, action = chosen.randrange(RANKS), chosen.choice(_ACTIONS)
            if not self._calls[command.name][rank]:
                rank = 1 - rank
            self._try(command, action, rank, chosen.randint(1, self._calls[command.name][rank]))

    def _before(self, command: Command) -> Path:
        return self._folder / "before" / command.name

    def _reference(self, command: Command) -> Path:
        return self._folder / "reference" / command.name

    def _try(self, command: Command, action: str, rank: int, number: int) -> None:
        self.counts[action] += 1
        command.fill(folder := oracle.emptied(self._folder / "try"), self._prepared)
        what, lasting = ACTIONS[action]
        begins: list[Callable[[], Any]] = [lambda: None] * RANKS
        begins[rank] = partial(faults.begin, folder, at=number, what=what, lasting=lasting)
        try:
            ended = run(command.argv, folder, begins)
            for one in ended:
                if one.code != -signal.SIGKILL:
                    oracle.require(one.code in _ENDS, f"a rank ended with {one.code}: {ended}")
                    oracle.require("Traceback" not in one.said, one.said)
            if all(one.code == 0 for one in ended):
                for name in command.outputs:
                    oracle.require((folder / name).exists(), f"all ended with 0, and {name} is missing")
            elif not any(one.code < 0 for one in ended):
                said = [line for one in ended for line in one.said.splitlines() if line.startswith(oracle.OURS)]
                oracle.require(bool(said), f"no rank says why it failed: {ended}")
            oracle.check_outputs(command, folder, self._before(command), self._reference(command))
            again = run([*command.argv, "--resume"] if command.resumes else command.argv, folder)
            if any(one.code == 2 and "exists already" in one.said for one in again):
                again = run([*command.argv, "--overwrite"], folder)
            oracle.require(all(one.code == 0 for one in again), f"the next run: {again}")
            oracle.check_same(folder, self._reference(command))
        except oracle.Broken as broken:
            self.findings.append(f"{command.name}: {action} at {number} of rank {rank}: {broken}")
            print(f"FOUND {self.findings[-1]}", flush=True)


def run(words: list[str], folder: Path, begins: list[Callable[[], Any]] | None = None) -> list[Ended]:
    """Run a command by ranks in a folder.

    Args:
        begins: called in each first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def begin(rank: int) -> None:
        meeting = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": RANKS,
            "RANK": rank,
            "LOCAL_RANK": rank,
        }
        os.environ.update({name: str(value) for name, value in meeting.items()})
        if begins is not None:
            begins[rank]()

    codes, first, told = dict[int, int](), 0.0, False
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(RANKS)]
        children = {forked(words, folder, said[rank].fileno(), partial(begin, rank)): rank for rank in range(RANKS)}
        while len(codes) < RANKS:
            for child, rank in children.items():
                if rank not in codes and (ended := os.waitpid(child, os.WNOHANG))[0]:
                    codes[rank] = os.waitstatus_to_exitcode(ended[1])
                    first = first or time.monotonic()
                elif rank not in codes and first and time.monotonic() - first > _SECONDS_ALONE:
                    os.kill(child, signal.SIGALRM if told else signal.SIGTERM)
                    told, first = True, time.monotonic() + _SECONDS_TO_END
            time.sleep(0.01)
        for file in said:
            file.seek(0)
        return [Ended(codes[rank], said[rank].read().decode(errors="replace")) for rank in range(RANKS)]
