"""`make fuzz`: each target of the table for its CPU time, coverage-guided, by atheris (Linux only).

    python -m trials.fuzz [--quick] [--minutes 60] [--targets manifest media] [--seed 0] [--folder out/fuzz]

What is found lies in FOLDER/TARGET/findings with its traceback, inputs that end the process in FOLDER/TARGET/native;
the corpus stays, so that a later campaign goes on from it. Figures: benchmarks/results/fuzz.tsv.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.record import Measurement, finish, options
from lgsirens.errors import require
from trials.fuzz.targets import TARGETS


def main() -> int:
    extra: dict[str, dict[str, Any]] = {
        "--minutes": {"type": float, "help": "of CPU time, of each target (default: 15 or 3, as the table says)"},
        "--targets": {"nargs": "+", "choices": list(TARGETS), "default": list(TARGETS)},
        "--seed": {"type": int, "default": 0},
        "--folder": {"type": Path, "default": Path("out/fuzz")},
    }
    require("atheris", "make fuzz", "fuzz")
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
    done = Counter({"runs": 0, "taken": 0, "seconds": 0})
    for turn in range(1000):
        done.update(_in_child(name, folder, seconds - done["seconds"], seed + turn))
        if done["seconds"] >= seconds:
            break
    found = sorted(path for part in ("findings", "native") for path in (folder / part).iterdir())
    found = [path for path in found if path.suffix != ".txt"]
    figures = {**done, "seconds": round(done["seconds"]), "corpus": len(list((folder / "corpus").iterdir()))}
    rows = [Measurement(name, f"seed {seed}", what, "", [count]) for what, count in figures.items()]
    rows.append(Measurement(name, f"seed {seed}", "findings", "", [len(found)], 0))
    print(*rows, *found, sep="\n", flush=True)
    return rows


def _in_child(name: str, folder: Path, seconds: float, seed: int) -> dict[str, float]:
    """Fuzz in a process of its own, and count what it has done."""
    counts = folder / "counts.json"
    counts.unlink(missing_ok=True)
    command = [sys.executable, "-m", "trials.fuzz.child", name, str(folder), str(seconds), str(seed)]
    with open(folder / "log", "ab") as log:
        subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if not counts.exists():
        raise RuntimeError(f"{folder / 'log'}: the process has not begun")
    return dict(json.loads(counts.read_text()))


if __name__ == "__main__":
    sys.exit(main())
