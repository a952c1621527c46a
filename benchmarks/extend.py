"""Extending: time and quality of new parts, and what becomes of the old ones.

Each case encodes the whole signal, encodes its first part alone with the same widths and steps, and extends that to the
whole, the shared network frozen. "time" is the seconds until the new region reaches the PSNR that it has in the
encoding of the whole, over the seconds of that encoding; at most 1.2 times the new region's share of the samples. "PSNR
given the time" is that of the new region after the default number of steps. Old samples must keep their bits.

    image  scikit-image's `astronaut`, 512x512, colour: the left 384 columns, then the rest
    audio  `prelude()`: 5 s, then 2 s more
    video  `bikes`, longer side 160: 40 frames, then 10 more

"repeated": a strip of 256x64 samples extended ten times, by the same strip at other positions, so that parts differ in
nothing but their distance from the first; the tenth may be at most 1 dB worse than the first.

    python benchmarks/extend.py [--only image audio video repeated] [--device cuda] [--quick]
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import record
from record import Measurement

import lgsirens as lg
from lgsirens.grid.box import Box, box_of_shape, slices
from lgsirens.media.examples import astronaut, bikes, camera, prelude

TIME_FACTOR = 1.2
LARGEST_DROP = 1.0
EXTENSIONS = 10
PARTS = ("image", "audio", "video", "repeated")


@dataclass(frozen=True)
class Case:
    """A signal, how it is encoded, and where along which axis its new part begins."""

    name: str
    signal: lg.Signal
    axis: int
    first_new: int
    options: dict[str, Any]

    def boxes(self) -> tuple[Box, Box]:
        """The old and the new part."""
        whole = box_of_shape(self.signal.shape)
        ends = ((0, self.first_new), (self.first_new, self.signal.shape[self.axis]))
        old, new = (tuple(e if d == self.axis else sides for d, sides in enumerate(whole)) for e in ends)
        return old, new

    def part(self, box: Box) -> lg.Signal:
        cut = slices(box, box_of_shape(self.signal.shape))
        return replace(self.signal, values=np.ascontiguousarray(self.signal.values[cut]))


def case(name: str) -> Case:
    image = {"partition_size": (32, 32), "local_width": 14, "global_width": 84, "steps": 100, "recipe": "adam"}
    if name == "image":
        return Case(name, astronaut(), 1, 384, image)
    if name == "audio":
        sound = prelude()
        recipe = {"partition_size": (8820,), "local_width": 24, "global_width": 48, "steps": 120, "recipe": "adam"}
        return Case(name, replace(sound, values=sound.values[: 7 * 44_100]), 0, 5 * 44_100, recipe)
    film = bikes(frames=(0, 50), max_side=160)
    recipe = {"partition_size": (10, 34, 40), "local_width": 24, "global_width": 48, "steps": 60, "recipe": "adam"}
    return Case(name, film, 0, 40, recipe)


def measure(case: Case, quick: bool, device: str) -> list[Measurement]:
    options = {**case.options, "steps": 2} if quick else case.options
    old, new = case.boxes()
    share = (new[case.axis][1] - new[case.axis][0]) / case.signal.shape[case.axis]
    whole = lg.encode(case.signal, **options, device=device, progress=True)
    goal = lg.psnr(case.part(new), whole.decode(new))
    first = lg.encode(case.part(old), **options, device=device, progress=True)
    # of one signal's value range, so that both parts can share a file
    reached = first.extend(case.signal, target_psnr=goal, device=device, progress=True)
    settled = first.extend(case.signal, device=device, progress=True)
    before, after = first.decode(old), settled.decode(old)
    seconds = reached.history[-1]["seconds"] if reached.history[-1]["stopped"] == "target_psnr" else float("inf")
    changed = int((before.values != after.values).sum())
    return told(
        [
            Measurement(case.name, "old region", "PSNR", "dB", [lg.psnr(case.part(old), after)]),
            Measurement(case.name, "old region", "changed values", "", [changed], 0),
            Measurement(case.name, "new region, whole", "PSNR", "dB", [goal]),
            Measurement(case.name, "new region, extended", "PSNR", "dB", [settled.history[-1]["psnr"]]),
            Measurement(
                case.name, "extension/whole", "time", "ratio", [seconds / whole.fit.seconds], TIME_FACTOR * share
            ),
            Measurement(
                case.name, "all steps/whole", "time", "ratio", [settled.history[-1]["seconds"] / whole.fit.seconds]
            ),
        ]
    )


def repeated(quick: bool, device: str) -> list[Measurement]:
    values = camera().values[128:384, 192:256]
    strip = lg.Signal.from_array(np.ascontiguousarray(values))
    options = {
        "partition_size": (16, 16),
        "local_width": 14,
        "global_width": 64,
        "steps": 2 if quick else 200,
        "recipe": "adam",
    }
    measurements: list[Measurement] = []
    kinds = {
        "signal's coordinates": {},
        "local_scale 0.5": {"local_scale": (0.5, 0.5)},
        "recipe fast, tile coordinates": {"recipe": "fast"},
    }
    for name, more in kinds.items():
        inr = lg.encode(strip, **{**options, **more}, device=device)
        reached = []
        for _ in range(EXTENSIONS):
            inr = inr.extend(strip, (0, inr.extent[1][1]), device=device)
            reached.append(inr.history[-1]["psnr"])
        drop = reached[0] - reached[-1]
        case = f"repeated, {name}"
        measurements += told(
            [
                Measurement(case, "first encoding", "PSNR", "dB", [inr.fit.psnr or 0.0]),
                Measurement(case, "extensions", "PSNR", "dB", reached),
                Measurement(case, "first - tenth", "PSNR", "dB", [drop], LARGEST_DROP),
            ]
        )
        print(case, [round(value, 2) for value in reached], flush=True)
    return measurements


def told(measurements: list[Measurement]) -> list[Measurement]:
    for measurement in measurements:
        print(measurement, flush=True)
    return measurements


def main() -> int:
    options = record.options(__doc__, extra={"--only": {"choices": PARTS, "nargs": "+", "default": PARTS}})
    measurements: list[Measurement] = []
    for name in options.only:
        if name == "repeated":
            measurements += repeated(options.quick, options.device)
        else:
            measurements += measure(case(name), options.quick, options.device)
    return record.finish("extend", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
