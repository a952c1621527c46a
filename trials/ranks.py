"""Fits by several ranks, killed: a random rank, all of them, or what started them, at random moments of real runs.

Every time OUTPUT is absent or whole, `--resume`, by another number of ranks once the shared network is learnt, ends in
the rows of a run that nothing happened to, and nothing is left behind.

Points: see `rank_points.py`.

    make ranks TRIALS='--moments 30 --points 200 --seed 0'
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import torch

import lgsirens as lg
from benchmarks.record import Measurement, finish, options
from trials import faults
from trials.rank_points import RankPoints

VICTIMS = ("a rank", "all ranks", "torchrun", "the file system")
FIT = "--partition_size 16,16 --local_width 6 --global_width 16 --steps 20 --max_memory 140MB --threads 1"


def picture(path: Path) -> None:
    generator = np.random.default_rng(0)
    rows, columns = np.indices((1800, 1800))
    values = (128 + 60 * np.sin(rows / 9) * np.cos(columns / 7))[..., None] + generator.integers(0, 40, (1800, 1800, 3))
    lg.write(path, lg.Signal.from_array(values.astype(np.uint8)))


def start(folder: Path, output: Path, ranks: int, *more: str) -> subprocess.Popen[str]:
    """A fit, by torchrun in a session of its own."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "-m", "lgsirens"]
    return subprocess.Popen(
        [*launcher, "encode", str(folder / "a.png"), str(output), *FIT.split(), "--quiet", *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def strike(running: subprocess.Popen[str], victim: str, folder: Path, chosen: random.Random) -> None:
    """Kill -9, or take the file system away: the folder is moved off, and comes back."""
    launcher = psutil.Process(running.pid)
    ranks = [child for child in launcher.children() if "lgsirens" in " ".join(child.cmdline())]
    if victim == "the file system":
        away = folder.with_name("away")
        os.rename(folder, away)
        time.sleep(1)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        os.rename(away, folder)
    elif victim == "torchrun":
        launcher.kill()
        for rank in ranks:  # they lose their store, and would wait for a new one
            rank.wait(timeout=60) if not rank.is_running() else rank.terminate()
    else:
        for rank in ranks if victim == "all ranks" else ranks and [chosen.choice(ranks)]:
            rank.kill()


def rows(path: Path) -> torch.Tensor:
    inr = lg.load(path)
    return inr.rows.read(np.arange(len(inr.rows)))


def tried(folder: Path, victim: str, usual: float, expected: torch.Tensor, chosen: random.Random) -> str | None:
    """What is broken, if anything is."""
    output, kept = folder / "b.safetensors", folder / "b.checkpoint.safetensors"
    running = start(folder, output, 2)
    time.sleep(chosen.uniform(0.3, 1.0) * usual)
    if running.poll() is None:
        strike(running, victim, folder, chosen)
    said = running.communicate(timeout=300)[1]
    if "]: Traceback" in said:  # torchrun's own has no rank before it
        return f"a rank ends with a traceback: {said[-6000:]}"
    deadline = time.monotonic() + 60
    while any(str(output) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])):
        if time.monotonic() > deadline:
            return "a rank lives on"
        time.sleep(0.2)
    if output.exists():
        if not torch.equal(rows(output), expected):
            return "OUTPUT is there and is not whole"
    else:
        # The shared network, once learnt, is the same for any number of ranks; until then it depends on it.
        learnt = kept.exists() and b"row_crc32" in kept.read_bytes()[:4096]
        again = start(folder, output, chosen.choice((1, 3)) if learnt else 2, "--resume")
        said = again.communicate(timeout=300)[1]
        if again.returncode:
            return f"--resume ended with {again.returncode}: {said[-6000:]}"
        if not torch.equal(rows(output), expected):
            return "--resume ended in other rows"
        if kept.exists():
            return "the checkpoint is left"
    output.unlink()
    kept.unlink(missing_ok=True)
    left = sorted(path.name for path in folder.iterdir() if path.name not in ("a.png", "a.safetensors"))
    return f"left behind: {left}" if left else None


def main() -> int:
    numbers = {"--moments": 30, "--points": 200, "--seed": 0}
    asked = options(__doc__, devices=False, extra={name: {"type": int, "default": n} for name, n in numbers.items()})
    chosen, counts, findings = random.Random(asked.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="trials-") as folder:  # first, while this process has no threads
        points = RankPoints(Path(os.path.realpath(folder)))
        points.try_points(5 if asked.quick else asked.points, random.Random(asked.seed))
    counts.update({f"a rank: {action}": number for action, number in points.counts.items()})
    findings += points.findings
    with tempfile.TemporaryDirectory(prefix="trials-") as above:
        folder = Path(above) / "run"
        folder.mkdir()
        picture(folder / "a.png")
        began = time.monotonic()
        whole = start(folder, folder / "a.safetensors", 2)
        assert whole.wait() == 0, whole.communicate()[1]
        usual, expected = time.monotonic() - began, rows(folder / "a.safetensors")
        for turn in range(2 if asked.quick else asked.moments):
            victim = VICTIMS[turn % len(VICTIMS)]
            counts[victim] += 1
            if finding := tried(folder, victim, usual, expected, chosen):
                findings.append(finding)
                print(f"FOUND {victim}: {finding}", flush=True)
                for name in ("b.safetensors", "b.checkpoint.safetensors"):
                    (folder / name).unlink(missing_ok=True)
    rows_ = [Measurement(f"seed {asked.seed}", victim, "tried", "times", [count]) for victim, count in counts.items()]
    rows_.append(Measurement(f"seed {asked.seed}", "all", "broken promises", "times", [len(findings)], 0))
    for row in rows_:
        print(row)
    return finish("ranks", rows_, asked) or bool(findings)


if __name__ == "__main__":
    faults.start_with_faults("trials.ranks")
    sys.exit(main())
