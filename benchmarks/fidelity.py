"""PSNR and seam ratio of the published recipe, Adam at a constant 5e-4, and of the default schedule, the whole image in
each step.

scikit-image's `camera` reduced to 256x256 with anti-aliasing; `lg` (16x16 partitions, L = 14, G = 84) and `lc` (L = 15)
after 300 steps, three seeds; `mlp` (256 wide) after 100 steps, one seed, its seams measured where `lg` has them.

    python benchmarks/fidelity.py [--device cuda] [--quick]
"""

import sys

import numpy as np
import record
from skimage import data, transform

import lgsirens as lg

TILE = (16, 16)
SEEDS = (0, 1, 2)
LG = {"mode": "lg", "partitions": (16, 16), "local_width": 14, "global_width": 84, "steps": 300, "recipe": "adam"}
RECIPES = {
    "lg": (LG | {"recipe": "paper", "lr": 5e-4}, SEEDS),
    "lc": (
        {"mode": "lc", "partitions": (16, 16), "local_width": 15, "steps": 300, "recipe": "paper", "lr": 5e-4},
        SEEDS,
    ),
    "mlp": ({"mode": "mlp", "local_width": 256, "steps": 100, "recipe": "paper", "lr": 5e-4}, SEEDS[:1]),
    "lg, default schedule": (LG, SEEDS),
}


def camera() -> lg.Signal:
    """`camera` at 256x256, 8 bits."""
    reduced = transform.resize(data.camera(), (256, 256), anti_aliasing=True)
    return lg.Signal.from_array(np.rint(255 * reduced).astype(np.uint8))


def main() -> int:
    options = record.options(__doc__)
    picture, measurements = camera(), []
    for name, (recipe, seeds) in RECIPES.items():
        steps = 2 if options.quick else recipe["steps"]
        figures: dict[tuple[str, str], list[float]] = {}
        for seed in seeds:
            inr = lg.encode(picture, **{**recipe, "steps": steps}, seed=seed, device=options.device, progress=True)
            decoded = inr.decode()
            figures.setdefault(("PSNR", "dB"), []).append(lg.psnr(picture, decoded))
            figures.setdefault(("seam ratio", ""), []).append(lg.seam_ratio(picture, decoded, TILE))
            figures.setdefault(("parameters", ""), []).append(inr.parameters["total"])
        for (quantity, unit), values in figures.items():
            measurements.append(record.Measurement("camera 256x256", f"{name}, {steps} steps", quantity, unit, values))
            print(measurements[-1], flush=True)
    return record.finish("fidelity", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
