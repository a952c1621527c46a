"""Many at once, and one for long: what comes out is what one alone brings, and nothing is left, open or kept.

Encoders: eight at once in one folder, with OUTPUTs of their own and with one OUTPUT, with and without `--overwrite`.
Crops: a file is cut by eight threads while others read it. Leaks: one process loads, decodes, crops and saves, and is
refused what cannot be, again and again; descriptors and memory are counted.

    python -m trials.load [--crops N] [--decodes N] [--rounds N] [--seed S]
"""

import argparse
import gc
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import lgsirens as lg
from benchmarks.record import Measurement, finish, options
from tests.small import contents
from trials import faults, oracle
from trials.commands import call, prepare, run

_THREADS = 8
_BYTES_A_DECODE = 100.0  # more is a leak: a descriptor's or an array's Python object alone takes as much


def encoders(folder: Path, how: str, number: int) -> None:
    """So many encoders at once.

    Args:
        how: "each": an OUTPUT each; "one": one OUTPUT; "over": one OUTPUT that may be replaced.
    """
    words = (
        f"encode ../photo.png {{}}.safetensors --partitions 3,3 --steps 12 --quiet{' --overwrite' * (how == 'over')}"
    )
    names = [str(number) if how == "each" else "out" for number in range(number)]
    folder.mkdir()

    def together(path: Path) -> list[int]:
        children = []
        for name in names:
            if (child := os.fork()) == 0:
                os._exit(run(words.format(name).split(), path).code)
            children.append(child)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    codes = together(folder)
    wanted = [0] * number if how != "one" else [0] + [2] * (number - 1)
    oracle.require(sorted(codes) == wanted, f"{how}: they ended with {codes}")
    # What one has computed whose OUTPUT has come to be meanwhile is not lost: its checkpoint goes on by `--overwrite`.
    left = {name for name in os.listdir(folder) if how != "one" or ".checkpoint." not in name}
    oracle.require(left == {f"{name}.safetensors" for name in names}, f"{how}: {left} is left")
    whole = oracle.content(folder.parent / "a.safetensors")
    for name in names:
        oracle.require(oracle.content(folder / f"{name}.safetensors") == whole, f"{how}: {name} differs")


def crops(folder: Path, number: int, seed: int) -> int:
    """Eight threads cut one file and save the pieces, while two read it and one saves it anew; returns the reads."""
    (folder / "crops").mkdir()
    path = folder / "shared.safetensors"
    path.write_bytes((folder / "a.safetensors").read_bytes())
    whole = lg.load(path)
    values = whole.decode().values
    done, reads = threading.Event(), itertools.count()

    def cut(index: int) -> None:
        chosen = random.Random(seed + index)
        (top, bottom), (left, right) = (sorted(chosen.sample(range(41), 2)) for _ in range(2))
        inr = whole if index % 2 else lg.load(path)
        piece = folder / "crops" / f"{index}.safetensors"
        inr.crop(((top, bottom), (left, right))).save(piece)
        kept = lg.load(piece)
        same = np.array_equal(kept.decode().values, values[top:bottom, left:right])
        oracle.require(same, f"crop {index} decodes to something else")
        once = contents(whole.crop(((top, bottom), (left, right))))
        oracle.require({**contents(kept), "history": 0} == {**once, "history": 0}, f"crop {index} is another")

    def read() -> None:
        while not done.is_set():
            same = np.array_equal(lg.load(path).decode().values, values)
            oracle.require(same, "a read meanwhile gives something else")
            next(reads)

    with ThreadPoolExecutor(_THREADS + 2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            list(pool.map(cut, range(number)))
        finally:
            done.set()
        for reader in readers:
            reader.result()
    oracle.require(not oracle.hidden(folder / "crops"), "temporary files are left")
    oracle.require(len(os.listdir(folder / "crops")) == number, "pieces are missing")
    return next(reads)


def leaks(folder: Path, number: int, work: Callable[[Path, int], None]) -> tuple[float, int]:
    """Bytes of memory, and descriptors, that each repetition of `work` keeps, once half of them are done."""
    memory, first = [], max(1, number // 2)
    for turn in range(number + 1):
        work(folder, turn)
        if turn == first:
            gc.collect()
            open_before = len(os.listdir("/proc/self/fd"))
        if turn >= first and (turn - first) % max(1, number // 100) == 0:
            memory.append((turn, _resident()))
    gc.collect()
    turns, used = np.array(memory, dtype=float).T
    slope = float(np.polyfit(turns, used, 1)[0]) if len(memory) > 1 else 0.0
    return slope, len(os.listdir("/proc/self/fd")) - open_before


def decodes(folder: Path, turn: int) -> None:
    """Load and decode, all or a part."""
    top = turn % 20
    lg.load(folder / "a.safetensors").decode(((top, top + 13), (0, 40)) if turn % 2 else None)


def edits(folder: Path, turn: int) -> None:
    """Crop and save over another, write a picture over another."""
    piece = lg.load(folder / "a.safetensors").crop(((0, 20), (0, 20)))
    piece.save(folder / "piece.safetensors", overwrite=True)
    lg.write(folder / "piece.png", piece.decode(), overwrite=True)


def refusals(folder: Path, turn: int) -> None:
    """Files that are cut, damaged, foreign or missing; regions that are not there; an output that is."""
    whole = folder / "a.safetensors"
    content = bytearray(whole.read_bytes())
    content[turn * 7919 % len(content)] ^= 1 << turn % 8
    (folder / "damaged.safetensors").write_bytes(content if turn % 2 else content[: turn * 6007 % len(content)])
    attempts: tuple[Callable[[], object], ...] = (
        lambda: lg.load(folder / "damaged.safetensors").decode(),
        lambda: lg.load(folder / "photo.png"),
        lambda: lg.load(folder / "none.safetensors"),
        lambda: lg.load(whole).decode("900:901,0:1"),
        lambda: lg.load(whole).save(whole),
        lambda: lg.read(folder / "damaged.safetensors"),
    )
    for attempt in attempts:
        try:
            attempt()
        except lg.LgsirensError:
            continue
        raise oracle.Broken("what cannot be was done")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> int:
    extra = {
        "--crops": {"type": int, "default": 1000},
        "--decodes": {"type": int, "default": 10_000},
        "--rounds": {"type": int, "default": 5, "help": "of eight encoders"},
        "--seed": {"type": int, "default": 0},
    }
    asked: argparse.Namespace = options(__doc__, devices=False, extra=extra)
    if asked.quick:
        asked.crops, asked.decodes, asked.rounds = 16, 30, 1
    at_once = 3 if asked.quick else 8
    rows, broken, case = [], [], f"seed {asked.seed}"

    def tried(what: str, unit: str, work: Callable[[], int]) -> None:
        """In a child, so that what was started there ends with it."""
        began = time.monotonic()
        found = call(work)
        if isinstance(found, Exception):
            broken.append(f"{what}: {found!r}")
            print(f"FOUND {broken[-1]}", flush=True)
            return
        rows.append(Measurement(case, what, "done", unit, [found]))
        print(rows[-1], f"{time.monotonic() - began:.0f} s", flush=True)

    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(prefix="trials-") as name:
        folder = Path(os.path.realpath(name))
        prepare(folder)
        for how in ("each", "one", "over"):
            tried(f"{at_once} encoders, {how}", "rounds", partial(_rounds, folder, how, at_once, asked.rounds))
        tried("crops by eight threads", "reads", partial(crops, folder, asked.crops, asked.seed))
        for work in (decodes, edits, refusals):
            times = asked.decodes // (1 if work is decodes else 4)
            found = call(leaks, folder, times, work)
            if isinstance(found, Exception):
                broken.append(f"{work.__name__}: {found!r}")
                print(f"FOUND {broken[-1]}", flush=True)
                continue
            limit = None if asked.quick else _BYTES_A_DECODE
            rows.append(
                Measurement(case, f"{times} {work.__name__}", "memory kept by each", "bytes", [found[0]], limit)
            )
            rows.append(Measurement(case, f"{times} {work.__name__}", "descriptors kept", "open", [found[1]], 0))
            print(*rows[-2:], sep="\n", flush=True)
    rows.append(Measurement(case, "all", "broken promises", "times", [len(broken)], 0))
    print(rows[-1])
    return finish("load", rows, asked) or any(row.missed for row in rows)


def _rounds(folder: Path, how: str, at_once: int, rounds: int) -> int:
    for turn in range(rounds):
        encoders(folder / f"{how}{turn}", how, at_once)
    return rounds


if __name__ == "__main__":
    faults.start_with_faults("trials.load")
    sys.exit(main())
