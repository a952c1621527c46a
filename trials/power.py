"""Cut the power of commands: what was not waited for (fsync) may be lost, each write, name and move by itself.

Each command runs once, and every call that changes its folder is recorded (`faults.c`); replayed in full they must
give what is on the disk, so that none is missed. Then the power fails after each change: a part of what no fsync has
waited for is lost, at random, in any order, and writes may be torn. Wanted: after a command has ended its outputs are
whole in every such state; before, they are absent, as before, or whole, and the next run ends as if nothing had been.

    python -m trials.power [--states N] [--resumed N] [--seed S] [--only NAME]
"""

import argparse
import collections
import os
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.record import Measurement, finish, options
from trials import faults, oracle
from trials.commands import Command, chosen, prepare, run
from trials.disk import Recording, Tree


class Cuts:
    """The inputs, and what has been found."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.prepared, self.chosen = folder, folder / "prepared", random.Random(seed)
        self.prepared.mkdir()
        prepare(self.prepared)
        self.counts: collections.Counter[str] = collections.Counter()
        self.findings: collections.Counter[str] = collections.Counter()

    def cut(self, command: Command, states: int, resumed: int) -> None:
        """Cut the power of one command: `states` times after each change, and 20 times as often after the last one."""
        command.fill(before := self.folder / "before" / command.name, self.prepared)
        command.fill(folder := self.folder / "reference" / command.name, self.prepared)
        recording = Recording(folder)
        record = self.folder / "record"
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        ended = run(command.argv, folder, partial(faults.begin, folder, descriptor))
        os.close(descriptor)
        assert ended.code == 0, ended
        recording.replay(faults.recorded(record))
        oracle.require(recording.finished == _tree(folder), f"{command.name}: calls are missing in the record")
        last = len(recording.changes)
        gone_on = set(self.chosen.sample(range(last), min(resumed, last)))
        for changes in range(1, last + 1):
            for number in range(states * (20 if changes == last else 1)):
                keep = (0.0, 1.0)[number] if number < 2 else self.chosen.choice((0.1, 0.5, 0.9, 0.97))
                left = recording.after(changes, self.chosen, keep, 0.0 if number < 2 else 0.2)
                self._look(command, left, before, folder, changes == last, number == 0 and changes in gone_on)

    def _look(
        self, command: Command, left: Tree, before: Path, reference: Path, finished: bool, next_run: bool
    ) -> None:
        folder = oracle.emptied(self.folder / "try")
        _write(folder, left)
        self.counts["after the end" if finished else "on the way"] += 1
        try:
            oracle.check_outputs(command, folder, before, reference)
            for name in command.outputs if finished else ():
                oracle.require((folder / name).exists(), f"{name} is lost")
                oracle.require(oracle.content(folder / name) == oracle.content(reference / name), f"{name} is not kept")
            if next_run:
                self.counts["next run"] += 1
                oracle.check_next_run(command, folder, reference)
        except oracle.Broken as broken:
            finding = f"{command.name}: {'after the end' if finished else 'on the way'}: {broken}"
            if not self.findings[finding]:
                print(f"FOUND {finding}", flush=True)
            self.findings[finding] += 1


def _tree(folder: Path) -> Tree:
    return {path.name: _tree(path) if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def _write(folder: Path, tree: Tree) -> None:
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            _write(folder / name, content)
        else:
            (folder / name).write_bytes(content)


def main() -> int:
    extra = {
        "--states": {"type": int, "default": 10, "help": "after each change"},
        "--resumed": {"type": int, "default": 8, "help": "next runs of each command"},
        "--seed": {"type": int, "default": 0},
        "--only": {"metavar": "NAME", "help": "one command"},
    }
    asked: argparse.Namespace = options(__doc__, devices=False, extra=extra)
    with tempfile.TemporaryDirectory(prefix="trials-") as folder:
        cuts = Cuts(Path(os.path.realpath(folder)), asked.seed)
        states, resumed = (3, 1) if asked.quick else (asked.states, asked.resumed)
        for command in chosen(asked.quick, asked.only):
            cuts.cut(command, states, resumed)
    rows = [
        *(Measurement(f"seed {asked.seed}", where, "states", "times", [count]) for where, count in cuts.counts.items()),
        Measurement(f"seed {asked.seed}", "all", "broken promises", "times", [cuts.findings.total()], 0),
    ]
    for row in rows:
        print(row)
    return finish("power", rows, asked) or bool(cuts.findings)


if __name__ == "__main__":
    faults.start_with_faults("trials.power")
    sys.exit(main())
