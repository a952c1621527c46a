"""Kill, stop, starve and fill the disk of commands, at points of children and at moments of real runs.

Points: each call that changes the folder is one, in a child of this process. It is killed at every one of them (a
write is torn first); stopped there, while the same command runs beside it; the disk is full from there on, or fails
there, once or from there on; or so much memory is left. Moments: `kill -9`, SIGSTOP, the kernel's out-of-memory kill
in a cgroup, `ulimit -v`, `ulimit -f` and a small file system, of processes of their own.

After each the outputs are absent, as before, or whole; the next run of the same command, with `--resume` where it
fits, ends in the same files as a run that nothing happened to, and nothing else is left.

    python -m trials.kills [--points N] [--moments N] [--seed S] [--only NAME]
"""

import argparse
import collections
import errno
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.record import Measurement, finish, options
from trials import commands, faults, moments, oracle
from trials.commands import Command, Ended, prepare, run

# What may happen at a call: minus a signal or an error number, and whether from then on.
KILL, STOP, FULL, FAILS, DEAD = -signal.SIGKILL, -signal.SIGSTOP, errno.ENOSPC, errno.EIO, errno.EIO
ACTIONS = {
    "kill": (KILL, False),
    "stop": (STOP, False),
    "full disk": (FULL, True),
    "one error": (FAILS, False),
    "dead disk": (DEAD, True),
}
MEMORY = "memory"


@dataclass(frozen=True)
class Point:
    """Something that happens to a command: at the n-th call, or, of memory, with so many bytes left."""

    command: Command
    action: str
    number: int

    def __str__(self) -> str:
        return f"{self.command.name}: {self.action} at {self.number}"


class Trials:
    """The inputs, the results of commands that nothing happens to, and what has been found."""

    def __init__(self, folder: Path, commands: list[Command]) -> None:
        self.commands = commands
        self.folder, self.prepared = folder, folder / "prepared"
        self.prepared.mkdir()
        prepare(self.prepared)
        self.calls: dict[str, list[faults.Call]] = {}
        self.usual: dict[str, moments.Undisturbed] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.ends: collections.Counter[str] = collections.Counter()
        self.findings: list[str] = []
        for command in commands:
            self._refer(command)

    def before(self, command: Command) -> Path:
        return self.folder / "before" / command.name

    def reference(self, command: Command) -> Path:
        return self.folder / "reference" / command.name

    def _refer(self, command: Command) -> None:
        """Run a command undisturbed, recording its calls."""
        command.fill(self.before(command), self.prepared)
        command.fill(folder := self.reference(command), self.prepared)
        record = self.folder / "record"
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        ended = run(command.argv, folder, partial(faults.begin, folder, descriptor))
        os.close(descriptor)
        assert ended.code == 0, (command.name, ended)
        self.calls[command.name] = list(faults.recorded(record))
        for name in command.outputs:
            if name.endswith(".safetensors"):
                oracle.check_whole(folder / name)

    def try_point(self, point: Point) -> None:
        """Let it happen, and look what is left."""
        self.counts[point.action] += 1
        command, folder = point.command, oracle.emptied(self.folder / "try")
        command.fill(folder, self.prepared)
        try:
            beside: list[Ended] = []
            ended = run(
                command.argv, folder, partial(_begin, point, folder), lambda: beside.append(run(command.argv, folder))
            )
            if ended.code != -signal.SIGKILL or point.action != "kill":
                if not (point.action == MEMORY and ended.code < 0):
                    oracle.check_ended(command, ended, folder, self.reference(command))
                if ended.code >= 0 and not self._cannot_delete(point):
                    left = oracle.hidden(folder)
                    oracle.require(not left, f"left by a run that was not killed: {left}")
            if beside:
                codes = ended.code, beside[0].code
                oracle.require(sorted(codes) in ([0, 0], [0, 2]), f"beside another it ended so: {ended}, {beside[0]}")
            oracle.check_outputs(command, folder, self.before(command), self.reference(command))
            oracle.check_next_run(command, folder, self.reference(command))
        except oracle.Broken as broken:
            calls = self.calls[command.name]
            call = f" ({calls[point.number - 1]})" if point.action != MEMORY and point.number <= len(calls) else ""
            self.find(f"{point}{call}: {broken}")

    def _cannot_delete(self, point: Point) -> bool:
        """Whether deleting fails too."""
        what = self.calls[point.command.name][point.number - 1].what if point.action == "one error" else ""
        return what == "unlink" or point.action == "dead disk"

    def try_moment(self, command: Command, name: str, chosen: random.Random) -> None:
        """As `try_point`, in a process of its own."""
        self.counts[name] += 1
        if command.name not in self.usual:
            command.fill(folder := oracle.emptied(self.folder / "try"), self.prepared)
            imports = moments.measured(["crop"], folder)
            self.usual[command.name] = replace(moments.measured(command.argv, folder), imports=imports)
        command.fill(folder := oracle.emptied(self.folder / "try"), self.prepared)
        try:
            ended = moments.HAPPENINGS[name](command.argv, folder, self.usual[command.name], chosen)
            self.ends[f"{name}: {ended.code}"] += 1
            if ended.code >= 0:
                oracle.check_ended(command, ended, folder, self.reference(command))
                oracle.require(not oracle.hidden(folder), f"left by a run that was not killed: {oracle.hidden(folder)}")
            oracle.check_outputs(command, folder, self.before(command), self.reference(command))
            oracle.check_next_run(command, folder, self.reference(command))
        except oracle.Broken as broken:
            self.find(f"{command.name}: {name}: {broken}")

    def find(self, finding: str) -> None:
        self.findings.append(finding)
        print(f"FOUND {finding}", flush=True)


def _begin(point: Point, folder: Path) -> None:
    """In the child."""
    if point.action == MEMORY:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + point.number, used + point.number))
        return
    what, lasting = ACTIONS[point.action]
    faults.begin(folder, at=point.number, what=what, lasting=lasting)


def points(trials: Trials, number: int, seed: int) -> Iterator[Point]:
    """Every kill first, or some if there are more than `number`; then as many of the others."""
    chosen, commands = random.Random(seed), trials.commands
    every = [(command, n) for command in commands for n in range(1, len(trials.calls[command.name]) + 1)]
    kills = [Point(command, "kill", n) for command, n in every]
    yield from chosen.sample(kills, min(number, len(kills))) if number < 100 else kills
    others = [action for action in (*ACTIONS, MEMORY) if action != "kill"]
    for turn in range(number):
        command = commands[turn % len(commands)]
        action = others[turn // len(commands) % len(others)]
        n = chosen.randint(1, len(trials.calls[command.name])) if action != MEMORY else int(2 ** chosen.uniform(10, 27))
        yield Point(command, action, n)


def main() -> int:
    extra = {
        "--points": {"type": int, "help": "beside every kill; 500"},
        "--moments": {"type": int, "default": 60},
        "--seed": {"type": int, "default": 0},
        "--only": {"metavar": "NAME", "help": "one command"},
    }
    asked: argparse.Namespace = options(__doc__, devices=False, extra=extra)
    with tempfile.TemporaryDirectory(prefix="trials-") as folder:
        trials = Trials(Path(os.path.realpath(folder)), commands.chosen(asked.quick, asked.only))
        began = time.monotonic()
        for point in points(trials, asked.points or (6 if asked.quick else 500), asked.seed):
            trials.try_point(point)
            if trials.counts.total() % 100 == 0:
                print(f"{trials.counts.total()} points", flush=True)
        seconds = time.monotonic() - began
        print(f"points: {dict(trials.counts)}, {seconds:.0f} s", flush=True)
        chosen = random.Random(asked.seed)
        names = [name for name in moments.HAPPENINGS if moments.possible(name)]
        for turn in range(0 if asked.quick else asked.moments):
            trials.try_moment(chosen.choice(trials.commands), names[turn % len(names)], chosen)
        print(f"ends of real runs: {dict(trials.ends)}", flush=True)
        return report(trials, asked)


def report(trials: Trials, asked: argparse.Namespace) -> int:
    """Say what was found, and write it down."""
    rows = [
        Measurement(f"seed {asked.seed}", action, "tried", "times", [count]) for action, count in trials.counts.items()
    ]
    rows.append(Measurement(f"seed {asked.seed}", "all", "broken promises", "times", [len(trials.findings)], 0))
    for row in rows:
        print(row)
    return finish("kills", rows, asked) or bool(trials.findings)


if __name__ == "__main__":
    faults.start_with_faults("trials.kills")
    sys.exit(main())
