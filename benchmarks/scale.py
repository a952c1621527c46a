"""Signals of any size, and several processes: how seconds and memory grow, and what ranks exchange.

"sizes": pictures of 1 to 268 megapixels, skimage's pictures turned, scaled and laid side by side, stored as tiled TIFF;
each is read, encoded and written by a fresh process under `--max_memory 2GiB`, three times up to 4096. Seconds a
megapixel, all of that, may grow to 1.2 times those of the smallest, and the peak is that of the whole process, allowed
1.2 times the limit beside what importing takes.
"learning": PSNR of all samples where the shared network was learnt from so many well-spread partitions, less that of
one learnt from all of them. "edits": the peak while a small picture is extended to a large one, and while that is
compared with its original. "ranks": two processes of one thread against one process of two, seconds side by side.

    python benchmarks/scale.py [--only sizes edits learning ranks] [--sides 1024 ...] [--steps 40] [--quick]
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from large import PICTURES, mosaic
from numpy.typing import NDArray
from PIL import Image
from record import Measurement

import lgsirens as lg
from lgsirens.errors import require
from lgsirens.media.examples import astronaut
from lgsirens.representation.measure import measure
from lgsirens.representation.metrics import psnr_of_sum
from lgsirens.representation.report import compare
from lgsirens.representation.representation import FitRecord
from lgsirens.representation.rows import MemoryRows
from lgsirens.training import groups
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.ranks import ranks_of_environment
from lgsirens.training.result import as_representation
from lgsirens.training.run import prepare

PARTS = ("learning", "ranks", "edits", "sizes")
SIDES = (1024, 2048, 4096, 8192, 16384)
LIMIT = 2 << 30
LIMIT_OF_EDITS = 256 << 20
LEARNING = (32, 64, 128, 256, 512)
GROWTH, MEMORY, SPEED = 1.2, 1.2, 1 / 0.9
PATCH, TILE = 512, 256


def patches(side: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Bands `[PATCH, side, 3]` of warped pictures."""
    data, generator = require("skimage.data", "the pictures", "samples"), np.random.default_rng(seed)
    pictures = [astronaut().values, *(getattr(data, name)()[..., :3] for name in PICTURES)]
    for _ in range(side // PATCH):
        band = []
        for _ in range(side // PATCH):
            picture = Image.fromarray(np.asarray(pictures[generator.integers(len(pictures))]))
            scale, angle = generator.uniform(0.5, 1.0), generator.uniform(0, 2 * np.pi)
            turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            middle = np.array(picture.size) / 2 - turn @ np.array([PATCH / 2, PATCH / 2])
            affine = (*turn[0], middle[0], *turn[1], middle[1])
            band.append(picture.transform((PATCH, PATCH), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
        yield np.concatenate([np.asarray(patch) for patch in band], axis=1)


def store(path: Path, side: int) -> None:
    """Write a large picture as tiled TIFF, band by band."""

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for band in patches(side, side):
            for top in range(0, PATCH, TILE):
                for left in range(0, side, TILE):
                    yield np.ascontiguousarray(band[top : top + TILE, left : left + TILE])

    tifffile = require("tifffile", "the pictures", "tiff")
    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", metadata=None
    )


def encoded(path: Path, small: Path, steps: int) -> tuple[float, float, float, float]:
    """Seconds from reading to the file, PSNR, peak of the process and what importing takes, in megabytes, of an
    encoding; after one of a small picture, with which all is imported."""
    imported = record.peak_memory()
    for source in (small, path):
        began = time.perf_counter()
        how = {"max_memory": LIMIT, "checkpoint": source.with_suffix(".checkpoint.safetensors")}
        inr = lg.encode(lg.read(source), steps=steps, **how)
        inr.save(source.with_suffix(".safetensors"), overwrite=True)
    return time.perf_counter() - began, inr.fit.psnr or np.inf, record.peak_memory(), imported


def sizes(sides: list[int], steps: int) -> Iterator[Measurement]:
    first = None
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            path, small = Path(folder) / "large.tif", Path(folder) / "small.tif"
            store(path, side)
            store(small, PATCH)
            found = [record.in_child(encoded, path, small, steps) for _ in range(1 if side > 4096 else 3)]
        _, psnr, peak, imported = found[0]
        each, case = [seconds / (side * side / 1e6) for seconds, *_ in found], f"{side}x{side}x3"
        first = first or float(np.median(each))
        subject = f"{steps} steps"
        yield Measurement(case, subject, "seconds a megapixel", "s", each)
        yield Measurement(case, subject, "the same over the smallest", "", [float(np.median(each)) / first], GROWTH)
        yield Measurement(case, subject, "PSNR", "dB", [psnr])
        allowed = (MEMORY * LIMIT) / 1e6 + imported
        yield Measurement(case, subject, "peak of the process", "MB", [peak], allowed)


def extended(path: Path, small: Path, steps: int) -> tuple[float, float, float, float]:
    """Seconds, PSNR of what is added, peak of the process and what importing takes, in megabytes, of an extension."""
    imported, how = record.peak_memory(), {"steps": steps, "max_memory": LIMIT_OF_EDITS}
    first = lg.encode(lg.read(small), steps=steps)
    began, kept = time.perf_counter(), path.with_suffix(".safetensors")
    larger = first.extend(lg.read(path, max_memory=LIMIT_OF_EDITS), **how)
    larger.save(kept)
    return time.perf_counter() - began, larger.history[-1]["psnr"], record.peak_memory(), imported


def compared(path: Path) -> tuple[float, float]:
    """Peak of the process and what importing takes, in megabytes, of a comparison with the original."""
    imported = record.peak_memory()
    compare(lg.load(path.with_suffix(".safetensors")), lg.read(path, max_memory=LIMIT_OF_EDITS))
    return record.peak_memory(), imported


def edits(side: int, steps: int) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "large.tif", Path(folder) / "small.tif"
        store(path, side)
        store(small, PATCH)
        seconds, psnr, peak, imported = record.in_child(extended, path, small, steps)
        whole, before = record.in_child(compared, path)
    case, subject = f"{PATCH}x{PATCH}x3 to {side}x{side}x3", f"{steps} steps"
    added = (side * side - PATCH * PATCH) / 1e6
    yield Measurement(case, subject, "seconds a megapixel", "s", [seconds / added])
    yield Measurement(case, subject, "PSNR", "dB", [psnr])
    allowed = (MEMORY * LIMIT_OF_EDITS) / 1e6 + imported
    yield Measurement(case, subject, "peak of the process", "MB", [peak], allowed)
    yield Measurement(case, "info --against", "peak of the process", "MB", [whole])
    yield Measurement(case, "info --against", "of which importing", "MB", [before])


def learning(side: int, steps: int) -> Iterator[Measurement]:
    signal, cpu = mosaic((side, side)), torch.device("cpu")
    planned = plan(signal, EncodeConfig.from_options({"steps": steps}))
    everything = np.arange(len(planned.lattice))

    def psnr(places: NDArray[np.int64] | None) -> float:
        """Of rows alone, beside a network learnt at some places; None: learnt with all rows."""
        shared = None
        if places is not None:
            some = prepare(signal, replace(planned, lattice=planned.lattice.select(places)), cpu, 1 << 30)
            some.fit("learn", signal, None, False)
            shared = {name: value.detach().clone() for name, value in some.model.shared.items()}
        run = prepare(signal, planned, cpu, 1 << 30, shared=shared)
        state = run.fit("encode", signal, None, False)
        found = {name: value.detach() for name, value in run.model.shared.items()}
        rows = MemoryRows(run.model.local.detach())
        fit = FitRecord(state.step, 0.0, None, state.stopped, "")
        inr = as_representation(planned, signal, planned.lattice, rows, found, fit, {})
        errors, _ = measure(inr, signal, planned.extent, everything, cpu, "auto")
        return psnr_of_sum(signal, float(errors.sum()))

    whole, case = psnr(None), f"{side}x{side}x3"
    yield Measurement(case, "all together", f"PSNR after {steps} steps", "dB", [whole])
    for number in LEARNING:
        groups.LEARNING_PARTITIONS = number
        less = psnr(groups.learning(planned)) - whole
        yield Measurement(case, f"{number} partitions", "PSNR less that of all", "dB", [less])


def fitted(rank: int, ranks: int, port: int, side: int, steps: int, grouped: bool, results: Any) -> None:
    """One of the processes that encode a picture together."""
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()})
    torch.set_num_threads(2 // ranks)
    together = ranks_of_environment()
    limit = 160 << 20 if grouped else None
    inr = lg.encode(mosaic((side, side)), steps=steps, max_memory=limit, ranks=together)
    if rank == 0:
        results.put((inr.fit.seconds, together.bytes_sent / steps))


def timed(ranks: int, side: int, steps: int, grouped: bool) -> tuple[float, float]:
    """Seconds of a fit by so many processes, and bytes that one of them sends a step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("spawn")
    results = context.Queue()
    arguments = ranks, port, side, steps, grouped, results
    processes = [context.Process(target=fitted, args=(rank, *arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    found = results.get(timeout=600)
    for process in processes:
        process.join()
    return found  # type: ignore[no-any-return]


def several(side: int, steps: int, repeats: int) -> Iterator[Measurement]:
    for grouped in (False, True):
        case = f"{2 * side if grouped else side}x{2 * side if grouped else side}x3"
        runs = [
            [timed(ranks, 2 * side if grouped else side, steps, grouped) for ranks in (2, 1)] for _ in range(repeats)
        ]
        what = "in groups" if grouped else "one fit"
        ratio = [two[0] / one[0] for two, one in runs]
        yield Measurement(case, f"two ranks, {what}", "seconds over those of two threads", "", ratio, SPEED)
        sent = [two[1] for two, _ in runs]
        yield Measurement(case, f"two ranks, {what}", "bytes a rank and step", "B", sent)


def main() -> int:
    extra = {
        "--only": {"choices": PARTS, "nargs": "+", "default": PARTS},
        "--sides": {"type": int, "nargs": "+", "default": list(SIDES)},
        "--steps": {"type": int, "default": 40},
    }
    options, measurements = record.options(__doc__, devices=False, extra=extra), []
    quick = options.quick
    parts = {
        "learning": lambda: learning(256 if quick else 1024, 10 if quick else 150),
        "ranks": lambda: several(256 if quick else 1024, 5 if quick else 60, 1 if quick else 3),
        "edits": lambda: edits(1024 if quick else 6144, 2 if quick else options.steps),
        "sizes": lambda: sizes([512, 1024] if quick else options.sides, options.steps),
    }
    for name in options.only:
        for measurement in parts[name]():
            measurements.append(measurement)
            print(measurement, flush=True)
    return record.finish("scale", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
