"""One training step: lgsirens against a plain baseline with the reference's arithmetic.

Shipped: `accumulate_gradients` and `optimizer.step()` on what `encode` prepares. Baseline: the same `lg` network on
point-major batches `[P, N, F]`, with one weight tensor `[P, in, out]` per layer, concatenation of local and global
features, gradients of the coordinates, and Adam that is neither fused nor vectorised; it keeps coordinates and targets
of every sample of every window, and where a step sees a fraction of them it gathers the drawn ones.

Cases: an image (scikit-image's `camera`, 16x16 partitions, L = 14, G = 84), audio of the length of the reference's (32
partitions, L = 42, G = 72) and a film of 50 frames of 272x640 in colour (5x8x8 partitions, halo 1,2,2, L = 55, G = 180,
2 % of the samples a step); time does not depend on the values, so sound and film are noise. Steps alternate in one
process; ratios are those of neighbours. Peak memory is that of one fresh process per variant: "total" of the process,
"added" by the model and its steps. Required on a CPU, eager: time at most 0.85 of the baseline's (0.5 at 512x512),
total peak memory at most 0.8. The gradients of both variants on the same weights must agree, or the comparison means
nothing.

    python benchmarks/fit.py [--device cuda] [--quick]
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import record
import torch
from record import Measurement
from torch import Tensor
from torch.nn.functional import linear

from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.signal import Signal
from lgsirens.system.hardware import resolve_device
from lgsirens.training.config import EncodeConfig, Plan, plan
from lgsirens.training.encode import prepare as prepare
from lgsirens.training.loop import accumulate_gradients
from lgsirens.training.optimizers import build_optimizer
from lgsirens.training.samples import AllSamples, Samples
from lgsirens.training.windows import PositionedSignal
from lgsirens.training.windows import Windows as SampleWindows

LARGEST_DIFFERENCE = 1e-3
MEMORY_STEPS = 3


@dataclass(frozen=True)
class Case:
    """A signal with its recipe, and what is required of its step."""

    name: str
    signal: Callable[..., Signal]
    arguments: tuple[int, ...]
    options: dict[str, Any]
    repeats: int
    time_limit: float | None = None
    memory_limit: float | None = 0.8

    def make(self) -> Signal:
        return self.signal(*self.arguments)


def camera(side: int) -> Signal:
    from skimage import data, transform

    picture = data.camera()
    if side != len(picture):
        picture = transform.resize(picture, (side, side), anti_aliasing=True, preserve_range=True).round()
    return Signal.from_array(picture.astype("uint8"), "image")


def noise(kind: str, *shape: int) -> Signal:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Signal.from_array(values if kind == "video" else values.astype(np.float32) / 128 - 1, kind)


IMAGE = {"partitions": (16, 16), "local_width": 14, "global_width": 84, "lr": 5e-4}
AUDIO = {"partitions": (32,), "local_width": 42, "global_width": 72, "lr": 1e-4}
VIDEO = {"overlaps": (1, 2, 2), "local_width": 55, "global_width": 180, "sample_frac": 0.02, "lr": 1e-4}
FULL = (
    Case("256x256", camera, (256,), IMAGE, 25, 0.85),
    Case("512x512", camera, (512,), IMAGE, 9, 0.5),
    Case("audio", noise, ("audio", 308_207), AUDIO, 9, 0.85),
    Case("video", noise, ("video", 50, 272, 640, 3), {**VIDEO, "partitions": (5, 8, 8)}, 7, 0.85),
)
QUICK = (
    Case("64x64", camera, (64,), IMAGE, 3, memory_limit=None),
    Case("audio", noise, ("audio", 9_001), AUDIO, 3, memory_limit=None),
    Case("video", noise, ("video", 10, 24, 40, 3), {**VIDEO, "partitions": (2, 2, 2)}, 3, memory_limit=None),
)


@dataclass
class Problem:
    """What a step works on, the same at every call: signal, lattice and model of a case on one device."""

    case: Case
    device: str

    def __post_init__(self) -> None:
        self.signal = self.case.make()
        self.plan = plan(self.signal, EncodeConfig.from_options({"recipe": "paper", **self.case.options}))

    def prepare(self) -> tuple[SirenPerPartition, Samples]:
        run = prepare(self.signal, self.plan, resolve_device(self.device), DEFAULT_LIMIT)
        return run.model, run.samples

    def windows(self) -> "Windows":
        return Windows(self.signal, self.plan, resolve_device(self.device))


class Windows:
    """Coordinates, targets and weights of all samples of all windows, and the draws of a step."""

    def __init__(self, signal: Signal, planned: Plan, device: torch.device) -> None:
        everything = SampleWindows(PositionedSignal.first(signal), planned.lattice, planned.coordinates, device)
        (block,) = AllSamples(everything, 1 << 60, 1 << 60).draw().blocks
        self.x, self.target, self.weight = block.x.contiguous(), block.target, block.weight
        self.each = 0
        if planned.config.sample_frac is not None:
            self.each = int(planned.config.sample_frac * math.prod(signal.shape) / len(planned.lattice))
        self.generator = torch.Generator(device).manual_seed(planned.config.seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor | None]:
        if not self.each:
            return self.x, self.target, self.weight
        size = (len(self.x), self.each)
        picks = torch.randint(self.x.shape[1], size, generator=self.generator, device=self.x.device)[..., None]

        def gathered(values: Tensor) -> Tensor:
            return values.gather(1, picks.expand(-1, -1, values.shape[-1]))

        return gathered(self.x), gathered(self.target), None if self.weight is None else gathered(self.weight)


class Baseline:
    """`lg` as the reference computes it, with the weights of a shipped model.

    With more than one group of partitions the gradients are summed group by group: the same step in less memory.
    """

    def __init__(self, model: SirenPerPartition, windows: Windows, lr: float, groups: int = 1) -> None:
        self.windows, self.groups = windows, groups
        self.depths, self.w0 = model.config.hidden_layers + 1, model.config.w0
        self.local = [_leaf(tensor.mT) for tensor in model.unpack(model.local)]
        self.shared = {name: _leaf(tensor) for name, tensor in model.shared.items()}
        parameters = [*self.local, *self.shared.values()]
        self.optimizer = torch.optim.Adam(parameters, lr=lr, foreach=False, fused=False)

    def __call__(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        g = h = x
        weights = self.local if rows == slice(None) else [tensor[rows] for tensor in self.local]
        for k in range(self.depths):
            g = self._sine(linear(g, self.shared[f"global_{k}_weight"], self.shared[f"global_{k}_bias"]))
            local = self._sine(torch.matmul(h, weights[2 * k]) + weights[2 * k + 1])
            both = torch.cat([local, g], dim=-1)
            h = self._sine(linear(both, self.shared["aggregation_0_weight"], self.shared["aggregation_0_bias"]))
        return torch.matmul(h, weights[-2]) + weights[-1]

    def accumulate_gradients(self) -> float:
        self.optimizer.zero_grad()
        x, target, weight = self.windows.draw()
        count = float(target.numel() if weight is None else weight.sum() * target.shape[-1])
        each, total = -(-len(x) // self.groups), 0.0
        for start in range(0, len(x), each):
            rows = slice(None) if self.groups == 1 else slice(start, start + each)
            inputs = x[rows].clone().detach().requires_grad_(True)
            squares = (self(inputs, rows) - target[rows]) ** 2
            loss = (squares if weight is None else squares * weight[rows]).sum() / count
            loss.backward()
            total += loss.item()
        return total

    def step(self) -> None:
        self.accumulate_gradients()
        self.optimizer.step()

    def _sine(self, pre_activation: Tensor) -> Tensor:
        return torch.sin(self.w0 * pre_activation)


def shipped_step(model: SirenPerPartition, samples: Samples, lr: float) -> Callable[[], None]:
    optimizer = build_optimizer(model, "paper")
    for group in optimizer.param_groups:
        group["lr"] = lr

    def step() -> None:
        accumulate_gradients(model, samples.draw())
        optimizer.step()

    return step


def step_of(variant: str, problem: Problem) -> Callable[[], None]:
    model, samples = problem.prepare()
    lr = problem.case.options["lr"]
    if variant == "shipped":
        return shipped_step(model, samples, lr)
    return Baseline(model, problem.windows(), lr).step


def gradient_difference(problem: Problem) -> float:
    """Largest difference of the two variants' gradients, relative to the largest entry of each tensor."""
    model, samples = problem.prepare()
    baseline = Baseline(model, problem.windows(), problem.case.options["lr"])
    accumulate_gradients(model, samples.draw())
    baseline.accumulate_gradients()
    pairs = [(a.mT, b.grad) for a, b in zip(model.unpack(model.local.grad), baseline.local, strict=True)]
    pairs += [(model.shared[name].grad, b.grad) for name, b in baseline.shared.items()]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def step_memory(variant: str, case: Case, device: str) -> tuple[float, float]:
    """Peak memory in megabytes of a process that takes a few steps, and how much of it they added."""
    problem = Problem(case, device)  # the signal, and scikit-image's own memory, are no part of either variant
    before = record.start_memory(device)
    step = step_of(variant, problem)
    for _ in range(MEMORY_STEPS):
        step()
    record.synchronise(device)
    peak = record.peak_memory(device)
    return peak, peak - before


def measure(case: Case, device: str, limited: bool) -> list[Measurement]:
    quotient = "shipped/baseline"
    time_limit, memory_limit = (case.time_limit, case.memory_limit) if limited else (None, None)
    memory = {name: record.in_child(step_memory, name, case, device) for name in ("shipped", "baseline")}
    problem = Problem(case, device)
    difference = gradient_difference(problem)
    steps = {name: step_of(name, problem) for name in ("shipped", "baseline")}
    times = record.alternate(steps, case.repeats, warm_up=2, device=device)
    time_ratios = record.ratios(times["shipped"], times["baseline"])
    (total, added), (base_total, base_added) = memory["shipped"], memory["baseline"]
    name = case.name
    return [
        Measurement(name, quotient, "gradient difference", "rel", [difference], LARGEST_DIFFERENCE),
        *(Measurement(name, variant, "step", "ms", values) for variant, values in times.items()),
        Measurement(name, quotient, "step", "ratio", time_ratios, time_limit),
        *(Measurement(name, variant, "peak memory, total", "MB", [value]) for variant, (value, _) in memory.items()),
        Measurement(name, quotient, "peak memory, total", "ratio", [total / base_total], memory_limit),
        *(Measurement(name, variant, "peak memory, added", "MB", [value]) for variant, (_, value) in memory.items()),
        Measurement(name, quotient, "peak memory, added", "ratio", [added / base_added]),
    ]


def main() -> int:
    options = record.options(__doc__)
    measurements = []
    for case in QUICK if options.quick else FULL:
        for measurement in measure(case, options.device, options.device == "cpu"):
            print(measurement, flush=True)
            measurements.append(measurement)
    return record.finish("fit", measurements, options)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_()


if __name__ == "__main__":
    sys.exit(main())
