"""Quality between the samples: every second sample of a signal is encoded along each axis, the others are held out.

(a) is the published recipe for 400 steps, (c) the default one to 30 dB, 33 dB and where (a) stands at its end, with the
same tiles and widths. "held out, (c) - (a)" compares PSNR at the samples in the middle between the encoded ones, where
(a)'s training PSNR was (c)'s; at least -0.2 dB is wanted for each signal, and more than 0 in the mean. "jump" is the
mean difference across tile borders over that between the other neighbours, of pictures decoded at scale 4; at most 1.2.

    python benchmarks/between.py [--only camera prelude ...] [--quick]
    python benchmarks/between.py --picture docs/between-samples.png
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from record import Measurement
from skimage import data

import lgsirens as lg
from lgsirens.media import examples

STEPS, EVERY = 400, 10
TARGETS = (30.0, 33.0)
LARGEST_LOSS, LARGEST_JUMP = 0.2, 1.2
SCALE = 4


def gray(name: str) -> Callable[[], lg.Signal]:
    """The upper left 512x512 samples of a picture, its channels averaged."""

    def read() -> lg.Signal:
        values = np.atleast_3d(getattr(data, name)())[:512, :512].mean(axis=2)
        return lg.Signal.from_array(np.rint(values).astype(np.uint8))

    return read


def prelude() -> lg.Signal:
    sound = examples.prelude()
    return replace(sound, values=sound.values[: 6 * 44_100])


def bikes() -> lg.Signal:
    return examples.bikes(frames=(0, 40), max_side=320)


IMAGE = {"partition_size": (32, 32), "local_width": 14, "global_width": 84}
SOUND = {"partition_size": (10_000,), "local_width": 42, "global_width": 72}
FILM = {"partition_size": (10, 17, 20), "local_width": 32, "global_width": 72}
CASES: dict[str, tuple[Callable[[], lg.Signal], dict[str, Any], dict[str, Any]]] = {
    **{n: (gray(n), IMAGE, {"lr": 5e-4}) for n in ("camera", "astronaut", "coffee", "chelsea", "brick", "moon")},
    "prelude": (prelude, SOUND, {"lr": 1e-4}),
    "bikes": (bikes, FILM, {"lr": 1e-4}),
}


def halves(signal: lg.Signal) -> tuple[lg.Signal, lg.Signal]:
    """The samples with even positions, and those in the middle between them."""
    even = tuple(slice(0, size // 2 * 2, 2) for size in signal.shape)
    odd = tuple(slice(1, size // 2 * 2 - 1, 2) for size in signal.shape)
    return replace(signal, values=signal.values[even].copy()), replace(signal, values=signal.values[odd].copy())


def qualities(inr: lg.Representation, encoded: lg.Signal, held_out: lg.Signal) -> tuple[float, float]:
    """PSNR at the samples that were encoded, and between them."""
    middles = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in held_out.shape), indexing="ij"), -1)
    with torch.no_grad():
        found = inr(torch.from_numpy(middles.reshape(-1, len(held_out.shape)))).numpy()
    values = np.clip(found.reshape(held_out.values.shape), *held_out.value_range)
    return lg.psnr(encoded, inr.decode()), lg.psnr(held_out, replace(held_out, values=values))


def published(name: str, encoded: lg.Signal, held_out: lg.Signal, steps: int) -> list[tuple[float, float]]:
    """Both qualities every few steps of (a)."""
    _, model, options = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        log = lg.RunLog(Path(folder) / "run", every=10 * STEPS, checkpoint_every=min(EVERY, steps))
        lg.encode(encoded, recipe="paper", steps=steps, log=log, **model, **options)
        files = sorted((log.folder / "checkpoints").glob("*.safetensors"))
        return [qualities(lg.load(file), encoded, held_out) for file in files]


def jump(inr: lg.Representation) -> float:
    """Across the borders of tiles, over that of the other neighbours, decoded at a scale."""
    values, across, others = inr.decode(scale=SCALE).values.astype(np.float64), [], []
    for axis, tile in enumerate(inr.tile):
        steps = np.abs(np.diff(values, axis=axis))
        borders = (np.arange(steps.shape[axis]) + 1) % (SCALE * tile) == 0
        across.append(steps.compress(borders, axis).ravel())
        others.append(steps.compress(~borders, axis).ravel())
    return float(np.concatenate(across).mean() / np.concatenate(others).mean())


def measure(name: str, quick: bool) -> list[Measurement]:
    read, model, _ = CASES[name]
    encoded, held_out = halves(read())
    curve = published(name, encoded, held_out, 2 if quick else STEPS)
    # PSNR goes up and down: of (a) those steps count that were better than all before.
    best, between_best = list[float](), list[float]()
    for training, held in curve:
        if not best or training > best[-1]:
            best.append(training)
            between_best.append(held)
    rows = []
    for target in (*(t for t in TARGETS if t < best[-1]), best[-1]):
        inr = lg.encode(encoded, target_psnr=target, **model, **({"steps": 2} if quick else {}))
        training, between = qualities(inr, encoded, held_out)
        gain = between - float(np.interp(training, best, between_best))
        subject = f"at {training:.2f} dB" if target in TARGETS else f"where (a) ends, {training:.2f} dB"
        rows.append(Measurement(name, subject, "held out, (c)", "dB", [between]))
        # as a loss that must stay below a limit, like all figures here
        rows.append(Measurement(name, subject, "held out, (a) - (c)", "dB", [-gain], LARGEST_LOSS))
        if encoded.kind == "image":
            rows.append(Measurement(name, subject, "jump at scale 4", "ratio", [jump(inr)], LARGEST_JUMP))
    return rows


def draw(path: str) -> None:
    """The demo's crop decoded at a scale: as the default was before tile coordinates, and as it is."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    photograph, region, size = examples.camera(), "96:224,176:304", {"partitions": (16, 16)}
    before = lg.encode(photograph, recipe="adam", steps=80, **size, progress=True)
    now = lg.encode(photograph, steps=240, **size, progress=True)
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    shown = [(f"the samples, {region}", photograph.values[96:224, 176:304])]
    for title, inr in (("signal coordinates, Adam, no halo", before), ("tile coordinates, halo 1, blended", now)):
        values = inr.decode(region, scale=SCALE).values
        shown.append((f"{title}: {inr.fit.psnr:.1f} dB, {inr.fit.seconds:.0f} s, at scale {SCALE}", values))
    for axis, (title, values) in zip(axes, shown, strict=True):
        axis.imshow(values[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    figure.savefig(path, dpi=100)


def main() -> int:
    names = tuple(CASES)
    extra: dict[str, dict[str, Any]] = {
        "--only": {"nargs": "+", "choices": names, "default": names},
        "--picture": {"metavar": "FILE.png", "help": "draw a crop as it was before tile coordinates and as it is now"},
    }
    options = record.options(__doc__, extra=extra)
    if options.picture:
        draw(options.picture)
        return 0
    measurements = []
    for name in options.only[: 1 if options.quick else None]:
        for measurement in measure(name, options.quick):
            print(measurement, flush=True)
            measurements.append(measurement)
    losses = [v for m in measurements if m.quantity == "held out, (a) - (c)" for v in m.values]
    measurements.append(Measurement("all", "mean", "held out, (a) - (c)", "dB", [statistics.mean(losses)], 0.0))
    return record.finish("between", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
