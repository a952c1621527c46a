"""Decoding a 512x512 encoding at scale 1, 4 and 16: pixels per second and peak memory.

The encoding is that of `benchmarks/fit.py` (gray, 16x16 partitions, L = 14, G = 84), fitted for one step, because the
weights do not matter here. Each decode is one fresh process that loads the file, decodes it with `max_memory` 64 MiB
and writes the result, as the command `lgsirens decode` does (after one tile of warm-up). "decode" is the speed of the
second alone, "file to file" that of all three, and the peak is that of the whole process. At scale 16 it must keep the
promised bound, max_memory + the decoded array + 400 MB, for `.npy` and `.png`. On an accelerator the peak is what is
allocated there.

    python benchmarks/decode.py [--device cuda] [--quick]
"""

import sys
import tempfile
import time
from pathlib import Path

import record
from record import Measurement

import lgsirens as lg
from lgsirens.media.examples import camera
from lgsirens.nn.memory import MIB

MAX_MEMORY = 64 * MIB
ALLOWANCE = 400e6
TILE = "0:32,0:32"
BOUND_SCALE = 16

# scale: repetitions
FULL = {1: 7, 4: 3, BOUND_SCALE: 1}
QUICK = {1: 2, 2: 1}


def decode_file(file: Path, output: Path, scale: int, device: str) -> tuple[float, float, float, int, int]:
    """Seconds to decode, seconds of everything, peak memory in MB, pixels, and bytes of the decoded array."""
    record.start_memory(device)
    lg.decode(lg.load(file), TILE, scale, max_memory=MAX_MEMORY, device=device)
    began = time.perf_counter()
    representation = lg.load(file)
    loaded = time.perf_counter()
    signal = lg.decode(representation, scale=scale, max_memory=MAX_MEMORY, device=device)
    decoded = time.perf_counter()
    lg.write(output, signal)
    everything = time.perf_counter() - began
    values = signal.values
    return decoded - loaded, everything, record.peak_memory(device), values.size // values.shape[-1], values.nbytes


def measure(file: Path, scale: int, suffix: str, repeats: int, device: str) -> list[Measurement]:
    runs = []
    for _ in range(repeats):
        output = file.with_name(f"decoded{suffix}")
        runs.append(record.in_child(decode_file, file, output, scale, device))
        output.unlink()
    seconds, everything, peaks, (pixels, *_), (array, *_) = zip(*runs, strict=True)
    case = f"scale {scale} {suffix}"
    limit = (MAX_MEMORY + array + ALLOWANCE) / 1e6 if scale == BOUND_SCALE and device == "cpu" else None
    return [
        Measurement(case, "decode", "speed", "MP/s", [pixels / s / 1e6 for s in seconds]),
        Measurement(case, "file to file", "speed", "MP/s", [pixels / s / 1e6 for s in everything]),
        Measurement(case, "file to file", "peak memory, total", "MB", peaks, limit),
    ]


def main() -> int:
    options = record.options(__doc__)
    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "camera.safetensors"
        representation = lg.encode(
            camera(),
            partitions=(16, 16),
            local_width=14,
            global_width=84,
            steps=1,
            recipe="adam",
            device=options.device,
        )
        representation.save(file)
        for scale, repeats in (QUICK if options.quick else FULL).items():
            for suffix in (".npy", ".png"):
                for measurement in measure(file, scale, suffix, repeats, options.device):
                    print(measurement, flush=True)
                    measurements.append(measurement)
    return record.finish("decode", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
