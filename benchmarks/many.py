"""Many small pictures: one shared network against one each, and against a process for each.

Pictures of 128x128 are cut from the photographs of scikit-image (astronaut, coffee, chelsea, retina). "each" is
`encode_many` with a network of its own for each of the first few, "shared" with one for all, learnt first ("learn",
once), and "process" is `lgsirens encode` started for each of fewer. "picture" is the time from reading one to its file
on the disk, its part of the batch in which it is fitted; "all" the time of a picture, learning included. Bytes are
those of a file on average, where each file of "shared" has the network too; "merged" is one file of all rows.
Differences of PSNR are picture by picture.

    python benchmarks/many.py [--quick] [--number 1000] [--alone 24]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record
import skimage.data
from PIL import Image
from record import Measurement

import lgsirens as lg

SIDE, SOURCES, PROCESSES = 128, ("astronaut", "coffee", "chelsea", "retina"), 6


def cut(folder: Path, number: int) -> None:
    """Write so many pictures, at places drawn by a seed."""
    stream = np.random.default_rng(0)
    photographs = [getattr(skimage.data, name)()[..., :3] for name in SOURCES]
    for index in range(number):
        whole = photographs[index % len(photographs)]
        row, column = (int(stream.integers(0, size - SIDE)) for size in whole.shape[:2])
        Image.fromarray(whole[row : row + SIDE, column : column + SIDE]).save(folder / f"{index:04d}.png")


def by_processes(folder: Path, out: Path, number: int, steps: list[str]) -> list[float]:
    """Seconds of a process for each picture."""
    seconds = []
    for path in sorted(folder.iterdir())[:number]:
        began = time.perf_counter()
        command = [sys.executable, "-m", "lgsirens", "encode", path, out / f"{path.name}.safetensors", "--quiet"]
        subprocess.run([*command, *steps], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return seconds


def merged_bytes(paths: list[Path]) -> int:
    """Bytes of one file of all rows."""
    pieces = [lg.load(path).move((0, index * SIDE)) for index, path in enumerate(paths)]
    target = paths[0].with_name("merged.safetensors")
    lg.merge(*pieces).save(target)
    return target.stat().st_size


def measure(folder: Path, number: int, alone: int, steps: int | None) -> list[Measurement]:
    pictures, case = folder / "pictures", f"{number} of {SIDE}x{SIDE}"
    pictures.mkdir()
    cut(pictures, number)
    some = {} if steps is None else {"steps": steps}
    found, totals = {}, {}
    for subject, shares in (("each", False), ("shared", True)):
        began = time.perf_counter()
        chosen = sorted(pictures.iterdir())[: number if shares else alone]
        found[subject] = lg.encode_many(chosen, folder / subject, share_network=shares, **some)
        totals[subject] = (time.perf_counter() - began) / len(chosen)
    (folder / "process").mkdir()
    words = [word for name, value in some.items() for word in (f"--{name}", str(value))]
    processes = by_processes(pictures, folder / "process", min(alone, PROCESSES), words)
    seconds = {subject: [r.seconds for r in records] for subject, records in found.items()}
    learn = totals["shared"] * number - sum(seconds["shared"])
    shared_files = [folder / "shared" / r.output for r in found["shared"]]
    merged = merged_bytes(shared_files) / number
    levels = {subject: [r.psnr for r in records] for subject, records in found.items()}
    gains = [b - a for a, b in zip(levels["each"], levels["shared"], strict=False)]
    rows = [("process", "picture", "s", processes), ("shared", "learn", "s", [learn])]
    rows += [(subject, "picture", "s", values) for subject, values in seconds.items()]
    rows += [("shared/each", "all", "", [totals["shared"] / totals["each"]])]
    rows += [(subject, "file", "kB", [r.bytes / 1e3 for r in records]) for subject, records in found.items()]
    rows += [("merged", "a picture", "kB", [merged / 1e3])]
    rows += [(subject, "PSNR", "dB", values) for subject, values in levels.items()]
    rows += [("shared - each", "PSNR", "dB", gains), ("shared - each", "mean PSNR", "dB", [float(np.mean(gains))])]
    return [Measurement(case, *row) for row in rows]


def main() -> int:
    numbers = {"--number": 1000, "--alone": 24}
    extra = {name: {"type": int, "default": number} for name, number in numbers.items()}
    options = record.options(__doc__, devices=False, extra=extra)
    with tempfile.TemporaryDirectory() as folder:
        number, alone, steps = (4, 2, 20) if options.quick else (options.number, options.alone, None)
        measurements = measure(Path(folder), number, min(alone, number), steps)
    for measurement in measurements:
        print(measurement)
    return record.finish("many", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
