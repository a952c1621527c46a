"""Peak memory of encoding a film: `bikes` whole, 250 frames of 272x640 in colour, read from its file.

Our default partitions and budget; "drawn": 2 % of the samples in a step, two steps; "whole": every sample, one step.
Each is one fresh process that reads, takes its steps, and measures the PSNR of what it decodes. It may take twice the
8-bit size of what is read, the model with its best weights, gradients and two moments, and 1 GiB.

    python benchmarks/memory.py [--only drawn whole] [--quick]
"""

import sys
from typing import Any

import record
from record import Measurement

import lgsirens as lg
from lgsirens.media.examples import bikes

CASES: dict[str, dict[str, Any]] = {
    "drawn": {"sample_frac": 0.02, "steps": 2, "recipe": "adam"},
    "whole": {"steps": 1, "recipe": "adam"},
}
MODEL_COPIES = 5
GIB = 1 << 30


def peak(options: dict[str, Any], frames: tuple[int, int] | None) -> tuple[float, float, float]:
    """Megabytes at most, those after reading, and those allowed."""
    film = bikes(frames=frames)
    read = record.peak_memory()
    inr = lg.encode(film, **options, progress=True)
    allowed = 2 * film.values.nbytes + 4 * MODEL_COPIES * inr.parameters["total"] + GIB
    return record.peak_memory(), read, allowed / 1e6


def main() -> int:
    extra = {"--only": {"choices": tuple(CASES), "nargs": "+", "default": tuple(CASES)}}
    options = record.options(__doc__, devices=False, extra=extra)
    frames, measurements = (0, 5) if options.quick else None, []
    for name in options.only:
        most, read, allowed = record.in_child(peak, CASES[name], frames)
        subject = f"bikes, {name}"
        measurements += [
            Measurement("encode", subject, "peak after reading", "MB", [read]),
            Measurement("encode", subject, "peak memory, total", "MB", [most], allowed),
        ]
        for measurement in measurements[-2:]:
            print(measurement, flush=True)
    return record.finish("memory", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
