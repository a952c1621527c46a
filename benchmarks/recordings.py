"""PSNR of the published recipes for sound and film, and of a plain loop with the reference's arithmetic.

Sound: Adam at a constant 1e-4, every sample in each step, 300 steps: `lg` (32 partitions, L = 42, G = 72), `lc`
(L = 45), and `lg` again as the plain loop of `benchmarks/fit.py`, from the same weights; what is shipped must be at
most 0.5 dB worse than its best step. The sounds are `data/gt_bach.wav`, the recording that the reference uses, where
someone has put it (or `--bach FILE`), and `prelude()`.

Film: `bikes`, its first 50 frames, longer side 160, 5x8x8 partitions, halo 1,2,2, 2 % of the samples in each step, Adam
at a constant 1e-4, 600 steps: `lg` (L = 55, G = 180) and `lc` (L = 56).

    python benchmarks/recordings.py [--only bach prelude bikes] [--bach FILE] [--device cuda] [--quick]
"""

import sys
from pathlib import Path
from typing import Any

import record
from fit import Baseline, Windows
from record import Measurement

import lgsirens as lg
from lgsirens.media.examples import bikes, prelude
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.representation.metrics import psnr_of_error
from lgsirens.signal import KINDS
from lgsirens.system.console import Progress
from lgsirens.system.hardware import resolve_device
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.run import prepare

BACH = Path(__file__).resolve().parent.parent / "data" / "gt_bach.wav"
SOUND = {"partitions": (32,), "recipe": "paper", "lr": 1e-4, "steps": 300}
FILM = {
    "partitions": (5, 8, 8),
    "overlaps": (1, 2, 2),
    "sample_frac": 0.02,
    "recipe": "paper",
    "lr": 1e-4,
    "steps": 600,
}
WIDTHS = {
    "audio": {"lg": {"local_width": 42, "global_width": 72}, "lc": {"local_width": 45}},
    "video": {"lg": {"local_width": 55, "global_width": 180}, "lc": {"local_width": 56}},
}
LARGEST_LOSS = 0.5
PARTS = ("bach", "prelude", "bikes")


def shipped(name: str, signal: lg.Signal, mode: str, recipe: dict[str, Any], device: str) -> list[Measurement]:
    widths = WIDTHS[signal.kind][mode]
    inr = lg.encode(signal, mode=mode, **widths, **recipe, device=device, progress=True)
    decoded, subject = inr.decode(), f"{mode}, {recipe['steps']} steps"
    figures = {
        ("PSNR", "dB"): lg.psnr(signal, decoded),
        ("parameters", ""): inr.parameters["total"],
        ("time", "s"): inr.fit.seconds,
    }
    if len(signal.shape) > 1:
        figures["seam ratio", ""] = lg.seam_ratio(signal, decoded, inr.lattice.tile)
    return told([Measurement(name, subject, quantity, unit, [value]) for (quantity, unit), value in figures.items()])


def plain_loop(signal: lg.Signal, recipe: dict[str, Any], device: str) -> tuple[float, float]:
    """PSNR of `lg` after the last step of the plain baseline, and before its best one, from the weights that `encode`
    starts with."""
    planned = plan(signal, EncodeConfig.from_options({**recipe, "mode": "lg", **WIDTHS[signal.kind]["lg"]}))
    where = resolve_device(device)
    run = prepare(signal, planned, where, DEFAULT_LIMIT)
    baseline = Baseline(run.model, Windows(signal, planned, where), recipe["lr"], groups=8)
    errors, peak = [], KINDS[signal.kind].psnr_peak
    with Progress("plain loop", "step") as bar:
        bar.start(recipe["steps"])
        for _ in range(recipe["steps"]):
            errors.append(baseline.accumulate_gradients())
            baseline.optimizer.step()
            bar.advance(psnr=f"{psnr_of_error(errors[-1], peak):.2f} dB")
    errors.append(baseline.accumulate_gradients())
    return psnr_of_error(errors[-1], peak), psnr_of_error(min(errors), peak)


def compared(name: str, signal: lg.Signal, recipe: dict[str, Any], device: str) -> list[Measurement]:
    """What is shipped against the plain loop."""
    measurements = shipped(name, signal, "lg", recipe, device)
    last, best = plain_loop(signal, recipe, device)
    subject = f"lg, plain loop, {recipe['steps']} steps"
    # a fit keeps the weights of its best step, so that is what can be compared
    return measurements + told(
        [
            Measurement(name, subject, "PSNR, last step", "dB", [last]),
            Measurement(name, subject, "PSNR, best step", "dB", [best]),
            Measurement(name, "plain loop - shipped", "PSNR", "dB", [best - measurements[0].values[0]], LARGEST_LOSS),
        ]
    )


def told(measurements: list[Measurement]) -> list[Measurement]:
    for measurement in measurements:
        print(measurement, flush=True)
    return measurements


def main() -> int:
    extra: dict[str, dict[str, Any]] = {
        "--bach": {"type": Path, "default": BACH, "metavar": "FILE"},
        "--only": {"choices": PARTS, "nargs": "+", "default": PARTS},
    }
    options = record.options(__doc__, extra=extra)
    short, device = {"steps": 2} if options.quick else {}, options.device
    recipe, measurements = {**SOUND, **short}, []
    if "bach" in options.only and options.bach.is_file():
        bach = lg.read(options.bach)
        measurements += compared("gt_bach.wav", bach, recipe, device)
        measurements += shipped("gt_bach.wav", bach, "lc", recipe, device)
    elif "bach" in options.only:
        print(f"{options.bach}: not there; left out", file=sys.stderr)
    if "prelude" in options.only:
        measurements += [m for mode in ("lg", "lc") for m in shipped("prelude", prelude(), mode, recipe, device)]
    if "bikes" in options.only:
        film, recipe = bikes(frames=(0, 50), max_side=160), {**FILM, **short}
        measurements += [m for mode in ("lg", "lc") for m in shipped("bikes 50x68x160", film, mode, recipe, device)]
    return record.finish("recordings", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
