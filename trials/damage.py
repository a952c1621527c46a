"""`make damage`: so many damaged files, each as it is and with checksums that match.

    python -m trials.damage [--quick] [--count 100000] [--seed 0] [--folder out/damage]

Files are tried in children, a thousand each: one that a signal ends, or that takes a minute, is a finding too. It stays
in FOLDER. Figures: benchmarks/results/damage.tsv.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import Measurement, finish, options
from lgsirens.system.console import log
from trials.fuzz.damages import Damaged, as_it_is, damaged, sound_files, with_matching_checksums

_CHUNK, _SECONDS, _FINDING = 1000, 5.0, ("all", "findings")


def main() -> int:
    extra: dict[str, dict[str, Any]] = {
        "--count": {"type": int, "default": 100_000},
        "--seed": {"type": int, "default": 0},
        "--folder": {"type": Path, "default": Path("out/damage")},
    }
    asked = options(__doc__, devices=False, extra=extra)
    asked.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    log.setLevel("ERROR")
    sound_files()
    count, start, began, results = 500 if asked.quick else asked.count, 0, time.monotonic(), Counter[tuple[str, str]]()
    while start < count:
        start, found = _in_child(range(start, min(start + _CHUNK, count)), asked.seed, asked.folder)
        results.update(found)
    findings = results.pop(_FINDING, 0)
    outcomes = Counter[str]()
    for (how, what), number in sorted(results.items()):
        print(f"{how:10} {what:20} {number}")
        outcomes[what] += number
    figures = {"files": count, "seconds": round(time.monotonic() - began), **outcomes}
    rows = [Measurement("all", f"seed {asked.seed}", what, "", [number]) for what, number in figures.items()]
    rows.append(Measurement("all", f"seed {asked.seed}", "findings", "", [findings], 0))
    for row in rows:
        print(row)
    return finish("damage", rows, asked)


def _in_child(numbers: range, seed: int, folder: Path) -> tuple[int, Counter[tuple[str, str]]]:
    """Where to go on, and what came of the files before it."""
    report = folder / "report.json"
    if (child := os.fork()) == 0:
        _try_each(numbers, seed, folder, report)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    last, found = json.loads(report.read_text())
    results = Counter({(how, what): number for how, what, number in found})
    if status == 0:
        return numbers.stop, results
    _keep(folder, last, damaged(last, seed), f"ended the process, status {status}")
    results[_FINDING] += 1
    return last + 1, results


def _try_each(numbers: range, seed: int, folder: Path, report: Path) -> None:
    results, path = Counter[tuple[str, str]](), folder / "input.safetensors"
    for number in numbers:
        report.write_text(_told(number, results))
        case = damaged(number, seed)
        for kind, judge in (("as it is", as_it_is), ("repaired", with_matching_checksums)):
            signal.alarm(60)  # which ends the process
            began = time.process_time()
            try:
                outcome = judge(case, path)
                if (taken := time.process_time() - began) > _SECONDS:
                    raise AssertionError(f"took {taken:.1f} s")
                results[case.how, f"{kind}: {outcome}"] += 1
            except Exception as error:
                _keep(folder, number, case, f"{kind}: {type(error).__name__}: {error}")
                results[_FINDING] += 1
    signal.alarm(0)
    report.write_text(_told(numbers.stop, results))


def _told(number: int, results: Counter[tuple[str, str]]) -> str:
    return json.dumps((number, [(*key, count) for key, count in results.items()]))


def _keep(folder: Path, number: int, case: Damaged, what: str) -> None:
    """Keep a file that was found, and say so."""
    (folder / f"{case.how}_{number}").write_bytes(case.content)
    print(f"{folder / f'{case.how}_{number}'}, {' and '.join(case.origins)}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
