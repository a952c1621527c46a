"""A photograph of one's own size: a 4000x3000 mosaic of scikit-image's colour pictures at their native resolution.

"to 30 dB" are the seconds of fitting, with the default recipe and nothing else given, until a step's samples have
30 dB; at most 15 minutes on two cores by PyTorch alone, 4 by the fused kernel. "time left" is what progress tells after
a tenth of the steps, over what it then took.

    python benchmarks/large.py [--quick]
"""

import sys

import numpy as np
import record
from record import Measurement

import lgsirens as lg
from lgsirens.errors import require
from lgsirens.media.examples import astronaut
from lgsirens.monitoring.log import FitState
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.representation.metrics import psnr_of_error
from lgsirens.system.hardware import resolve_device
from lgsirens.training import loop
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.run import prepare

SHAPE = (3000, 4000)
TARGET, LIMIT = 30.0, 4 * 60.0
PICTURES = ("retina", "hubble_deep_field", "coffee", "chelsea", "rocket", "immunohistochemistry")


def mosaic(shape: tuple[int, int]) -> lg.Signal:
    """Pictures side by side in rows, again and again, cut where the mosaic ends."""
    data = require("skimage.data", "the mosaic", "samples")
    pictures = [astronaut().values, *(getattr(data, name)()[..., :3] for name in PICTURES)]
    values, top, number = np.zeros((*shape, 3), dtype=np.uint8), 0, 0
    while top < shape[0]:
        left, height = 0, shape[0] - top
        row = []
        while left < shape[1]:
            row.append((left, pictures[number % len(pictures)]))
            left, number = left + row[-1][1].shape[1], number + 1
        height = min(height, *(picture.shape[0] for _, picture in row))
        for left, picture in row:
            part = picture[:height, : shape[1] - left]
            values[top : top + height, left : left + part.shape[1]] = part
        top += height
    return lg.Signal.from_array(values)


def measure(signal: lg.Signal, steps: int, device: str) -> list[Measurement]:
    config = EncodeConfig.from_options({"steps": steps})
    run = prepare(signal, plan(signal, config), resolve_device(device), DEFAULT_LIMIT)
    seen: list[tuple[float, float]] = []

    def watch(state: FitState) -> None:
        seen.append((state.seconds, psnr_of_error(state.error, 1.0)))

    rule, recipe = loop.StopRule(steps), config.recipe
    start = run.model, run.samples, rule, None, 1.0, run.generator
    loop.fit(*start, watch=watch, recipe=recipe, kernel=run.kernel)
    case = "x".join(map(str, signal.shape))
    reached = next((seconds for seconds, psnr in seen if psnr >= TARGET), np.inf)
    tenth, whole = steps // 10, seen[-1][0]
    # Progress is told by steps; before the first one output layers are solved.
    taken = seen[tenth - 1][0] - seen[0][0]
    left = taken / (run.work(tenth) - run.work(1)) * (run.work(steps) - run.work(tenth))
    print(f"told {left:.1f} s, taken {whole - seen[tenth - 1][0]:.1f} s; before the second step {seen[0][0]:.1f} s")
    draw = run.samples.draw()
    last = psnr_of_error(loop.mean_error(loop.row_errors(run.model, draw, run.kernel), draw), 1.0)
    return [
        Measurement(case, "fast", f"to {TARGET:g} dB", "s", [reached], LIMIT if signal.shape == SHAPE else None),
        Measurement(case, "fast", "PSNR of all samples at the end", "dB", [last]),
        Measurement(case, "fast", "seconds of fitting", "s", [whole]),
        Measurement(case, "time left", "told / taken - 1", "", [abs(left / (whole - seen[tenth - 1][0]) - 1)], 0.2),
    ]


def main() -> int:
    extra = {"--steps": {"type": int, "default": 150, "help": "of the fit"}}
    options = record.options(__doc__, extra=extra)
    shape = (300, 400) if options.quick else SHAPE
    rows = measure(mosaic(shape), options.steps, options.device)
    for row in rows:
        print(row)
    return record.finish("large", rows, options)


if __name__ == "__main__":
    sys.exit(main())
