"""Seams: how borders of partitions look, for halos 0, 1, 2 and 4 at equal budget, with and without blending.

`camera` reduced to 128x128, 8x8 partitions, `lg`, L = 12 and G = 64, 400 steps of the default schedule. "seam ratio" is
the mean error on borders over that of the rest; "jump" is the mean difference of neighbours across borders over that
of the truth. At scale 1 the truth is what was encoded; at scale 4 the original, 512x512. A blend no wider than the halo
must lower the jump, and PSNR by at most 0.05 dB.

    python benchmarks/seams.py [--device cuda] [--quick]
"""

import sys

import numpy as np
import record
from record import Measurement
from skimage import data, transform

import lgsirens as lg
from lgsirens.representation.metrics import border_jump

SIDE, TILE = 128, 16
RECIPE = {"partitions": (SIDE // TILE,) * 2, "local_width": 12, "global_width": 64, "steps": 400, "recipe": "adam"}
HALOS = (0, 1, 2, 4)
SCALES = (1, 4)
LARGEST_LOSS = 0.05


def truths() -> dict[int, lg.Signal]:
    """`camera` at each scale, 8 bits."""
    full = data.camera()
    reduced = transform.resize(full, (SIDE, SIDE), anti_aliasing=True)
    return {1: lg.Signal.from_array(np.rint(255 * reduced).astype(np.uint8)), 4: lg.Signal.from_array(full)}


def measure(halo: int, truth: dict[int, lg.Signal], quick: bool, device: str) -> list[Measurement]:
    recipe = {**RECIPE, "steps": 2} if quick else RECIPE
    inr = lg.encode(truth[1], overlaps=(halo, halo), **recipe, device=device)
    measurements = []
    for scale in SCALES:
        tile, reference = (TILE * scale,) * 2, truth[scale]
        plain: dict[str, float] = {}
        for width in HALOS:
            decoded = inr.decode(scale=scale, blend=width)
            figures = {
                "PSNR": lg.psnr(reference, decoded),
                "seam ratio": lg.seam_ratio(reference, decoded, tile),
                "jump": border_jump(decoded, tile) / border_jump(reference, tile),
            }
            case, subject = f"halo {halo}, scale {scale}", f"blend {width}"
            units = {"PSNR": "dB"}
            measurements += [Measurement(case, subject, name, units.get(name, ""), [v]) for name, v in figures.items()]
            plain = plain or figures
            if width:
                kept = width <= halo
                loss, lower = plain["PSNR"] - figures["PSNR"], figures["jump"] / plain["jump"]
                measurements += [
                    Measurement(case, subject, "PSNR lost", "dB", [loss], LARGEST_LOSS if kept else None),
                    Measurement(case, subject, "jump / plain", "ratio", [lower], 1.0),
                ]
    return measurements


def main() -> int:
    options = record.options(__doc__)
    truth, measurements = truths(), []
    for halo in HALOS:
        for measurement in measure(halo, truth, options.quick, options.device):
            print(measurement, flush=True)
            measurements.append(measurement)
    return record.finish("seams", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
