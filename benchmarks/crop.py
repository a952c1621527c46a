"""Cropping 64 partitions out of ever larger files: time, memory and bytes read.

The files hold random rows (`lg`, gray, tiles of 16x16 samples, L = 14, G = 84) of 256 to 100,000 partitions; the
crop is a contiguous 8x8 of them in the middle. One repetition is `load`, `crop` and `save` in this process, the sizes
taking turns; ratios are to the 256 of the same turn. Memory is that of one crop in a fresh process: "total", and
"added" by it. Required: 100,000 partitions take at most 3 times as long as 256.

    python benchmarks/crop.py [--quick]
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import record
import torch
from record import Measurement

import lgsirens as lg
from lgsirens.grid.box import Box, box_of_shape
from lgsirens.grid.coordinates import Coordinates
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import build_model
from lgsirens.representation.representation import FitRecord, Representation, SignalInfo, first_encoding
from lgsirens.representation.rows import MemoryRows

TILE = 16
KEPT = 8
LIMIT = 3.0

# partitions along each dimension
SMALLEST, LARGEST = (16, 16), (250, 400)
FULL = (SMALLEST, (32, 32), (100, 100), LARGEST)
QUICK = (SMALLEST, (20, 20))
REPEATS, QUICK_REPEATS = 31, 3


def random_representation(grid: tuple[int, int]) -> Representation:
    shape = tuple(n * TILE for n in grid)
    extent = box_of_shape(shape)
    config = lg.ModelConfig("lg", dimensions=2, channels=1, local_width=14, global_width=84)
    lattice = Lattice.covering(extent, (TILE, TILE))
    model = build_model(config, len(lattice), torch.Generator().manual_seed(0))
    fresh = first_encoding(
        "encode",
        config,
        lattice,
        Coordinates("signal", shape, (1.0, 1.0)),
        extent,
        SignalInfo("image", 1, (0.0, 255.0), "uint8"),
        MemoryRows(model.local.detach()),
        {name: value.detach() for name, value in model.shared.items()},
        FitRecord(0, 0.0, None, "steps", "cpu"),
        {},
    )
    return replace(fresh, origin="benchmark")


def crop_file(file: Path, region: Box, output: Path) -> int:
    """Load, crop and save; returns the number of bytes read."""
    whole = lg.load(file)
    cut = lg.crop(whole, region)
    lg.save(cut, output)
    assert len(cut.lattice) == KEPT**2
    return whole.rows.source.bytes_read


def crop_memory(file: Path, region: Box, output: Path) -> tuple[float, float]:
    """Peak memory in megabytes of a process that crops once, and how much of it the crop added."""
    before = record.start_memory()
    crop_file(file, region, output)
    peak = record.peak_memory()
    return peak, peak - before


def middle(grid: tuple[int, int]) -> Box:
    starts = [(n - KEPT) // 2 * TILE for n in grid]
    return tuple((start, start + KEPT * TILE) for start in starts)


def fresh(folder: Path) -> Callable[[], Path]:
    """Names that do not exist yet: replacing a file waits for the disk, which would hide what is measured."""
    numbers = iter(range(1 << 30))
    return lambda: folder / f"crop-{next(numbers)}.safetensors"


def measure(folder: Path, grids: tuple[tuple[int, int], ...], repeats: int) -> list[Measurement]:
    name, runs, measurements = fresh(folder), {}, []
    for grid in grids:
        file, region, case = folder / f"{grid[0]}x{grid[1]}.safetensors", middle(grid), f"{grid[0] * grid[1]:,}"
        lg.save(random_representation(grid), file)
        runs[case] = lambda file=file, region=region: crop_file(file, region, name())
        peak, added = record.in_child(crop_memory, file, region, name())
        measurements += [
            Measurement(case, "file", "size", "MB", [file.stat().st_size / 1e6]),
            Measurement(case, "crop", "bytes read", "MB", [runs[case]() / 1e6]),
            Measurement(case, "crop", "peak memory, total", "MB", [peak]),
            Measurement(case, "crop", "peak memory, added", "MB", [added]),
        ]
    times = record.alternate(runs, repeats, warm_up=2)
    smallest, first = next(iter(times.items()))
    for grid, (case, values) in zip(grids, times.items(), strict=True):
        limit = LIMIT if grid == LARGEST else None
        measurements += [
            Measurement(case, "crop", "time", "ms", values),
            Measurement(case, f"crop/{smallest}", "time", "ratio", record.ratios(values, first), limit),
        ]
    return measurements


def main() -> int:
    options = record.options(__doc__, devices=False)
    with tempfile.TemporaryDirectory() as folder:
        grids, repeats = (QUICK, QUICK_REPEATS) if options.quick else (FULL, REPEATS)
        measurements = measure(Path(folder), grids, repeats)
    for measurement in measurements:
        print(measurement)
    return record.finish("crop", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
