"""Seconds to a quality: the published recipe, the same with its rate tuned and decayed, and `--recipe fast`.

(a) is the published recipe as a plain eager loop with the reference's arithmetic, (b) the same with Adam's rate chosen
among three and decayed along a cosine, (c) `lgsirens encode --target_psnr X` with no other option that is not the
model's size. Targets: 30, 33 and 36 dB, and 0.1 dB below (a)'s best of its steps; one that (a) does not reach is left
out of the ratios. PSNR per step of (a) and (b) does not depend on the machine: it is that of `--recipe paper` and
`--recipe adam`, whose arithmetic is the reference's, run once (`--curves`) and kept in `time_to_quality.json`. Their
seconds are the steps to the target times the median step of `fit.py`'s baseline, timed here before and after (c).
The clock of (c) begins with the samples in memory; plan, initial weights and tables are in it. Beside the seconds of
pictures: the error on the borders of tiles over that of the rest at scale 1, and the jump across them (`between.py`).

    python benchmarks/time_to_quality.py [--only CASE ...] [--curves] [--device cuda] [--quick]
    python benchmarks/time_to_quality.py --plot docs/time-to-quality.png    # of the last rows of every case
"""

import csv
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fit
import numpy as np
import record
from between import jump
from record import Measurement

import lgsirens as lg
from lgsirens.media import examples
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.representation.metrics import psnr_of_error
from lgsirens.signal import KINDS
from lgsirens.system.hardware import resolve_device
from lgsirens.training import loop
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.run import prepare

CURVES = Path(__file__).with_suffix(".json")
TARGETS = (30.0, 33.0, 36.0)
RATES = (1e-3, 2e-3, 4e-3)
TUNED_ON = "image 256x256"
BASELINE_STEPS = 3


@dataclass(frozen=True)
class Case:
    """A signal and the size of its model; how (a) fits it, for how many steps; and how many times sooner (c) must be.

    Attributes:
        published: options of (a) beside `model`.
    """

    name: str
    signal: Callable[[], lg.Signal]
    model: dict[str, Any]
    published: dict[str, Any]
    steps: int
    sooner: float


def bikes() -> lg.Signal:
    return examples.bikes(frames=(0, 50), max_side=160)


IMAGE = {"partitions": (16, 16), "local_width": 14, "global_width": 84}
ADAM = {"lr": 5e-4}
CASES = (
    Case(TUNED_ON, lambda: fit.camera(256), IMAGE, ADAM, 1000, 15),
    Case("image 512x512", examples.camera, IMAGE, ADAM, 1000, 50),
    Case("image 512x512 RGB", examples.astronaut, IMAGE, ADAM, 1000, 40),
    Case(
        "sound",
        examples.prelude,
        {"partitions": (32,), "local_width": 42, "global_width": 72},
        {"lr": 1e-4},
        1000,
        10,
    ),
    Case(
        "film",
        bikes,
        {"partitions": (5, 8, 8), "local_width": 55, "global_width": 180, "sample_frac": 0.02},
        {"lr": 1e-4, "overlaps": (1, 2, 2)},
        300,
        10,
    ),
    Case(
        "lc 256x256",
        lambda: fit.camera(256),
        {"mode": "lc", "partitions": (16, 16), "local_width": 15},
        ADAM,
        1000,
        5,
    ),
    Case("mlp 256x256", lambda: fit.camera(256), {"mode": "mlp", "local_width": 256}, ADAM, 300, 1.5),
)


def curve(signal: lg.Signal, options: dict[str, Any], device: str) -> list[float]:
    """PSNR of each step of a fit, as the fit itself counts it, rounded to a thousandth."""
    config = EncodeConfig.from_options({**options, "kernel": "eager"})
    run = prepare(signal, plan(signal, config), resolve_device(device), DEFAULT_LIMIT)
    peak, errors = KINDS[signal.kind].psnr_peak, list[float]()

    def keep(state: Any) -> None:
        errors.append(state.error)

    rule = loop.StopRule(config.total_steps)
    loop.fit(run.model, run.samples, rule, config.lr, peak, run.generator, watch=keep, recipe=config.recipe)
    return [round(psnr_of_error(error, peak), 3) for error in errors]


def store_curves(cases: tuple[Case, ...], device: str) -> None:
    """Run (a) of each case and (b) of one, and keep their curves."""
    kept = json.loads(CURVES.read_text()) if CURVES.exists() else {}
    for case in cases:
        asked = {**case.model, **case.published, "steps": case.steps}
        kept[case.name] = curve(case.signal(), {"recipe": "paper", **asked}, device)
        if case.name == TUNED_ON:
            for rate in RATES:
                kept[f"{case.name}, adam {rate:g}"] = curve(
                    case.signal(), {**asked, "recipe": "adam", "lr": rate}, device
                )
        CURVES.write_text(json.dumps(kept))


def steps_to(psnrs: list[float], target: float) -> int | None:
    """Steps until a curve is at the target; None: never."""
    return next((step for step, psnr in enumerate(psnrs) if psnr >= target), None)


def ours(case: Case, signal: lg.Signal, target: float, device: str) -> tuple[float, lg.Representation] | None:
    """Seconds of (c) to a target, and what they brought; None: not reached."""
    began = time.perf_counter()
    inr = lg.encode(signal, target_psnr=target, device=device, **case.model)
    seconds = time.perf_counter() - began
    return (seconds, inr) if inr.fit.stopped == "target_psnr" else None


def baseline_step(case: Case, signal: lg.Signal, device: str) -> float:
    """Median seconds of a step with the reference's arithmetic."""
    planned = plan(signal, EncodeConfig.from_options({"recipe": "paper", **case.model, **case.published}))
    run = prepare(signal, planned, resolve_device(device), DEFAULT_LIMIT)
    windows = fit.Windows(signal, planned, resolve_device(device))
    plain = fit.Baseline(run.model, windows, case.published["lr"])
    plain.step()
    times = record.alternate({"step": plain.step}, BASELINE_STEPS, warm_up=0, device=device)["step"]
    return statistics.median(times) / 1000


def measure(case: Case, curves: dict[str, list[float]], device: str) -> list[Measurement]:
    signal, published = case.signal(), curves[case.name]
    tuned = [curves[name] for name in curves if name.startswith(f"{case.name}, adam")]
    targets = [target for target in TARGETS if target <= max(published)] + [round(max(published) - 0.1, 2)]
    rows, steps = [], [baseline_step(case, signal, device)]
    for target in targets:
        found = ours(case, signal, target, device)
        steps.append(baseline_step(case, signal, device))
        step, name = statistics.mean(steps[-2:]), f"to {target:g} dB"
        to_target = steps_to(published, target) or 0
        rows.append(Measurement(case.name, "(a) published", name, "s", [to_target * step]))
        best = min((n for n in (steps_to(c, target) for c in tuned) if n is not None), default=None)
        if best is not None:
            rows.append(Measurement(case.name, "(b) tuned Adam", name, "s", [best * step]))
        if found is None:
            rows.append(Measurement(case.name, "(c) fast", f"{name}, not reached", "s", [np.inf]))
            continue
        seconds, inr = found
        rows.append(Measurement(case.name, "(c) fast", name, "s", [seconds]))
        rows.append(Measurement(case.name, "(c) fast", f"{name}, steps", "", [inr.fit.steps]))
        if signal.kind == "image" and inr.model.mode != "mlp":
            ratio = lg.seam_ratio(signal, inr.decode(), inr.tile)
            rows.append(Measurement(case.name, "(c) fast", f"{name}, seam ratio at scale 1", "ratio", [ratio]))
            rows.append(Measurement(case.name, "(c) fast", f"{name}, jump at scale 4", "ratio", [jump(inr)]))
        # as a quotient that must stay below a limit, like all ratios here
        rows.append(Measurement(case.name, "(c) / (a)", name, "ratio", [seconds / (to_target * step)], 1 / case.sooner))
        if best is not None:
            quotient = seconds / (best * step)
            rows.append(Measurement(case.name, "(c) / (b)", name, "ratio", [quotient], 3 / case.sooner))
    return rows


def draw(path: str) -> None:
    """PSNR against seconds of the cases that have all samples in every step."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with (CURVES.parent / "results" / "time_to_quality.tsv").open(encoding="utf-8") as file:
        # The last row of a figure counts.
        rows = {(r["case"], r["subject"], r["quantity"]): r for r in csv.DictReader(file, delimiter="\t")}
    curves, shown = json.loads(CURVES.read_text()), CASES[:4]
    figure, axes = plt.subplots(1, len(shown), figsize=(16, 3.8), layout="constrained", sharey=True)
    for axis, case in zip(axes, shown, strict=True):
        measured = [
            (n[3:-3], float(r["median"])) for (c, s, n), r in rows.items() if (c, s) == (case.name, "(a) published")
        ]
        target, seconds = measured[-1]
        step = seconds / (steps_to(curves[case.name], float(target)) or 1)
        best = np.maximum.accumulate(curves[case.name])
        axis.semilogx(step * np.arange(1, len(best) + 1), best, color="tab:gray", label="(a) published: Adam 5e-4")
        for name in (name for name in curves if name.startswith(f"{case.name}, adam")):
            tuned = np.maximum.accumulate(curves[name])
            axis.semilogx(
                step * np.arange(1, len(tuned) + 1), tuned, color="tab:blue", lw=0.8, label="(b) Adam, decayed"
            )
        points = [
            (float(r["median"]), float(n[3:-3]))
            for (c, s, n), r in rows.items()
            if (c, s, r["unit"]) == (case.name, "(c) fast", "s") and n.endswith("dB")
        ]
        axis.semilogx(*zip(*points, strict=True), "o-", color="tab:red", label="(c) --recipe fast --target_psnr")
        axis.set(title=case.name, xlabel="seconds, two cores", ylim=(18, 51))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR, dB (best so far)")
    handles = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    axes[0].legend(handles.values(), handles.keys(), fontsize=8, loc="lower right")
    figure.savefig(path, dpi=80)


def main() -> int:
    names = [case.name for case in CASES]
    extra: dict[str, dict[str, Any]] = {
        "--only": {"nargs": "+", "choices": names, "default": names},
        "--curves": {"action": "store_true", "help": "run (a) and (b) and keep their curves; measure nothing"},
        "--plot": {"metavar": "FILE.png", "help": "draw what the table has; measure nothing"},
    }
    options = record.options(__doc__, extra=extra)
    cases = tuple(case for case in CASES if case.name in options.only)[: 1 if options.quick else None]
    if options.curves:
        store_curves(cases, options.device)
        return 0
    if options.plot:
        draw(options.plot)
        return 0
    curves, measurements = json.loads(CURVES.read_text()), []
    for case in cases:
        for measurement in measure(case, curves, options.device):
            print(measurement, flush=True)
            measurements.append(measurement)
    return record.finish("time_to_quality", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
