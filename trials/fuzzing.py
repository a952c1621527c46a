"""`make fuzz`: each target of the table for its CPU time, coverage-guided, by atheris (Linux only).

    python -m trials.fuzzing [--quick] [--minutes 60] [--targets manifest media] [--seed 0] [--folder out/fuzz]

What is found lies in FOLDER/TARGET/findings with its traceback, inputs that end the process in FOLDER/TARGET/native; the
corpus stays, so a later campaign goes on from it. Figures: benchmarks/results/fuzz.tsv.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import Measurement, finish, options
from trials.fuzz.targets import TARGETS


def main() -> int:
    extra: dict[str, dict[str, Any]] = {
        "--minutes": {"type": float, "help": "of CPU time, of each target (default: 15 or 3, as the table says)"},
        "--targets": {"nargs": "+", "choices": list(TARGETS), "default": list(TARGETS)},
        "--seed": {"type": int, "default": 0},
        "--folder": {"type": Path, "default": Path("out/fuzz")},
    }
    asked = options(__doc__, devices=False, extra=extra)
    missed = 0
    for name in asked.targets:
        minutes = 0.1 if asked.quick else asked.minutes or TARGETS[name].minutes
        missed |= finish("fuzz", _campaign(name, 60 * minutes, asked.seed, asked.folder / name), asked)
    return missed


def _campaign(name: str, seconds: float, seed: int, folder: Path) -> list[Measurement]:
    """One target. A process that its input ends is followed by another one."""
    for part in ("corpus", "findings", "native"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for content in TARGETS[name].seeds():
        (folder / "corpus" / hashlib.sha1(content).hexdigest()).write_bytes(content)
    runs = taken = restarts = 0
    spent = 0.0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    while spent < seconds:
        (folder / "counts.json").unlink(missing_ok=True)
        words = [name, str(folder), str(seconds - spent), str(seed + restarts)]
        with open(folder / "log", "ab") as log:
            command = [sys.executable, "-m", "trials.fuzz.child", *words]
            code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
        counts = json.loads((folder / "counts.json").read_text()) if (folder / "counts.json").exists() else {}
        runs, taken, spent = (
            runs + counts.get("runs", 0),
            taken + counts.get("taken", 0),
            spent + counts.get("seconds", 5),
        )
        restarts += code != 0
        if code == 0:
            break
    kept = [path for path in (folder / "findings").iterdir() if path.suffix != ".txt"]
    crashes = list((folder / "native").iterdir())
    corpus = len(list((folder / "corpus").iterdir()))
    print(
        f"{name}: {runs} runs, {taken} taken, {spent:.0f} s, corpus {corpus}, {len(kept)} findings, {len(crashes)} native"
    )
    for path in (*sorted(kept), *sorted(crashes)):
        print(f"    {path}")
    figures = {"inputs": runs, "taken": taken, "corpus": corpus, "seconds": round(spent)}
    rows = [Measurement(name, f"seed {seed}", what, "", [count]) for what, count in figures.items()]
    return [*rows, Measurement(name, f"seed {seed}", "findings", "", [len(kept) + len(crashes)], 0)]


if __name__ == "__main__":
    sys.exit(main())
